"""What each null keeps, and that shuffled weights look shuffled: uniform p-values of n-cut and Q."""

import numpy as np
import pytest
from scipy.stats import kstest

from modularity.errors import DataError
from modularity.geometry.graph_nulls import (
    exchange_activity,
    permute_keeping_strengths,
    permute_weights,
    rewire,
    scale_to,
)
from modularity.geometry.graph_partitions import spectral_partition
from modularity.geometry.graphs import BipartiteGraph, SparseGraph, newman_modularity, normalised_cut
from modularity.stats import p_values

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_permuted_weights_are_the_same_weights(rng) -> None:
    matrix = rng.random((6, 5)) * (rng.random((6, 5)) < 0.6)
    everywhere = permute_weights(matrix, rng)
    in_place = permute_weights(matrix, rng, nonzero_only=True)
    for found in (everywhere, in_place):
        np.testing.assert_array_equal(np.sort(found.ravel()), np.sort(matrix.ravel()))
        assert (found != matrix).any()
    np.testing.assert_array_equal(in_place > 0, matrix > 0)
    assert ((everywhere > 0) != (matrix > 0)).any()


def test_strengths_are_kept(rng) -> None:
    matrix = np.exp(rng.normal(size=(12, 1)) + rng.normal(size=(1, 9)) + 0.2 * rng.normal(size=(12, 9)))
    matrix[:, 4] = 0
    matrix[2, :3] = 0
    found = permute_keeping_strengths(matrix, rng)
    np.testing.assert_allclose(found.sum(axis=1), matrix.sum(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), matrix.sum(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(found > 0, matrix > 0)
    assert np.abs(found - matrix).max() > 0.1


def test_sums_that_no_matrix_has_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(2, 2\) with 2 entries could not be scaled"):
        scale_to(np.eye(2), np.array([1.0, 2.0]), np.array([2.0, 1.0]))


def test_rewiring_keeps_the_number_of_edges_of_every_node(rng) -> None:
    there = np.triu(rng.random((30, 30)) < 0.2, 1)
    weights = np.where(there, rng.random((30, 30)), 0)
    graph = SparseGraph.of(weights + weights.T)
    found = rewire(graph, rng)
    before, after = (each.edges.toarray() for each in (graph, found))
    np.testing.assert_array_equal((after > 0).sum(axis=0), (before > 0).sum(axis=0))
    np.testing.assert_array_equal(np.sort(after[after > 0]), np.sort(before[before > 0]))
    np.testing.assert_array_equal(after, after.T)
    assert not after.diagonal().any()
    assert ((after > 0) & (before > 0)).sum() < 0.5 * (before > 0).sum()


def test_exchanged_activity_keeps_both_margins(rng) -> None:
    active = rng.random((40, 25)) < np.linspace(0.05, 0.7, 25)
    found = exchange_activity(active, rng)
    np.testing.assert_array_equal(found.sum(axis=0), active.sum(axis=0))
    np.testing.assert_array_equal(found.sum(axis=1), active.sum(axis=1))
    assert (found != active).mean() > 0.1
    assert (
        exchange_activity(active, np.random.default_rng(5)) == exchange_activity(active, np.random.default_rng(5))
    ).all()
    assert (exchange_activity(active[:1], rng) == active[:1]).all()


def test_exchanged_activity_has_no_groups(rng) -> None:
    """Two sets of neurons, each active in its own half of the rows: co-activation across is as in independent ones."""
    active = np.zeros((200, 20), bool)
    active[:100, :10] = rng.random((100, 10)) < 0.5
    active[100:, 10:] = rng.random((100, 10)) < 0.5
    found = exchange_activity(active, rng).astype(float)
    together = found.T @ found
    across, within = together[:10, 10:].mean(), together[np.ix_(range(10), range(10))][np.triu_indices(10, 1)].mean()
    assert across == pytest.approx(within, rel=0.25)


def both_p(matrix: np.ndarray, null, n_draws: int, seed: int) -> tuple[float, float]:
    """p of n-cut and of Q of one matrix under one null."""
    rng = np.random.default_rng(seed)
    values = []
    for weights in (matrix, *(null(matrix, rng) for _ in range(n_draws))):
        graph = BipartiteGraph(weights)
        labels = spectral_partition(graph, 3)
        values.append((-normalised_cut(graph, labels), newman_modularity(graph, labels)))
    found = np.array(values)
    cut, q = p_values(found[0], found[1:])
    return float(cut), float(q)


def some_p(null, hubs: float) -> list[np.ndarray]:
    """p of both measures for 24 matrices without groups."""
    p = []
    for seed in range(24):
        rng = np.random.default_rng(seed)
        factors = np.exp(hubs * rng.normal(size=(12, 1))) * np.exp(hubs * rng.normal(size=(1, 8)))
        p.append(both_p(factors * np.abs(rng.normal(size=(12, 8))), null, 19, 100 + seed))
    return [np.array(values) for values in zip(*p)]


def test_shuffled_weights_have_uniform_p_values() -> None:
    for values in some_p(permute_weights, 0.0):
        assert kstest(values - 0.025, "uniform").pvalue > 0.01
        assert 0 < np.mean(values <= 0.25) < 0.5


def test_kept_strengths_raise_no_false_alarm_where_there_are_hubs() -> None:
    for values in some_p(permute_keeping_strengths, 0.7):
        assert np.mean(values <= 0.1) <= 0.2
        assert 0.35 < values.mean() < 0.8


def test_hubs_hide_groups_from_one_null_and_not_from_the_other() -> None:
    """Strong neurons and channels make a graph harder to cut than permuted weights, which hides its groups."""
    rng = np.random.default_rng(3)
    hubs = np.exp(0.7 * rng.normal(size=(30, 1))) * np.exp(0.7 * rng.normal(size=(1, 24)))
    matrix = hubs * np.abs(rng.normal(size=(30, 24)))
    assert min(both_p(matrix, permute_weights, 39, 0)) > 0.9
    assert min(both_p(matrix, permute_keeping_strengths, 39, 0)) > 0.05
    grouped = matrix * (1 + 4 * (np.arange(30)[:, None] % 3 == np.arange(24) % 3))
    assert max(both_p(grouped, permute_keeping_strengths, 39, 0)) == 1 / 40
