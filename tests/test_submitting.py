"""What is sent to a cluster, under which id, and what is refused before anything is sent; the cluster is a fake."""

import json
from pathlib import Path
from typing import Any

import pytest

from modularity.errors import AllowanceError, InputError
from modularity.launching import validated
from modularity.runtime.submission import Submission
from modularity.submitting import (
    Shipping,
    find_submission,
    job_digest,
    pinned_requirements,
    runtime_environment,
    submit_job,
)

VALUES = {"model": {"name": "facebook/opt-125m"}, "functions": [{"name": "words", "source": "s3://data/words.jsonl"}]}
OUT = "s3://bucket/run"


class FakeCluster:
    """Keeps what is submitted; every job stays PENDING until the test says otherwise."""

    address = "http://head:8265"

    def __init__(self, *, here: bool = False) -> None:
        self.here = here
        self.jobs: list[Submission] = []
        self.sent: dict[str, Any] = {}

    def is_this_machine(self) -> bool:
        return self.here

    def submissions(self) -> list[Submission]:
        return list(reversed(self.jobs))

    def submission(self, submission_id: str) -> Submission:
        raise InputError(f"no job {submission_id!r}")

    def submit(self, entrypoint: str, *, submission_id: str, runtime_env: Any, metadata: Any) -> None:
        folder = Path(runtime_env["working_dir"])
        modules = [Path(path) for path in runtime_env.get("py_modules", ())]
        sent = [path for module in (folder, *modules) for path in module.rglob("*") if path.is_file()]
        self.sent = {
            "entrypoint": entrypoint,
            "environment": runtime_env["env_vars"],
            "config": json.loads((folder / "job.json").read_text()),
            "files": {str(path.relative_to(folder.parent)) for path in sent},
        }
        self.jobs.append(Submission(submission_id, "PENDING", "", metadata, None, None))

    def end(self, status: str) -> None:
        last = self.jobs.pop()
        self.jobs.append(Submission(last.id, status, "", last.metadata, 0, None))


def submit(cluster: FakeCluster, values: dict[str, Any] = VALUES, out: str | None = OUT, **options: Any) -> str:
    return submit_job(values, cluster, out=out, **options)  # type: ignore[arg-type]


def test_the_id_comes_from_config_and_place_and_counts_attempts() -> None:
    cluster = FakeCluster()
    first = submit(cluster)
    digest = job_digest(validated(VALUES), OUT)
    assert first == f"emergent-modularity-{digest}-1"
    with pytest.raises(InputError, match=f"this job is PENDING as {first}: follow it by `modularity logs {first}"):
        submit(cluster, {**VALUES, "runtime": {"workers": 3}})  # another machine is no other job
    with pytest.raises(InputError, match="another job with the same --out is PENDING"):
        submit(cluster, {**VALUES, "variant": "paper"})
    elsewhere = submit(cluster, out="s3://bucket/other")
    assert elsewhere.endswith("-1")
    assert digest not in elsewhere
    cluster.end("SUCCEEDED")
    assert find_submission(cluster, OUT).id == first  # type: ignore[arg-type]
    cluster.jobs.reverse()
    cluster.end("STOPPED")
    assert submit(cluster) == f"emergent-modularity-{digest}-2"
    assert find_submission(cluster, OUT).id.endswith("-2")  # type: ignore[arg-type]


def test_the_package_and_the_config_are_sent_and_time_to_stop_is_granted() -> None:
    cluster = FakeCluster()
    submit(cluster, out="s3://bucket/a run", shipping=Shipping(environment=(("AWS_REGION", "eu"),)))
    assert cluster.sent["entrypoint"] == "exec python -m modularity run job.json --out 's3://bucket/a run'"
    assert cluster.sent["environment"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60", "AWS_REGION": "eu"}
    assert cluster.sent["config"] == VALUES
    files = cluster.sent["files"]
    assert {"job/job.json", "code/modularity/cli.py", "code/modularity/py.typed"} <= files
    assert any(name.startswith("code/modularity-") and name.endswith(".dist-info/METADATA") for name in files)
    assert not [name for name in files if "__pycache__" in name or "/tests/" in name]
    cluster.end("FAILED")
    submit(cluster, VALUES | {"runtime": {"grace_s": 90}}, out="s3://bucket/a run", shipping=Shipping(code=False))
    assert cluster.sent["environment"] == {"RAY_JOB_STOP_WAIT_TIME_S": "120"}
    assert cluster.sent["files"] == {"job/job.json"}


@pytest.mark.parametrize("seconds", ["3", "90", "long"])
def test_less_time_to_stop_than_running_items_have_is_refused(seconds: str) -> None:
    shipping = Shipping(environment=(("RAY_JOB_STOP_WAIT_TIME_S", seconds),))
    with pytest.raises(InputError, match=rf"--env RAY_JOB_STOP_WAIT_TIME_S={seconds}: .*more than runtime.grace_s=90"):
        submit(FakeCluster(), VALUES | {"runtime": {"grace_s": 90}}, shipping=shipping)


def test_versions_are_pinned_only_if_asked_for() -> None:
    with runtime_environment(VALUES, Shipping(code=False)) as environment:
        assert "pip" not in environment
    with runtime_environment(VALUES, Shipping(code=False, pip=True)) as environment:
        pinned = environment["pip"]
    assert pinned == pinned_requirements()
    names = [name.partition("==")[0] for name in pinned]
    assert {"torch", "transformers", "numpy"} <= set(names)
    assert not {"ray", "pytest"} & set(names)
    assert all(version and "+" not in version for _, _, version in (name.partition("==") for name in pinned))


def test_places_on_this_machine_are_refused_unless_the_cluster_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.jsonl").write_text("")
    (tmp_path / "m").mkdir()
    values = {"model": {"name": "m"}, "functions": [{"name": "words", "source": "words.jsonl"}]}
    with pytest.raises(InputError) as refused:
        submit(FakeCluster(), values, out="runs/first")
    told = refused.value.problems
    assert len(told) == 3
    assert told[0].startswith(
        f"--out '{tmp_path}/runs/first' is on this machine, which the cluster at http://head:8265"
    )
    assert "model.name='m' is on this machine" in told[1]
    assert "functions.0.source='words.jsonl' is on this machine" in told[2]
    assert all("name an object store, or a folder that every machine has, and add --shared" in each for each in told)
    for cluster, options in ((FakeCluster(here=True), {}), (FakeCluster(), {"shared": True})):
        submit(cluster, values, out="runs/first", **options)
        assert cluster.sent["entrypoint"].endswith(f"--out {tmp_path}/runs/first")
        assert cluster.sent["config"]["model"]["name"] == f"{tmp_path}/m"
        assert cluster.sent["config"]["functions"][0]["source"] == f"{tmp_path}/words.jsonl"


def test_nothing_is_sent_where_config_or_plan_are_refused() -> None:
    cluster = FakeCluster()

    def refuse() -> None:
        raise AllowanceError("too large")

    with pytest.raises(AllowanceError):
        submit(cluster, before=refuse)
    with pytest.raises(InputError, match="--out is missing"):
        submit(cluster, out=None)
    with pytest.raises(InputError, match=r"functions=\[\]: expected at least one function"):
        submit(cluster, {"model": {"name": "x"}})
    assert cluster.jobs == []
