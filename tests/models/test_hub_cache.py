"""Fetching and trimming on a cache laid out as huggingface_hub lays it out; the download itself is put in by hand."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modularity.errors import InputError, ModelError
from modularity.models import ModelConfig, fetch_revision, hub_cache, hub_revisions, taken, trim_cache

NAME = "owner/model"


def commit_of(revision: str) -> str:
    return hashlib.sha1(revision.encode()).hexdigest()


def download(cache: Path, revision: str, n_bytes: int = 1000) -> Path:
    """Blobs, snapshot and ref of a revision; its config is the same blob in every revision."""
    repository = cache / "models--owner--model"
    folder = repository / "snapshots" / commit_of(revision)
    for name, content in (("config.json", b"{}"), ("model.safetensors", revision.encode().ljust(n_bytes))):
        blob = repository / "blobs" / hashlib.sha1(content).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link = folder / name
        if not link.exists():
            link.symlink_to(os.path.relpath(blob, folder))
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit_of(revision))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and a hub that answers with revisions of 1,000 bytes."""
    original = hub_cache.find_source

    def online(config: ModelConfig) -> Any:
        found = original(config)
        return SimpleNamespace(folder=found.folder, offline=None, name=found.name)

    def snapshot(name: str, *, revision: str, cache_dir: str, allow_patterns: list[str]) -> str:
        assert name == NAME
        assert "*.safetensors" in allow_patterns
        assert "*.bin" not in allow_patterns
        if revision == "none":
            raise OSError("404 Client Error.\nmore")
        return str(download(Path(cache_dir), revision))

    monkeypatch.setattr(hub_cache, "find_source", online)
    monkeypatch.setattr(hub_cache, "snapshot_download", snapshot)
    return tmp_path


def model(cache: Path, revision: str | None) -> ModelConfig:
    return ModelConfig(name=NAME, revision=revision, cache_dir=str(cache))


def fetched(cache: Path, revision: str, age: float) -> hub_cache.FetchedRevision:
    found = fetch_revision(model(cache, revision))
    assert found is not None
    mark = cache / ".modularity" / "models--owner--model" / f"{found.commit}.json"
    if mark.exists():
        os.utime(mark, (1e9 - age, 1e9 - age))
    return found


def snapshots(cache: Path) -> set[str]:
    present = {path.name for path in (cache / "models--owner--model" / "snapshots").iterdir()}
    return {revision for revision in ("old", "a", "b", "c") if commit_of(revision) in present}


def test_only_what_was_fetched_is_deleted_least_recently_used_first(cache: Path) -> None:
    download(cache, "old")  # by somebody else
    assert not fetched(cache, "old", 0).is_ours
    for age, revision in ((3, "a"), (1, "b"), (2, "c")):
        assert fetched(cache, revision, age).is_ours
    assert trim_cache(model(cache, None), 10_000) == ()
    assert trim_cache(model(cache, None), 2100) == (commit_of("a"),)
    assert trim_cache(model(cache, None), 10, keep=[commit_of("c")]) == (commit_of("b"),)
    assert snapshots(cache) == {"old", "c"}
    assert (cache / "models--owner--model" / "snapshots" / commit_of("c") / "config.json").read_bytes() == b"{}"
    assert trim_cache(model(cache, None), 10) == (commit_of("c"),)
    assert snapshots(cache) == {"old"}
    assert (cache / "models--owner--model" / "snapshots" / commit_of("old") / "config.json").read_bytes() == b"{}"


def test_a_revision_in_use_stays_and_counts_as_used(cache: Path) -> None:
    first = fetched(cache, "a", 5)
    fetched(cache, "b", 1)
    with taken(model(cache, "a"), first):
        assert trim_cache(model(cache, None), 10) == (commit_of("b"),)
    fetched(cache, "b", 1)
    assert trim_cache(model(cache, None), 1500) == (commit_of("b"),)
    assert snapshots(cache) == {"a"}


def test_marks_of_dead_processes_do_not_keep_a_revision(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetched(cache, "a", 5)
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)
    context = taken(model(cache, "a"), first)
    context.__enter__()
    assert trim_cache(model(cache, None), 10) == (commit_of("a"),)
    context.__exit__(None, None, None)


def test_a_failed_download_names_the_revision(cache: Path) -> None:
    with pytest.raises(ModelError, match=r"revision 'none' of 'owner/model' cannot be downloaded \(OSError: 404"):
        fetch_revision(model(cache, "none"))


def test_folders_and_offline_hubs_are_not_fetched(tmp_path: Path) -> None:
    assert fetch_revision(ModelConfig(name=str(tmp_path))) is None
    assert fetch_revision(model(tmp_path, "a")) is None
    with taken(model(tmp_path, "a"), None):
        pass
    assert trim_cache(model(tmp_path, "a"), 10) == ()


def test_offline_revisions_are_those_of_the_cache(tmp_path: Path) -> None:
    for revision in ("step1", "main"):
        download(tmp_path, revision)
    assert hub_revisions(model(tmp_path, None)) == ("main", "step1")
    with pytest.raises(InputError, match="is a local folder, which has no revisions"):
        hub_revisions(ModelConfig(name=str(tmp_path)))


def test_revisions_of_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def list_repo_refs(self, name: str) -> Any:
            if name != NAME:
                raise ValueError("Repository Not Found\nmore")
            return SimpleNamespace(branches=[SimpleNamespace(name="main")], tags=[SimpleNamespace(name="step1")])

    monkeypatch.setattr(hub_cache, "HfApi", Api)
    assert hub_revisions(model(cache, None)) == ("main", "step1")
    with pytest.raises(ModelError, match=r"revisions of 'owner/other' cannot be listed \(ValueError: Repository Not"):
        hub_revisions(ModelConfig(name="owner/other"))
