"""Pruning from the command line: plan, run, report, and messages for wrong input."""

import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.pruning import command
from modularity.cli import run_as_job
from modularity.data import series_path
from modularity.store import open_run

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))

import tiny_pruning as tiny

SETTINGS = (
    "target.lines=true", "retain.lines=true", "model.dtype=float32", "scores=[abs]", "schedules=[one_shot]",
    "directions=[prune_target]", "ffn_share=0.25", "n_steps=2", "n_random=5", "n_bootstrap=100", "n_common=16",
    "scoring_tokens=300", "validation_tokens=200", "evaluation_tokens=300", "continuations.n_prompts=8",
    "continuations.n_prompt_tokens=4", "continuations.n_new=4", "continuations.n_least=2",
    "continuations.features=words", "runtime.executor=inprocess", "runtime.cpus_per_worker=1",
)  # fmt: skip


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def arguments(out: Path, *more: str) -> list[Any]:
    settings = [part for value in (*SETTINGS, *more) for part in ("--set", value)]
    corpora = [
        "--target",
        tiny.source("counting"),
        "--retain",
        tiny.source("agreement"),
        "--names",
        "counting,agreement",
    ]
    return ["--model", series_path() / "step00002000", *corpora, "--out", out, *settings]


def test_plans_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments(tmp_path / "run"), "--plan") == 0
    said = capsys.readouterr().out
    assert "1 importance, 6 trajectory, 1 areas, 7 continue, 1 continuation_tests" in said
    assert "2 steps remove 192 of 768 FFN neurons each" in said
    assert not (tmp_path / "run").exists()
    assert call(*arguments(tmp_path / "run")) == 0
    assert open_run(str(tmp_path / "run")).manifest.state == "finished"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Capabilities pruned from" in page
    assert "<b>without counting:</b> separability" in page
    assert "<b>counting → agreement:</b>" in page
    assert call(*arguments(tmp_path / "run")) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_wrong_input_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*arguments(tmp_path / "run", "score=[abs]", "n_random=2", "scores=[loud]")) == 2
    said = capsys.readouterr().err
    assert "score: unknown key; did you mean 'scores'?" in said
    assert "n_random=2" in said
    assert "scores.0='loud'" in said
    assert call("--model", "nowhere/at/all", "--target", "a.txt", "--retain", "b.txt", "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "corpus 'target': 'a.txt' does not exist" in said
    assert "corpus 'retain': 'b.txt' does not exist" in said
    assert "nowhere/at/all" in said


def test_several_sources_make_one_category(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = f"{tiny.source('agreement')}, planted:senses"
    wanted = arguments(tmp_path / "run", "retain.max_texts=400")
    wanted[wanted.index("--retain") + 1] = both
    assert call(*wanted, "--plan") == 0
    assert "agreement: 360 texts left out: beyond max_texts=400" in capsys.readouterr().out
