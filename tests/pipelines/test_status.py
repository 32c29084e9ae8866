"""Status: items, bytes and failures of a run as its store tells them."""

import json
import os
import shutil
from pathlib import Path

import pytest

from modularity.errors import StoreError
from modularity.pipelines import run_status, status_of, verify_runs
from modularity.store import (
    Manifest,
    Run,
    ScannedCheckpoint,
    ScanRecord,
    StudyRecord,
    create_run,
    open_run,
    write_scan,
    write_study,
)
from modularity.types import WorkItem


def test_a_finished_run(finished: Run) -> None:
    status = run_status(finished.uri)
    assert (status.state, status.job, status.failure) == ("finished", "emergent_modularity", None)
    assert all(done == planned for done, planned in status.items.values())
    assert status.n_tokens == sum(finished.table("examples")["n_tokens"].to_pylist())
    paths = [stored.path for record in finished.commits().values() for stored in record.objects]
    assert status.n_bytes == sum((Path(finished.uri) / path).stat().st_size for path in paths)
    assert set(status.functions) == {"words", "topics"}
    text = status.text()
    assert "items     23/23: capture 3/3" in text
    assert "state     finished\n" in text
    assert "damage" not in text
    assert status.pace is not None
    assert status.pace.seconds_left == 0
    assert "items a minute over the last 2" in text
    assert " left" not in text
    assert json.loads(json.dumps(status.as_json()))["items"]["overlap"] == [1, 1]


def test_missing_and_shortened_objects_are_told(finished: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.uri, run)
    table = next((run / "tables" / "best_neurons").iterdir())
    table.unlink()
    shard = next(path for path in (run / "activations" / "words").rglob("c/*/*/*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    status = run_status(str(run))
    assert len(status.damage) == 2
    assert f"{shard} of item capture-" in status.damage[0]
    assert status.damage[1].startswith(f"{table} of item summary-")
    assert status.damage[1].endswith(" is missing")
    assert f"and 1 more; `modularity verify {run}` lists all and what to do" in status.text()


def test_an_unfinished_run_tells_its_pace_and_time_left(finished: Run, tmp_path: Path) -> None:
    """From the times at which its records were written: one in a second, but two seconds for overlap and summary."""
    run = tmp_path / "run"
    shutil.copytree(finished.uri, run)
    records = sorted(finished.commits().values(), key=lambda record: record.item.kind in ("overlap", "summary"))
    planned = [record for record in records if record.item.kind in finished.manifest.items_planned]
    now = 1_000_000.0
    for record in planned:
        now += 2 if record.item.kind in ("overlap", "summary") else 1
        os.utime(run / "commits" / f"{record.item.id}.json", (now, now))
    last = planned[-1]
    (run / "commits" / f"{last.item.id}.json").unlink()
    open_run(str(run)).update(state="running")
    status = run_status(str(run))
    assert status.pace is not None
    assert status.pace.seconds_left == 2
    assert ", about 2 s left at this pace; the last was recorded " in status.text()


def test_tokens_are_not_told_where_no_item_records_any(finished: Run, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", Manifest.of("moefication", items_planned={"route": 2}))
    run.commit(WorkItem.of("route", layer=0), info={"seconds": 1.0})
    status = run_status(run.uri)
    assert (status.n_tokens, status.pace, status.items) == (None, None, {"route": (1, 2)})
    assert "captured" not in status.text()


def test_a_study_in_parts_is_told_as_a_whole(finished: Run, tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_study(study, StudyRecord(job="opt_modularity", parts=("first", "second")))
    assert status_of(str(study)).state == "planned"
    shutil.copytree(finished.uri, study / "first")
    status = status_of(str(study))
    assert status.state == "running"
    lines = status.text().splitlines()
    assert "state     running: 1 of 2 parts are finished" in lines
    assert lines[-2:] == ["  first   finished, 23/23 items", "  second  not begun"]
    shutil.copytree(finished.uri, study / "second")
    open_run(str(study / "second")).update(state="interrupted")
    text = status_of(str(study)).text()
    assert "state     interrupted: 1 of 2 parts are finished; the command that started the run goes on" in text
    assert json.loads(json.dumps(status_of(str(study)).as_json()))["parts"]["second"]["state"] == "interrupted"
    first, *_ = verify_runs(str(study), n_rows=0)
    assert first.problems == ()
    (study / "study.json").write_text((study / "study.json").read_text().replace('"second"', '"sedond"'))
    first, *parts = verify_runs(str(study), n_rows=0)
    assert first.problems[0].endswith("does not match its digest; run the job again, which writes it anew")
    assert [part.uri for part in parts] == [f"{study}/first", f"{study}/second"]
    (study / "study.json").write_text('{"schema_version": 1, "job": "x", "parts": []}')
    with pytest.raises(StoreError, match=r"study\.json is damaged at 'parts'"):
        status_of(str(study))


def test_a_scan_tells_the_work_that_is_left(tmp_path: Path) -> None:
    done = [ScannedCheckpoint(name=f"s{n}", step=n, model="m", state="finished", seconds=60.0 * n) for n in (1, 3)]
    left = [ScannedCheckpoint(name=f"s{n}", step=n, model="m") for n in (4, 5, 6)]
    write_scan(tmp_path, ScanRecord(checkpoints=(*done, *left), state="running"))
    status = status_of(str(tmp_path))
    assert "about 6 min 0 s of work for 3 checkpoints" in status.text()
    write_scan(tmp_path, ScanRecord(checkpoints=tuple(left)))
    assert "of work" not in status_of(str(tmp_path)).text()


def test_a_place_without_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at"):
        run_status(str(tmp_path / "nothing"))
