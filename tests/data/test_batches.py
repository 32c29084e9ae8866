from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.data import TokenBatch, TokenTable, example_batch, row_ranges, token_batches
from modularity.data.batches import cut_batches
from modularity.errors import DataError

PAD = 999


def table_of(lengths: list[int], kind: str) -> TokenTable:
    """Tokens that tell where they are: 1000 * example + position; rows reduced, one by one, or some positions."""
    offsets_E1 = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.concatenate([1000 * (n + 1) + np.arange(length) for n, length in enumerate(lengths)]).astype(np.int32)
    example = np.repeat(np.arange(len(lengths)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    if kind == "max":
        example, position = np.arange(len(lengths)), np.full(len(lengths), -1)
    elif kind == "some":
        example, position = example[position % 2 == 0], position[position % 2 == 0]
    return TokenTable(
        token_ids=ids,
        type_ids=(ids % 2).astype(np.uint8),
        offsets_E1=offsets_E1,
        truncated_E=np.zeros(len(lengths), bool),
        row_example_R=example,
        row_position_R=position,
        reduction="max" if kind == "max" else None,
        pool_mask=ids % 3 > 0 if kind == "max" else None,
        fingerprint="0" * 16,
    )


def check_batch(batch: TokenBatch, table: TokenTable, budget: int) -> None:
    n_examples, width = batch.input_ids_BT.shape
    real = batch.attention_mask_BT
    assert n_examples == 1 or n_examples * width <= budget
    assert batch.n_examples == n_examples
    assert batch.n_tokens == real.sum()
    assert batch.is_padded == (not real.all())
    assert (batch.input_ids_BT[~real] == PAD).all()
    assert (np.diff(real.astype(int), axis=1) <= 0).all(), "padding is on the right"
    assert batch.type_ids_BT is not None
    assert (batch.type_ids_BT == np.where(real, batch.input_ids_BT % 2, 0)).all()
    for row in range(n_examples):
        example = int(batch.input_ids_BT[row, 0]) // 1000 - 1
        begin, end = table.offsets_E1[example : example + 2]
        assert batch.input_ids_BT[row][real[row]].tolist() == table.token_ids[begin:end].tolist()
    if batch.pool_mask_BT is not None:
        assert (batch.pool_mask_BT == (real & (batch.input_ids_BT % 3 > 0))).all()


def check_rows(batch: TokenBatch, table: TokenTable) -> None:
    assert (batch.rows_B is None) != (batch.gather is None)
    if batch.rows_B is not None:
        assert (table.row_example_R[batch.rows_B] == batch.input_ids_BT[:, 0] // 1000 - 1).all()
    if batch.gather is not None:
        found = batch.input_ids_BT[batch.gather.example_G, batch.gather.position_G]
        expected = 1000 * (table.row_example_R[batch.gather.row_G] + 1) + table.row_position_R[batch.gather.row_G]
        assert found.tolist() == expected.tolist()


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    kind=st.sampled_from(["max", "none", "some"]),
    rows_per_item=st.integers(1, 50),
    budget=st.integers(1, 300),
)
def test_every_row_comes_exactly_once_over_any_ranges(
    lengths: list[int], kind: str, rows_per_item: int, budget: int
) -> None:
    table = table_of(lengths, kind)
    seen: Counter[int] = Counter()
    for start, stop in row_ranges(table.n_rows, rows_per_item):
        for batch in token_batches(table, start, stop, tokens_per_batch=budget, pad_id=PAD):
            check_batch(batch, table, budget)
            check_rows(batch, table)
            assert all(start <= row < stop for row in batch.row_ids.tolist())
            seen.update(batch.row_ids.tolist())
    assert seen == Counter(range(table.n_rows))


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=300), budget=st.integers(1, 1000))
def test_batches_hold_every_example_once_and_no_more_padding_than_plain_greedy(lengths: list[int], budget: int) -> None:
    sorted_E = -np.sort(-np.array(lengths, np.int64))
    batches = cut_batches(sorted_E, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    firsts = [int(sorted_E[batch[0]]) for batch in batches]
    assert firsts == sorted(firsts, reverse=True), "the longest batch comes first"
    padding = sum(len(batch) * int(sorted_E[batch[0]]) for batch in batches) - sum(lengths)
    greedy, start = 0, 0
    while start < len(sorted_E):
        stop = start + max(1, budget // int(sorted_E[start]))
        greedy += int((sorted_E[start] - sorted_E[start:stop]).sum())
        start = stop
    assert padding <= greedy + budget // 128 * len(batches)


def test_equal_lengths_go_unpadded() -> None:
    table = table_of([5] * 9 + [7] * 9, "max")
    batches = list(token_batches(table, 0, 18, tokens_per_batch=40, pad_id=PAD))
    assert not any(batch.is_padded for batch in batches[:2])
    assert sum(batch.input_ids_BT.size for batch in batches) <= 18 * 6 + 8


def test_a_long_example_is_a_batch_of_its_own() -> None:
    batches = list(token_batches(table_of([3, 50, 3], "max"), 0, 3, tokens_per_batch=10, pad_id=PAD))
    assert [batch.input_ids_BT.shape for batch in batches] == [(1, 50), (2, 3)]
    assert [batch.row_ids.tolist() for batch in batches] == [[1], [0, 2]]


def test_mixed_lengths_give_little_padding() -> None:
    lengths = np.random.default_rng(0).gamma(4, 8, 4000).astype(int).clip(3, 128)
    table = table_of(lengths.tolist(), "max")
    padded = real = 0
    for start, stop in row_ranges(table.n_rows, 1024):
        for batch in token_batches(table, start, stop, tokens_per_batch=4096, pad_id=PAD):
            padded += batch.input_ids_BT.size
            real += batch.n_tokens
    assert padded / real < 1.02


def test_the_same_range_gives_the_same_batches() -> None:
    table = table_of([4, 9, 4, 7, 9, 1, 4] * 5, "none")
    one, two = (list(token_batches(table, 10, 90, tokens_per_batch=30, pad_id=PAD)) for _ in range(2))
    assert len(one) == len(two)
    for first, second in zip(one, two):
        np.testing.assert_array_equal(first.input_ids_BT, second.input_ids_BT)
        np.testing.assert_array_equal(first.row_ids, second.row_ids)
        assert (first.input_ids_BT.dtype, first.attention_mask_BT.dtype, first.row_ids.dtype) == (
            np.int64,
            bool,
            np.int64,
        )


def test_a_batch_of_chosen_examples_keeps_their_order() -> None:
    batch = example_batch(table_of([4, 2, 7, 3], "max"), np.array([3, 0]), pad_id=PAD)
    assert batch.input_ids_BT.tolist() == [[4000, 4001, 4002, PAD], [1000, 1001, 1002, 1003]]
    assert batch.row_ids.tolist() == [3, 0]
    with pytest.raises(DataError, match=r"examples \[4\] of 4: expected one or more, each once; 4 does not exist"):
        example_batch(table_of([4, 2, 7, 3], "max"), np.array([4]), pad_id=PAD)
    with pytest.raises(DataError, match=r"examples \[1, 1\] of 4"):
        example_batch(table_of([4, 2, 7, 3], "max"), np.array([1, 1]), pad_id=PAD)


def test_ranges_cover_all_rows() -> None:
    assert row_ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert row_ranges(0, 4) == []
    assert row_ranges(4, 4) == [(0, 4)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda table: list(token_batches(table, 0, 4, tokens_per_batch=9, pad_id=0)), r"rows \[0, 4\) of 3 with"),
        (lambda table: list(token_batches(table, 2, 2, tokens_per_batch=9, pad_id=0)), "a range that is not empty"),
        (lambda table: list(token_batches(table, 0, 2, tokens_per_batch=0, pad_id=0)), "tokens_per_batch=0"),
        (lambda table: row_ranges(3, 0), "rows_per_item=0"),
    ],
)
def test_impossible_ranges_are_refused(call: Callable[[TokenTable], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        call(table_of([2, 3, 4], "max"))
