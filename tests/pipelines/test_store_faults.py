"""Jobs on a store that fails: same content as an undisturbed run, or a clear end after which a rerun does the rest."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_jobs

sys.path.insert(0, str(Path(__file__).parent.parent / "store"))

import faulty_calls
import faulty_s3

from modularity.errors import ModularityError, UnavailableError, WorkError
from modularity.pipelines import EmergentModularityConfig, run_status, verify_run
from modularity.report import write_report
from modularity.store import Run, open_run, query, sql
from modularity.store import space as space_module

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")


def test_every_third_answer_of_the_store_fails(
    s3_server: faulty_s3.S3Server, paper_config: EmergentModularityConfig, paper_run: Run
) -> None:
    """Refused, reset, answered late, answered by half, done without an answer: nobody notices, from job to report."""
    uri = f"s3://{s3_server.bucket}/runs/first"
    s3_server.faults.choose = faulty_s3.every_third
    run = tiny_jobs.run(paper_config, uri)
    assert run.content_hash() == paper_run.content_hash()
    assert verify_run(uri, n_rows=2).problems == ()
    assert run_status(uri).state == "finished"
    assert len(write_report(uri)) == 1
    layer_values = query(open_run(uri), function="topics", layer=1, neuron=3)
    assert layer_values.equals(query(paper_run, function="topics", layer=1, neuron=3))
    assert sql(open_run(uri), "select count(*) as n from best_neurons").to_pylist()[0]["n"] > 0
    assert s3_server.faults.n_faults >= s3_server.faults.n_requests // 3


def test_a_store_that_no_longer_answers_ends_the_job_and_the_next_one_goes_on(
    s3_server: faulty_s3.S3Server, paper_config: EmergentModularityConfig, paper_run: Run
) -> None:
    uri = f"s3://{s3_server.bucket}/stops"
    seen: list[str] = []

    def fail_after_some_records(number: int, method: str, path: str) -> str | None:
        seen.append(path)
        return "unavailable" if sum("/commits/" in each for each in seen) > 12 else None

    s3_server.faults.choose = fail_after_some_records
    with pytest.raises(UnavailableError) as caught:
        tiny_jobs.run(paper_config, uri)
    message = str(caught.value)
    assert f"{uri}/" in message
    assert "503" in message
    assert "run the job again when the store answers: what is recorded stays" in message
    s3_server.faults.choose = lambda number, method, path: None
    kept = open_run(uri).committed_ids()
    assert kept
    run = tiny_jobs.run(paper_config, uri)
    assert run.content_hash() == paper_run.content_hash()
    assert kept < run.committed_ids()


def after_some_records(error: OSError) -> Callable[[str, str, int], BaseException | None]:
    """Every write fails after the ninth commit record."""
    seen: list[str] = []

    def choose(name: str, path: str, number: int) -> BaseException | None:
        if name == "put" and path.startswith("commits/"):
            seen.append(path)
        return error if name == "put" and len(seen) > 9 else None

    return choose


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            OSError(28, "No space left on device"),
            UnavailableError,
            "No space left on device; make room there and run the job again: what is recorded stays",
        ),
        (PermissionError(13, "Permission denied"), WorkError, "Permission denied; check the path and its permissions"),
    ],
    ids=["full", "forbidden"],
)
def test_a_disk_that_fails_halfway_ends_the_job_and_the_next_one_goes_on(
    error: OSError,
    kind: type[ModularityError],
    told: str,
    paper_config: EmergentModularityConfig,
    paper_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(space_module, "obstore", faulty_calls.FaultyCalls(after_some_records(error)))
        with pytest.raises(kind, match=r"work items failed.*, the others are recorded") as caught:
            tiny_jobs.run(paper_config, tmp_path / "run")
    assert type(caught.value) is kind
    assert told in str(caught.value)
    kept = open_run(tmp_path / "run").commits()
    assert len(kept) == 9
    run = tiny_jobs.run(paper_config, tmp_path / "run")
    assert run.content_hash() == paper_run.content_hash()
    assert {item_id: record.info for item_id, record in run.commits().items() if item_id in kept} == {
        item_id: record.info for item_id, record in kept.items()
    }, "items that were recorded are done again"
