"""Dense results: one group per function (and run-level ones such as `partition`), written block by block.

A block of the split dimensions is one Zarr chunk, so that workers never touch the same object. A result is complete
when every chunk of every array stands in a commit record.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from modularity.errors import DataError, InputError, StoreError
from modularity.store.arrays import StoredArray
from modularity.store.documents import ArraySpec
from modularity.store.groups import GroupSpec, StoredGroup, create_group, open_group
from modularity.store.layout import check_name
from modularity.store.lazy import lazy_variable
from modularity.store.ledger import ArrayWrite, Ledger
from modularity.store.space import Space

RESULTS = "results"


@dataclass(frozen=True)
class ResultArray:
    """One array of a result."""

    dims: tuple[str, ...]
    dtype: str = "float64"
    """float64, float32, a signed or unsigned integer, or bool."""
    block: Mapping[str, int] = field(default_factory=dict)
    """Length of one block for each dimension that is split over work items; the others are whole in every block."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the values are: `units`, `long_name`, the chance level, ..."""


class Results:
    """The dense results of a run."""

    def __init__(self, space: Space, ledger: Ledger) -> None:
        self.space, self.ledger = space, ledger
        self._arrays: dict[str, dict[str, StoredArray]] = {}

    def create(
        self,
        name: str,
        *,
        sizes: Mapping[str, int],
        arrays: Mapping[str, ResultArray],
        coordinates: Mapping[str, tuple[tuple[str, ...], np.ndarray]] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Allocate the arrays of one result; repeating it with the same values does nothing."""
        check_name(name, "result")
        missing = sorted({dim for array in arrays.values() for dim in array.dims} - sizes.keys())
        if missing:
            raise InputError(
                f"result {name!r} has no size for {', '.join(map(repr, missing))}; sizes are given for {dict(sizes)}"
            )
        specs = {
            check_name(key, "array"): ArraySpec(
                dims=array.dims,
                shape=tuple(sizes[dim] for dim in array.dims),
                dtype=np.dtype(array.dtype).name,
                chunk=tuple(max(1, min(array.block.get(dim, sizes[dim]), sizes[dim])) for dim in array.dims),
                attributes=array.attributes,
            )
            for key, array in arrays.items()
        }
        values = {key: (tuple(dims), np.asarray(data)) for key, (dims, data) in (coordinates or {}).items()}
        create_group(
            self.space, f"{RESULTS}/{name}", GroupSpec(specs, values, {"modularity:result": name, **(attributes or {})})
        )

    def write(
        self, name: str, values: Mapping[str, np.ndarray], *, at: Mapping[str, int] | None = None
    ) -> tuple[ArrayWrite, ...]:
        """Write whole blocks of some arrays; `at` gives where they start along the split dimensions (0 by default)."""
        arrays = self.arrays(name)
        start = dict(at or {})
        unknown = sorted(values.keys() - arrays.keys()) + sorted(
            start.keys() - {d for a in arrays.values() for d in a.dims}
        )
        if unknown:
            raise DataError(f"result {name!r} has no array or dimension {unknown}; arrays: {', '.join(arrays)}")
        writes = []
        for key, block in values.items():
            array = arrays[key]
            stored = np.asarray(block)
            if stored.dtype != array.dtype and not np.can_cast(stored.dtype, array.dtype, "same_kind"):
                raise DataError(f"{key!r} of result {name!r} holds {array.dtype}, got {stored.dtype}; convert it first")
            writes.append(
                array.write(stored.astype(array.dtype, copy=False), tuple(start.get(dim, 0) for dim in array.dims))
            )
        return tuple(writes)

    def dataset(self, name: str, *, partial: bool = False) -> xr.Dataset:
        """The arrays of a result with their coordinates, read when indexed.

        Raises
        ------
        StoreError
            Blocks are not committed yet and `partial` is False; with `partial` they hold NaN (-1, False).
        """
        group = self._group(name)
        arrays = self.arrays(name)
        if not partial:
            self._check_complete(name, arrays)
        variables = {key: lazy_variable(array, missing_as_fill=partial) for key, array in arrays.items()}
        for key, array in arrays.items():
            variables[key].attrs.update(array.attributes)
        attributes = {
            key: value
            for key, value in group.attributes.items()
            if not key.startswith("modularity:") and key != "coordinates"
        }
        return xr.Dataset(variables, group.coordinates(), attrs=attributes)

    def arrays(self, name: str) -> dict[str, StoredArray]:
        """The stored arrays of a result, opened once."""
        if name not in self._arrays:
            group = self._group(name)
            self._arrays[name] = {key: group.array(self.ledger, key) for key in group.arrays}
        return self._arrays[name]

    def names(self) -> tuple[str, ...]:
        """Names of the results that are allocated."""
        return tuple(path.rpartition("/")[2] for path in self.space.list_folders(RESULTS))

    def _group(self, name: str) -> StoredGroup:
        known = ", ".join(self.names()) or "none"
        problem = f"result {name!r} does not exist in {self.space.uri}; known: {known}"
        return open_group(self.space, f"{RESULTS}/{name}", problem)

    def _check_complete(self, name: str, arrays: Mapping[str, StoredArray]) -> None:
        done: dict[str, set[str]] = {array.path: set() for array in arrays.values()}
        for record in self.ledger.records().values():
            for write in record.arrays:
                if write.array in done:
                    done[write.array].update(stored.path for stored in write.objects)
        lacking = [
            f"{key} has {len(done[array.path])} of {array.n_objects} blocks"
            for key, array in arrays.items()
            if len(done[array.path]) < array.n_objects
        ]
        if lacking:
            raise StoreError(
                f"result {name!r} of {self.space.uri} is not complete: {'; '.join(lacking)}; "
                "run the job again to finish it, or read it with partial=True"
            )
