"""A run: everything that one job wrote under one URI, with its manifest, commit records, arrays and tables."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr

from modularity.errors import StoreError
from modularity.store.activations import Activations, RowCoordinates
from modularity.store.groups import group_digests
from modularity.store.ledger import ArrayWrite, CommitRecord, Ledger, TableWrite
from modularity.store.manifest import (
    CREATED_PATH,
    MANIFEST_PATH,
    Manifest,
    RunState,
    check_same_run,
    parse_manifest,
    utc_now,
)
from modularity.store.results import ResultArray, Results
from modularity.store.space import MissingObjectError, Space, open_space
from modularity.store.tables import Tables
from modularity.types import Site, SiteShape, StorageDtype, WorkItem


class Run:
    """One run, opened; make it with `create_run` or `open_run`. Safe to send to other processes."""

    def __init__(self, space: Space, manifest: Manifest) -> None:
        self.space = space
        self.manifest = manifest
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"space": self.space, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __repr__(self) -> str:
        return f"Run({self.uri!r}, job={self.manifest.job!r}, state={self.manifest.state!r})"

    def _open(self) -> None:
        self.ledger = Ledger(self.space)
        self._activations = Activations(self.space, self.ledger)
        self._results = Results(self.space, self.ledger)
        self._tables = Tables(self.space, self.ledger, self.manifest.config_digest)

    @property
    def uri(self) -> str:
        """Where the run lies."""
        return self.space.uri

    def update(
        self,
        *,
        state: RunState | None = None,
        items_planned: Mapping[str, int] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Rewrite the changing part of the manifest; only the coordinator calls it. Notes are merged by key."""
        changes: dict[str, Any] = {"updated": utc_now()}
        if state is not None:
            changes["state"] = state
        if items_planned is not None:
            changes["items_planned"] = dict(items_planned)
        if notes is not None:
            changes["notes"] = {**self.manifest.notes, **notes}
        self.manifest = self.manifest.replace(**changes)
        self.space.write(MANIFEST_PATH, self.manifest.to_bytes())
        return self.manifest

    def reload(self) -> Manifest:
        """Read the manifest again, as another process may have written it."""
        self.manifest = _read_manifest(self.space)
        return self.manifest

    def commits(self) -> dict[str, CommitRecord]:
        """Commit records of all finished items, by item id."""
        return self.ledger.records()

    def committed_ids(self) -> frozenset[str]:
        """Ids of all finished items, from one listing: what a resumed job skips."""
        return self.ledger.ids()

    def is_done(self, item: WorkItem) -> bool:
        """Whether this item is committed."""
        return self.ledger.is_done(item)

    def commit(
        self,
        item: WorkItem,
        *,
        arrays: Iterable[ArrayWrite] = (),
        tables: Iterable[TableWrite] = (),
        info: Mapping[str, Any] | None = None,
    ) -> CommitRecord:
        """Record an item as done, after its data; if another worker was first, its record is returned.

        Raises
        ------
        StoreError
            The item was committed before with other content.
        """
        return self.ledger.commit(CommitRecord(item, tuple(arrays), tuple(tables), dict(info or {})))

    def discard(self, item_id: str) -> None:
        """Remove the commit record of an item (after damage), so that the next run of the job redoes it."""
        self.ledger.discard(item_id)

    def content_hash(self) -> str:
        """SHA-256 over data, coordinates and tables as recorded; independent of times, order, and interruptions."""
        return self.ledger.content_sha256(group_digests(self.space))

    def create_activations(
        self,
        function: str,
        shapes: Mapping[Site, SiteShape],
        rows: RowCoordinates,
        *,
        storage_dtype: StorageDtype,
        rows_per_item: int,
    ) -> None:
        """Allocate the activations of a function; see `Activations.create`."""
        self._activations.create(function, shapes, rows, storage_dtype=storage_dtype, rows_per_item=rows_per_item)

    def write_activations(
        self, function: str, site: Site, row_start: int, block: np.ndarray, *, n_threads: int | None = None
    ) -> ArrayWrite:
        """Write the rows of one item [rows, layers, *units]; the result goes to `commit`."""
        return self._activations.write(function, site, row_start, block, n_threads=n_threads)

    def read_activations(
        self,
        function: str,
        site: Site,
        *,
        rows: slice = slice(None),
        layer: int | None = None,
        units: slice = slice(None),
        n_threads: int | None = None,
    ) -> np.ndarray:
        """Stored values as float32: [rows, *units] of a layer, or [rows, layers, *units] without one.

        `units` slices the first unit dimension: neurons, heads, or channels.
        """
        return self._activations.read(function, site, rows=rows, layer=layer, units=units, n_threads=n_threads)

    def activations(self, function: str) -> xr.Dataset:
        """Lazily read dataset of all sites of a function with labels, halves, ids and positions as coordinates."""
        return self._activations.dataset(function)

    def coordinates(self, function: str) -> dict[str, np.ndarray]:
        """Coordinates of the stored rows of a function, by name, read and verified."""
        return self._activations.coordinates(function)

    def example_table(self, function: str) -> pa.Table:
        """One line per example of a function."""
        return self._activations.example_table(function)

    def functions(self) -> tuple[str, ...]:
        """Names of the functions with activations."""
        return self._activations.functions()

    def sites(self, function: str) -> tuple[Site, ...]:
        """Sites stored for a function."""
        stacks = self._activations.stacks(function)
        return tuple(site for stack in stacks for site in self._activations.sites(function, stack))

    def layers(self, function: str, site: Site) -> tuple[int, ...]:
        """Layer coordinates (depths for the residual stream) of a stored site."""
        return self._activations.layers(function, site)

    def site_shape(self, function: str, site: Site) -> tuple[int, ...]:
        """Stored shape of one layer of a site: (F,), (H, K) or (D,)."""
        return self._activations.array(function, site).shape[2:]

    def create_result(
        self,
        name: str,
        *,
        sizes: Mapping[str, int],
        arrays: Mapping[str, ResultArray],
        coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray]] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Allocate a dense result (a function's, or a run-level one such as `partition`); see `Results.create`."""
        self._results.create(name, sizes=sizes, arrays=arrays, coordinates=coordinates, attributes=attributes)

    def write_result(
        self, name: str, values: Mapping[str, np.ndarray], *, at: Mapping[str, int] | None = None
    ) -> tuple[ArrayWrite, ...]:
        """Write whole blocks of a result that start at `at` along the split dimensions; the result goes to `commit`."""
        return self._results.write(name, values, at=at)

    def results(self, name: str, *, partial: bool = False) -> xr.Dataset:
        """Dense results; StoreError while blocks are missing, unless `partial` (they are NaN then)."""
        return self._results.dataset(name, partial=partial)

    def result_names(self) -> tuple[str, ...]:
        """Names of the dense results that are allocated."""
        return self._results.names()

    def write_table(self, name: str, item: WorkItem, table: pa.Table) -> TableWrite:
        """Write an item's rows of a table; the result goes to `commit`."""
        return self._tables.write(name, item, table)

    def table(self, name: str) -> pa.Table:
        """All committed rows of a table."""
        return self._tables.read(name)

    def tables(self) -> tuple[str, ...]:
        """Names of the tables."""
        return self._tables.names()


def create_run(uri: str | os.PathLike[str], manifest: Manifest) -> Run:
    """Start a run, or open the one that is there if it has the same job, identity and config (to resume it).

    Raises
    ------
    IdentityError
        A run of another identity or config lies there; the message lists what differs, with both values.
    StoreError
        The place holds other files, or the run there is damaged or of a newer format.
    """
    space = open_space(uri)
    found = find_run(uri)
    space.create(MANIFEST_PATH, (manifest if found is None else found.manifest).to_bytes())
    recorded = _read_manifest(space)
    check_same_run(recorded, manifest, space.uri)
    space.create(CREATED_PATH, recorded.to_bytes())
    return Run(space, recorded)


def find_run(uri: str | os.PathLike[str]) -> Run | None:
    """The run at `uri`, or None where the place is empty or missing, so that one may begin there.

    Raises
    ------
    StoreError
        The place holds other files, or the run there is damaged or of a newer format.
    """
    space = open_space(uri)
    if space.exists(MANIFEST_PATH):
        return Run(space, _read_manifest(space))
    if space.exists(CREATED_PATH):
        return Run(space, _read_created(space))
    if not space.is_empty():
        raise StoreError(
            f"{space.uri} is not empty and holds no run (no {MANIFEST_PATH}); choose an empty place for --out"
        )
    return None


def open_run(uri: str | os.PathLike[str]) -> Run:
    """Open a run to read it, or to write items of it.

    Raises
    ------
    StoreError
        Nothing is there, or it is no run, is damaged, or is of a newer format version.
    """
    space = open_space(uri)
    return Run(space, _read_manifest(space))


def manifest_problems(space: Space) -> dict[str, str]:
    """What is wrong with the manifest of a run, as it is and as it was created, by path."""
    found = {}
    for path, read in ((MANIFEST_PATH, _read_manifest), (CREATED_PATH, _read_created)):
        try:
            read(space)
        except MissingObjectError:
            continue  # of a run that began before there was the second one
        except StoreError as error:
            found[path] = str(error)
    return found


def content_hash(run: Run) -> str:
    """`run.content_hash()`."""
    return run.content_hash()


def _read_created(space: Space) -> Manifest:
    remedy = f"restore it from a copy, or, where {MANIFEST_PATH} is intact, delete it and run the job again"
    return parse_manifest(space.read(CREATED_PATH), space.address(CREATED_PATH), remedy=remedy)


def _read_manifest(space: Space) -> Manifest:
    try:
        data = space.read(MANIFEST_PATH)
    except MissingObjectError:
        if space.is_empty():
            raise StoreError(
                f"there is no run at {space.uri}: the place is missing or empty; check the address"
            ) from None
        if space.exists(CREATED_PATH):
            raise StoreError(
                f"{space.address(MANIFEST_PATH)} is missing; run the job again, which makes it anew from {CREATED_PATH}"
            ) from None
        raise StoreError(
            f"{space.uri} is no run: it has no {MANIFEST_PATH}; name the folder that a job wrote with --out"
        ) from None
    return parse_manifest(data, space.address(MANIFEST_PATH))
