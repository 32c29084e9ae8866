"""How arrays are cut: inner chunks small in rows and in units, one shard per work item and layer.

64 rows that start anywhere touch at most two inner chunks of up to 112 rows, and 64 units likewise, so either pattern
reads at most 3.5 times what it returns, before compression. Larger chunks cost less per chunk (zstd starts a context
for each: at 64 x 64 float32 that took half of the time, at 96 x 96 a fifth), so the target is 96.
"""

import math
import re
from collections.abc import Mapping

from modularity.errors import InputError
from modularity.types import SiteName, SiteShape

TARGET_CHUNK = 96
MAX_CHUNK = 112
MIN_CHUNK = 48

_LAYER_DIMS: Mapping[SiteName, str] = {
    "residual": "depth",
    "router.probabilities": "sparse_layer",
    "router.choices": "sparse_layer",
    "shared_expert.neurons": "sparse_layer",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]*")


def row_chunk(rows_per_item: int, n_rows: int) -> tuple[int, int]:
    """Rows of an inner chunk and of a shard, for items of `rows_per_item` rows out of `n_rows`.

    Raises
    ------
    InputError
        There are several items and `rows_per_item` has no divisor between 48 and 112; the message names the nearest
        multiples of 96.
    """
    if n_rows < 1 or rows_per_item < 1:
        raise InputError(f"{n_rows=} and {rows_per_item=}: expected at least one row, and at least one row per item")
    if n_rows <= rows_per_item:
        chunk = min(TARGET_CHUNK, n_rows)
        return chunk, chunk * math.ceil(n_rows / chunk)
    if rows_per_item <= MAX_CHUNK:
        return rows_per_item, rows_per_item
    divisors = [n for n in range(MIN_CHUNK, MAX_CHUNK + 1) if rows_per_item % n == 0]
    if not divisors:
        below = rows_per_item // TARGET_CHUNK * TARGET_CHUNK
        raise InputError(
            f"{rows_per_item=} has no divisor between {MIN_CHUNK} and {MAX_CHUNK}, so it cannot be cut into chunks; "
            f"choose a multiple of {TARGET_CHUNK}, e.g. {below} or {below + TARGET_CHUNK}"
        )
    return min(divisors, key=lambda n: (abs(n - TARGET_CHUNK), -n)), rows_per_item


def rows_per_item(n_rows: int, bytes_per_row: int, *, target_bytes: int) -> int:
    """Rows of one work item: as many as fit `target_bytes`, a multiple of 96, or all rows if they fit."""
    fitting = max(TARGET_CHUNK, target_bytes // max(1, bytes_per_row) // TARGET_CHUNK * TARGET_CHUNK)
    return n_rows if n_rows <= fitting else int(fitting)


def unit_chunk(unit_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Inner chunk over the unit dimensions: about 96 units, whole last dimensions first (some heads, all channels)."""
    chunk: list[int] = []
    room = TARGET_CHUNK
    for size in reversed(unit_shape):
        step = size if size <= min(room, MAX_CHUNK) else max(1, room)
        chunk.insert(0, step)
        room = max(1, room // step)
    return tuple(chunk)


def stored_dims(shape: SiteShape) -> tuple[str, ...]:
    """Dimension names of a site's array.

    `depth` instead of `layer` for the residual stream, `sparse_layer` for a router and a shared expert, which only
    layers with experts have, and `head_channel` for the channels of a head, because all sites of a stack lie in one
    group, where a dimension has one size.
    """
    layer = _LAYER_DIMS.get(shape.site.name, "layer")
    units = shape.unit_dims
    if len(units) > 1:
        units = tuple("head_channel" if name == "channel" else name for name in units)
    return ("row", layer, *units)


def check_name(name: str, what: str) -> str:
    """A name that becomes part of a path; InputError if it has more than letters, digits and `._+ -`."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r} cannot be part of a path: use letters, digits, '.', '_', '+', '-' or spaces, "
            "and start with a letter or digit"
        )
    return name
