"""Activations of one function: for every stack a group, with one array per site and the coordinates of the rows.

`activations/<function>/<stack>/<site>` has the dimensions (row, layer, units); a row is an example (pooled) or a token.
Everything is allocated before capture starts; one work item writes whole shards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import xarray as xr

from modularity.errors import DataError, InputError
from modularity.store.arrays import StoredArray
from modularity.store.documents import METADATA, ArraySpec
from modularity.store.encoding import decode_values, encode_values, stored_dtype
from modularity.store.groups import Coordinates, GroupSpec, StoredGroup, create_group, open_group
from modularity.store.layout import check_name, row_chunk, stored_dims, unit_chunk
from modularity.store.lazy import lazy_variable
from modularity.store.ledger import ArrayWrite, Ledger
from modularity.store.space import Space
from modularity.types import Site, SiteShape, StorageDtype

ACTIVATIONS = "activations"


@dataclass(frozen=True)
class RowCoordinates:
    """What the stored rows of a function are, R rows and S sub-functions."""

    example_id_R: Sequence[str]
    """Id of the example of each row."""
    example_R: np.ndarray
    """Index of that example in the function, int64."""
    position_R: np.ndarray
    """Token position in the example, -1 for a row reduced over positions; int32."""
    subfunctions: tuple[str, ...]
    labels_SR: np.ndarray
    """1, 0, or -1 where the example does not belong to the sub-function; int8."""
    selection_R: np.ndarray
    """True for the selection half, False for the evaluation half; bool."""
    text_fingerprint_R: Sequence[str]
    """Digest of the example's text."""
    n_tokens_R: np.ndarray
    """Tokens of the example after truncation, int32."""
    token_id_R: np.ndarray | None = None
    """Token of the row, int32; only where rows are tokens."""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Further coordinates with one value (number or string) per row, by name."""

    def as_coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """Name -> (dimensions, values), as they are stored."""
        coordinates = {
            "example_id": (("row",), np.asarray(self.example_id_R, dtype=str)),
            "example": (("row",), np.asarray(self.example_R, dtype=np.int64)),
            "position": (("row",), np.asarray(self.position_R, dtype=np.int32)),
            "subfunction": (("subfunction",), np.asarray(self.subfunctions, dtype=str)),
            "label": (("subfunction", "row"), np.asarray(self.labels_SR, dtype=np.int8)),
            "selection": (("row",), np.asarray(self.selection_R, dtype=bool)),
            "text_fingerprint": (("row",), np.asarray(self.text_fingerprint_R, dtype=str)),
            "n_tokens": (("row",), np.asarray(self.n_tokens_R, dtype=np.int32)),
        }
        if self.token_id_R is not None:
            coordinates["token_id"] = (("row",), np.asarray(self.token_id_R, dtype=np.int32))
        for name, values in self.extra.items():
            if name in coordinates:
                raise InputError(
                    f"extra coordinate {name!r} is one of the fixed ones ({', '.join(coordinates)}); rename it"
                )
            coordinates[check_name(name, "coordinate")] = (("row",), np.asarray(values))
        return coordinates


class Activations:
    """The activation arrays of a run: creating, writing whole items, reading boxes."""

    def __init__(self, space: Space, ledger: Ledger) -> None:
        self.space, self.ledger = space, ledger
        self._arrays: dict[tuple[str, Site], StoredArray] = {}

    def create(
        self,
        function: str,
        shapes: Mapping[Site, SiteShape],
        rows: RowCoordinates,
        *,
        storage_dtype: StorageDtype,
        rows_per_item: int,
    ) -> None:
        """Allocate every site of a function and write its coordinates; a repetition with equal values does nothing."""
        check_name(function, "function")
        row_coordinates = rows.as_coordinates()
        n_rows = len(row_coordinates["example_id"][1])
        for stack in dict.fromkeys(site.stack for site in shapes):
            arrays: dict[str, ArraySpec] = {}
            layers: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
            for site, shape in shapes.items():
                if site.stack == stack:
                    arrays[site.name] = _array_spec(shape, n_rows, storage_dtype, rows_per_item)
                    layers.update(_layer_coordinates(shape, layers))
            spec = GroupSpec(
                arrays=arrays,
                coordinates={**row_coordinates, **layers},
                attributes={"modularity:function": function, "modularity:rows_per_item": rows_per_item},
            )
            create_group(self.space, f"{ACTIVATIONS}/{function}/{stack}", spec)

    def write(
        self, function: str, site: Site, row_start: int, block: np.ndarray, *, n_threads: int | None = None
    ) -> ArrayWrite:
        """Write the rows of one item, [rows, layers, *units], float or of the stored dtype; see `StoredArray.write`."""
        array = self.array(function, site)
        if block.ndim != len(array.shape) or block.shape[1:] != array.shape[1:]:
            expected = ", ".join(map(str, array.shape[1:]))
            raise DataError(f"block of {site} for {function!r} has shape {block.shape}, expected (rows, {expected})")
        stored = encode_values(block, array.attributes["modularity:dtype"])
        return array.write(stored, (row_start, *(0,) * (block.ndim - 1)), n_threads=n_threads)

    def read(
        self,
        function: str,
        site: Site,
        *,
        rows: slice = slice(None),
        layer: int | None = None,
        units: slice = slice(None),
        n_threads: int | None = None,
    ) -> np.ndarray:
        """Values as float32: [rows, *units] of one layer, else [rows, layers, *units]; see `Run.read_activations`."""
        array = self.array(function, site)
        box = [_bounds(rows, array.shape[0]), (0, array.shape[1]), _bounds(units, array.shape[2])]
        box += [(0, size) for size in array.shape[3:]]
        if layer is not None:
            position = self.layer_position(function, site, layer)
            box[1] = (position, position + 1)
        values = decode_values(array.read(box, n_threads=n_threads), array.attributes["modularity:dtype"])
        return values if layer is None else values[:, 0]

    def dataset(self, function: str) -> xr.Dataset:
        """All sites of a function with their coordinates; values are read when they are indexed."""
        stacks = self.stacks(function)
        parts = [self._stack_dataset(function, stack) for stack in stacks]
        if len(stacks) > 1:
            parts = [_with_stack(part, stack) for part, stack in zip(parts, stacks)]
        variables = {name: part.variables[name] for part in parts for name in part.data_vars}
        coordinates = {name: part.variables[name] for part in parts for name in part.coords}
        return xr.Dataset(variables, coordinates, attrs={"function": function})

    def _stack_dataset(self, function: str, stack: str) -> xr.Dataset:
        group = self._group(function, stack)
        variables = {}
        for name in group.arrays:
            array = group.array(self.ledger, name)
            variables[name] = lazy_variable(array, storage_dtype=array.attributes["modularity:dtype"])
        return xr.Dataset(variables, group.coordinates())

    def coordinates(self, function: str) -> dict[str, np.ndarray]:
        """The verified coordinates of the rows of a function, by name."""
        group = self._group(function, self.stacks(function)[0])
        return {name: variable.values for name, variable in group.coordinates().items()}

    def example_table(self, function: str) -> pa.Table:
        """One line per example: id, index, half, fingerprint, tokens, its rows, and a label for every sub-function."""
        values = self.coordinates(function)
        _, first, counts = np.unique(values["example"], return_index=True, return_counts=True)
        names = ("example_id", "example", "selection", "text_fingerprint", "n_tokens")
        columns: dict[str, Any] = {name: values[name][first] for name in names}
        columns |= {"first_row": first.astype(np.int64), "n_rows": counts.astype(np.int64)}
        for name, labels_R in zip(values["subfunction"], values["label"]):
            columns[f"label:{name}"] = labels_R[first]
        return pa.table({name: pa.array(column) for name, column in columns.items()})

    def functions(self) -> tuple[str, ...]:
        """Names of the functions whose activations are allocated."""
        paths = self.space.list_folders(ACTIVATIONS)
        return tuple(path.rpartition("/")[2] for path in paths)

    def stacks(self, function: str) -> tuple[str, ...]:
        """Stacks of a function, `encoder` before `decoder`; StoreError names the functions that exist."""
        found = [s for s in ("encoder", "decoder") if self.space.exists(f"{ACTIVATIONS}/{function}/{s}/{METADATA}")]
        if not found:
            known = ", ".join(self.functions()) or "none"
            raise InputError(f"function {function!r} has no activations in {self.space.uri}; known: {known}")
        return tuple(found)

    def sites(self, function: str, stack: str) -> tuple[Site, ...]:
        """Sites stored for one stack."""
        return tuple(Site(stack, name) for name in self._group(function, stack).arrays)  # type: ignore[arg-type]

    def array(self, function: str, site: Site) -> StoredArray:
        """The stored array of one site, opened once."""
        key = (function, site)
        if key not in self._arrays:
            if site.stack not in self.stacks(function) or site not in self.sites(function, site.stack):
                known = [str(s) for stack in self.stacks(function) for s in self.sites(function, stack)]
                raise InputError(f"site {site} is not stored for function {function!r}; stored: {', '.join(known)}")
            self._arrays[key] = self._group(function, site.stack).array(self.ledger, site.name)
        return self._arrays[key]

    def layers(self, function: str, site: Site) -> tuple[int, ...]:
        """Layer (depth for the residual stream) coordinates of a stored site."""
        layers = self._group(function, site.stack).coordinate(self.array(function, site).dims[1])
        return tuple(int(value) for value in layers.values)

    def layer_position(self, function: str, site: Site, layer: int) -> int:
        """Position of a layer on the layer axis; InputError names the layers that are stored."""
        layers = self.layers(function, site)
        if layer not in layers:
            raise InputError(f"{layer=} of {site} is not stored for function {function!r}; stored: {list(layers)}")
        return layers.index(layer)

    def _group(self, function: str, stack: str) -> StoredGroup:
        problem = f"function {function!r} has no activations of the {stack} in {self.space.uri}"
        return open_group(self.space, f"{ACTIVATIONS}/{function}/{stack}", problem)


def _array_spec(shape: SiteShape, n_rows: int, storage_dtype: StorageDtype, rows_per_item: int) -> ArraySpec:
    chunk_rows, shard_rows = row_chunk(rows_per_item, n_rows)
    units = unit_chunk(shape.unit_shape)
    whole_units = tuple(-(-size // step) * step for size, step in zip(shape.unit_shape, units))
    return ArraySpec(
        dims=stored_dims(shape),
        shape=(n_rows, len(shape.layers), *shape.unit_shape),
        dtype=stored_dtype(storage_dtype).name,
        chunk=(chunk_rows, 1, *units),
        shard=(shard_rows, 1, *whole_units),
        attributes={"modularity:dtype": storage_dtype, "modularity:site": str(shape.site)},
    )


def _layer_coordinates(shape: SiteShape, known: Coordinates) -> Coordinates:
    dim = stored_dims(shape)[1]
    layers = np.asarray(shape.layers, dtype=np.int32)
    if dim in known and not np.array_equal(known[dim][1], layers):
        raise InputError(
            f"{shape.site} has the layers {list(shape.layers)}, other sites {known[dim][1].tolist()}; store the same"
        )
    return {dim: ((dim,), layers), f"{shape.site.name}.width": ((dim,), np.asarray(shape.widths, dtype=np.int32))}


def _bounds(part: slice, size: int) -> tuple[int, int]:
    start, stop, step = part.indices(size)
    if step != 1:
        raise InputError(f"slice {part} has step {step}; only contiguous parts are read")
    return start, max(start, stop)


def _with_stack(dataset: xr.Dataset, stack: str) -> xr.Dataset:
    # The stacks of one model may differ in layers and width; their rows are the same.
    own = [name for name in (*dataset.dims, *dataset.variables) if "row" != name != "subfunction"]
    shared = [name for name, variable in dataset.coords.items() if "row" in variable.dims]
    renamed = {
        name: f"{stack}/{name}" for name in own if name not in shared and name in (*dataset.dims, *dataset.variables)
    }
    return dataset.rename(renamed)
