"""The record of a checkpoint scan, `scan.json`: its checkpoints, what became of each, and where its tables lie.

scan.json                        this record
checkpoints/<name>/              one run for each checkpoint
summaries/<digest>/              a run with the tables over checkpoints; the record names the present one
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from modularity.config import AnyConfig, Config
from modularity.errors import InputError, StoreError
from modularity.store.manifest import RunState, utc_now
from modularity.store.run import Run, open_run
from modularity.store.space import Space, open_space

SCAN_PATH = "scan.json"
SCAN_VERSION = 1


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
    return f"checkpoints/{name}"


def is_scan(uri: str | os.PathLike[str]) -> bool:
    """Whether a checkpoint scan lies at `uri`."""
    return open_space(uri).exists(SCAN_PATH)


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
    if space.exists(SCAN_PATH):
        return read_scan(uri)
    if not space.is_empty():
        raise InputError(
            f"{space.uri} is not empty and holds no scan (no {SCAN_PATH}); choose an empty place for --out"
        )
    return None


def read_scan(uri: str | os.PathLike[str]) -> ScanRecord:
    """The record of the scan at `uri`; StoreError where it is missing, damaged, or of a newer version."""
    return read_record(uri, SCAN_PATH, ScanRecord, SCAN_VERSION)


def read_record(uri: str | os.PathLike[str], path: str, cls: type[AnyConfig], version: int) -> AnyConfig:
    """A record of several runs; StoreError where it is missing, damaged, or of a newer version.

    Parameters
    ----------
    uri : where it lies
    path : name of its file there
    cls : what it holds, with a `schema_version`
    version : the newest that this package reads
    """
    space = open_space(uri)
    address = space.address(path)
    try:
        values = json.loads(space.read(path))
    except ValueError as error:
        raise StoreError(f"{address} is damaged, it is not JSON ({error}); restore it from a copy") from None
    found = values.get("schema_version") if isinstance(values, Mapping) else None
    if not isinstance(found, int) or found > version:
        raise StoreError(
            f"{address} has format version {found!r}, this package reads up to {version}; install a newer modularity"
        )
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise StoreError(f"{address} is damaged at {place!r}: {detail['msg']}; restore it from a copy") from None


def write_scan(uri: str | os.PathLike[str], record: ScanRecord) -> ScanRecord:
    """Write the record, with the time; only the coordinator of the scan calls it."""
    stamp = utc_now()
    stamped = record.model_copy(update={"created": record.created or stamp, "updated": stamp})
    text = json.dumps(stamped.as_json(), indent=2, ensure_ascii=False) + "\n"
    open_space(uri).write(SCAN_PATH, text.encode())
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
