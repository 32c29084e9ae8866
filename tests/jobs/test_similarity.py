"""The similarity study from the command line: the shipped series, own texts, figures, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.similarity import command, study_values
from modularity.cli import app, run_as_job
from modularity.store import open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_jobs
import tiny_similarity

SMALL = (
    "--set", "runtime.executor=inprocess", "--set", "runtime.cpus_per_worker=1", "--set", "controls=[]",
    "--set", "scores.n_bootstrap=100", "--set", "scores.n_permutations=19", "--set", "scores.n_draws=199",
)  # fmt: skip


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_shipped_series_with_its_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    few = ("--set", "texts.per_category=2", "--set", "sites=[residual]", "--set", "experts=null")
    assert call("--model", "series", "--out", out, *SMALL, *few, "--plan") == 0
    assert "all 113,400 labellings of 10 texts, none below 0.0011" in capsys.readouterr().out
    assert not out.exists()
    assert call("--model", "series", "--out", out, *SMALL, *few) == 0
    run = open_run(str(out))
    assert run.manifest.notes["categories"] == dict.fromkeys(
        ("agreement", "brackets", "counting", "relations", "senses"), 2
    )
    assert "Similarity of texts in categories" in (out / "report.html").read_text()
    assert call("--model", "series", "--out", out, *SMALL, *few) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_own_texts_and_figures_as_files(tmp_path: Path) -> None:
    model = tiny_jobs.save(tmp_path / "model", tiny_jobs.planted_module())
    texts = tiny_similarity.folder(tmp_path / "texts")
    cut = ("--set", "texts.length=20", "--set", "texts.positions=[1, 2, 3, 4, 5]", "--set", "experts=null")
    assert call("--model", model, "--texts", texts, "--out", tmp_path / "run", *SMALL, *cut) == 0
    done = CliRunner().invoke(
        app, ["figures", str(tmp_path / "run"), "--out", str(tmp_path / "figures"), "--no-png", "--dimension", "4"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "figures" / "stream-4.svg").is_file()
    assert len(done.output.splitlines()) == len(list((tmp_path / "figures").iterdir()))


def test_wrong_input_is_listed_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--model", "series", "--texts", tmp_path / "nowhere", "--out", tmp_path / "run", *SMALL) == 2
    message = capsys.readouterr().err
    assert "does not exist" in message
    assert "reads at most 32 tokens" in message
    assert call("--model", "series", "--out", tmp_path / "run", "--set", "site=[residual]") == 2
    assert "site: unknown key; did you mean 'sites'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_minilm_is_the_default() -> None:
    values = study_values(None, None)
    assert values["job"] == "similarity"
    assert "texts" not in values
    assert study_values("a/b", "folder")["texts"] == {"source": "folder"}
