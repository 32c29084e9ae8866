"""A run that takes its partition over from another one, and what keeps it from doing so."""

from pathlib import Path

import pytest
import tiny_jobs

from modularity.errors import IdentityError, InputError
from modularity.pipelines import EmergentModularityConfig, run_job
from modularity.pipelines.shared_partition import _resolved
from modularity.store import Run, verify_store
from modularity.types import PARTITION


def taking(config: EmergentModularityConfig, source: str, **experts: object) -> EmergentModularityConfig:
    return config.replace(experts={**config.experts.as_json(), "from_run": source, **experts})


def test_a_relative_path_begins_at_the_run() -> None:
    assert _resolved("../b", "/scan/checkpoints/a") == "/scan/checkpoints/b"
    assert _resolved("../b", "s3://bucket/scan/a") == "s3://bucket/scan/b"
    assert _resolved("/other", "/scan/a") == "/other"


def test_another_model_gets_the_partition(
    paper_config: EmergentModularityConfig, paper_run: Run, planted: Path, tmp_path: Path
) -> None:
    other = paper_config.replace(model={**paper_config.model.as_json(), "name": str(planted)})
    run = tiny_jobs.run(taking(other, paper_run.uri), tmp_path / "run")
    assert (run.results(PARTITION)["expert"].values == paper_run.results(PARTITION)["expert"].values).all()
    assert run.manifest.identity["partition"]
    assert verify_store(run).ok
    assert run_job(taking(other, paper_run.uri), str(tmp_path / "run"), quiet=True).was_finished
    with pytest.raises(IdentityError, match="from_run: recorded"):
        tiny_jobs.run(other, tmp_path / "run")


def test_partitions_made_otherwise_are_refused(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"was partitioned otherwise \(seed 0, here 3\); set equal values"):
        tiny_jobs.run(taking(paper_config, paper_run.uri, seed=3), tmp_path / "run")
    with pytest.raises(InputError, match=r"experts\.from_run='.*none': there is no run at"):
        tiny_jobs.run(taking(paper_config, str(tmp_path / "none")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
