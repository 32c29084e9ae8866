"""Commit records: which work items of a run are done, and exactly which bytes they wrote.

A record `commits/<item id>.json` is created, exclusively, after all data of the item is in place. Its content part
(item, objects, hashes) holds no time and no machine, so that a run that was killed and resumed has the same content
hash as one that was not; counts and seconds go to `info`, which has a hash of its own.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from modularity.errors import StoreError
from modularity.store.space import Space
from modularity.types import Scalar, WorkItem, canonical_json

COMMITS = "commits"
_REDO = "delete it and run the job again, which redoes this item"


@dataclass(frozen=True)
class StoredObject:
    """One object (Zarr shard, chunk or Parquet file) that an item wrote."""

    path: str
    """Relative to the run."""
    sha256: str
    """Of the stored bytes."""
    n_bytes: int


@dataclass(frozen=True)
class ArrayWrite:
    """A region of one array that an item wrote, as whole shards or chunks."""

    array: str
    """Path of the array, relative to the run."""
    start: tuple[int, ...]
    stop: tuple[int, ...]
    objects: tuple[StoredObject, ...]


@dataclass(frozen=True)
class TableWrite:
    """The rows of one table that an item wrote."""

    table: str
    n_rows: int
    object: StoredObject


@dataclass(frozen=True)
class CommitRecord:
    """What one finished work item wrote."""

    item: WorkItem
    arrays: tuple[ArrayWrite, ...] = ()
    tables: tuple[TableWrite, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    """Counts, seconds, worker: free, not covered by the content hash."""

    @property
    def objects(self) -> tuple[StoredObject, ...]:
        """Every object that the item wrote, arrays first."""
        arrays = tuple(stored for write in self.arrays for stored in write.objects)
        return arrays + tuple(write.object for write in self.tables)

    @property
    def content(self) -> dict[str, Any]:
        """The part that the content hash covers, as plain JSON values."""
        values = asdict(self)
        return {"item": {"kind": self.item.kind, "params": dict(self.item.params)}} | json.loads(
            canonical_json({"arrays": values["arrays"], "tables": values["tables"]})
        )

    @property
    def content_sha256(self) -> str:
        """SHA-256 of the canonical JSON of `content`."""
        return hashlib.sha256(canonical_json(self.content).encode()).hexdigest()

    def to_bytes(self) -> bytes:
        """Content of the record's file."""
        info = json.loads(json.dumps(dict(self.info)))
        values = {
            "content": self.content,
            "content_sha256": self.content_sha256,
            "info": info,
            "info_sha256": _info_sha256(info),
        }
        return (json.dumps(values, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse_commit(data: bytes, address: str) -> CommitRecord:
    """Read a commit record; StoreError when it is damaged or its hash does not match its content."""
    try:
        values = json.loads(data)
        content = values["content"]
        params: dict[str, Scalar] = content["item"]["params"]
        record = CommitRecord(
            item=WorkItem(content["item"]["kind"], tuple(sorted(params.items()))),
            arrays=tuple(_array_write(write) for write in content["arrays"]),
            tables=tuple(TableWrite(w["table"], w["n_rows"], StoredObject(**w["object"])) for w in content["tables"]),
            info=values["info"],
        )
        intact = record.content_sha256 == values["content_sha256"]
        if values.keys() != {"content", "content_sha256", "info"}:  # the first versions did not hash the free part
            intact &= values["info_sha256"] == _info_sha256(values["info"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{address} is damaged ({type(error).__name__}: {error}); {_REDO}") from None
    if not intact:
        raise StoreError(f"{address} is damaged: it does not match its hashes; {_REDO}")
    return record


def _info_sha256(info: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(info, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _array_write(values: Mapping[str, Any]) -> ArrayWrite:
    objects = tuple(StoredObject(**stored) for stored in values["objects"])
    return ArrayWrite(values["array"], tuple(values["start"]), tuple(values["stop"]), objects)


class Ledger:
    """The commit records of one run, with those that were read kept in memory: a record never changes."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._known: dict[str, CommitRecord] = {}

    def ids(self) -> frozenset[str]:
        """Ids of the committed items, from one listing."""
        names = (path.rpartition("/")[2] for path in self.space.list(COMMITS))
        return frozenset(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def times(self) -> dict[str, float]:
        """When each item was recorded, seconds since 1970 as the store tells it, from one listing."""
        names = {path.rpartition("/")[2]: stamp for path, stamp in self.space.times(COMMITS).items()}
        return {name.removesuffix(".json"): stamp for name, stamp in names.items() if name.endswith(".json")}

    def records(self) -> dict[str, CommitRecord]:
        """All commit records by item id, in the order of kind and parameters."""
        ids = self.ids()
        new = sorted(ids - self._known.keys())
        if len(new) > 1:
            with ThreadPoolExecutor(16) as pool:
                self._known.update(zip(new, pool.map(self._read, new)))
        elif new:
            self._known[new[0]] = self._read(new[0])
        found = sorted((self._known[item_id] for item_id in ids), key=lambda record: item_order(record.item))
        return {record.item.id: record for record in found}

    def record(self, item_id: str) -> CommitRecord:
        """One commit record, read from the store; StoreError if the item is not committed or its record is damaged."""
        if not self.space.exists(_path(item_id)):
            raise StoreError(f"item {item_id} is not committed in {self.space.uri}; {len(self.ids())} items are")
        return self._read(item_id)

    def is_done(self, item: WorkItem) -> bool:
        """Whether this item is committed (one request; for many items compare with `ids()`)."""
        return self.space.exists(_path(item.id))

    def commit(self, record: CommitRecord) -> CommitRecord:
        """Record an item after its data; the first of several wins and the others get its record back.

        Raises
        ------
        StoreError
            The item was committed before with other content: it is not deterministic.
        """
        item_id = record.item.id
        if self.space.create(_path(item_id), record.to_bytes()):
            self._known[item_id] = record
            return record
        first = self._read(item_id)
        if first.content != record.content:
            raise StoreError(
                f"item {record.item} was committed before with other content in {self.space.address(_path(item_id))}: "
                f"{_first_difference(first, record)}; the work item must give the same bytes every time"
            )
        return first

    def discard(self, item_id: str) -> None:
        """Forget an item, so that the next run of the job redoes it; its data stays until it is overwritten."""
        if not self.space.exists(_path(item_id)):
            raise StoreError(f"item {item_id} is not committed in {self.space.uri}; {len(self.ids())} items are")
        self.space.delete(_path(item_id))
        self._known.pop(item_id, None)

    def content_sha256(self, group_digests: Iterable[tuple[str, str]]) -> str:
        """One hash over the content of all records and the given (group path, spec digest) pairs."""
        parts = sorted((item_id, record.content_sha256) for item_id, record in self.records().items())
        return hashlib.sha256(canonical_json({"items": parts, "groups": sorted(group_digests)}).encode()).hexdigest()

    def explain(self, path: str, problem: str) -> StoreError:
        """Error about an object that cannot be read, naming the item that wrote it if one is recorded."""
        for item_id, record in self.records().items():
            if any(stored.path == path for stored in record.objects):
                return StoreError(
                    f"{self.space.address(path)}: {problem}, although item {item_id} ({record.item}) is committed; "
                    f"restore the object from a copy, or delete {_path(item_id)} and run the job again"
                )
        return StoreError(
            f"{self.space.address(path)}: {problem}, and no committed item wrote it: "
            "this part of the run is not computed yet; run the job again to finish it"
        )

    def _read(self, item_id: str) -> CommitRecord:
        address = self.space.address(_path(item_id))
        record = parse_commit(self.space.read(_path(item_id)), address)
        if record.item.id != item_id:
            raise StoreError(f"{address} is the record of another item, {record.item}; {_REDO}")
        return record


def item_order(item: WorkItem) -> tuple[str, tuple[tuple[str, bool, float, str], ...]]:
    """Sort key of work items: by kind, then by parameters, numbers as numbers."""

    def key(name: str, value: Scalar) -> tuple[str, bool, float, str]:
        return (name, True, 0.0, value) if isinstance(value, str) else (name, False, float(value), "")

    return item.kind, tuple(key(name, value) for name, value in item.params)


def _path(item_id: str) -> str:
    return f"{COMMITS}/{item_id}.json"


def _first_difference(first: CommitRecord, second: CommitRecord) -> str:
    old = {stored.path: stored.sha256 for stored in first.objects}
    new = {stored.path: stored.sha256 for stored in second.objects}
    path = next(iter(sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))), "")
    if not path:
        return "the regions or row counts differ"
    return f"{path} has hash {old.get(path, 'none')[:12]}, now {new.get(path, 'none')[:12]}"
