"""Planted groups are found by both methods; eigenvectors and labels are those of scikit-learn."""

import sys

import numpy as np
import pytest
from sklearn.cluster import spectral_clustering
from sklearn.metrics import adjusted_rand_score

from modularity.errors import DataError, InputError
from modularity.geometry import graph_partitions
from modularity.geometry.graph_partitions import DENSE_NODES, leiden_partition, spectral_partition
from modularity.geometry.graphs import BipartiteGraph, SparseGraph, newman_modularity, normalised_cut

pytestmark = pytest.mark.usefixtures("one_thread")
needs_leiden = pytest.mark.skipif(
    "not __import__('importlib').util.find_spec('graspologic_native')", reason="needs graspologic-native"
)


def planted(strength: float, seed: int = 0) -> tuple[BipartiteGraph, np.ndarray]:
    """48 neurons and 30 channels in 3 groups; edges within a group are heavier by 1 + strength."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(3), 26))
    weights = np.abs(rng.normal(size=(48, 30))) * (1 + strength * (labels[:48, None] == labels[48:]))
    return BipartiteGraph(weights), labels


def test_spectral_finds_planted_groups() -> None:
    graph, labels = planted(3.0)
    found = spectral_partition(graph, 3)
    assert adjusted_rand_score(found, labels) == 1.0
    assert found[0] == 0
    assert normalised_cut(graph, found) < 1.6
    sparse = SparseGraph.of(graph.adjacency())
    assert (spectral_partition(sparse, 3) == found).all()


@needs_leiden
def test_leiden_finds_planted_groups() -> None:
    graph, labels = planted(3.0)
    found = leiden_partition(graph)
    assert adjusted_rand_score(found, labels) == 1.0
    assert newman_modularity(graph, found) == pytest.approx(newman_modularity(graph, labels))
    assert (leiden_partition(SparseGraph.of(graph.adjacency())) == found).all()
    assert leiden_partition(graph, resolution=3.0).max() > found.max()


@pytest.mark.parametrize("seed", range(3))
def test_spectral_cuts_no_more_than_scikit_learn(seed) -> None:
    graph, _ = planted(0.8, seed)
    theirs = spectral_clustering(graph.adjacency(), n_clusters=3, random_state=0, eigen_solver="arpack")
    ours = spectral_partition(graph, 3)
    assert adjusted_rand_score(theirs, ours) > 0.8
    assert normalised_cut(graph, ours) <= normalised_cut(graph, theirs) + 0.02


def test_lanczos_and_the_dense_solver_agree(monkeypatch) -> None:
    graph, labels = planted(3.0)
    sparse = SparseGraph.of(graph.adjacency())
    dense = graph_partitions._sparse_vectors(sparse, np.arange(78), 3, 0)
    wide = BipartiteGraph(graph.weights_FX.T)
    for limit in (DENSE_NODES, 10):
        monkeypatch.setattr(graph_partitions, "DENSE_NODES", limit)
        found = graph_partitions._sparse_vectors(sparse, np.arange(78), 3, 0)
        np.testing.assert_allclose(np.abs(found), np.abs(dense), atol=1e-6)
        turned = graph_partitions._bipartite_vectors(wide, 3, 0)
        unit = np.abs(np.concatenate((turned[30:], turned[:30]))) / np.sqrt(2)
        np.testing.assert_allclose(unit, np.abs(dense), atol=1e-6)
    assert adjusted_rand_score(spectral_partition(wide, 3), np.concatenate((labels[48:], labels[:48]))) == 1.0


def test_nodes_without_edges_get_no_group() -> None:
    graph, _ = planted(3.0)
    weights = graph.weights_FX.copy()
    weights[5] = 0
    found = spectral_partition(BipartiteGraph(weights), 3)
    assert np.flatnonzero(found < 0).tolist() == [5]
    sparse = spectral_partition(SparseGraph.of(BipartiteGraph(weights).adjacency()), 3)
    assert (sparse == found).all()


@needs_leiden
def test_leiden_leaves_out_nodes_without_edges() -> None:
    weights = np.kron(np.eye(2), np.ones((4, 3)))
    weights[3] = 0
    found = leiden_partition(BipartiteGraph(weights))
    assert found.tolist() == [0, 0, 0, -1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1]


def test_wrong_numbers_of_groups_and_empty_graphs_are_refused() -> None:
    graph, _ = planted(1.0)
    with pytest.raises(InputError, match="n_groups is 1: expected 2 to 78"):
        spectral_partition(graph, 1)
    with pytest.raises(InputError, match="n_groups is 79"):
        spectral_partition(graph, 79)
    with pytest.raises(DataError, match="4 nodes has no edge"):
        leiden_partition(SparseGraph.of(np.zeros((4, 4))))


def test_the_missing_package_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "graspologic_native", None)
    with pytest.raises(InputError, match=r"Leiden needs the package graspologic-native .* 'modularity\[graph\]'"):
        leiden_partition(planted(1.0)[0])
