"""What the worker of a scan does with the cache of the hub around a checkpoint, on a hub that is put in by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from modularity.errors import ModelError
from modularity.models import FetchedRevision, ModelConfig
from modularity.pipelines import scan_worker


def model(revision: str | None) -> ModelConfig:
    return ModelConfig(name="owner/model", revision=revision)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of the cache, in order."""
    seen: list[Any] = []

    def fetch(config: ModelConfig) -> FetchedRevision:
        if config.revision == "none":
            raise ModelError("no such revision")
        return FetchedRevision(f"commit of {config.revision}", Path(), is_ours=True)

    @contextmanager
    def taken(config: ModelConfig, _: Any) -> Iterator[None]:
        yield
        seen.append(f"{config.revision} given back")

    monkeypatch.setattr(scan_worker, "fetch_revision", fetch)
    monkeypatch.setattr(scan_worker, "taken", taken)
    monkeypatch.setattr(scan_worker, "trim_cache", lambda config, n_bytes, keep: seen.append((n_bytes, list(keep))))
    return seen


@pytest.mark.parametrize(
    ("following", "again", "kept"),
    [
        ("step2", False, ["commit of step2"]),
        ("step2", True, ["commit of step1", "commit of step2"]),
        ("none", False, []),
        (None, False, []),
    ],
)
def test_the_cache_is_trimmed_after_every_checkpoint(
    events: list[Any], following: str | None, again: bool, kept: list[str]
) -> None:
    fetched = scan_worker.fetch_revision(model("step1"))
    after = None if following is None else model(following)
    with scan_worker._cached(model("step1"), fetched, after, 500, again=again):
        assert events == []
    assert events == ["step1 given back", (500, kept)]


def test_the_cache_is_trimmed_after_a_failure_too(events: list[Any]) -> None:
    with (
        pytest.raises(ModelError, match="broken"),
        scan_worker._cached(model("step1"), scan_worker.fetch_revision(model("step1")), None, 500, again=False),
    ):
        raise ModelError("broken")
    assert events[-1] == (500, [])


def test_folders_leave_the_cache_alone(events: list[Any]) -> None:
    with scan_worker._cached(model(None), None, None, 500, again=False):
        pass
    assert events == ["None given back"]
