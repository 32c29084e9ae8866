"""Activations as tidy rows: one line per value, with its example, position, layer, unit and label.

Only the rows, layers and units that are asked for are read. Where a function has several sub-functions and none is
named, a value appears once for every sub-function that its example belongs to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from modularity.errors import InputError
from modularity.store.run import Run
from modularity.types import Site

MAX_ROWS = 5_000_000
"""A query for more rows is refused unless `limit` says how many are wanted."""
BYTES_PER_ROW = 100
"""About the size of one tidy row in memory, for the message of a refused query."""

Example = str | int


@dataclass(frozen=True)
class _Selection:
    rows: np.ndarray
    """Stored row of each line (before units are multiplied out)."""
    subfunctions: np.ndarray
    """Index of the sub-function of each line, -1 for none."""
    layers: tuple[int, ...]
    units: tuple[int, ...]
    unit_shape: tuple[int, ...]

    @property
    def n_lines(self) -> int:
        return len(self.rows) * len(self.layers) * len(self.units)


def query(
    run: Run,
    *,
    function: str,
    site: Site | str = "ffn.neurons",
    layer: int | Sequence[int] | None = None,
    neuron: int | Sequence[int] | None = None,
    label: int | None = None,
    subfunction: str | None = None,
    example: Example | Sequence[Example] | None = None,
    limit: int | None = None,
) -> pa.Table:
    """Stored values of a function as tidy rows.

    Parameters
    ----------
    run : where to read
    function : its name
    site : `ffn.neurons`, or `decoder/ffn.neurons` where the function has two stacks
    layer : layer or layers (depths for `residual`); None = all
    neuron : unit or units, for heads flattened over (head, channel); None = all
    label : 1 or 0: only examples with this label
    subfunction : only examples of this sub-function, and its labels
    example : example id (text) or index (number), or several; None = all
    limit : the first so many rows

    Returns
    -------
    table : columns function, site, example_id, example, row, position, selection, layer, neuron, value (float32),
        subfunction and label (null where the example belongs to none)

    Raises
    ------
    InputError
        A name or number is not in the run (the message lists what is), or the answer has more than 5,000,000 rows and
        no `limit` is given.
    """
    if limit is not None and limit < 1:
        raise InputError(f"{limit=}: expected a positive number of rows")
    wanted_site = _site(run, function, site)
    coordinates = run.coordinates(function)
    rows, subfunctions = _lines(coordinates, function, label, subfunction, _as_list(example))
    array_shape = run.site_shape(function, wanted_site)
    selection = _Selection(
        rows,
        subfunctions,
        _known(_as_list(layer), run.layers(function, wanted_site), f"layer of {wanted_site}"),
        _known(_as_list(neuron), range(int(np.prod(array_shape))), f"neuron of {wanted_site}"),
        array_shape,
    )
    if limit is not None:
        selection = _first_lines(selection, limit)
    elif selection.n_lines > MAX_ROWS:
        size = f"{selection.n_lines:,} rows, about {selection.n_lines * BYTES_PER_ROW / 1e9:.1f} GB"
        raise InputError(
            f"the query would give {size}, more than {MAX_ROWS:,} rows; name a layer, neuron, label or example, "
            f"give limit= (--limit), or read run.activations({function!r})"
        )
    table = _table(run, function, wanted_site, selection, coordinates)
    return table if limit is None else table.slice(0, limit)


def _site(run: Run, function: str, site: Site | str) -> Site:
    stored = run.sites(function)
    if isinstance(site, Site):
        matching = [s for s in stored if s == site]
    else:
        matching = [s for s in stored if site in (str(s), s.name)]
    if len(matching) != 1:
        problem = "is in two stacks" if matching else "is not stored"
        raise InputError(
            f"site {str(site)!r} {problem} for function {function!r}; stored: {', '.join(map(str, stored))}"
        )
    return matching[0]


def _lines(
    coordinates: dict[str, np.ndarray],
    function: str,
    label: int | None,
    subfunction: str | None,
    examples: Sequence[Example] | None,
) -> tuple[np.ndarray, np.ndarray]:
    names = [str(name) for name in coordinates["subfunction"]]
    labels_SR = coordinates["label"]
    if subfunction is not None and subfunction not in names:
        raise InputError(f"{subfunction=} is not one of function {function!r}; known: {', '.join(names)}")
    if label not in (None, 0, 1):
        raise InputError(f"{label=}: expected 1 or 0")
    wanted_R = (
        np.ones(labels_SR.shape[1], dtype=bool) if examples is None else _example_rows(coordinates, function, examples)
    )
    chosen_S = np.array([subfunction in (None, name) for name in names], dtype=bool)
    member_SR = (labels_SR >= 0 if label is None else labels_SR == label) & chosen_S[:, None] & wanted_R
    rows, subfunctions = np.nonzero(member_SR.T)
    if label is None and subfunction is None:
        alone = np.flatnonzero(wanted_R & ~member_SR.any(axis=0))
        order = np.argsort(np.concatenate([rows, alone]), kind="stable")
        rows = np.concatenate([rows, alone])[order]
        subfunctions = np.concatenate([subfunctions, np.full(len(alone), -1)])[order]
    return rows, subfunctions


def _example_rows(coordinates: dict[str, np.ndarray], function: str, examples: Sequence[Example]) -> np.ndarray:
    wanted_R = np.zeros(len(coordinates["example"]), dtype=bool)
    unknown = []
    for example in examples:
        found_R = coordinates["example_id" if isinstance(example, str) else "example"] == example
        if not found_R.any():
            unknown.append(repr(example))
        wanted_R |= found_R
    if unknown:
        first = ", ".join(repr(str(name)) for name in coordinates["example_id"][:3])
        raise InputError(f"example {', '.join(unknown)} is not in function {function!r}; its ids begin with {first}")
    return wanted_R


def _first_lines(selection: _Selection, limit: int) -> _Selection:
    per_row = max(1, len(selection.layers) * len(selection.units))
    kept = -(-limit // per_row)
    layers, units = selection.layers, selection.units
    if kept == 1:
        layers = layers[: -(-limit // len(units))]
        units = units[:limit] if len(layers) == 1 else units
    return _Selection(selection.rows[:kept], selection.subfunctions[:kept], layers, units, selection.unit_shape)


def _table(run: Run, function: str, site: Site, selection: _Selection, coordinates: dict[str, np.ndarray]) -> pa.Table:
    values = _values(run, function, site, selection)
    n_rows, n_layers, n_units = values.shape
    line_row = np.repeat(selection.rows, n_layers * n_units)
    line_subfunction = np.repeat(selection.subfunctions, n_layers * n_units)
    none = line_subfunction < 0
    names = pa.array([str(name) for name in coordinates["subfunction"]], pa.string())
    columns: dict[str, Any] = {
        "function": _constant(function, values.size),
        "site": _constant(str(site), values.size),
        **{name: pa.array(coordinates[name]).take(pa.array(line_row)) for name in _ROW_COLUMNS if name in coordinates},
        "row": pa.array(line_row.astype(np.int64)),
        "layer": pa.array(np.tile(np.repeat(np.asarray(selection.layers, dtype=np.int32), n_units), n_rows)),
        "neuron": pa.array(np.tile(np.asarray(selection.units, dtype=np.int32), n_rows * n_layers)),
        "value": pa.array(values.reshape(-1)),
        "subfunction": names.take(pa.array(np.where(none, 0, line_subfunction), mask=none)),
        "label": pa.array(coordinates["label"][line_subfunction, line_row], mask=none),
    }
    return pa.table(columns)


_ROW_COLUMNS = ("example_id", "example", "position", "token_id", "selection")


def _constant(text: str, n_lines: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_lines, dtype=np.int8)), pa.array([text])).cast(
        pa.string()
    )


def _values(run: Run, function: str, site: Site, selection: _Selection) -> np.ndarray:
    """Values [lines, layers, units], read in as few boxes as the chosen rows and units allow."""
    rows, back = np.unique(selection.rows, return_inverse=True)
    n_inner = int(np.prod(selection.unit_shape[1:]))
    units = np.asarray(selection.units, dtype=np.int64)
    out = np.empty((len(rows), len(selection.layers), len(units)), dtype=np.float32)
    for row_part in _runs(rows):
        for unit_part in _runs(np.unique(units // n_inner)):
            chosen = np.flatnonzero((units // n_inner >= unit_part.start) & (units // n_inner < unit_part.stop))
            for position, layer in enumerate(selection.layers):
                box = run.read_activations(function, site, rows=row_part, layer=layer, units=unit_part)
                flat = box.reshape(box.shape[0], -1)[:, units[chosen] - unit_part.start * n_inner]
                inside = np.flatnonzero((rows >= row_part.start) & (rows < row_part.stop))
                out[inside[:, None], position, chosen] = flat[rows[inside] - row_part.start]
    return out[back]


def _runs(indices: np.ndarray, *, largest_gap: int = 64) -> list[slice]:
    """Slices that cover ascending indices, split where more than `largest_gap` in a row are not wanted."""
    if len(indices) == 0:
        return []
    cuts = (np.flatnonzero(np.diff(indices) > largest_gap) + 1).tolist()
    return [slice(int(part[0]), int(part[-1]) + 1) for part in np.split(indices, cuts)]


def _as_list(value: Any) -> list[Any] | None:
    if value is None:
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [value]


def _known(wanted: list[int] | None, known: Sequence[int], what: str) -> tuple[int, ...]:
    if wanted is None:
        return tuple(known)
    unknown = [value for value in wanted if value not in known]
    if unknown:
        shown = f"{known[0]}..{known[-1]}" if isinstance(known, range) else ", ".join(map(str, known))
        raise InputError(f"{what} {', '.join(map(str, unknown))} is not stored; stored: {shown}")
    return tuple(dict.fromkeys(int(value) for value in wanted))
