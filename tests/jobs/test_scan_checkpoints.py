"""The job on two steps of the trained series that ships with the package, and from the command line to its page."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.scan_checkpoints import command, series_values
from modularity.cli import app, run_as_job
from modularity.store import open_summary

SETTINGS: dict[str, Any] = {
    "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
    "predictivity": {"n_permutations": 20, "n_bootstrap": 100, "n_top": 2, "n_examples": 1},
    "experts": {"n_permutations": 100, "methods": ["balanced"], "sensitivity": [0.05], "top_fraction": 0.05},
    "overlap": {"n_permutations": 100},
    "scan.n_random": 3,
    "scan.n_bootstrap": 100,
}


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def modularity(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def overrides(**more: Any) -> list[str]:
    return [part for name, value in (SETTINGS | more).items() for part in ("--set", f"{name}={json.dumps(value)}")]


def test_the_shipped_series_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from modularity.data import planted_functions

    (senses,) = (function.as_json() for function in planted_functions() if function.name == "planted_senses")
    chosen = ("--model", "series", "--revisions", "step0,step2000", *overrides(functions=[senses]))
    assert call(*chosen, "--plan") == 0
    assert "checkpoints 2: step00000000, step00002000" in capsys.readouterr().out
    out = tmp_path / "scan"
    assert call(*chosen, "--out", out) == 0
    rows = open_summary(out).table("function_steps").to_pylist()
    assert [row["step"] for row in rows] == [0, 2000]
    assert rows[1]["normalised_evaluation"] > rows[0]["normalised_evaluation"] + 0.2
    assert (out / "report.html").is_file()
    capsys.readouterr()
    assert modularity("status", out) == 0
    assert "checkpoints 2: 2 finished" in capsys.readouterr().out
    assert modularity("report", out, "--out", tmp_path / "page.html", "--figures", tmp_path / "figures") == 0
    assert "scan-stabilisation.svg" in capsys.readouterr().out
    assert modularity("sql", out, "select step, rho from stabilisation where comparison = 'final'") == 0
    assert "2000" in capsys.readouterr().out


def test_glue_is_added_to_the_functions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", series_values()["model"]["name"], "--revisions", "step0,step2000")
    assert call(*model, "--glue", tmp_path / "none", "--plan") == 2
    said = capsys.readouterr().err
    assert "none/cola/validation*' matches no file" in said
    assert "none/mnli/validation_matched*' matches no file" in said


def test_refusals_name_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--model", "owner/model", "--plan") == 2
    assert "--revisions is missing: which revisions of 'owner/model'?" in capsys.readouterr().err
    assert call("--model", "owner/model", "--revisions", "step1:step9:3", "--plan") == 1
    assert "revisions of 'owner/model': the Hugging Face hub cannot be reached" in capsys.readouterr().err
    assert call("--model", "owner/model", "--revisions", "step1,step2") == 2
    assert "--out is missing" in capsys.readouterr().err
