"""The restricted-routing study from the command line: plan, run, report, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.restricted_routing import command
from modularity.cli import run_as_job
from modularity.store import Run, open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_jobs
import tiny_routing as tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("routing-job")
    return tiny_jobs.run(tiny.source_job(folder, tiny.checkpoint(folder / "m")), folder / "source")


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def words(folder: Path, **changes: Any) -> Path:
    values = {
        "label_words": {"task0": list(tiny.WORDS["task0"])}, "top_fraction": 0.1, "n_examples": 24, "seeds": [0, 1],
        "n_draws": 1, "epochs": 1, "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    } | changes  # fmt: skip
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_plans_runs_and_reports(source: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--run", source.uri, "--words", words(tmp_path), "--out", tmp_path / "run")
    assert call(*arguments, "--plan") == 0
    said = capsys.readouterr().out
    assert "8 tune, 1 compare" in said
    assert "functional experts of 6 are layer 1: 2" in said
    assert not (tmp_path / "run").exists()
    assert call(*arguments) == 0
    assert open_run(str(tmp_path / "run")).manifest.state == "finished"
    assert "Whether functional experts suffice" in (tmp_path / "run" / "report.html").read_text()
    assert call(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_words_are_those_of_the_run_where_none_are_given(
    source: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--run", source.uri, "--out", tmp_path / "run", "--plan") == 2
    said = capsys.readouterr().err
    assert "label_words: none are given, and the functions of the run have them for 0 sub-functions (none); one" in said


def test_wrong_input_is_named(source: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = words(tmp_path, epoch=3)
    assert call("--run", source.uri, "--words", path, "--out", tmp_path / "run", "--set", "seeds=[0]") == 2
    said = capsys.readouterr().err
    assert "epoch: unknown key; did you mean 'epochs'?" in said
    assert "--set: seeds=[0]" in said
