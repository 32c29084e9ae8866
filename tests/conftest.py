"""Shared by all tests: a home folder of their own, no network, one local Ray for the whole session."""

import os
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from faulty_s3 import S3Server

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
def s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["S3Server"]:
    """An S3 server in this process with an empty bucket, credentials in the environment, and quick retries."""
    pytest.importorskip("moto.server")
    sys.path.insert(0, str(Path(__file__).parent / "store"))
    import boto3
    from faulty_s3 import S3Server

    from modularity.store import space

    pause = timedelta(milliseconds=1)
    backoff = {"init_backoff": pause, "max_backoff": pause, "base": 2}
    monkeypatch.setattr(space, "RETRIES", {**space.RETRIES, "max_retries": 6, "backoff": backoff})
    server = S3Server()
    settings = {
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "not-in-any-file",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": server.url,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=server.url).create_bucket(Bucket=server.bucket)
    yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: "S3Server") -> str:
    """URI of an empty bucket of an S3 server in this process, with credentials in the environment."""
    return f"s3://{s3_server.bucket}"


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
