"""A study whose batches do not fit memory takes smaller ones, gives the same numbers, and says so."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_jobs
import tiny_moefication
import tiny_perturbation
import tiny_pruning
import torch

from modularity.config import Config
from modularity.errors import AllowanceError
from modularity.interventions.forward import Forward
from modularity.pipelines import pruning_trajectories
from modularity.pipelines.study_worker import StudyWorker
from modularity.types import WorkItem


class BatchConfig(Config):
    tokens_per_batch: int = 1024


@dataclass(frozen=True)
class Study:
    config: BatchConfig
    longest_tokens: int = 100


class Worker(StudyWorker[Study]):
    """Items of up to `fits` tokens fit."""

    BATCHED = frozenset({"measure"})
    HOLD_BATCH = ("_held",)

    def __init__(self, fits: int) -> None:
        super().__init__(Study(BatchConfig()), 1)
        self.fits = fits
        self.tried: list[int] = []

    @cached_property
    def _held(self) -> int:
        return self._prepared.config.tokens_per_batch

    def actions(self, item: WorkItem) -> Any:
        return {"measure": lambda: self._measure(self._held), "compare": lambda: self._measure(self._held)}

    def _measure(self, tokens: int) -> dict[str, Any]:
        self.tried.append(tokens)
        if tokens > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"tokens": 7}


MEASURE, COMPARE = WorkItem.of("measure"), WorkItem.of("compare")


def test_batches_are_halved_and_the_next_item_begins_with_the_usual_ones() -> None:
    worker = Worker(fits=300)
    assert worker(MEASURE) == {"tokens": 7, "tokens_per_batch": 256}
    assert worker(MEASURE) == {"tokens": 7, "tokens_per_batch": 256}
    assert worker.in_smaller_batches(MEASURE, 3) == {"tokens": 7, "tokens_per_batch": 128}
    assert worker.tried == [1024, 512, 256, 1024, 512, 256, 128]
    assert Worker(fits=2000)(MEASURE) == {"tokens": 7}


def test_items_without_batches_are_not_computed_again() -> None:
    worker = Worker(fits=300)
    with pytest.raises(torch.OutOfMemoryError):
        worker(COMPARE)
    assert worker.tried == [1024]


def test_one_example_that_does_not_fit_is_refused() -> None:
    worker = Worker(fits=10)
    with pytest.raises(AllowanceError, match="one example of 100 tokens"):
        worker(MEASURE)
    assert min(worker.tried) == 64


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Forwards of more than `limit` positions do not fit; `failed` counts them."""
    memory, forward = SimpleNamespace(limit=64, failed=0), Forward.__call__

    def limited(self: Forward, batch: Any) -> Any:
        if batch.input_ids_BT.size > memory.limit:
            memory.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    monkeypatch.setattr(Forward, "__call__", limited)
    return memory


def same_rows(rows: list[dict[str, Any]], others: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Equal tables, numbers to rounding, rows in any order."""
    assert len(rows) == len(others) > 0
    for one, other in zip(*(sorted(each, key=lambda row: [row[name] for name in key]) for each in (rows, others))):
        assert one == pytest.approx(other, abs=1e-5, nan_ok=True)


def test_a_perturbation_gives_the_same(tmp_path: Path, little_memory: SimpleNamespace) -> None:
    model = tiny_perturbation.checkpoint(tmp_path / "model", shared=False)
    source = tiny_jobs.run(tiny_perturbation.source_job(tmp_path, model), tmp_path / "source")
    settings = tiny_perturbation.config(source, rankings=["single"], noises=["zero"], seeds=[0])
    little = tiny_perturbation.run(settings, tmp_path / "little")
    assert little_memory.failed > 0
    noted = little.manifest.notes["smaller_batches"]
    assert set(noted.values()) == {64}
    assert {name.partition("(")[0] for name in noted} == {"calibrate", "unchanged", "perturb"}
    little_memory.limit = 10**9
    usual = tiny_perturbation.run(settings, tmp_path / "usual")
    assert "smaller_batches" not in usual.manifest.notes
    tables = [tiny_jobs.rows_of(run, "perturbation") for run in (little, usual)]
    same_rows(*tables, key=("ranking", "noise", "task"))


def test_a_moefication_gives_the_same(tmp_path: Path, little_memory: SimpleNamespace) -> None:
    model = tiny_perturbation.checkpoint(tmp_path / "model", shared=False)
    one = {
        "routers": ["mlp", "random"],
        "n_bootstrap": 100,
        "shares": [0.125],
        "seeds": [0],
        "training": {"share": 0.125, "n_epochs": 1},
    }
    settings = tiny_moefication.config(tmp_path, model, **one)
    little = tiny_moefication.run(settings, tmp_path / "little")
    assert {"route", "evaluate"} <= {name.partition("(")[0] for name in little.manifest.notes["smaller_batches"]}
    little_memory.limit = 10**9
    usual = tiny_moefication.run(settings, tmp_path / "usual")
    tables = [tiny_jobs.rows_of(run, "moefied_tasks") for run in (little, usual)]
    same_rows(*tables, key=("task", "partition", "router", "share", "seed"))


def test_a_pruning_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny_pruning.config(continuations=None, n_random=5, n_steps=2)
    usual = tiny_pruning.run(settings, tmp_path / "usual")
    count, n_failed = pruning_trajectories.count_predictions, 0

    def limited(*arguments: Any, tokens_per_batch: int) -> Any:
        nonlocal n_failed
        if tokens_per_batch > 300:
            n_failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return count(*arguments, tokens_per_batch=tokens_per_batch)

    monkeypatch.setattr(pruning_trajectories, "count_predictions", limited)
    little = tiny_pruning.run(settings, tmp_path / "little")
    assert n_failed > 0
    assert {name.partition("(")[0] for name in little.manifest.notes["smaller_batches"]} == {"trajectory"}
    for name in ("counts", "loss"):
        values = [run.results("trajectories")[name].values for run in (little, usual)]
        np.testing.assert_allclose(*values, rtol=1e-5)
