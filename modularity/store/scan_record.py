"""The record of a checkpoint scan, `scan.json`: its checkpoints, what became of each, and where its tables lie.

scan.json, scan.copy.json        this record, twice
checkpoints/<name>/              one run for each checkpoint
summaries/<digest>/              a run with the tables over checkpoints; the record names the present one
"""

import os
from typing import Any, Literal

from pydantic import Field

from modularity.config import Config
from modularity.errors import InputError, StoreError
from modularity.store.manifest import RunState, utc_now
from modularity.store.records import read_record, record_bytes
from modularity.store.run import Run, open_run
from modularity.store.space import Space, open_space

SCAN_PATH = "scan.json"
SCAN_COPY_PATH = "scan.copy.json"
"""The same once more: `scan.json` can be made anew from it."""
SCAN_VERSION = 1
CHECKPOINTS = "checkpoints"
SERIES = "series"
"""Folder of the scan that a run brings along."""
_ANEW = f"run the job again, which makes it anew from {SCAN_COPY_PATH}"


class ScannedCheckpoint(Config):
    """One checkpoint of a scan."""

    name: str
    """Name of its run's folder below `checkpoints/`."""
    step: int
    model: str
    revision: str | None = None
    state: Literal["planned", "finished", "failed"] = "planned"
    error: str | None = None
    """Why it failed."""
    parameter_hash: str | None = None
    content_hash: str | None = None
    seconds: float | None = None
    """Wall time of its work, waiting left out."""


class ScanRecord(Config):
    """Content of `scan.json`."""

    schema_version: int = SCAN_VERSION
    job: str = "scan_checkpoints"
    config: dict[str, Any] = Field(default_factory=dict)
    """What all checkpoints have in common; equal for every call that adds checkpoints."""
    threads: int = 1
    """Compute threads of each checkpoint's worker, on which last bits depend."""
    matmul: str = "auto"
    """Route of float32 products on a CPU, chosen once for all checkpoints."""
    partition_of: str | None = None
    """Checkpoint whose partition of the neurons into experts all others use."""
    checkpoints: tuple[ScannedCheckpoint, ...] = ()
    """In the order of their steps."""
    summary: str | None = None
    """Path of the run with the tables over checkpoints."""
    state: RunState = "planned"
    notes: tuple[str, ...] = ()
    created: str = ""
    updated: str = ""

    @property
    def finished(self) -> tuple[ScannedCheckpoint, ...]:
        """Checkpoints whose runs are finished."""
        return tuple(checkpoint for checkpoint in self.checkpoints if checkpoint.state == "finished")

    @property
    def equal_parameters(self) -> tuple[tuple[str, ...], ...]:
        """Names of the checkpoints that have the same parameters, as groups of two and more."""
        groups: dict[str, list[str]] = {}
        for checkpoint in self.finished:
            if checkpoint.parameter_hash is not None:
                groups.setdefault(checkpoint.parameter_hash, []).append(checkpoint.name)
        return tuple(tuple(names) for names in groups.values() if len(names) > 1)

    def with_checkpoint(self, changed: ScannedCheckpoint) -> "ScanRecord":
        """Copy in which the checkpoint of that name is replaced."""
        return self.model_copy(
            update={"checkpoints": tuple(changed if c.name == changed.name else c for c in self.checkpoints)}
        )


def checkpoint_path(name: str) -> str:
    """Where in a scan the run of a checkpoint lies."""
    return f"{CHECKPOINTS}/{name}"


def is_scan(uri: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint scan lies at `uri`."""
    space = open_space(uri)
    return space.exists(SCAN_PATH) or space.exists(SCAN_COPY_PATH)


def find_scan(uri: str | os.PathLike[str]) -> ScanRecord | None:
    """The record of the scan at `uri`, None where the place is empty or missing, so that one may begin there.

    Raises
    ------
    InputError
        Other things lie there.
    StoreError
        The record is damaged or of a newer version.
    """
    space = open_space(uri)
    for path in (SCAN_PATH, SCAN_COPY_PATH):
        if space.exists(path):
            return _read(space, path)
    if not space.is_empty():
        raise InputError(
            f"{space.uri} is not empty and holds no scan (no {SCAN_PATH}); choose an empty place for --out"
        )
    return None


def read_scan(uri: str | os.PathLike[str]) -> ScanRecord:
    """The record of the scan at `uri`; StoreError where it is missing, damaged, or of a newer version."""
    space = open_space(uri)
    if not space.exists(SCAN_PATH) and space.exists(SCAN_COPY_PATH):
        raise StoreError(f"{space.address(SCAN_PATH)} is missing; {_ANEW}")
    return _read(space, SCAN_PATH)


def scan_problems(uri: str | os.PathLike[str]) -> list[str]:
    """What is wrong with the record of the scan at `uri` and with its copy."""
    space, found = open_space(uri), []
    for path in (SCAN_PATH, SCAN_COPY_PATH):
        try:
            _read(space, path)
        except StoreError as error:
            found.append(str(error))
    return found


def _read(space: Space, path: str) -> ScanRecord:
    remedy = f"delete it and {_ANEW}" if path == SCAN_PATH else "run the job again, which writes it anew"
    return read_record(space, path, ScanRecord, SCAN_VERSION, remedy=remedy)


def write_scan(uri: str | os.PathLike[str], record: ScanRecord) -> ScanRecord:
    """Write the record and its copy, with the time; only the coordinator of the scan calls it."""
    stamp = utc_now()
    stamped = record.model_copy(update={"created": record.created or stamp, "updated": stamp})
    for path in (SCAN_PATH, SCAN_COPY_PATH):
        open_space(uri).write(path, record_bytes(stamped.as_json()))
    return stamped


def open_summary(uri: str | os.PathLike[str]) -> Run:
    """The run with the tables over checkpoints; StoreError where the scan has none yet."""
    record, space = read_scan(uri), open_space(uri)
    if record.summary is None:
        raise StoreError(
            f"the scan at {space.uri}, {record.state}, has no tables yet: they are made when its checkpoints are done, "
            "from two that are finished and the analysis `predictivity`"
        )
    return open_run(space.join(record.summary).uri)


def checkpoint_run(space: Space, name: str) -> Run:
    """The run of a checkpoint of the scan in `space`."""
    return open_run(space.join(checkpoint_path(name)).uri)
