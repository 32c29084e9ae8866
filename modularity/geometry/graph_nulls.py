"""What a graph without groups would look like: weights permuted, edges rewired, activity exchanged.

Weights. `permute_weights`: all entries of a matrix, or those that are not 0, change places (Filan et al. 2021, arXiv
2103.03386); every node then has about the same strength, so a graph with hubs differs from it without any groups.
`permute_keeping_strengths` leaves every node its strength: the matrix is scaled by rows and columns until all rows,
and all columns, have one sum (Sinkhorn and Knopp 1967), its entries that are not 0 change places among each other, and
it is scaled until rows and columns have the sums that they had. Hubs alone make graphs harder to cut: without this null
they hide groups. On graphs of some dozen nodes it is conservative.

Co-activation. `rewire` exchanges the ends of pairs of edges (Maslov and Sneppen 2002): every neuron keeps its number of
edges, and every edge its weight. `exchange_activity` (curveball: Strona et al. 2014) exchanges activity between pairs
of rows: every neuron is active in as many rows, and every row has as many active neurons, as before.

All are random; a seed gives one outcome.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import coo_array

from modularity.errors import DataError
from modularity.geometry.graphs import Float64, SparseGraph, symmetric_edges

SWEEPS = 10
"""Attempts to rewire, for each edge."""
TRADES = 5
"""Exchanges, for each row."""
_PAIRS_AT_ONCE = 512
_TOLERANCE = 1e-9
_MAX_SCALINGS = 2000


def permute_weights(matrix: Float64, rng: np.random.Generator, *, nonzero_only: bool = False) -> Float64:
    """The same entries at random places, or those that are not 0 at the places of each other."""
    if not nonzero_only:
        return rng.permutation(matrix.ravel()).reshape(matrix.shape)
    places = np.flatnonzero(matrix)
    permuted = np.zeros(matrix.size)
    permuted[places] = rng.permutation(matrix.ravel()[places])
    return permuted.reshape(matrix.shape)


def permute_keeping_strengths(matrix: Float64, rng: np.random.Generator) -> Float64:
    """Permuted entries, with the sums of all rows and columns as they were to 1e-9.

    Raises
    ------
    DataError
        The scaling does not converge: the places that are not 0 allow no such matrix.
    """
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    used = np.ix_(rows > 0, columns > 0)
    inner = matrix[used]
    n_rows, n_columns = inner.shape
    across, down = np.full(n_rows, float(n_columns)), np.full(n_columns, float(n_rows))
    even = scale_to(inner, across, down)
    mixed = permute_weights(even, rng, nonzero_only=True)
    mixed = _as_spread(mixed, float(even.var()), across, down)
    found = np.zeros_like(matrix)
    found[used] = scale_to(mixed, rows[rows > 0], columns[columns > 0])
    return found


def _as_spread(mixed: Float64, variance: float, across: Float64, down: Float64) -> Float64:
    """Entries raised to the power at which, scaled to even sums, they have this variance.

    Scaling takes out what rows and columns have in common by chance, and variance with it, so that the null would have
    less to make groups of than the observed weights: half of it at 2 channels, 0.3 % at 384.
    """
    first = float(scale_to(mixed, across, down).var())
    if not first > 0 or not variance > 0:
        return mixed
    power = np.sqrt(variance / first)
    if abs(power - 1) < _TOLERANCE:
        return mixed
    second = float(scale_to(mixed**power, across, down).var())
    slope = np.log(second / first) / np.log(power)
    return mixed ** np.exp(np.log(variance / first) / slope)


def scale_to(matrix: Float64, rows: Float64, columns: Float64) -> Float64:
    """The matrix with its rows and columns multiplied so that they have these sums.

    Raises
    ------
    DataError
        No convergence in 2,000 rounds: the places that are not 0 allow no such matrix.
    """
    column_factor, off = np.ones(len(columns)), np.inf
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        for _ in range(_MAX_SCALINGS):
            row_factor = rows / (matrix @ column_factor)
            column_factor = columns / (row_factor @ matrix)
            off = float(np.abs(row_factor * (matrix @ column_factor) - rows).max() / rows.max())
            if off <= _TOLERANCE:
                return matrix * row_factor[:, None] * column_factor
            if not np.isfinite(off):
                break
    raise DataError(
        f"a matrix of shape {matrix.shape} with {np.count_nonzero(matrix)} entries could not be scaled to its sums: "
        f"its rows stay off by {off:.1e} of the largest; keep more edges"
    )


def rewire(graph: SparseGraph, rng: np.random.Generator) -> SparseGraph:
    """A random graph in which every node has as many edges as here, and edges have the same weights.

    Takes V × V bytes for the edges that are there.
    """
    upper = coo_array(graph.edges)
    first = upper.row < upper.col
    start, end, weight = (part[first].copy() for part in (upper.row, upper.col, upper.data))
    there = np.zeros((graph.n_nodes, graph.n_nodes), np.bool_)
    there[upper.row, upper.col] = True
    n_edges = len(start)
    for _ in range(SWEEPS):
        _swap_ends(start, end, there, rng.integers(n_edges, size=(n_edges, 2)), rng.random(n_edges) < 0.5)
    return SparseGraph(symmetric_edges(start, end, weight, graph.n_nodes))


@njit(cache=True, nogil=True)
def _swap_ends(start, end, there, pairs, flips):  # type: ignore[no-untyped-def]
    for step in range(len(pairs)):
        i, j = pairs[step]
        a, b, c, d = start[i], end[i], start[j], end[j]
        if flips[step]:
            c, d = d, c
        if i == j or a == d or c == b or there[a, d] or there[c, b]:
            continue
        there[a, b] = there[b, a] = there[c, d] = there[d, c] = False
        there[a, d] = there[d, a] = there[c, b] = there[b, c] = True
        start[i], end[i], start[j], end[j] = a, d, c, b


def exchange_activity(active_RF: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random activity with the same number of active rows for every neuron, and of active neurons for every row."""
    mixed = active_RF.copy()
    n_left = TRADES * len(mixed) if len(mixed) > 1 else 0
    while n_left > 0:
        n_pairs = min(n_left, _PAIRS_AT_ONCE)
        pairs = rng.integers(len(mixed), size=(n_pairs, 2))
        _trade(mixed, pairs, rng.random((n_pairs, mixed.shape[1]), np.float32))
        n_left -= n_pairs
    return mixed


@njit(cache=True, nogil=True)
def _trade(active_RF, pairs, random_PF):  # type: ignore[no-untyped-def]
    n_neurons = active_RF.shape[1]
    differs = np.empty(n_neurons, np.int64)
    for step in range(len(pairs)):
        a, b = pairs[step]
        n_differ, n_first = 0, 0
        for f in range(n_neurons):
            if active_RF[a, f] != active_RF[b, f]:
                differs[n_differ] = f
                n_differ += 1
                n_first += active_RF[a, f]
        for k in range(n_differ):  # of those that differ, a gets n_first at random, b the others
            chosen = k + int(random_PF[step, k] * (n_differ - k))
            differs[k], differs[chosen] = differs[chosen], differs[k]
            active_RF[a, differs[k]] = k < n_first
            active_RF[b, differs[k]] = k >= n_first
