"""The command line: what it prints and writes, how it refuses, and that a run can be interrupted."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from modularity import __version__
from modularity.cli import app
from modularity.pipelines import EmergentModularityConfig
from modularity.runtime import Progress
from modularity.store import Run, create_run, open_run

REPO = Path(__file__).parent.parent
INPROCESS = ("--set", "runtime.executor=inprocess", "--set", "runtime.cpus_per_worker=1")
COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def call(*arguments: Any, code: int = 0) -> Any:
    """Result of `modularity ARGUMENTS`, which must end with this exit code and never in a trace."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="modularity")
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


@pytest.fixture(scope="module")
def uri(tiny_run: Run) -> str:
    return tiny_run.uri


@pytest.fixture
def job_file(tiny_job: EmergentModularityConfig, tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(tiny_job.as_json(), sort_keys=False))
    return path


@pytest.fixture
def partial(tiny_run: Run, tmp_path: Path) -> str:
    """A copy of the run as it was after capture: nothing ranked, state `running`."""
    folder = tmp_path / "partial"
    shutil.copytree(tiny_run.uri, folder)
    for record in tiny_run.commits().values():
        if record.item.kind not in ("functions", "capture"):
            [path] = (folder / "commits").rglob(f"*{record.item.id}*")
            path.unlink()
    open_run(str(folder)).update(state="running")
    return str(folder)


# what is typed -> parts of what is said; RUN, JOB and TMP stand for a run, a job file and an empty folder
COMMAND_LINES: dict[str, tuple[str, list[str]]] = {
    "unknown command": ("stat RUN", ["No such command 'stat'", "status"]),
    "unknown flag": ("status RUN --jsn", ["No such option: --jsn", "--json"]),
    "no run named": ("status", ["Missing argument 'RUN'"]),
    "no function named": ("query RUN", ["Missing option '--function'"]),
    "scheme": ("status ftp://host/run", ["'ftp://host/run' is no place to keep a run", "s3://"]),
    "file as run": ("status JOB", ["job.yaml is a file, expected the folder of a run"]),
    "function": ("query RUN --function word", ["function 'word' has no activations", "known: topics, words"]),
    "site": ("query RUN --function words --site mlp", ["site 'mlp' is not stored", "stored: encoder/ffn.neurons"]),
    "layer": ("query RUN --function words --layer 7", ["7 is not stored; stored: 0, 1"]),
    "layer text": ("query RUN --function words --layer x", ["'--layer'", "'x' is not a whole number"]),
    "neuron": ("query RUN --function words --neuron 160", ["160 is not stored; stored: 0..159"]),
    "sub-function": ("query RUN --function words --subfunction moon", ["subfunction='moon'", "river, stone"]),
    "label": ("query RUN --function words --label 2", ["label=2: expected 1 or 0"]),
    "example": ("query RUN --function words --example w", ["example 'w' is not in function 'words'", "'river-0'"]),
    "limit": ("query RUN --function words --limit 0", ["limit=0: expected a positive number"]),
    "format": ("query RUN --function words --format xml", ["--format 'xml' is not known", "parquet, csv, json, table"]),
    "Parquet as text": ("query RUN --function words --format parquet", ["binary and needs a file"]),
    "table to a file": ("query RUN --function words --format table --out TMP/a", ["table is for the terminal"]),
    "ending": ("query RUN --function words --out TMP/a.txt", ["a.txt' ends in none of .parquet, .csv, .json"]),
    "no folder": ("query RUN --function words --out TMP/no/a.csv", ["a.csv' cannot be written", "choose another"]),
    "SQL": ("sql RUN selec", ["SQL 'selec' failed", "without a query lists all tables and columns"]),
    "SQL table": ("sql RUN DESCRIBE~neurons", ["Table with name neurons does not exist", "top_neurons"]),
    "SQL that writes": ("sql RUN DROP~TABLE~examples", ["expected one SELECT, found DROP", "read-only"]),
    "report into a file": ("report RUN --out JOB/r.html", ["r.html' cannot be written", "choose another place"]),
    "figures into a file": ("report RUN --figures JOB", ["cannot be written", "choose another place"]),
    "rows": ("verify RUN --rows -1", ["--rows -1: expected 0 or more"]),
    "rows text": ("verify RUN --rows few", ["'few' is not a whole number"]),
    "no config": ("run TMP/none.yaml --plan", ["none.yaml' cannot be read", "name a JSON or YAML file"]),
    "folder as config": ("run TMP --plan", ["cannot be read", "name a JSON or YAML file"]),
    "no --out": ("run JOB", ["--out is missing", "--out runs/first"]),
    "file as --out": ("run JOB --out JOB", ["job.yaml is a file, expected the folder of a run"]),
    "unknown job": ("run JOB --plan --set job=scan", ["job='scan' is not known", "emergent_modularity"]),
    "--set without value": ("run JOB --plan --set model", ["--set 'model': expected key=value"]),
    "--set beyond a list": ("run JOB --plan --set functions.9.seed=1", ["'9' is not an index of a list of 2"]),
    "--set in a value": ("run JOB --plan --set model.name.x=1", ["'x' is set inside", "not a mapping"]),
    "--set of a wrong value": (
        "run JOB --plan --set functions.0.pooling.kind=men",
        ["--set: functions.0.pooling.kind='men': Input should be 'max', 'mean'"],
    ),
    "--set of a wrong key": ("run JOB --plan --set model.dtpe=x", ["--set: model.dtpe: unknown key", "'dtype'"]),
    "experts": ("run JOB --plan --set experts.n_experts=7", ["n_experts=7 does not divide the 160", "5, 8"]),
    "layers": ("run JOB --plan --set capture.layers=[5]", ["capture.layers: [5]", "0..1"]),
    "model folder": ("run JOB --plan --set model.name=./none", ["model folder './none' does not exist", "hub id"]),
    "model name": ("run JOB --plan --set model.name=a~b", ["'a b' is neither a local folder nor a hub id"]),
    "no hub": ("run JOB --plan --set model.name=no/none", ["hub cannot be reached", "hf download no/none --local-dir"]),
    "data": ("run JOB --plan --set functions.0.source=no.jsonl", ["'no.jsonl' does not exist"]),
    "store allowance": (
        "run JOB --plan --set allowance.store_bytes=1000",
        ["work items", "exceeds its allowance", "allowed are 1.0 kB", "allowance.store_bytes"],
    ),
    "memory allowance": (
        "run JOB --out TMP/run --set allowance.worker_bytes=1000",
        ["a worker needs", "allowed are 1.0 kB", "capture.tokens_per_batch"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMAND_LINES)
def test_what_cannot_be_done_is_refused_with_a_message(name: str, uri: str, job_file: Path, tmp_path: Path) -> None:
    line, fragments = COMMAND_LINES[name]
    places = {"RUN": uri, "JOB": str(job_file), "TMP": str(tmp_path)}
    words = [re.sub("RUN|JOB|TMP", lambda found: places[found[0]], word).replace("~", " ") for word in line.split()]
    output = call(*words, code=2).output
    assert [fragment for fragment in fragments if fragment not in output] == []
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


BAD_FILES: dict[str, tuple[str, list[str]]] = {
    "no mapping": ("- 1\n", ["holds list, expected a mapping"]),
    "no YAML": ("model: [1\n", ["neither JSON nor YAML"]),
    "no model": ("functions: []\n", ["job.yaml:1: model: required and missing; add it"]),
    "no functions": (
        "model: {name: x}\nfunctions: []\n",
        ["functions=[]: expected at least one function, or a corpus"],
    ),
    "keys and values": (
        "model:\n  name: x\n  dtpe: float32\nfunctions:\n  - name: a\n    source: a.jsonl\n    poling: {}\n"
        "predictivity:\n  n_permutations: 3\n",
        [
            "3 problems",
            "job.yaml:3: model.dtpe: unknown key; did you mean 'dtype'?",
            "job.yaml:7: functions.0.poling: unknown key; did you mean 'pooling'?",
            "job.yaml:9: predictivity.n_permutations=3: Input should be greater than or equal to 20",
        ],
    ),
    "analyses": (
        "model: {name: x}\nfunctions: [{name: a, source: a.jsonl}]\nanalyses: [overlap]\n",
        ["analyses=['overlap'] lacks 'predictivity'"],
    ),
    "functions twice": (
        "model: {name: x}\nfunctions: [{name: a, source: a.jsonl}, {name: a, source: b.jsonl}]\n",
        ["functions named twice: a"],
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_with_every_problem_and_its_line(name: str, tmp_path: Path) -> None:
    text, fragments = BAD_FILES[name]
    path = tmp_path / "job.yaml"
    path.write_text(text)
    output = call("run", path, "--plan", code=2).output
    assert [fragment for fragment in fragments if fragment not in output] == []


@pytest.mark.parametrize("command", ["status", "verify", "report", "sql", "query"])
def test_a_missing_run_is_named(command: str, tmp_path: Path) -> None:
    more = {"sql": ["select 1"], "query": ["--function", "x"]}.get(command, [])
    output = call(command, tmp_path / "nowhere", *more, code=1).output
    assert "there is no run at" in output
    assert "nowhere" in output


def test_a_run_of_another_job_is_not_overwritten(uri: str, job_file: Path) -> None:
    output = call("run", job_file, "--out", uri, "--set", "experts.seed=5", code=2).output
    assert "was made from something else" in output
    assert "config.experts.seed: recorded 0, now 5" in output
    assert "choose another --out" in output


def test_a_folder_with_other_things_is_not_written_to(job_file: Path, tmp_path: Path) -> None:
    output = call("run", job_file, "--out", tmp_path, code=2).output
    assert "is not empty and holds no run" in output
    output = call("run", job_file, "--out", tmp_path, "--set", "model.dtpe=x", code=2).output
    assert "2 problems" in output
    assert "model.dtpe: unknown key" in output
    assert "is not empty and holds no run" in output


def test_another_run_is_reused(tiny_run: Run, job_file: Path, tmp_path: Path) -> None:
    change = ("--set", "experts.fdr=0.2", "--reuse", tiny_run.uri)
    assert (
        f"reused     3 capture, 2 partition, 12 predictivity from {tiny_run.uri}"
        in call("run", job_file, "--plan", *change).output
    )
    output = call("run", job_file, "--out", tmp_path / "again", *change, *INPROCESS).output
    assert "capture: done, 3/3 items" in output


def test_every_help_is_plain_and_has_an_example() -> None:
    assert all(command in call("--help").output for command in COMMANDS)
    for command in COMMANDS:
        text = call(command, "--help").output
        assert f"Example: modularity {command}" in text
        assert not set(text) & set("╭─│\x1b")


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys, modularity.cli, jobs.quickstart, jobs.emergent_modularity\n"
        "print(sorted({'torch', 'transformers', 'ray', 'zarr', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_bad_config_and_the_status_of_a_run_need_no_torch(uri: str, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("model: {name: x}\nfunctions: 3\n")
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom modularity.cli import app\n"
        f"calls = (['run', {str(path)!r}], ['status', {uri!r}])\n"
        "codes = [CliRunner().invoke(app, words).exit_code for words in calls]\n"
        "print(codes, sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[2, 0] []"


def test_the_package_runs_as_a_module() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "modularity", "--version"], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert found.stdout == f"modularity {__version__}\n"


def test_version() -> None:
    assert call("--version").output == f"modularity {__version__}\n"


def test_plan_is_printed_and_nothing_written(job_file: Path, tmp_path: Path) -> None:
    output = call("run", job_file, "--plan", "--out", tmp_path / "run", "--set", "functions.0.pooling.kind=mean").output
    for row in ("work items", "examples", "tokens", "rows", "store", "memory", "time"):
        assert row in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("form", ["yaml", "json", "manifest"])
def test_a_recorded_config_runs_again_and_a_finished_run_is_left(form: str, tiny_run: Run, tmp_path: Path) -> None:
    recorded = tiny_run.manifest.config
    assert "runtime" not in recorded
    path = tmp_path / f"config.{form}"
    if form == "manifest":
        path = Path(tiny_run.uri) / "run.json"
    else:
        path.write_text(json.dumps(recorded) if form == "json" else yaml.safe_dump(recorded))
    before = tiny_run.content_hash()
    result = call("run", path, "--out", tiny_run.uri)
    assert "is finished" in result.output
    assert "nothing to do" in result.output
    assert open_run(tiny_run.uri).content_hash() == before


def test_a_job_runs_to_the_report_and_again_to_the_same_content(tiny_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_run.manifest.config))
    out = tmp_path / "again"
    output = call("run", path, "--out", out, *INPROCESS).output
    assert f"report: {out / 'report.html'}" in output
    assert open_run(str(out)).content_hash() == tiny_run.content_hash()
    assert "<svg" in (out / "report.html").read_text()


def test_sigterm_while_the_report_is_written_is_an_interruption(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    shutil.copytree(tiny_run.uri, out)
    (out / "report.html").unlink(missing_ok=True)
    with monkeypatch.context() as patched:
        patched.setattr("modularity.report.write_report", lambda uri: signal.raise_signal(signal.SIGTERM))
        output = call("run", out / "run.json", "--out", out, code=143).output
    assert f"interrupted by SIGTERM: finished work items stay recorded in {out}; the same command goes on" in output
    assert f"report: {out / 'report.html'}" in call("run", out / "run.json", "--out", out).output


def test_status(uri: str, partial: str) -> None:
    found = json.loads(call("status", uri, "--json").stdout)
    assert (found["state"], found["functions"]) == ("finished", ["topics", "words"])
    assert "overlap 1/1" in call("status", uri).output
    output = call("status", partial).output
    assert "state     running" in output
    assert "predictivity 0/12" in output


def test_verify_agrees_and_finds_a_changed_byte(tiny_run: Run, tmp_path: Path) -> None:
    assert "everything agrees" in call("verify", tiny_run.uri, "--rows", 1).output
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_run.uri, damaged)
    victim = max((damaged / "activations").rglob("c/*/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    output = call("verify", damaged, "--rows", 0, code=1).output
    assert str(victim.relative_to(damaged)) in output
    assert "1 problem" in output


def test_verify_of_an_unfinished_run_says_so(partial: str) -> None:
    assert "not finished" in call("verify", partial, code=1).output


def test_report_to_a_file_and_of_an_unfinished_run(uri: str, partial: str, tmp_path: Path) -> None:
    printed = call("report", uri, "--out", tmp_path / "a.html", "--figures", tmp_path / "figures").stdout.split()
    assert printed[0] == str(tmp_path / "a.html")
    assert len(printed) > 5
    assert all(Path(name).is_file() for name in printed)
    call("report", partial, "--out", tmp_path / "b.html")
    assert "The run is running: parts of this page may be missing." in (tmp_path / "b.html").read_text()


QUERY = ("--function", "words", "--layer", "0", "--neuron", "3", "--neuron", "4", "--subfunction", "river")


def test_query_gives_the_same_values_in_every_format(uri: str, tmp_path: Path) -> None:
    for ending in ("parquet", "csv", "json"):
        assert "280 rows written to" in call("query", uri, *QUERY, "--out", tmp_path / f"a.{ending}").output
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.num_rows == 280
    values = table["value"].to_pylist()
    assert pa.csv.read_csv(tmp_path / "a.csv")["value"].to_pylist() == pytest.approx(values)
    assert [row["value"] for row in json.loads((tmp_path / "a.json").read_text())] == pytest.approx(values)
    assert call("query", uri, *QUERY, "--format", "csv").stdout == (tmp_path / "a.csv").read_text()
    assert json.loads(call("query", uri, *QUERY, "--format", "json").stdout)[0]["example_id"] == "river-0"
    assert call("query", uri, *QUERY, "--format", "csv", "--out", tmp_path / "data").output.startswith("280 rows")
    assert (tmp_path / "data").read_text() == (tmp_path / "a.csv").read_text()


def test_query_on_the_terminal_is_cut_and_says_so(uri: str) -> None:
    result = call("query", uri, *QUERY, "--label", 1)
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["function", "site", "example_id"]
    assert len(lines) == 51
    assert result.stderr == "50 of 140 rows; --out FILE or --format csv gives all\n"
    one = call("query", uri, *QUERY, "--example", "river-1", "--limit", 1).stdout.splitlines()
    assert len(one) == 2
    assert "river-1" in one[1]


def test_sql_formats(uri: str, tmp_path: Path) -> None:
    statement = "select function, max(n_evaluation) as n from best_neurons group by all order by all"
    found = json.loads(call("sql", uri, statement, "--format", "json").stdout)
    assert [row["function"] for row in found] == ["topics", "words"]
    assert call("sql", uri, statement, "--format", "csv").stdout.splitlines()[0] == '"function","n"'
    call("sql", uri, statement, "--out", tmp_path / "a.parquet")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == found
    assert "best_neurons" in call("sql", uri, "show tables").stdout


def test_sql_without_a_query_lists_tables_and_columns(uri: str) -> None:
    found = json.loads(call("sql", uri, "--format", "json").stdout)
    assert {row["table"]: row["rows"] for row in found}["examples"] == 370
    assert "best_neurons" in call("sql", uri).stdout
    output = call("sql", uri, "select subfunctoin from best_neurons", code=2).output
    assert "nearest columns of best_neurons: subfunction" in output
    assert "overlap_functions" not in output


def test_text_of_the_data_is_shown_as_it_is(uri: str) -> None:
    shown = call("sql", uri, "select '[/b] [red]x[/red] :smile:' || chr(27) || '[31m' || chr(10) as t").stdout
    assert r"[/b] [red]x[/red] :smile:\x1b[31m\n" in shown


def test_a_run_without_tables_is_readable(tmp_path: Path, tiny_run: Run) -> None:
    create_run(str(tmp_path / "new"), tiny_run.manifest)
    assert call("sql", tmp_path / "new", "show tables").stdout.strip() == "name"


@pytest.mark.parametrize("name", ["Ctrl-C", "SIGTERM"])
def test_a_run_that_is_stopped_says_how_to_go_on(
    name: str, tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, config = tmp_path / "run", tmp_path / "config.json"
    config.write_text(json.dumps(tiny_run.manifest.config))
    done = Progress.done

    def done_then_stopped(self: Progress, item: Any, info: Any) -> None:
        done(self, item, info)
        if item.kind == "predictivity":
            signal.raise_signal(signal.SIGINT if name == "Ctrl-C" else signal.SIGTERM)

    monkeypatch.setattr(Progress, "done", done_then_stopped)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    try:
        said = call("run", config, "--out", out, *INPROCESS, code=130 if name == "Ctrl-C" else 143).stderr
    finally:
        signal.signal(signal.SIGINT, before)
    assert said.splitlines()[-1] == (
        f"interrupted by {name}: finished work items stay recorded in {out}; the same command goes on"
    )
    assert "state     interrupted: finished work items stay recorded" in call("status", out).stdout
    assert [record.item.kind for record in open_run(str(out)).commits().values()].count("predictivity") == 1
    monkeypatch.undo()
    call("run", config, "--out", out, *INPROCESS)
    assert open_run(str(out)).content_hash() == tiny_run.content_hash()
