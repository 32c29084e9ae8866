"""A range of rows shard by shard against the whole range at once."""

import numpy as np
import pytest

from modularity.capture import BufferPool, Capturer, capture_shards, overhang
from modularity.data.batches import token_batches
from modularity.types import Site

NEURONS = Site("decoder", "ffn.neurons")


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("rows_per_shard", [2, 7, 24, 200])
def test_shards_hold_the_rows_of_one_capture_and_no_example_is_computed_twice(tiny, table_of, pooled, rows_per_shard):
    table, model = table_of(pooled=pooled), tiny("opt")
    capturer = Capturer(model, [NEURONS])
    shape = capturer.shapes[NEURONS]
    whole = np.empty((table.n_rows, len(shape.layers), *shape.unit_shape), np.float32)
    batches = token_batches(table, 0, table.n_rows, tokens_per_batch=1, pad_id=1)
    capturer.capture(batches, {NEURONS: whole}, reduction=table.reduction)
    pool = BufferPool(capturer.shapes, rows_per_shard + overhang(table))
    arguments = {"first": 0, "last": table.n_rows, "rows_per_shard": rows_per_shard, "tokens_per_batch": 1, "pad_id": 1}
    n_examples, parts = 0, []
    for shard in capture_shards(capturer, table, pool, **arguments):
        assert shard.start == sum(map(len, parts))
        parts.append(shard.buffer.arrays[NEURONS].copy())
        n_examples += shard.stats.n_examples if shard.stats else 0
        pool.release(shard.buffer)
    assert [len(part) for part in parts[:-1]] == [rows_per_shard] * (len(parts) - 1)
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert n_examples == table.n_examples
    assert pool.n_allocated == 1


def test_a_range_that_cuts_an_example_gives_its_rows_inside(tiny, table_of):
    table, model = table_of(pooled=False), tiny("opt")
    capturer = Capturer(model, [NEURONS])
    pool = BufferPool(capturer.shapes, 8 + overhang(table))
    arguments = {"rows_per_shard": 8, "tokens_per_batch": 1, "pad_id": 1}

    def rows(first: int, last: int) -> np.ndarray:
        shards = capture_shards(capturer, table, pool, first=first, last=last, **arguments)
        return np.concatenate([shard.buffer.arrays[NEURONS] for shard in shards])

    np.testing.assert_array_equal(rows(16, 48), np.concatenate([rows(16, 32), rows(32, 48)]))


def test_overhang_is_what_the_longest_example_may_reach_beyond_a_shard(table_of):
    assert overhang(table_of(pooled=True)) == 0
    assert overhang(table_of(pooled=False)) == 29
