"""Partitions of a graph into groups: spectral, with a given number, and Leiden, which finds the number.

Spectral (Shi and Malik 2000; as scikit-learn's `spectral_clustering`, which takes a matrix of all nodes by all nodes):
the leading eigenvectors of D^-1/2 A D^-1/2, each node's row divided by the root of its strength, then k-means by
scikit-learn. The eigenvectors of a bipartite graph come from the singular vectors of its weights.

Leiden (Traag, Waltman and van Eck 2019) maximises Newman's Q; it is that of `graspologic-native`, an optional
dependency under the MIT licence (`igraph` and `leidenalg` are under the GPL).

Nodes without edges get no group (-1). Groups are named by their first node: 0 holds the first node, 1 the first node
that is not in 0, and so on.
"""

import warnings
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from modularity.errors import DataError, InputError
from modularity.geometry.graphs import NO_GROUP, BipartiteGraph, Float64, Graph, Labels, SparseGraph

N_INIT = 10
"""Starts of k-means, of which the best is kept."""
DENSE_NODES = 2048
"""Graphs up to this size (bipartite ones: in their smaller part) go to a dense solver, larger ones to Lanczos."""


def spectral_partition(graph: Graph, n_groups: int, *, seed: int = 0) -> Labels:
    """Partition of a graph into `n_groups` groups of little cut, int32 (V,); -1 for nodes without edges.

    Parameters
    ----------
    graph : the graph
    n_groups : at least 2 and at most the number of nodes with edges; fewer come out where rows of eigenvectors coincide
    seed : of k-means and of the Lanczos start vector

    Raises
    ------
    InputError
        `n_groups` is out of range.
    DataError
        No edges, or the eigenvectors do not converge.
    """
    linked = np.flatnonzero(graph.strengths_V > 0)
    if not 2 <= n_groups <= len(linked):
        raise InputError(f"n_groups is {n_groups}: expected 2 to {len(linked)}, the nodes with edges")
    if isinstance(graph, BipartiteGraph):
        vectors_VK = _bipartite_vectors(graph, n_groups, seed)
    else:
        vectors_VK = _sparse_vectors(graph, linked, n_groups, seed)
    rows_VK = vectors_VK[linked] / np.sqrt(graph.strengths_V[linked, None])
    rows_VK /= np.abs(rows_VK).max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than groups: the count tells
        found = KMeans(n_groups, n_init=N_INIT, random_state=seed).fit_predict(rows_VK)
    return _in_order(graph.n_nodes, linked, found)


def leiden_partition(graph: Graph, *, resolution: float = 1.0, seed: int = 0) -> Labels:
    """Partition of a graph that maximises Newman's Q by the Leiden algorithm, int32 (V,); -1 for nodes without edges.

    Parameters
    ----------
    graph : the graph
    resolution : weight of the expected term of Q; more groups where it is above 1
    seed : of the algorithm

    Raises
    ------
    InputError
        `graspologic-native` is not installed.
    DataError
        The graph has no edges.
    """
    linked = np.flatnonzero(graph.strengths_V > 0)
    if not len(linked):
        raise DataError(f"a graph of {graph.n_nodes} nodes has no edge: expected weights above 0")
    edges = graph.adjacency()
    if len(linked) < graph.n_nodes:
        edges = edges[linked][:, linked]
    _, found = _leiden().leiden_csr(
        edges.indptr.astype(np.int64),
        edges.indices.astype(np.int32),
        edges.data.astype(np.float64),
        len(linked),
        resolution=resolution,
        seed=seed,
    )
    return _in_order(graph.n_nodes, linked, np.array([found[node] for node in range(len(linked))]))


def _leiden() -> Any:
    try:
        import graspologic_native  # Optional, so imported where it is needed.
    except ImportError as error:
        raise InputError(
            f"Leiden needs the package graspologic-native ({error}): pip install 'modularity[graph]', or "
            "pip install graspologic-native"
        ) from None
    return graspologic_native


def _bipartite_vectors(graph: BipartiteGraph, n_vectors: int, seed: int) -> Float64:
    """Leading eigenvectors of the normalised adjacency, from the eigenvectors of the smaller of its two squares."""
    weights = graph.weights_FX
    n_neurons, n_channels = weights.shape
    root_F, root_X = (_inverse_root(part) for part in np.split(graph.strengths_V, [n_neurons]))
    normal_FX = weights * root_F[:, None] * root_X
    small_first = n_neurons < n_channels
    tall = normal_FX.T if small_first else normal_FX
    n_kept = min(n_vectors, tall.shape[1])
    last = tall.shape[1] - 1
    if last < DENSE_NODES or n_kept > last:
        square, right = eigh(tall.T @ tall, subset_by_index=(last + 1 - n_kept, last))
    else:
        edges = csr_array(tall)
        product = LinearOperator((last + 1, last + 1), matvec=lambda x: edges.T @ (edges @ x), dtype=np.float64)
        square, right = _lanczos(product, n_kept, seed)
    singular, right = np.sqrt(np.maximum(square, 0))[::-1], right[:, ::-1]
    usable = singular > 1e-7
    left = np.where(usable, tall @ right / np.where(usable, singular, 1.0), 0.0)
    of_neurons, of_channels = (right, left) if small_first else (left, right)
    return _signed(np.concatenate((of_neurons, of_channels)))


def _sparse_vectors(graph: SparseGraph, linked: np.ndarray, n_vectors: int, seed: int) -> Float64:
    root = diags_array(_inverse_root(graph.strengths_V[linked]))
    normal = csr_array(root @ graph.edges[linked][:, linked] @ root)
    n_linked = len(linked)
    if n_linked <= DENSE_NODES or n_vectors >= n_linked - 1:
        _, vectors = eigh(normal.toarray(), subset_by_index=(n_linked - n_vectors, n_linked - 1))
    else:
        _, vectors = _lanczos(normal, n_vectors, seed)
    whole = np.zeros((graph.n_nodes, n_vectors))
    whole[linked] = vectors[:, ::-1]
    return _signed(whole)


def _lanczos(matrix: Any, n_vectors: int, seed: int) -> tuple[Float64, Float64]:
    """Largest eigenvalues, ascending, and their vectors."""
    start = np.random.default_rng(seed).standard_normal(matrix.shape[0])
    n_basis = min(4 * n_vectors + 20, matrix.shape[0])
    try:
        values, vectors = eigsh(matrix, k=n_vectors, which="LA", v0=start, ncv=n_basis, tol=1e-8)
    except ArpackNoConvergence as error:
        raise DataError(
            f"{len(error.eigenvalues)} of {n_vectors} eigenvectors of a graph of {matrix.shape[0]} nodes converged; "
            "take fewer groups or another density of edges"
        ) from None
    order = np.argsort(values)
    return values[order], vectors[:, order]


def _inverse_root(strengths: Float64) -> Float64:
    return np.where(strengths > 0, 1 / np.sqrt(np.where(strengths > 0, strengths, 1.0)), 0.0)


def _signed(vectors: Float64) -> Float64:
    """Each column with its largest entry positive; the first among equal ones."""
    at = np.abs(vectors).argmax(axis=0)
    sign = np.sign(vectors[at, np.arange(vectors.shape[1])])
    return vectors * np.where(sign == 0, 1.0, sign)


def _in_order(n_nodes: int, linked: np.ndarray, found: np.ndarray) -> Labels:
    """Labels of all nodes, groups numbered by their first node."""
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    labels = np.full(n_nodes, NO_GROUP, np.int32)
    labels[linked] = rank[inverse.reshape(-1)]
    return labels
