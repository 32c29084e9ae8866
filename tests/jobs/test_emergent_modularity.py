"""The job for any model: functions from a file or the samples, and the messages for a wrong file."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.emergent_modularity import command, read_functions
from modularity.cli import run_as_job
from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig
from modularity.store import open_run


def test_without_a_file_the_samples_are_read() -> None:
    functions, lines = read_functions(None)
    assert [function["name"] for function in functions][:3] == ["semantic", "knowledge", "task"]
    assert lines == {}


@pytest.mark.parametrize("write", [yaml.safe_dump, json.dumps], ids=["yaml", "json"])
def test_functions_of_a_file(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "functions.yaml"
    path.write_text(write({"functions": [{"name": "a", "source": "a.jsonl"}]}))
    functions, lines = read_functions(path)
    assert functions == [{"name": "a", "source": "a.jsonl"}]
    assert lines["functions",].startswith("functions.yaml:1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds NoneType, expected a mapping"),
        ("model: x\nfunctions: []\n", "expected the one key 'functions' with a list, found model, functions; a file "),
        ("{}", "expected the one key 'functions' with a list, found nothing"),
        ("functions:\n", r"functions.yaml:1: functions=None: expected a list"),
        ("functions: a.jsonl\n", r"functions.yaml:1: functions='a.jsonl': expected a list"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "functions.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_functions(path)


def call(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        run_as_job(command, [str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_wrong_functions_are_named_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "functions.yaml"
    path.write_text("functions:\n  - name: a\n    source: a.jsonl\n    poling: {kind: max}\n")
    assert call("--model", "x", "--functions", path, "--plan", "--set", "experts.n_experts=1") == 2
    said = capsys.readouterr().err
    assert "functions.yaml:4: functions.0.poling: unknown key; did you mean 'pooling'?" in said
    assert "--set: experts.n_experts=1: Input should be greater than or equal to 2" in said


def test_a_revision_of_a_folder_is_refused(
    tiny_job: EmergentModularityConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--model", tiny_job.model.name, "--revision", "step1", "--plan") == 2
    assert "revision='step1' with the local folder" in capsys.readouterr().err


def test_runs_with_the_functions_of_a_file(
    tiny_job: EmergentModularityConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_job.as_json()
    path = tmp_path / "functions.yaml"
    path.write_text(yaml.safe_dump({"functions": values["functions"][1:]}))
    settings = {
        "runtime": {"executor": "inprocess", "cpus_per_worker": 1},
        "experts": {**values["experts"], "methods": ["balanced"]},
        **{name: values[name] for name in ("predictivity", "overlap", "capture")},
    }
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    arguments = ("--model", tiny_job.model.name, "--functions", path, *overrides)
    assert call(*arguments, "--plan") == 0
    assert "work items" in capsys.readouterr().out
    assert call(*arguments, "--out", tmp_path / "run") == 0
    run = open_run(str(tmp_path / "run"))
    assert (run.manifest.state, run.functions()) == ("finished", ("topics",))
    assert (tmp_path / "run" / "report.html").is_file()


def test_glue_is_added_to_the_functions_of_a_file(
    tiny_job: EmergentModularityConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {"cola": ["sentence"], "sst2": ["sentence"], "mnli": ["premise", "hypothesis"]}
    columns |= {"mrpc": ["sentence1", "sentence2"], "rte": ["sentence1", "sentence2"]}
    columns |= {"qnli": ["question", "sentence"], "qqp": ["question1", "question2"]}
    for task, names in columns.items():
        rows = [
            {name: f"{name} {n}" for name in names} | {"label": n % (3 if task == "mnli" else 2)} for n in range(24)
        ]
        (tmp_path / task).mkdir()
        path = tmp_path / task / ("validation_matched.jsonl" if task == "mnli" else "validation.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "functions.yaml"
    path.write_text(yaml.safe_dump({"functions": tiny_job.as_json()["functions"][1:]}))
    settings = ("--set", "runtime.executor=inprocess", "--set", "experts.n_experts=4", "--plan")
    for arguments, n_examples in (((), 7 * 24), (("--functions", path), None)):
        assert call("--model", tiny_job.model.name, "--glue", tmp_path, *arguments, *settings) == 0
        said = capsys.readouterr().out
        assert n_examples is None or f"examples   {n_examples} (" in said
    assert call("--model", tiny_job.model.name, "--glue", tmp_path / "none", *settings) == 2
    assert "none/cola/validation*' matches no file" in capsys.readouterr().err
