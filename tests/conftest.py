"""Shared by all tests: a home folder of their own, no network, one local Ray for the whole session."""

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from modularity.pipelines import EmergentModularityConfig
    from modularity.store import Run

_HOME = tempfile.mkdtemp(prefix="modularity-test-home-")
os.environ["HOME"] = _HOME  # Ray writes a token, libraries write caches: none of it into the user's home
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "numba"))
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
os.environ["RAY_metrics_report_interval_ms"] = "500"  # noqa: SIM112 - else a test of metrics waits for ten seconds
os.environ.pop("RAY_ADDRESS", None)

REPO = Path(__file__).parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine has no means for, with the reason."""
    import torch

    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if "shared_data" in item.keywords and not SHARED_DATA.is_dir():
            item.add_marker(pytest.mark.skip(reason="no folder shared/data beside the checkout"))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A local Ray with two CPUs, started once and stopped at the end."""
    import ray

    _start_local_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def no_local_ray() -> Iterator[None]:
    """No Ray in this process, for a module that joins clusters of its own; the one for all tests is back after it."""
    import ray

    was_there = ray.is_initialized()
    ray.shutdown()
    yield
    ray.shutdown()
    if was_there:
        _start_local_ray()


def _start_local_ray() -> None:
    """`local`: whatever cluster another process has started on this machine is left alone."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="warning")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an empty bucket of an S3 server in this process, with credentials in the environment."""
    moto_server = pytest.importorskip("moto.server")
    import boto3

    settings = {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "not-in-any-file",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="runs")
    yield "s3://runs"
    server.stop()


@pytest.fixture(scope="session")
def tiny_job(tmp_path_factory: pytest.TempPathFactory) -> "EmergentModularityConfig":
    """Job on a BERT of two layers with planted neurons and the functions `words` and `topics`; runs in a second."""
    sys.path.insert(0, str(Path(__file__).parent / "pipelines"))
    import tiny_jobs

    folder = tmp_path_factory.mktemp("tiny")
    checkpoint = tiny_jobs.save(folder / "planted", tiny_jobs.planted_module())
    return tiny_jobs.job(checkpoint, [tiny_jobs.word_function(folder), tiny_jobs.topic_function(folder)])


@pytest.fixture(scope="session")
def tiny_run(tiny_job: "EmergentModularityConfig", tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """That job, finished; tests read it and do not change it."""
    import tiny_jobs

    return tiny_jobs.run(tiny_job, tmp_path_factory.mktemp("tiny-run") / "run")


@pytest.fixture(scope="session")
def similarity_run(tiny_job: "EmergentModularityConfig", tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A finished similarity study of the planted BERT; tests read it and do not change it."""
    import tiny_similarity

    folder = tmp_path_factory.mktemp("similarity-run")
    config = tiny_similarity.config(tiny_job.model.name, tiny_similarity.folder(folder / "texts"))
    return tiny_similarity.run(config, folder / "run")
