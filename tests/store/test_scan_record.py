"""The record of a scan: read, written, refused."""

import json
from pathlib import Path

import pytest

from modularity.errors import InputError, StoreError
from modularity.store import (
    ScannedCheckpoint,
    ScanRecord,
    find_scan,
    is_scan,
    open_summary,
    read_scan,
    scan_problems,
    write_scan,
)


def checkpoint(step: int, digest: str, state: str = "finished") -> ScannedCheckpoint:
    return ScannedCheckpoint(name=f"step{step}", step=step, model="m", parameter_hash=digest, state=state)


RECORD = ScanRecord(
    checkpoints=(checkpoint(1, "a"), checkpoint(2, "b"), checkpoint(3, "a"), checkpoint(4, "b", "failed"))
)


def test_written_and_read_again(tmp_path: Path) -> None:
    assert not is_scan(tmp_path / "scan")
    assert find_scan(tmp_path / "scan") is None
    written = write_scan(tmp_path / "scan", RECORD)
    assert read_scan(tmp_path / "scan") == written == find_scan(tmp_path / "scan")
    assert written.created
    again = write_scan(tmp_path / "scan", written.with_checkpoint(checkpoint(4, "c")))
    assert again.created == written.created
    assert [c.name for c in again.finished] == ["step1", "step2", "step3", "step4"]


def test_equal_parameters_are_those_of_finished_checkpoints() -> None:
    assert RECORD.equal_parameters == (("step1", "step3"),)


def test_what_is_no_scan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"is not empty and holds no scan \(no scan\.json\); choose an empty place"):
        find_scan(tmp_path)
    write_scan(tmp_path / "scan", RECORD)
    with pytest.raises(StoreError, match="has no tables yet: they are made when its checkpoints are done"):
        open_summary(tmp_path / "scan")
    path = tmp_path / "scan" / "scan.json"
    values = {key: value for key, value in json.loads(path.read_text()).items() if key != "digest"}
    path.write_text(path.read_text().replace('"step": 3', '"step": 7'))
    with pytest.raises(StoreError, match=r"was changed: it does not match its digest; delete it and run the job again"):
        read_scan(tmp_path / "scan")
    for text, message in (
        ("{", "is damaged, it is not JSON"),
        (json.dumps(values | {"schema_version": 9}), "has format version 9, this package reads up to 1"),
        (json.dumps(values | {"state": "x"}), "is damaged at 'state'"),
    ):
        path.write_text(text)
        with pytest.raises(StoreError, match=message):
            read_scan(tmp_path / "scan")


def test_a_record_that_is_lost_is_made_anew_from_its_copy(tmp_path: Path) -> None:
    written = write_scan(tmp_path, RECORD)
    assert scan_problems(tmp_path) == []
    (tmp_path / "scan.json").write_bytes(b"\0" + (tmp_path / "scan.json").read_bytes()[1:])
    (problem,) = scan_problems(tmp_path)
    assert problem.endswith("delete it and run the job again, which makes it anew from scan.copy.json")
    (tmp_path / "scan.json").unlink()
    assert is_scan(tmp_path)
    with pytest.raises(StoreError, match=r"scan\.json is missing; run the job again, which makes it anew"):
        read_scan(tmp_path)
    found = find_scan(tmp_path)
    assert found == written
    write_scan(tmp_path, found)
    (tmp_path / "scan.copy.json").write_text("{}")
    (problem,) = scan_problems(tmp_path)
    assert problem.startswith(str(tmp_path / "scan.copy.json"))
