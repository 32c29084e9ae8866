"""N-cut and Q against sums over all pairs, networkx and graspologic-native; the two forms of a graph agree."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from modularity.errors import DataError
from modularity.geometry.graphs import BipartiteGraph, SparseGraph, newman_modularity, normalised_cut

networkx = pytest.importorskip("networkx")


@pytest.fixture
def bipartite() -> BipartiteGraph:
    rng = np.random.default_rng(0)
    return BipartiteGraph(rng.random((7, 5)) * (rng.random((7, 5)) < 0.7))


def dense(graph: BipartiteGraph) -> np.ndarray:
    return graph.adjacency().toarray()


def by_pairs(weights: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """n-cut and Q, straight from their formulas."""
    total, strength, cut, q = weights.sum(), weights.sum(axis=1), 0.0, 0.0
    for group in set(labels.tolist()):
        inside = labels == group
        cut += weights[inside][:, ~inside].sum() / (weights[inside].sum() + 1e-8)
    for i in range(len(weights)):
        for j in range(len(weights)):
            if labels[i] == labels[j]:
                q += (weights[i, j] - strength[i] * strength[j] / total) / total
    return cut, q


def test_both_forms_give_the_sums_over_pairs(bipartite) -> None:
    labels = np.array([0, 0, 1, 2, 1, 1, 0, 2, 0, 1, 1, 2])
    cut, q = by_pairs(dense(bipartite), labels)
    for graph in (bipartite, SparseGraph.of(dense(bipartite)), SparseGraph.of(csr_array(dense(bipartite)))):
        assert normalised_cut(graph, labels) == pytest.approx(cut, rel=1e-12)
        assert newman_modularity(graph, labels) == pytest.approx(q, rel=1e-12)
        assert (graph.n_nodes, graph.n_edges) == (12, np.count_nonzero(bipartite.weights_FX))
        np.testing.assert_allclose(graph.strengths_V, dense(bipartite).sum(axis=1), rtol=1e-12)


def test_q_is_that_of_networkx(bipartite) -> None:
    labels = np.array([0, 1, 1, 0, 2, 2, 0, 0, 1, 1, 2, 2])
    theirs = networkx.from_numpy_array(dense(bipartite))
    groups = [set(np.flatnonzero(labels == group).tolist()) for group in range(3)]
    expected = networkx.community.modularity(theirs, groups)
    assert newman_modularity(bipartite, labels) == pytest.approx(expected, rel=1e-12)
    cut = sum(networkx.algorithms.cuts.cut_size(theirs, g, weight="weight")
              / networkx.algorithms.cuts.volume(theirs, g, weight="weight") for g in groups)  # fmt: skip
    assert normalised_cut(bipartite, labels) == pytest.approx(cut, rel=1e-7)  # 1e-8 is added to volumes


def test_q_is_that_of_graspologic(bipartite) -> None:
    native = pytest.importorskip("graspologic_native")
    labels = np.array([0, 1, 1, 0, 2, 2, 0, 0, 1, 1, 2, 2])
    row, column = np.nonzero(np.triu(dense(bipartite)))
    edges = [(str(i), str(j), float(dense(bipartite)[i, j])) for i, j in zip(row, column)]
    theirs = native.modularity(edges, {str(node): int(group) for node, group in enumerate(labels)})
    assert newman_modularity(bipartite, labels) == pytest.approx(theirs, rel=1e-12)


def test_one_group_and_parts_without_edges_between_them() -> None:
    graph = SparseGraph.of(np.kron(np.eye(4), np.ones((3, 3))))
    assert newman_modularity(graph, np.zeros(12, int)) == pytest.approx(0)
    parts = np.repeat(np.arange(4), 3)
    assert newman_modularity(graph, parts) == pytest.approx(0.75)
    assert normalised_cut(graph, parts) == pytest.approx(0)


def test_nodes_without_edges_need_no_group(bipartite) -> None:
    wider = np.zeros((8, 5))
    wider[:7] = bipartite.weights_FX
    labels = np.array([0, 0, 1, 2, 1, 1, 0, 2, 0, 1, 1, 2])
    with_gap = np.insert(labels, 7, -1)
    assert newman_modularity(BipartiteGraph(wider), with_gap) == pytest.approx(newman_modularity(bipartite, labels))
    with pytest.raises(DataError, match="node 0 has edges and no group"):
        newman_modularity(bipartite, np.where(labels == 0, -1, labels))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[0, -1], [-1, 0]], r"weights_VV\[0, 0\] is -1.0: expected weights"),
        ([[0, np.inf], [np.inf, 0]], "is inf: expected weights, finite"),
        ([[0, 1], [2, 0]], "differ by up to 1 from their mirror"),
        ([[0, 1, 2], [1, 0, 1]], r"shape \(2, 3\): expected nodes x nodes"),
    ],
)
def test_bad_weights_are_refused(weights, message) -> None:
    with pytest.raises(DataError, match=message):
        SparseGraph.of(np.array(weights, float))


def test_bad_labels_and_empty_graphs_are_refused(bipartite) -> None:
    with pytest.raises(DataError, match="expected 12 groups from 0 up"):
        normalised_cut(bipartite, np.zeros(5, int))
    with pytest.raises(DataError, match="4 nodes has no edge"):
        newman_modularity(SparseGraph.of(np.zeros((4, 4))), np.zeros(4, int))
    with pytest.raises(DataError, match=r"weights_FX\[1, 0\] is nan"):
        BipartiteGraph(np.array([[1.0], [np.nan]]))
