"""Interrupted jobs: whatever stops them, the resumed run holds the same bytes as an undisturbed one."""

import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_jobs

from modularity.errors import WorkError
from modularity.pipelines import EmergentModularityConfig, run_job, run_status, verify_run
from modularity.pipelines import analysis_worker as analysis_worker_module
from modularity.store import Run, open_run


class FaultAt:
    """Stands for `rank_block` and raises at one call, or at that one and all that follow."""

    def __init__(self, call: int, error: BaseException, *, lasting: bool = False) -> None:
        self._call, self._error, self._lasting = call, error, lasting
        self._original: Callable[..., Mapping[str, Any]] = analysis_worker_module.rank_block
        self.n_calls = 0

    def __call__(self, *arguments: Any, **options: Any) -> Mapping[str, Any]:
        self.n_calls += 1
        if self.n_calls == self._call or (self._lasting and self.n_calls > self._call):
            raise self._error
        return self._original(*arguments, **options)


@pytest.mark.parametrize("kind", ["capture", "functions", "predictivity", "overlap"])
def test_a_finished_run_redoes_the_items_whose_records_were_deleted(
    kind: str, paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(paper_run.uri, tmp_path / "run")
    run = open_run(tmp_path / "run")
    item_id, record = next((each, record) for each, record in run.commits().items() if record.item.kind == kind)
    (tmp_path / "run" / record.objects[0].path).write_bytes(b"damaged")
    (problem,) = verify_run(run.uri, n_rows=0).problems
    assert f"delete commits/{item_id}.json and run the job again" in problem
    (tmp_path / "run" / "commits" / f"{item_id}.json").unlink()
    (problem,) = verify_run(run.uri, n_rows=0).problems
    assert f"is finished, but 1 of its {kind} items has no record" in problem
    outcome = run_job(paper_config, run.uri, quiet=True)
    assert not outcome.was_finished
    assert verify_run(run.uri, n_rows=0).problems == ()
    assert outcome.run.content_hash() == paper_run.content_hash()
    assert run_job(paper_config, run.uri, quiet=True).was_finished


def test_an_interrupted_job_goes_on_where_it_was(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FaultAt(4, KeyboardInterrupt("stop"))
    monkeypatch.setattr(analysis_worker_module, "rank_block", fault)
    with pytest.raises(KeyboardInterrupt):
        tiny_jobs.run(paper_config, tmp_path / "run")
    status = run_status(str(tmp_path / "run"))
    assert (status.state, status.failure) == ("interrupted", None)
    assert "state     interrupted: finished work items stay recorded; the command that started" in status.text()
    assert status.items["predictivity"] == (3, 6)
    run = tiny_jobs.run(paper_config, tmp_path / "run")
    assert fault.n_calls == 4 + 3
    assert run.content_hash() == paper_run.content_hash()
    assert run_status(run.uri).failure is None


def test_an_accident_is_tried_again_and_leaves_no_trace(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = FaultAt(2, ConnectionError("lost the store"))
    monkeypatch.setattr(analysis_worker_module, "rank_block", fault)
    run = tiny_jobs.run(paper_config, tmp_path / "run")
    assert fault.n_calls == 6 + 1
    assert run.content_hash() == paper_run.content_hash()


def test_failing_items_are_named_and_the_run_can_be_finished_later(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        fault = FaultAt(5, ConnectionError("lost the store"), lasting=True)
        patched.setattr(analysis_worker_module, "rank_block", fault)
        with pytest.raises(WorkError, match=r"2 of 6 work items failed") as caught:
            tiny_jobs.run(paper_config, tmp_path / "run")
    assert "predictivity(function=topics, layer=1, site=encoder/ffn.neurons, start=64, stop=128) failed" in str(
        caught.value
    )
    assert "lost the store" in str(caught.value)
    status = run_status(str(tmp_path / "run"))
    assert status.state == "failed"
    assert status.failure is not None
    assert status.failure.startswith("WorkError: 2 of 6 work items failed")
    assert tiny_jobs.run(paper_config, tmp_path / "run").content_hash() == paper_run.content_hash()


def test_a_driver_killed_again_and_again_loses_nothing(
    config: EmergentModularityConfig, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL of the whole process at random moments; at least three times while items are being recorded."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["modularity.pipelines.emergent", "transformers.models.bert.modeling_bert"])
    out, draw = tmp_path / "run", random.Random(4)
    kills = []
    for n_more in (1, 3, 7, 5):
        process = processes.Process(target=run_job, args=(config, str(out)), kwargs={"quiet": True})
        wanted = n_commits(out) + n_more
        process.start()
        while process.is_alive() and n_commits(out) < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.join()
        kills.append((process.exitcode, n_commits(out)))
    assert [code for code, _ in kills].count(-9) >= 3, kills
    assert open_run(out).manifest.state == "running"
    assert tiny_jobs.run(config, out).content_hash() == finished.content_hash()


def n_commits(out: Path) -> int:
    try:
        return sum(name.endswith(".json") for name in os.listdir(out / "commits"))
    except FileNotFoundError:
        return 0
