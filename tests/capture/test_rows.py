import numpy as np
import pytest

from modularity.capture.rows import RowLedger, select_rows
from modularity.errors import DataError


def test_ledger_sees_every_row_once():
    ledger = RowLedger(100, 5)
    ledger.claim(np.array([104, 100]))
    ledger.claim(np.array([101, 103, 102]))
    ledger.close()


def test_ledger_names_missing_doubled_and_outside_rows():
    ledger = RowLedger(100, 10)
    ledger.claim(np.array([102]))
    with pytest.raises(DataError, match="rows 102 are delivered twice; expected each row exactly once"):
        ledger.claim(np.array([101, 102]))
    with pytest.raises(DataError, match="rows 103 are delivered twice"):
        ledger.claim(np.array([103, 103]))
    with pytest.raises(DataError, match="rows 99, 110 are outside the work item's 100 to 109"):
        ledger.claim(np.array([99, 105, 110]))
    with pytest.raises(DataError, match="9 of 10 rows were not delivered by any batch: 100, 101, 103, 104, 105 …"):
        ledger.close()
    with pytest.raises(DataError, match="a batch delivers no row"):
        ledger.claim(np.array([], dtype=np.int64))


def select(batch, reduction, masks=None):
    masks = {"encoder": batch.attention_mask_BT} if masks is None else masks
    return select_rows(batch, masks, reduction=reduction, row_start=10, source="encoder")


def test_rows_are_relative_to_the_item(batch_of):
    assert select(batch_of([3, 2], first_row=12), "max")["encoder"].rows.tolist() == [2, 3]
    assert select(batch_of([2, 1], first_row=12, pooled=False), None)["encoder"].rows.tolist() == [2, 3, 4]


def test_pool_mask_is_for_source_tokens_and_decoders_pool_what_is_real(batch_of):
    batch = batch_of([4, 3])
    batch.pool_mask_BT[:, 0] = False
    decoder = np.array([[True, True], [True, False]])
    selections = select(batch, "max", {"encoder": batch.attention_mask_BT, "decoder": decoder})
    np.testing.assert_array_equal(selections["encoder"].mask_BT, batch.pool_mask_BT & batch.attention_mask_BT)
    np.testing.assert_array_equal(selections["decoder"].mask_BT, decoder)


def test_padding_is_never_gathered(batch_of):
    batch = batch_of([4, 3], pooled=False)
    batch.gather.position_G[-1] = 3
    with pytest.raises(DataError, match="encoder: gathered positions include padding"):
        select(batch, None)


def test_batch_and_reduction_must_agree(batch_of):
    with pytest.raises(DataError, match="reduction='mean', but the batch gathers positions"):
        select(batch_of([3], pooled=False), "mean")
    with pytest.raises(DataError, match="reduction=None, but the batch reduces positions"):
        select(batch_of([3]), None)
