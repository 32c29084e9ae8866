"""The analysis worker: built from a picklable description, one step for each kind of item, each recorded once."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from modularity.errors import StoreError
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.analysis_worker import AnalysisWorkerFactory
from modularity.store import Run
from modularity.types import WorkItem


@pytest.fixture
def factory(finished: Run, config: EmergentModularityConfig) -> AnalysisWorkerFactory:
    return AnalysisWorkerFactory(
        finished.uri, config.variant, config.predictivity, config.experts, config.overlap, n_threads=1
    )


def test_a_factory_travels_and_equal_ones_share_a_worker(factory: AnalysisWorkerFactory) -> None:
    assert pickle.loads(pickle.dumps(factory)) == factory
    assert replace(factory, variant="paper") != factory


def test_an_item_run_twice_writes_the_same_bytes(factory: AnalysisWorkerFactory, finished: Run) -> None:
    before = finished.content_hash()
    worker = factory()
    kinds = {}
    for record in finished.commits().values():
        if record.item.kind in ("predictivity", "summary", "experts", "overlap"):
            kinds.setdefault(record.item.kind, record.item)
    assert len(kinds) == 4
    for item in kinds.values():
        worker(item)
    assert finished.content_hash() == before


def test_an_item_with_other_results_is_refused(
    factory: AnalysisWorkerFactory, config: EmergentModularityConfig, paper_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(paper_run.uri, tmp_path / "run")  # what is refused has been written by then
    overlap = config.overlap.replace(top_fraction=0.3)
    with pytest.raises(StoreError, match="overlap-"):
        replace(factory, uri=str(tmp_path / "run"), overlap=overlap)()(WorkItem.of("overlap"))


def test_an_unknown_kind_is_an_error(factory: AnalysisWorkerFactory) -> None:
    with pytest.raises(KeyError, match="weather"):
        factory()(WorkItem.of("weather"))
