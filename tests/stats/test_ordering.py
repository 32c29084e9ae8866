import threading

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.stats import ordering
from modularity.stats.ordering import check_activations, order_tile, over_tiles, tile_ranges


def order_by_definition(values_R):
    """Rows of non-zero values, best first, ties by row."""
    order = np.lexsort((np.arange(len(values_R)), -values_R.astype(np.float64)))
    return [int(row) for row in order if values_R[row] != 0]


CASES = {
    "gaussian": lambda rng, n: rng.standard_normal((n, 7)),
    "integers": lambda rng, n: rng.integers(-3, 4, (n, 7)),
    "relu": lambda rng, n: np.maximum(rng.standard_normal((n, 7)) - 1.5, 0),
    "narrow": lambda rng, n: 1 + rng.integers(0, 40, (n, 7)) * 2.0**-22,
    "two narrow clusters": lambda rng, n: (
        rng.choice([-1.0, 1e20], (n, 7)) * (1 + rng.integers(0, 99, (n, 7)) * 2.0**-22)
    ),
    "constant": lambda rng, n: np.full((n, 7), -2.5),
    "signed zeros": lambda rng, n: rng.choice([-0.0, 0.0, 1.0, -1.0], (n, 7)),
    "subnormal": lambda rng, n: rng.standard_normal((n, 7)) * 1e-40,
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n_rows", [1, 2, 25, 300, 1500])
def test_order_equals_definition(case, dtype, n_rows):
    values = CASES[case](np.random.default_rng(0), n_rows)
    activations_RF = np.clip(values, -6e4, 6e4).astype(dtype) if dtype == np.float16 else values.astype(dtype)
    rows_R = np.random.default_rng(1).permutation(n_rows)[: max(1, n_rows - 3)]
    tile = order_tile(activations_RF, rows_R, 2, 6)
    for i in range(4):
        values_R = activations_RF[rows_R, 2 + i]
        ordered = [int(row) for row in tile.rows_FR[i, : tile.counts[i]]]
        assert [values_R[r] for r in ordered] == [values_R[r] for r in order_by_definition(values_R)]
        assert sorted(ordered) == sorted(order_by_definition(values_R))
        assert tile.n_positive[i] == (values_R > 0).sum()
        runs = tile.runs_FR[i, : 2 * tile.n_runs[i]].reshape(-1, 2)
        sizes = {
            value: count for value, count in zip(*np.unique(values_R, return_counts=True)) if count > 1 and value != 0
        }
        assert {values_R[ordered[a]]: b - a for a, b in runs.tolist()} == sizes


def test_layouts_give_the_same_order():
    activations_RF = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    wanted = order_tile(activations_RF, np.arange(50), 0, 6)
    read_only = activations_RF.copy()
    read_only.flags.writeable = False
    wide = np.repeat(activations_RF, 2, axis=1)[:, ::2]
    for other in (np.asfortranarray(activations_RF), wide, activations_RF.astype(">f4"), read_only):
        np.testing.assert_array_equal(order_tile(other, np.arange(50), 0, 6).rows_FR, wanted.rows_FR)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused(dtype, value):
    activations_RF = np.ones((40, 5), dtype)
    activations_RF[33, 4] = value
    with pytest.raises(
        DataError, match=rf"neuron 4 in row 33 is {value}: expected finite values \(1 of 80 values of neurons 3 to 4"
    ):
        order_tile(activations_RF, np.arange(40), 3, 5)
    order_tile(activations_RF, np.arange(33), 3, 5)  # the row does not take part


@pytest.mark.parametrize(
    ("activations", "message"),
    [
        (np.ones(3), r"shape \(3,\): expected \(rows, neurons\)"),
        (np.ones((3, 2), int), r"dtype int64: expected a float dtype, use \.astype"),
        (np.ones((0, 2)), r"shape \(0, 2\): expected at least one row"),
    ],
)
def test_unusable_activations_are_refused(activations, message):
    with pytest.raises(DataError, match=message):
        check_activations(activations)


def test_tiles_cover_the_neurons_and_shrink_with_the_rows():
    assert list(tile_ranges(10, 130)) == [(0, 64), (64, 128), (128, 130)]
    assert list(tile_ranges(ordering.TILE_BYTES, 2)) == [(0, 1), (1, 2)]
    assert list(tile_ranges(10, 0)) == []


@pytest.mark.parametrize("n_threads", [1, 3, None])
def test_over_tiles_calls_each_once_and_raises_the_first_error(n_threads):
    lock, seen = threading.Lock(), []

    def work(start, stop):
        with lock:
            seen.append((start, stop))

    over_tiles(work, 10, 300, n_threads)
    assert sorted(seen) == list(tile_ranges(10, 300))

    def fail(start, stop):
        raise DataError(f"tile {start}")

    with pytest.raises(DataError, match="tile 0"):
        over_tiles(fail, 10, 300, n_threads)
    with pytest.raises(DataError, match="n_threads is 0: expected at least 1"):
        over_tiles(work, 10, 300, 0)
