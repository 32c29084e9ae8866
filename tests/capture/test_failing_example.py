"""The example on which a model fails is found among those of its batch; a broken device is not blamed on one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modularity.capture import Capturer, failing_row
from modularity.capture.forward import BatchForward
from modularity.data import TokenBatch, TokenTable
from modularity.data.batches import token_batches
from modularity.types import Site

NEURONS = Site("decoder", "ffn.neurons")


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(("culprit", "lasting", "is_found"), [(2, False, True), (6, False, True), (2, True, False)])
def test_the_example_is_found(
    tiny: Callable[[str], Any],
    table_of: Callable[..., TokenTable],
    monkeypatch: pytest.MonkeyPatch,
    pooled: bool,
    culprit: int,
    lasting: bool,
    is_found: bool,
) -> None:
    table = table_of(pooled=pooled)
    capturer = Capturer(tiny("opt"), [NEURONS])
    first_token = table.token_ids[table.offsets_E1[culprit]]
    length = table.lengths_E[culprit]
    broken = False
    forward = BatchForward.__call__

    def failing(self: BatchForward, batch: TokenBatch) -> object:
        nonlocal broken
        poisoned = (batch.input_ids_BT[:, 0] == first_token) & (batch.attention_mask_BT.sum(1) == length)
        broken = lasting and (broken or bool(poisoned.any()))
        if broken or poisoned.any():
            raise IndexError("index out of range in self")
        return forward(self, batch)

    monkeypatch.setattr(BatchForward, "__call__", failing)
    out = {NEURONS: np.empty((table.n_rows, 3, 48), np.float32)}
    with pytest.raises(IndexError):
        capturer.capture(
            token_batches(table, 0, table.n_rows, tokens_per_batch=64, pad_id=1), out, reduction=table.reduction
        )
    row = failing_row(capturer, table, storage_dtype="float32", pad_id=1)
    assert (row is not None) is is_found
    if row is not None:
        assert table.row_example_R[row] == culprit
        assert row == np.searchsorted(table.row_example_R, culprit)
