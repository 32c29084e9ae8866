"""The graph study from the command line: plan, run, report, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.graph_modularity import command
from modularity.cli import run_as_job
from modularity.data import series_path
from modularity.store import open_run

pytest.importorskip("graspologic_native")
sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

SMALL = [f"--set={key}={value}" for key, value in {
    "layers": "[1]", "graphs": "[weights]", "nulls": "[permuted]", "methods": "[spectral]", "n_draws": 19,
    "runtime.executor": "inprocess", "runtime.cpus_per_worker": 1,
}.items()]  # fmt: skip


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def model() -> Path:
    return Path(series_path()) / "step00002000"


def test_plans_runs_and_reports(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--model", model, "--out", tmp_path / "run", *SMALL)
    assert call(*arguments, "--plan") == 0
    assert "weights: 352 nodes, 24,576 edges (all edges) in layer 1" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert call(*arguments) == 0
    assert open_run(str(tmp_path / "run")).manifest.state == "finished"
    assert "n-cut" in (tmp_path / "run" / "report.html").read_text()
    assert call(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_input_is_named(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--out", tmp_path / "run") == 2
    assert "neither --model nor --run is given" in capsys.readouterr().err
    assert call("--model", model, "--out", tmp_path / "run", "--set", "null=[permuted]", "--set", "n_draws=5") == 2
    said = capsys.readouterr().err
    assert "null: unknown key; did you mean 'nulls'?" in said
    assert "n_draws=5" in said
