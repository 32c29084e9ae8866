"""Cut a token table into work items and batches.

Work items are ranges of rows. Within one, examples are sorted by length, the longest first, so that a batch that does
not fit fails at once and buffers are reused. Where there are enough examples of one length, batches of that length
alone need no padding; the rest is merged with neighbouring lengths so that padding plus a fixed price for every batch
is least (dynamic programming over the distinct lengths). The same range gives the same batches everywhere.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from modularity.data.token_batch import Gather, TokenBatch, TokenTable
from modularity.errors import DataError

BATCH_PRICE = 1 / 128
"""What one more batch is worth in padding, as a share of the token budget: the budget is what fills the device."""


def row_ranges(n_rows: int, rows_per_item: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of `rows_per_item` rows that cover `n_rows`, the last one shorter.

    Raises
    ------
    DataError
        `rows_per_item` is less than one, or `n_rows` negative.
    """
    if rows_per_item < 1 or n_rows < 0:
        raise DataError(
            f"{rows_per_item=} and {n_rows=}: expected at least one row per item and no negative number of rows"
        )
    return [(start, min(start + rows_per_item, n_rows)) for start in range(0, n_rows, rows_per_item)]


def token_batches(
    table: TokenTable, start: int, stop: int, *, tokens_per_batch: int, pad_id: int
) -> Iterator[TokenBatch]:
    """All batches that rows [start, stop) need; each row is delivered exactly once.

    An example whose rows lie in two ranges is run in both, and delivers only the rows of the range.

    Parameters
    ----------
    table : tokens and rows of a function
    start, stop : range of global rows
    tokens_per_batch : limit on examples times longest length; a longer single example is a batch of its own
    pad_id : token id at padding

    Raises
    ------
    DataError
        The range is not within the table, or the budget is less than one token.
    """
    if not 0 <= start < stop <= table.n_rows or tokens_per_batch < 1:
        raise DataError(
            f"rows [{start}, {stop}) of {table.n_rows} with {tokens_per_batch=}: expected a range that is not empty, "
            "within the table, and a budget of at least one token"
        )
    example_E = np.unique(table.row_example_R[start:stop])
    lengths_E = table.lengths_E[example_E]
    order = np.argsort(-lengths_E, kind="stable")
    example_E, lengths_E = example_E[order], lengths_E[order]
    for members in cut_batches(lengths_E, tokens_per_batch):
        yield _batch(table, example_E[members], start, stop, pad_id)


def example_batch(table: TokenTable, examples_B: npt.NDArray[np.int64], *, pad_id: int) -> TokenBatch:
    """One batch of the given examples, in the given order, with all their rows: for training, where order is drawn.

    Parameters
    ----------
    table : tokens and rows of a function
    examples_B : indices of examples, each at most once
    pad_id : token id at padding

    Raises
    ------
    DataError
        No example, one that does not exist, or one twice.
    """
    examples_B = np.asarray(examples_B, dtype=np.int64)
    wrong = sorted(set(examples_B.tolist()) - set(range(table.n_examples)))
    if not len(examples_B) or wrong or len(np.unique(examples_B)) < len(examples_B):
        raise DataError(
            f"examples {examples_B.tolist()[:10]} of {table.n_examples}: expected one or more, each once"
            + (f"; {wrong[0]} does not exist" if wrong else "")
        )
    return _batch(table, examples_B, 0, table.n_rows, pad_id)


def cut_batches(lengths_E: npt.NDArray[np.int64], tokens_per_batch: int) -> list[npt.NDArray[np.int64]]:
    """Indices of each batch, for lengths in descending order.

    Parameters
    ----------
    lengths_E : tokens of each example, descending
    tokens_per_batch : limit on the padded size of a batch

    Returns
    -------
    batches : every index exactly once, ascending within a batch; longest batches first
    """
    values_G, first_G, counts_G = np.unique(-lengths_E, return_index=True, return_counts=True)
    batches: list[npt.NDArray[np.int64]] = []
    rest_G = np.zeros(len(values_G), np.int64)
    for group, (length, first, count) in enumerate(zip(-values_G, first_G, counts_G)):
        size = max(1, tokens_per_batch // int(length))
        rest_G[group] = count % size
        full = first + np.arange(count - rest_G[group])
        batches += list(full.reshape(-1, size))
    left = [first_G[g] + counts_G[g] - rest_G[g] + np.arange(rest_G[g]) for g in np.flatnonzero(rest_G)]
    for one, other in _merge(-values_G[rest_G > 0], rest_G[rest_G > 0], tokens_per_batch):
        batches.append(np.concatenate(left[one:other]))
    return sorted(batches, key=lambda batch: (-int(lengths_E[batch[0]]), int(batch[0])))


def _merge(
    lengths_G: npt.NDArray[np.int64], counts_G: npt.NDArray[np.int64], tokens_per_batch: int
) -> list[tuple[int, int]]:
    """Cut groups of descending length into runs under the budget, with the least padding plus price of batches."""
    n_groups = len(lengths_G)
    price = int(tokens_per_batch * BATCH_PRICE)
    examples = np.concatenate([[0], np.cumsum(counts_G)])
    cost = np.full(n_groups + 1, np.iinfo(np.int64).max, np.int64)
    cost[0] = 0
    origin = np.zeros(n_groups + 1, np.int64)
    for one in range(n_groups):
        stop = int(np.searchsorted(examples, examples[one] + tokens_per_batch // int(lengths_G[one]), side="right"))
        others = np.arange(one + 1, max(stop, one + 2))
        new = cost[one] + (examples[others] - examples[one]) * lengths_G[one] + price
        better = others[new < cost[others]]
        cost[better] = new[new < cost[others]]
        origin[better] = one
    runs: list[tuple[int, int]] = []
    stop = n_groups
    while stop > 0:
        runs.append((int(origin[stop]), stop))
        stop = int(origin[stop])
    return runs[::-1]


def _batch(table: TokenTable, example_B: npt.NDArray[np.int64], start: int, stop: int, pad_id: int) -> TokenBatch:
    begin_B, lengths_B = table.offsets_E1[example_B], table.lengths_E[example_B]
    position_T = np.arange(int(lengths_B.max()))
    real_BT = position_T < lengths_B[:, None]
    flat_BT = np.where(real_BT, begin_B[:, None] + position_T, 0)
    first_B = np.maximum(np.searchsorted(table.row_example_R, example_B, side="left"), start)
    last_B = np.minimum(np.searchsorted(table.row_example_R, example_B, side="right"), stop)
    return TokenBatch(
        input_ids_BT=np.where(real_BT, table.token_ids[flat_BT], pad_id).astype(np.int64),
        attention_mask_BT=real_BT,
        type_ids_BT=None if table.type_ids is None else np.where(real_BT, table.type_ids[flat_BT], 0).astype(np.int64),
        pool_mask_BT=None if table.pool_mask is None else real_BT & table.pool_mask[flat_BT],
        rows_B=None if table.reduction is None else first_B,
        gather=_gather(table, first_B, last_B) if table.reduction is None else None,
        n_tokens=int(lengths_B.sum()),
        is_padded=bool(lengths_B.min() < len(position_T)),
    )


def _gather(table: TokenTable, first_B: npt.NDArray[np.int64], last_B: npt.NDArray[np.int64]) -> Gather:
    """Rows [first, last) of each example, one after the other."""
    count_B = last_B - first_B
    example_G = np.repeat(np.arange(len(first_B)), count_B)
    row_G = np.arange(len(example_G)) + np.repeat(first_B - np.cumsum(count_B) + count_B, count_B)
    return Gather(example_G, table.row_position_R[row_G], row_G)
