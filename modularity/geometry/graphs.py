"""Weighted undirected graphs without loops, and how well a partition cuts them: n-cut and Newman's Q, both exact.

Sources: n-cut as in Filan et al. 2021 (arXiv 2103.03386; Shi and Malik 2000), the sum over groups of the weight that
leaves a group over the weight of all edges at its nodes; Q of Newman 2006 (arXiv physics/0602124), the share of weight
within groups minus that expected from the strengths of the nodes. Sums are in float64.

Two forms. `BipartiteGraph` holds the dense weights between neurons and channels, so that no matrix of all nodes by all
nodes is made: an FFN of 10,240 neurons and 2 × 2,560 channels takes 0.4 GB, not 1.9. `SparseGraph` holds any graph.

Letters: V nodes, F neurons, X channels, C groups.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array, sparray

from modularity.errors import DataError

Float64 = NDArray[np.float64]
Labels = NDArray[np.int32]

VOLUME_OFFSET = 1e-8
"""Added to each volume in the n-cut, as published, so that a group without edges counts 0."""
NO_GROUP = -1
"""Label of a node without edges: it belongs to no group and adds nothing to n-cut or Q."""


@dataclass(frozen=True, eq=False)
class BipartiteGraph:
    """Edges between F neurons and X channels only; nodes are the neurons, then the channels."""

    weights_FX: Float64
    """Not negative, finite; 0 = no edge."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights_FX", _checked(self.weights_FX, "weights_FX"))

    @property
    def n_nodes(self) -> int:
        """F + X."""
        return sum(self.weights_FX.shape)

    @cached_property
    def n_edges(self) -> int:
        """Pairs with a weight above 0."""
        return int(np.count_nonzero(self.weights_FX))

    @cached_property
    def strengths_V(self) -> Float64:
        """Weight of the edges of every node, float64 (V,)."""
        return np.concatenate((self.weights_FX.sum(axis=1), self.weights_FX.sum(axis=0)))

    def within(self, labels_V: Labels, n_groups: int) -> Float64:
        """Weight within each group, every edge counted from both ends, float64 (C,)."""
        n_neurons = len(self.weights_FX)
        inside = one_hot(labels_V[:n_neurons], n_groups).T @ self.weights_FX
        return 2 * np.einsum("cx,xc->c", inside, one_hot(labels_V[n_neurons:], n_groups))

    def adjacency(self) -> csr_array:
        """All edges from both ends, CSR (V, V)."""
        neuron, channel = np.nonzero(self.weights_FX)
        weight = self.weights_FX[neuron, channel]
        return symmetric_edges(neuron, channel + len(self.weights_FX), weight, self.n_nodes)


@dataclass(frozen=True, eq=False)
class SparseGraph:
    """Any graph; `SparseGraph.of(matrix)` checks it."""

    edges: csr_array
    """CSR (V, V), float64, symmetric, without loops."""

    @classmethod
    def of(cls, weights_VV: ArrayLike | sparray) -> "SparseGraph":
        """From a dense or sparse symmetric matrix; the diagonal is left out.

        Raises
        ------
        DataError
            Not square, not symmetric, or a weight is negative or not finite.
        """
        given = weights_VV if isinstance(weights_VV, sparray) else np.asarray(weights_VV, np.float64)
        whole = coo_array(given)
        if whole.ndim != 2 or whole.shape[0] != whole.shape[1]:
            raise DataError(f"weights_VV has shape {whole.shape}: expected nodes x nodes")
        _checked(np.asarray(whole.data, np.float64).reshape(1, -1), "weights_VV")
        off = (whole.row != whole.col) & (whole.data != 0)
        kept = coo_array((whole.data[off].astype(np.float64), (whole.row[off], whole.col[off])), whole.shape).tocsr()
        kept.sum_duplicates()
        difference = abs(kept - kept.T)
        if difference.nnz and difference.max() > 1e-9 * kept.max():
            raise DataError(f"weights_VV differ by up to {difference.max():g} from their mirror: expected symmetry")
        return cls(kept)

    @property
    def n_nodes(self) -> int:
        """V."""
        return int(self.edges.shape[0])

    @property
    def n_edges(self) -> int:
        """Pairs with a weight above 0."""
        return int(self.edges.nnz // 2)

    @cached_property
    def strengths_V(self) -> Float64:
        """Weight of the edges of every node, float64 (V,)."""
        return np.asarray(self.edges.sum(axis=1), np.float64)

    def within(self, labels_V: Labels, n_groups: int) -> Float64:
        """Weight within each group, every edge counted from both ends, float64 (C,)."""
        ends = coo_array(self.edges)
        same = (labels_V[ends.row] == labels_V[ends.col]) & (labels_V[ends.row] != NO_GROUP)
        return _sums(labels_V[ends.row[same]], ends.data[same], n_groups)

    def adjacency(self) -> csr_array:
        """All edges from both ends, CSR (V, V)."""
        return self.edges


Graph = BipartiteGraph | SparseGraph


def normalised_cut(graph: Graph, labels_V: ArrayLike) -> float:
    """N-cut of a partition: sum over groups of cut / (volume + 1e-8); from 0 (no edge leaves a group) to C.

    Parameters
    ----------
    graph : the graph
    labels_V : int array (V,): group of every node, from 0 up; -1 = none, allowed for nodes without edges only

    Raises
    ------
    DataError
        Not one label for each node, or a node with edges has none.
    """
    volume_C, within_C = _volumes(graph, labels_V)
    return float(((volume_C - within_C) / (volume_C + VOLUME_OFFSET)).sum())


def newman_modularity(graph: Graph, labels_V: ArrayLike) -> float:
    """Newman's Q of a partition: 1/2m sum_ij (A_ij - d_i d_j / 2m) over pairs in one group; below 1, 0 for one group.

    Parameters and errors are those of `normalised_cut`.
    """
    volume_C, within_C = _volumes(graph, labels_V)
    total = float(volume_C.sum())
    return float((within_C / total - (volume_C / total) ** 2).sum())


def _volumes(graph: Graph, labels_V: ArrayLike) -> tuple[Float64, Float64]:
    """Weight of all edges at the nodes of each group, and of those within it, both counted from both ends."""
    labels = np.asarray(labels_V)
    if labels.shape != (graph.n_nodes,) or labels.dtype.kind not in "iu" or labels.min() < NO_GROUP:
        raise DataError(
            f"labels_V has shape {labels.shape}, dtype {labels.dtype}: expected {graph.n_nodes} groups from 0 up, one "
            "for each node"
        )
    left = np.flatnonzero((labels == NO_GROUP) & (graph.strengths_V > 0))
    if len(left):
        raise DataError(f"node {left[0]} has edges and no group, as {len(left)} in all: give each a group")
    if not graph.strengths_V.any():
        raise DataError(f"a graph of {graph.n_nodes} nodes has no edge: expected weights above 0")
    n_groups = int(labels.max()) + 1
    member = labels != NO_GROUP
    volume_C = _sums(labels[member], graph.strengths_V[member], n_groups)
    return volume_C, graph.within(labels.astype(np.int32), n_groups)


def _sums(groups: NDArray[np.integer], weights: Float64, n_groups: int) -> Float64:
    return np.asarray(np.bincount(groups, weights=weights, minlength=n_groups), np.float64)


def one_hot(labels: Labels, n_groups: int) -> Float64:
    """1 where a node is of a group, else 0, float64 (nodes, groups); a node without group has no 1."""
    found = np.zeros((len(labels), n_groups))
    member = np.flatnonzero(labels != NO_GROUP)
    found[member, labels[member]] = 1.0
    return found


def _checked(weights: ArrayLike, name: str) -> Float64:
    array = np.asarray(weights, np.float64)
    if array.ndim != 2 or not array.shape[0]:
        raise DataError(f"{name} has shape {array.shape}: expected a matrix")
    bad = ~np.isfinite(array) | (array < 0)
    if bad.any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(f"{name}{list(place)} is {array[place]}: expected weights, finite and not negative")
    return array


def symmetric_edges(row: NDArray[np.int64], column: NDArray[np.int64], weight: Float64, n_nodes: int) -> csr_array:
    """Edges given from one end, from both ends, CSR (n_nodes, n_nodes); indices are int32 where they fit."""
    index = np.int32 if 2 * len(weight) < np.iinfo(np.int32).max else np.int64
    ends = (np.concatenate((row, column)).astype(index), np.concatenate((column, row)).astype(index))
    return coo_array((np.concatenate((weight, weight)), ends), shape=(n_nodes, n_nodes)).tocsr()
