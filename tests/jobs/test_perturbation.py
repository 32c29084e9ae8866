"""The perturbation from the command line: plan, run, report, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.perturbation import command
from modularity.cli import run_as_job
from modularity.store import Run, open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_jobs
import tiny_perturbation as tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("perturbation-job")
    return tiny_jobs.run(tiny.source_job(folder, tiny.checkpoint(folder / "m", shared=False)), folder / "source")


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def words(folder: Path, **changes: Any) -> Path:
    values = {
        "label_words": {name: list(each) for name, each in tiny.WORDS.items()},
        "strengths": [0.25], "noises": ["zero"], "seeds": [0], "rankings": ["single"],
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    } | changes  # fmt: skip
    path = folder / "words.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_plans_runs_and_reports(source: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--run", source.uri, "--words", words(tmp_path), "--out", tmp_path / "run")
    assert call(*arguments, "--plan") == 0
    assert "4 select, 4 perturb, 1 dissociation" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert call(*arguments) == 0
    assert open_run(str(tmp_path / "run")).manifest.state == "finished"
    assert "double dissociation" in (tmp_path / "run" / "report.html").read_text()
    assert call(*arguments) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_input_is_named(source: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = words(tmp_path, strength=[0.1])
    assert call("--run", source.uri, "--words", path, "--out", tmp_path / "run", "--set", "noises=[zero, loud]") == 2
    said = capsys.readouterr().err
    assert "words.yaml" in said
    assert "strength: unknown key; did you mean 'strengths'?" in said
    assert "--set: noises.1='loud'" in said


def test_words_are_those_of_the_run_where_none_are_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: Run
) -> None:
    assert call("--run", source.uri, "--out", tmp_path / "run", "--plan") == 2
    assert "label_words: none are given, and the functions of the run have them for 0 sub-functions (none); two" in (
        capsys.readouterr().err
    )
    config = tiny.source_job(tmp_path, tiny.checkpoint(tmp_path / "m", shared=False))
    function = config.functions[0].as_json() | {"label_words": {name: list(each) for name, each in tiny.WORDS.items()}}
    with_words = tiny_jobs.run(config.replace(functions=[function]), tmp_path / "source")
    overrides = [part for name, value in {"strengths": "[0.25]", "noises": "[zero]", "seeds": "[0]",
                 "rankings": "[single]", "runtime.executor": "inprocess", "runtime.cpus_per_worker": "1"}.items()
                 for part in ("--set", f"{name}={value}")]  # fmt: skip
    assert call("--run", with_words.uri, "--out", tmp_path / "run", *overrides) == 0
    run = open_run(str(tmp_path / "run"))
    assert run.manifest.config["label_words"] == {f"tasks/{name}": list(each) for name, each in tiny.WORDS.items()}
    assert len(tiny_jobs.rows_of(run, "dissociation")) > 0
    assert call("--run", with_words.uri, "--out", tmp_path / "run", *overrides) == 0
    assert "nothing to do" in capsys.readouterr().err
