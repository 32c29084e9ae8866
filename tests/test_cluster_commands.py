"""Submit, follow, stop, resume and look, against a Ray head with token authentication that the tests start."""

import json
import re
import runpy
import secrets
import signal
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from modularity.cli import app
from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig, run_status
from modularity.runtime.submission import Cluster
from modularity.store import open_run
from modularity.submitting import runtime_environment

REPO = Path(__file__).parent.parent
TOKEN = secrets.token_hex(32)
benchmark = SimpleNamespace(**runpy.run_path(str(REPO / "benchmarks" / "first_forward.py")))


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with benchmark.ray_head(TOKEN) as dashboard:
        yield dashboard


def call(*arguments: Any, code: int = 0, token: str | None = TOKEN) -> Any:
    """Result of `modularity ARGUMENTS`."""
    given = ["--token", token] if token else []
    result = CliRunner().invoke(app, [*map(str, arguments), *given], prog_name="modularity")
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def items_recorded(out: Path) -> int:
    return len(list((out / "commits").glob("*.json"))) if (out / "commits").is_dir() else 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_submit_stop_resume_and_follow(address: str, tiny_job: EmergentModularityConfig, tmp_path: Path) -> None:
    values = tiny_job.as_json()
    values["predictivity"] |= {"n_permutations": 1000}  # items that take a while, to be stopped among them
    job, out = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(yaml.safe_dump(values))
    submit = ("submit", job, "--address", address, "--out", out, "--no-code")

    first = call(*submit).stdout.splitlines()[-1].removeprefix("submitted: ")
    assert first.startswith("emergent-modularity-")
    assert f" as {first}: follow it by" in call(*submit, code=2).output
    while not items_recorded(out):
        time.sleep(0.1)
    stopped = call("stop", out, "--address", address)
    assert f"{first}: STOPPED" in stopped.stdout
    assert f"run {out}: interrupted" in stopped.stdout
    n_recorded = items_recorded(out)
    assert 0 < n_recorded < sum(planned for _, planned in run_status(str(out)).items.values())
    told = call("status", out, "--address", address).stdout
    assert f"{first}: STOPPED" in told
    assert "state     interrupted" in told
    followed = call("logs", first, "--address", address, "--follow", code=143).stdout
    assert followed.count(f"Running entrypoint for job {first}") == 1
    assert "interrupted by SIGTERM: finished work items stay recorded" in followed

    second = call(*submit, "--follow")
    assert f"submitted: {first.removesuffix('1')}2" in second.stdout
    assert second.stdout.count("predictivity: done") == 1
    assert "-2: SUCCEEDED" in second.stderr
    assert open_run(str(out)).manifest.state == "finished"
    found = json.loads(call("status", out, "--address", address, "--json").stdout)
    assert found["submission"]["status"] == "SUCCEEDED"
    assert found["run"]["state"] == "finished"
    assert found["submission"]["id"].endswith("-2")


def test_the_verdict_is_that_of_the_job_which_has_the_code_and_the_config(address: str) -> None:
    cluster = Cluster(address, TOKEN)
    says = (
        "import modularity; from importlib.metadata import version; print(modularity.__file__, version('modularity'))"
    )
    with runtime_environment({"model": {"name": "x"}}) as environment:
        cluster.submit(
            f'cat job.json; python -c "{says}"; exit 7', submission_id="fails-1", runtime_env=environment, metadata={}
        )
    ended = call("logs", "fails-1", "--address", address, "--follow", code=7)
    assert '"name": "x"' in ended.stdout
    assert re.search(rf"/py_modules_files/_ray_pkg_\w+/modularity/__init__.py {version('modularity')}\n", ended.stdout)
    assert "fails-1: FAILED, started" in ended.stderr
    assert "exit code 7" in call("status", "fails-1", "--address", address).stdout
    with pytest.raises(InputError, match="fails-1 has been submitted already"):
        cluster.submit("true", submission_id="fails-1", runtime_env={}, metadata={})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_who_stops_following_is_told_that_the_job_goes_on(number: int, code: int, monkeypatch: Any) -> None:
    class Followed:
        address = "http://head:8265"

        def follow(self, submission_id: str, write: Any) -> Any:
            signal.raise_signal(number)

    monkeypatch.setattr("modularity.cluster_commands._cluster", lambda address, token: Followed())
    monkeypatch.setattr("modularity.submitting.find_submission", lambda cluster, name: SimpleNamespace(id=name))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        output = call("logs", "job-1", "--follow", code=code, token=None).output
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted following job-1: the job itself goes on; `modularity stop job-1 --address" in output


@pytest.mark.parametrize(
    ("arguments", "token", "message"),
    [
        (("logs", "nothing-1"), "right", "no job 'nothing-1' was submitted to http://127.0.0.1"),
        (("stop", "nothing-1"), None, "give the one it was started with by --token"),
        (("status", "nothing-1"), "wrong", "the token is wrong"),
    ],
)
def test_what_cannot_be_answered_is_told(address: str, arguments: Any, token: str | None, message: str) -> None:
    given = TOKEN if token == "right" else token
    assert message in call(*arguments, "--address", address, code=2, token=given).output


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", "expected that of the cluster's dashboard, such as http://host:8265"),
        ("http://127.0.0.1:1", "no Ray cluster answers at http://127.0.0.1:1 (ConnectionError)"),
    ],
)
def test_wrong_addresses_are_told(address: str, message: str) -> None:
    assert message in call("logs", "x-1", "--address", address, code=2).output
    assert "--address is missing" in call("stop", "x-1", code=2).output
