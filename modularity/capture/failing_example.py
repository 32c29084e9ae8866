"""Which example makes a model fail: those of the batch that failed are run one by one."""

import numpy as np

from modularity.capture.capturer import Capturer
from modularity.data import TokenTable
from modularity.data.batches import token_batches
from modularity.errors import ModularityError
from modularity.store import stored_dtype
from modularity.types import StorageDtype


def failing_row(capturer: Capturer, table: TokenTable, *, storage_dtype: StorageDtype, pad_id: int) -> int | None:
    """First row of the example that fails alone, out of the batch that `capturer` ran last.

    Parameters
    ----------
    capturer : after `capture` raised
    table : what was captured
    storage_dtype, pad_id : as for the capture

    Returns
    -------
    row : None where none fails alone, or where another fails after it: the fault is then the device's
    """
    rows = np.asarray(capturer.last_rows)
    firsts = np.unique(np.searchsorted(table.row_example_R, table.row_example_R[rows])).tolist()
    failing = next((row for row in firsts if _fails(capturer, table, row, storage_dtype, pad_id)), None)
    if failing is None:
        return None
    other = next(
        (row for row in (0, table.n_rows - 1) if table.row_example_R[row] != table.row_example_R[failing]), None
    )
    device_fails = other is not None and _fails(capturer, table, _first_row(table, other), storage_dtype, pad_id)
    return None if device_fails else failing


def _first_row(table: TokenTable, row: int) -> int:
    return int(np.searchsorted(table.row_example_R, table.row_example_R[row]))


def _fails(capturer: Capturer, table: TokenTable, row: int, storage_dtype: StorageDtype, pad_id: int) -> bool:
    stop = int(np.searchsorted(table.row_example_R, table.row_example_R[row], side="right"))
    out = {
        site: np.empty((stop - row, len(shape.layers), *shape.unit_shape), stored_dtype(storage_dtype))
        for site, shape in capturer.shapes.items()
    }
    batches = token_batches(table, row, stop, tokens_per_batch=1, pad_id=pad_id)
    try:
        capturer.capture(batches, out, row, reduction=table.reduction)
    except ModularityError:
        return False  # what it says of the values is told by itself
    except Exception:
        return True
    return False
