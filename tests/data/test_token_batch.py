import numpy as np

from modularity.data import Gather, TokenBatch, TokenTable


def test_counts_and_tokens_of_a_table() -> None:
    table = TokenTable(
        token_ids=np.array([5, 6, 7, 8, 9], np.int32),
        type_ids=None,
        offsets_E1=np.array([0, 2, 5], np.int64),
        truncated_E=np.array([False, True]),
        row_example_R=np.array([0, 1, 1]),
        row_position_R=np.array([1, 0, 2]),
        reduction=None,
        pool_mask=None,
        fingerprint="0" * 16,
    )
    assert (table.n_examples, table.n_rows, table.n_tokens, table.n_truncated) == (2, 3, 5, 1)
    assert table.lengths_E.tolist() == [2, 3]
    assert table.row_tokens_R.tolist() == [6, 7, 9]
    assert table.row_tokens_R.dtype == np.int32


def test_rows_of_a_batch_come_from_the_reduction_or_the_gather() -> None:
    ids = np.zeros((2, 3), np.int64)
    mask = np.ones((2, 3), bool)
    reduced = TokenBatch(ids, mask, None, mask, np.array([4, 1]), None, 6, False)
    gathered = TokenBatch(ids, mask, None, None, None, Gather(np.array([0]), np.array([2]), np.array([9])), 6, False)
    assert (reduced.row_ids.tolist(), gathered.row_ids.tolist()) == ([4, 1], [9])
    assert reduced.n_examples == 2
