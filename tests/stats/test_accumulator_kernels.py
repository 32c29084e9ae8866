"""Compiled kernels against whole-array arithmetic, over blocks, row chunks and threads."""

import numpy as np
import pytest

from modularity.stats import log_edges
from modularity.stats.accumulator_kernels import add_clamped_groups, bin_table, column_moments, count_bins


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """More than two chunks of rows and two blocks of neurons, with zeros, both signs and many magnitudes."""
    generator = np.random.default_rng(0)
    drawn = generator.standard_normal((1100, 130)) * 10 ** generator.uniform(-6, 4, (1100, 130))
    return np.where(generator.random(drawn.shape) < 0.3, 0, drawn).astype(np.float32)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_moments(values: np.ndarray, n_threads: int) -> None:
    shifted = values + np.linspace(0, 1e6, 130, dtype=np.float32)
    mean, squares = column_moments(shifted, n_threads=n_threads)
    exact = shifted.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(squares, ((exact - exact.mean(0)) ** 2).sum(0), rtol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("own", [False, True])
def test_bins(values: np.ndarray, dtype: type, own: bool) -> None:
    edges = log_edges(1e-3, 1e2, 30)
    rows = values.astype(dtype)
    rows[:63, 0] = edges  # exactly on the edges
    rows[:63, 1] = np.nextafter(edges.astype(np.float32), np.float32(-np.inf)).astype(dtype)
    counts = np.zeros((130, len(edges) + 1), np.int64)
    count_bins(rows, np.tile(edges, (130, 1)) if own else edges, counts, n_threads=2)
    for neuron in range(130):
        bins = np.searchsorted(edges, rows[:, neuron].astype(np.float64), side="right")
        np.testing.assert_array_equal(counts[neuron], np.bincount(bins, minlength=len(edges) + 1))


def test_the_table_never_starts_beyond_the_bin() -> None:
    edges = log_edges(1e-3, 1e2, 30)
    bits = np.random.default_rng(1).integers(0, 2**32, 20000, dtype=np.uint64).astype(np.uint32)
    drawn = bits.view(np.float32)
    real = np.isfinite(drawn)
    bins = np.searchsorted(edges, drawn[real].astype(np.float64), side="right")
    assert (bin_table(edges)[bits[real] >> 16] <= bins).all()


@pytest.mark.parametrize("n_threads", [1, 3])
def test_clamped_groups(values: np.ndarray, n_threads: int) -> None:
    groups = np.maximum(values[:80], 0).astype(np.float64).reshape(10, 8, 130)
    sums = np.zeros((130, 130))
    add_clamped_groups(groups, sums, n_threads=n_threads)
    expected = np.minimum(np.einsum("gki,gkj->gij", groups, groups), 1).sum(0)
    np.testing.assert_allclose(np.triu(sums), np.triu(expected), rtol=1e-12)
    assert (np.tril(sums, -1) == 0).all()
