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
    values = json.loads(path.read_text())
    for text, message in (
        ("{", "is damaged, it is not JSON"),
        (json.dumps(values | {"schema_version": 9}), "has format version 9, this package reads up to 1"),
        (json.dumps(values | {"state": "x"}), "is damaged at 'state'"),
    ):
        path.write_text(text)
        with pytest.raises(StoreError, match=message):
            read_scan(tmp_path / "scan")
