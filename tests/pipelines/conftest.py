"""Checkpoints, functions and finished runs that the tests of the pipelines share: each is made once."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import tiny_jobs
import tiny_perturbation
import tiny_routing

from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.analysis_worker import AnalysisWorkerFactory
from modularity.pipelines.prepare import prepare
from modularity.store import Run
from modularity.types import WorkItem


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices of width 32 gain nothing from threads, and lose much where other processes want the cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where checkpoints, data and shared runs lie; tests do not change them."""
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="session")
def bert(folder: Path) -> Path:
    return tiny_jobs.save(folder / "bert", tiny_jobs.random_module(tiny_jobs.bert_config()))


@pytest.fixture(scope="session")
def planted(folder: Path) -> Path:
    return tiny_jobs.save(folder / "planted", tiny_jobs.planted_module())


@pytest.fixture(scope="session")
def functions(folder: Path) -> list[dict[str, Any]]:
    return [tiny_jobs.word_function(folder), tiny_jobs.topic_function(folder)]


@pytest.fixture(scope="session")
def config(bert: Path, functions: list[dict[str, Any]]) -> EmergentModularityConfig:
    """The job of most tests: two functions, all analyses."""
    return tiny_jobs.job(bert, functions)


@pytest.fixture(scope="session")
def finished(folder: Path, config: EmergentModularityConfig) -> Run:
    """That job, run in this process without disturbance."""
    return tiny_jobs.run(config, folder / "finished")


@pytest.fixture(scope="session")
def planted_run(folder: Path, planted: Path, functions: list[dict[str, Any]]) -> Run:
    return tiny_jobs.run(tiny_jobs.job(planted, functions), folder / "planted-run")


@pytest.fixture(scope="session")
def paper_config(bert: Path, functions: list[dict[str, Any]]) -> EmergentModularityConfig:
    """A small job in the variant of the paper: one function, two partitions."""
    return tiny_jobs.job(bert, functions[1:], variant="paper", experts={"methods": ["balanced", "random"]})


@pytest.fixture(scope="session")
def paper_run(folder: Path, paper_config: EmergentModularityConfig) -> Run:
    return tiny_jobs.run(paper_config, folder / "paper-run")


@pytest.fixture(scope="session")
def uneven(folder: Path, bert: Path, functions: list[dict[str, Any]]) -> Run:
    """A run with layers of 160 and 60 neurons, analysed item by item by one worker."""
    config = tiny_jobs.job(bert, functions, experts={"n_experts": 10, "methods": ["balanced"]})
    run = tiny_jobs.uneven_run(folder / "uneven", prepare(config))
    worker = AnalysisWorkerFactory(
        run.uri, config.variant, config.predictivity, config.experts, config.overlap, n_threads=1
    )()
    site = str(tiny_jobs.NEURONS)
    for name in run.functions():
        for layer in (0, 2):
            for start, stop in ((0, 64), (64, 128), (128, 160)):
                worker(WorkItem.of("predictivity", function=name, site=site, layer=layer, start=start, stop=stop))
        worker(WorkItem.of("summary", function=name))
        worker(WorkItem.of("experts", function=name))
    worker(WorkItem.of("overlap"))
    return run


@pytest.fixture(scope="session")
def olmoe_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a random OLMoE with six experts, called functional generously, so that there are some."""
    folder = tmp_path_factory.mktemp("olmoe")
    experts = {"n_experts": 6, "methods": ["native"], "top_fraction": 0.25, "sensitivity": [0.25], "fdr": 0.9}
    model = tiny_routing.olmoe(folder / "model")
    job = tiny_perturbation.source_job(folder, model, capture={"layers": [0, 1]}, experts=experts)
    return tiny_jobs.run(job, folder / "run")


@pytest.fixture(scope="session")
def deepseek_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a random DeepSeek-V3, whose routers cannot be restricted; its sparse layer has four experts."""
    folder = tmp_path_factory.mktemp("deepseek")
    experts = {"n_experts": 4, "methods": ["native"], "top_fraction": 0.25, "sensitivity": [0.25]}
    model = tiny_routing.deepseek(folder / "model")
    job = tiny_perturbation.source_job(folder, model, capture={"layers": [1]}, experts=experts)
    return tiny_jobs.run(job, folder / "run")
