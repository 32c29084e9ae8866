"""MoEfication from the command line: plan, run, report, export, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.moefication import command, series_values
from modularity.cli import run_as_job
from modularity.config import validate_config
from modularity.pipelines import MoeficationConfig
from modularity.store import open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_moefication as tiny
import tiny_perturbation as planted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moefication-job")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return planted.checkpoint(folder / "model", shared=False)


@pytest.fixture(scope="module")
def functions(folder: Path) -> Path:
    path = folder / "functions.yaml"
    path.write_text(yaml.safe_dump({"functions": [tiny.function(folder)]}))
    return path


@pytest.fixture(scope="module")
def words(folder: Path) -> Path:
    path = folder / "words.yaml"
    values = {
        "label_words": {name: list(each) for name, each in planted.WORDS.items()},
        "layers": [0], "n_experts": 8, "partitions": ["random"], "routers": ["random"], "shares": [0.25, 1.0],
        "seeds": [0], "n_bootstrap": 100, "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(values))
    return path


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_plans_runs_reports_and_exports(
    folder: Path, model: Path, functions: Path, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--model", model, "--functions", functions, "--words", words, "--out", tmp_path / "run",
        "--export", tmp_path / "exported",
    )  # fmt: skip
    assert call(*arguments, "--plan") == 0
    assert "1 partition, 1 route, 1 unchanged, 2 evaluate, 1 selection_tables, 1 export" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert call(*arguments) == 0
    assert open_run(str(tmp_path / "run")).manifest.state == "finished"
    assert "What is kept when a token runs only some experts" in (tmp_path / "run" / "report.html").read_text()
    assert (tmp_path / "exported" / "experts.json").exists()
    assert call(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_input_is_named(model: Path, words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--out", tmp_path / "run") == 2
    assert "--model and --run are missing" in capsys.readouterr().err
    assert call("--model", model, "--words", words, "--set", "shares=[0, 0.5]", "--set", "router=[mlp]") == 2
    said = capsys.readouterr().err
    assert "router: unknown key; did you mean 'routers'?" in said
    assert "shares.0=0" in said
    assert "--out is missing" in said


def test_the_shipped_series_is_a_whole_job() -> None:
    config = validate_config(MoeficationConfig, {"job": "moefication", **series_values()})
    assert config.model is not None
    assert config.model.name.endswith("step00002000")
    assert len(config.label_words or ()) == 7
