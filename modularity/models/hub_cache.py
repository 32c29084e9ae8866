"""Revisions of a hub repository: which there are, fetching them ahead, and a cache that stays within its bounds.

A revision that was not in the cache before is downloaded with a mark beside it, and only marked revisions are ever
deleted: the least recently used first, never one that a living process of this machine has taken, and never files that
another revision shares. The marks lie in `<cache>/.modularity/<repository>/`.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi, constants, scan_cache_dir, snapshot_download

from modularity.errors import InputError, ModelError
from modularity.models.config import ModelConfig
from modularity.models.source import find_source

_NEEDED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.tiktoken", "*.jinja")
_PICKLED = ("*.bin", "*.pt", "*.pth")
_FORGOTTEN_S = 24 * 3600.0
"""A revision that another machine took longer ago than this, on a shared cache, counts as given back."""


@dataclass(frozen=True)
class FetchedRevision:
    """A revision in the cache."""

    commit: str
    """Commit hash, the name of its folder."""
    folder: Path
    is_ours: bool
    """It was downloaded by `fetch_revision`, so it may be deleted again."""


def hub_revisions(config: ModelConfig) -> tuple[str, ...]:
    """Names of the branches and tags of a hub repository; of those in the local cache where the hub is out of reach.

    Raises
    ------
    InputError
        `config.name` is a folder, or cannot be a hub id.
    ModelError
        The hub cannot be reached and the cache has no revision of it, or the repository does not exist.
    """
    source = find_source(config)
    if source.folder is not None:
        raise InputError(f"{config.name!r} is a local folder, which has no revisions; expected a hub id")
    if source.offline is not None:
        refs = _repository_folder(config) / "refs"
        names = tuple(sorted(path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file()))
        if names:
            return names
        raise ModelError(
            f"revisions of {config.name!r}: the Hugging Face hub cannot be reached ({source.offline}), and the local "
            f"cache holds none; fetch them where there is a connection (hf download {config.name} --revision NAME), "
            "or give folders instead"
        )
    try:
        found = HfApi().list_repo_refs(config.name)
    except Exception as error:  # huggingface_hub raises classes of its own and those of its HTTP client
        raise ModelError(
            f"revisions of {config.name!r} cannot be listed ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "check the name; private and gated models need 'hf auth login'"
        ) from error
    return tuple(sorted(ref.name for ref in (*found.branches, *found.tags)))


def fetch_revision(config: ModelConfig) -> FetchedRevision | None:
    """Download what loading the checkpoint needs, and take it; None for a folder or where the hub is out of reach.

    Raises
    ------
    InputError, ModelError
        The name cannot be a hub id, or the download fails.
    """
    source = find_source(config)
    if source.folder is not None or source.offline is not None:
        return None
    before = _commits(config)
    patterns = [*_NEEDED, *(_PICKLED if config.allow_pickle else ())]
    patterns += ["*.py"] if config.trust_remote_code else []
    try:
        folder = Path(
            snapshot_download(
                config.name, revision=config.revision or "main", cache_dir=config.cache_dir, allow_patterns=patterns
            )
        )
    except Exception as error:  # huggingface_hub raises classes of its own and those of its HTTP client
        raise ModelError(
            f"revision {config.revision!r} of {config.name!r} cannot be downloaded "
            f"({type(error).__name__}: {str(error).splitlines()[0]}); check the name and the revision"
        ) from error
    commit, marks = folder.name, _marks_folder(config)
    with _locked(config):
        if commit not in before:
            (marks / f"{commit}.json").write_text(json.dumps({"revision": config.revision}))
    return FetchedRevision(commit, folder, (marks / f"{commit}.json").exists())


@contextmanager
def taken(config: ModelConfig, fetched: FetchedRevision | None) -> Iterator[None]:
    """For the time of a `with` block no process deletes this revision."""
    if fetched is None:
        yield
        return
    mark = _marks_folder(config) / f"{fetched.commit}.{socket.gethostname()}.{os.getpid()}.taken"
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
        if fetched.is_ours:
            own = _marks_folder(config) / f"{fetched.commit}.json"
            if own.exists():
                os.utime(own)


def trim_cache(config: ModelConfig, cache_bytes: int, *, keep: Sequence[str] = ()) -> tuple[str, ...]:
    """Delete marked revisions of a repository, least recently used first, until all marked ones fit `cache_bytes`.

    Parameters
    ----------
    config : names the repository and the cache
    cache_bytes : bound on the bytes of the revisions that `fetch_revision` downloaded
    keep : commits that are needed soon

    Returns
    -------
    deleted : commits, in the order of deletion
    """
    if not _repository_folder(config).is_dir():
        return ()
    with _locked(config):
        marks = {path.name.removesuffix(".json"): path for path in _marks_folder(config).glob("*.json")}
        info = scan_cache_dir(config.cache_dir or constants.HF_HUB_CACHE)
        sizes = {
            revision.commit_hash: revision.size_on_disk
            for repository in info.repos
            if repository.repo_id == config.name and repository.repo_type == "model"
            for revision in repository.revisions
        }
        ours = sorted((path.stat().st_mtime, commit) for commit, path in marks.items() if commit in sizes)
        total = sum(sizes[commit] for _, commit in ours)
        deleted: list[str] = []
        for _, commit in ours:
            if total <= cache_bytes:
                break
            if commit in keep or _is_taken(config, commit):
                continue
            scan_cache_dir(config.cache_dir or constants.HF_HUB_CACHE).delete_revisions(commit).execute()
            marks[commit].unlink(missing_ok=True)
            total -= sizes[commit]
            deleted.append(commit)
    return tuple(deleted)


def _is_taken(config: ModelConfig, commit: str) -> bool:
    for mark in _marks_folder(config).glob(f"{commit}.*.taken"):
        host, pid = mark.name.removeprefix(f"{commit}.").removesuffix(".taken").rsplit(".", 1)
        alive = _lives(int(pid)) if host == socket.gethostname() else time.time() - mark.stat().st_mtime < _FORGOTTEN_S
        if alive:
            return True
        mark.unlink(missing_ok=True)
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _repository_folder(config: ModelConfig) -> Path:
    return Path(config.cache_dir or constants.HF_HUB_CACHE) / f"models--{config.name.replace('/', '--')}"


def _commits(config: ModelConfig) -> set[str]:
    snapshots = _repository_folder(config) / "snapshots"
    return {path.name for path in snapshots.iterdir()} if snapshots.is_dir() else set()


def _marks_folder(config: ModelConfig) -> Path:
    folder = _repository_folder(config).parent / ".modularity" / _repository_folder(config).name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(config: ModelConfig) -> Iterator[None]:
    with FileLock(str(_marks_folder(config) / "lock")):
        yield
