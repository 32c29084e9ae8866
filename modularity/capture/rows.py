"""What a batch promises, turned into selections, and the ledger that sees every row filled exactly once."""

from collections.abc import Mapping

import numpy as np

from modularity.capture.selection import Gather, Reduction, ReductionKind, Selection
from modularity.data import TokenBatch
from modularity.errors import DataError
from modularity.types import StackName


def select_rows(
    batch: TokenBatch,
    masks: Mapping[StackName, np.ndarray],
    *,
    reduction: ReductionKind | None,
    row_start: int,
    source: StackName,
) -> dict[StackName, Selection]:
    """How each stack's values of one batch become rows.

    The pool mask and the gathered positions of a batch count source tokens. Where an encoder-decoder model runs its
    decoder, a reduction of a decoder site is over the real decoder positions, and gathered positions are positions of
    the decoder.

    Parameters
    ----------
    batch : the batch; has rows for examples if `reduction` is given, else pairs to gather
    masks : real positions of each wanted stack, bool of shape (B, T of the stack)
    reduction : how positions become one row; None = they are gathered
    row_start : global row of the first row of the output
    source : the stack that reads the batch's tokens, to which its pool mask belongs

    Raises
    ------
    DataError
        The batch does not have what `reduction` needs, or asks for positions that are padding or not there.
    """
    selections: dict[StackName, Selection] = {}
    if reduction is not None:
        if batch.rows_B is None:
            raise DataError(f"reduction={reduction!r}, but the batch gathers positions (rows_B is None)")
        rows_B = np.asarray(batch.rows_B) - row_start
        for stack, mask_BT in masks.items():
            own_BT = batch.pool_mask_BT if stack == source else None
            pool_BT = mask_BT if own_BT is None else own_BT & mask_BT
            selections[stack] = Reduction.over(pool_BT, rows_B, kind=reduction)
        return selections
    if batch.gather is None:
        raise DataError("reduction=None, but the batch reduces positions (gather is None); pass its reduction")
    example_G, position_G, row_G = batch.gather
    for stack, mask_BT in masks.items():
        gather = Gather.at(example_G, position_G, row_G - row_start, n_positions=mask_BT.shape[1])
        if not mask_BT.reshape(-1)[gather.flat].all():
            raise DataError(f"{stack}: gathered positions include padding; expected positions of real tokens only")
        selections[stack] = gather
    return selections


class RowLedger:
    """Counts how often each row of one work item was delivered.

    Parameters
    ----------
    row_start : global row of the first
    n_rows : rows of the item
    """

    def __init__(self, row_start: int, n_rows: int) -> None:
        self._row_start = row_start
        self._filled = np.zeros(n_rows, dtype=bool)

    def claim(self, row_ids: np.ndarray) -> None:
        """Note that one batch delivers these global rows.

        Raises
        ------
        DataError
            There are none, one is outside the item, or one was delivered before.
        """
        rows = np.asarray(row_ids) - self._row_start
        stop = self._row_start + len(self._filled)
        if not len(rows):
            raise DataError("a batch delivers no row; expected batches of examples that own rows of the work item")
        outside = (rows < 0) | (rows >= len(self._filled))
        if outside.any():
            raise DataError(
                f"rows {self._name(rows[outside])} are outside the work item's {self._row_start} to {stop - 1}; "
                f"cut the batches by the same range of rows as the output"
            )
        again = self._filled[rows]
        if again.any() or len(np.unique(rows)) < len(rows):
            twice = rows[again] if again.any() else np.flatnonzero(np.bincount(rows) > 1)
            raise DataError(f"rows {self._name(twice)} are delivered twice; expected each row exactly once")
        self._filled[rows] = True

    def close(self) -> None:
        """DataError if a row was never delivered."""
        missing = np.flatnonzero(~self._filled)
        if len(missing):
            raise DataError(
                f"{len(missing)} of {len(self._filled)} rows were not delivered by any batch: {self._name(missing)}; "
                f"expected batches of all examples that own rows of the work item"
            )

    def _name(self, rows: np.ndarray) -> str:
        shown = ", ".join(str(int(row) + self._row_start) for row in rows[:5])
        return shown + (" …" if len(rows) > 5 else "")
