"""Capture of a range of rows shard by shard, each example computed once although its rows may lie in two shards.

Rows of tokens do not end where shards end. The last example of a shard is captured whole; the rows that belong to the
next shard are kept and stand there first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from modularity.capture.buffers import BufferPool, ItemBuffer
from modularity.capture.capturer import Capturer, CaptureStats
from modularity.data import TokenTable
from modularity.data.batches import row_ranges, token_batches
from modularity.types import Site


@dataclass(frozen=True)
class CapturedShard:
    """The rows of one shard, in a buffer that goes back to the pool when they are stored."""

    start: int
    """Global row of the first."""
    buffer: ItemBuffer
    """`arrays` hold exactly the rows of the shard."""
    stats: CaptureStats | None
    """Of what was computed for it; None when all its rows were kept from the shard before."""


def overhang(table: TokenTable) -> int:
    """Rows that a shard's buffer must have beyond the shard: those of the longest example but one."""
    return 0 if table.n_rows == 0 else int(np.bincount(table.row_example_R).max()) - 1


def capture_shards(
    capturer: Capturer,
    table: TokenTable,
    pool: BufferPool,
    *,
    first: int,
    last: int,
    rows_per_shard: int,
    tokens_per_batch: int,
    pad_id: int,
) -> Iterator[CapturedShard]:
    """Capture rows [first, last) of a table.

    An example with rows on both sides of `first` or `last` is computed here for its rows inside, and elsewhere for the
    others.

    Parameters
    ----------
    capturer : of the wanted sites
    table : tokens and rows
    pool : buffers of at least `rows_per_shard + overhang(table)` rows; the caller releases each
    first, last : range of global rows
    rows_per_shard : rows of each shard but the last
    tokens_per_batch, pad_id : as in `token_batches`

    Yields
    ------
    shard : in the order of the rows

    Raises
    ------
    SiteError, NumericError, DataError, InputError
        As `Capturer.capture`.
    """
    done = first
    kept: dict[Site, np.ndarray] = {}
    for offset, end in row_ranges(last - first, rows_per_shard):
        start, stop = first + offset, first + end
        reach = max(done, min(last, _end_of_example(table, stop - 1)))
        buffer = pool.acquire(reach - start)
        for site, rows in kept.items():
            buffer.arrays[site][: len(rows)] = rows
        stats = None
        if reach > done:
            batches = token_batches(table, done, reach, tokens_per_batch=tokens_per_batch, pad_id=pad_id)
            out = {site: values[done - start :] for site, values in buffer.arrays.items()}
            stats = capturer.capture(batches, out, done, reduction=table.reduction)
        done = reach
        kept = {site: values[stop - start :].copy() for site, values in buffer.arrays.items() if reach > stop}
        own = {site: values[: stop - start] for site, values in buffer.arrays.items()}
        yield CapturedShard(start, replace(buffer, arrays=own), stats)


def _end_of_example(table: TokenTable, row: int) -> int:
    """First row after the example that owns a row."""
    return int(np.searchsorted(table.row_example_R, table.row_example_R[row], side="right"))
