"""Histograms: NumPy's counts for any split, quantiles within their bounds."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.errors import DataError, InputError
from modularity.stats import Histogram, log_edges, merge_in_order


def test_counts_by_hand_with_values_below_above_and_on_edges() -> None:
    histogram = Histogram.empty(1, np.array([0.0, 1.0, 2.0]))
    histogram.update(np.array([[-1.0], [0.0], [0.5], [1.0], [1.5], [2.0], [7.0]]))
    assert histogram.result().tolist() == [[1, 2, 2, 2]]
    assert (histogram.low.tolist(), histogram.high.tolist()) == ([-1.0], [7.0])
    median = histogram.quantile(0.5)
    assert (median.low_F[0], median.value_F[0], median.high_F[0], median.error_F[0]) == (1.0, 1.5, 2.0, 0.5)
    top = histogram.quantile(1.0)
    assert (top.low_F[0], top.high_F[0]) == (2.0, 7.0)


@given(st.integers(1, 200), st.integers(0, 999), st.lists(st.integers(0, 200), max_size=4), st.floats(0, 1))
@settings(deadline=None)
def test_any_split_gives_the_counts_of_numpy_and_bounds_of_quantiles(
    n_rows: int, seed: int, cuts: list[int], q: float
) -> None:
    values = np.random.default_rng(seed).standard_normal((n_rows, 2)).astype(np.float32) * [1, 30]
    values[:, 0] = np.maximum(values[:, 0], 0)
    edges = log_edges(0.01, 10.0, 6)
    bounds = [0, *sorted(min(cut, n_rows) for cut in cuts), n_rows]

    def of(part: np.ndarray) -> Histogram:
        histogram = Histogram.empty(2, edges)
        histogram.update(part)
        return histogram

    merged = merge_in_order(of(values[a:b]) for a, b in pairwise(bounds))
    for name, array in of(values).arrays().items():
        np.testing.assert_array_equal(merged.arrays()[name], array)
    for neuron in range(2):
        inner, _ = np.histogram(values[:, neuron], edges)  # NumPy closes the last bin, where no value stands
        np.testing.assert_array_equal(merged.counts[neuron, 1:-1], inner)
    assert (merged.counts.sum(1) == n_rows).all()
    exact = np.sort(values, axis=0)[max(1, int(np.ceil(q * n_rows))) - 1]
    found = merged.quantile(q)
    assert (found.low_F <= exact).all()
    assert (exact <= found.high_F).all()
    assert (np.abs(found.value_F - exact) <= found.error_F + 1e-12).all()


def test_neurons_may_have_edges_of_their_own() -> None:
    histogram = Histogram.empty(2, np.array([[0.0, 1.0], [10.0, 20.0]]))
    histogram.update(np.array([[0.5, 15.0], [5.0, 5.0]]))
    assert histogram.counts.tolist() == [[0, 1, 1], [1, 1, 0]]
    with pytest.raises(InputError, match="edges of 2 neurons, expected one row for each of 3"):
        Histogram.empty(3, histogram.edges)


def test_log_edges_have_zero_and_equal_ratios() -> None:
    edges = log_edges(0.5, 8.0, 4)
    np.testing.assert_allclose(edges, [-8, -4, -2, -1, -0.5, 0, 0.5, 1, 2, 4, 8], rtol=1e-6)
    assert (edges == edges.astype(np.float32)).all()
    with pytest.raises(InputError, match=r"smallest=0, largest=1, n_bins=3.*expected 0 < smallest < largest"):
        log_edges(0, 1, 3)


def test_nothing_seen_gives_nan_and_other_edges_are_refused() -> None:
    empty = Histogram.empty(2, np.array([0.0, 1.0]))
    empty.update(np.zeros((0, 2)))
    assert np.isnan(empty.quantile(0.5).value_F).all()
    with pytest.raises(DataError, match="different edges do not merge"):
        empty.merge(Histogram.empty(2, np.array([0.0, 2.0])))
    with pytest.raises(InputError, match="expected two or more, ascending"):
        Histogram.empty(2, np.array([1.0, 1.0]))
    with pytest.raises(InputError, match=r"q=1.5: expected a share"):
        empty.quantile(1.5)
