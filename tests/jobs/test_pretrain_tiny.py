"""The training job: its plan, a short training, and what it refuses."""

from pathlib import Path

import pytest

from jobs import pretrain_tiny
from modularity.cli import run_as_job
from modularity.pretraining import read_record

SMALL = [
    f"--set={key}={value}"
    for key, value in {
        "n_layers": 2, "width": 16, "n_heads": 2, "n_neurons": 12, "n_sentences": 40, "n_held_out": 4,
        "batch_sentences": 8, "n_checkpoints": 3, "first_checkpoint": 2,
    }.items()
]  # fmt: skip


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(pretrain_tiny.command, list(arguments))
    return int(ended.value.code or 0)


def test_a_plan_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--plan", "--steps", "6", "--out", str(tmp_path / "run"), *SMALL) == 0
    text = capsys.readouterr().out
    assert "checkpoints  3: 0, 2, 6" in text
    assert "MB each" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("architecture", ["opt", "t5", "switch"])
def test_a_short_training(architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--architecture", architecture, "--steps", "4", "--out", str(tmp_path / "run"), *SMALL)
    assert run(*arguments) == 0
    said = capsys.readouterr()
    assert "3 checkpoints" in said.out
    assert "step 4/4, 0.0 min left: rule/verdict % agreement " in said.err
    record = read_record(tmp_path / "run")
    assert (record.config.architecture, record.config.steps, record.config.width) == (architecture, 4, 16)
    assert run(*arguments) == 0
    assert "step" not in capsys.readouterr().err


def test_what_is_wrong_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--architecture", "t6", "--set", "width=0", "--out", str(tmp_path)) == 2
    said = capsys.readouterr().err
    assert "architecture='t6': Input should be 'opt', 't5' or 'switch'" in said
    assert "--set: width=0: Input should be greater" in said
    assert "Value error" not in said
    assert run("--set", "width=20", "--set", "n_heads=8", "--out", str(tmp_path)) == 2
    assert "width=20 is not a multiple of twice n_heads=8" in capsys.readouterr().err
    assert run() == 2
    assert "--out is missing: name the folder for the checkpoints" in capsys.readouterr().err
