"""Graphs of neurons: of the weights of one FFN, and of how often neurons are active together.

Weights (Filan et al. 2021, arXiv 2103.03386): nodes are the neurons of a layer, the channels that they read and the
channels that they write; the weight of an edge is |w|. Layers are blocks: edges join neurons with channels only. A
gated FFN has two input matrices, whose absolute values add up. Signs, biases, norms, attention and the residual
stream, which makes input and output channels the same, are not in this graph.

`rescaled`: the mean |incoming weight| of every neuron becomes 1, its outgoing weights are multiplied by what the
incoming ones were divided by. In an FFN with ReLU, or whose `up` matrix is linear, the function computed does not
change; with GELU it does, a little.

Co-activation: nodes are neurons; the weight is the co-activation over the geometric mean of what both neurons have with
themselves (Ochiai's coefficient), so that a neuron that is often active is not near all others for that reason.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from modularity.errors import DataError
from modularity.geometry.graphs import BipartiteGraph, SparseGraph, symmetric_edges

Float64 = NDArray[np.float64]
Matrices = tuple[Float64, ...]
"""Absolute weights of one FFN, each (neurons, channels): one or more input matrices, then the output matrix."""

_BLOCK_ROWS = 512


def absolute_weights(inputs: Sequence[ArrayLike], output: ArrayLike) -> Matrices:
    """|w| of the matrices of one FFN, float64.

    Parameters
    ----------
    inputs : arrays of shape (F, D): what each neuron reads; two of them in a gated FFN
    output : array of shape (F, D'): what each neuron writes

    Raises
    ------
    DataError
        Not matrices of the same neurons, or a weight is not finite.
    """
    matrices = tuple(np.abs(np.asarray(matrix, np.float64)) for matrix in (*inputs, output))
    shapes = [matrix.shape for matrix in matrices]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes) or len(set(shapes[:-1])) != 1:
        raise DataError(f"matrices have shapes {shapes}: expected neurons x channels, the same neurons in each")
    for matrix in matrices:
        if not np.isfinite(matrix).all():
            raise DataError(f"{int((~np.isfinite(matrix)).sum())} weights are not finite: expected finite weights")
    return matrices


def keep_heaviest(matrix: Float64, share: float) -> Float64:
    """The heaviest `share` of all entries, rounded up; others become 0. Among equal ones the first are kept."""
    n_kept = int(np.ceil(share * matrix.size))
    if n_kept >= matrix.size:
        return matrix
    flat = matrix.ravel()
    threshold = np.partition(flat, matrix.size - n_kept)[matrix.size - n_kept]
    kept = flat > threshold
    ties = np.flatnonzero(flat == threshold)[: n_kept - int(kept.sum())]
    kept[ties] = True
    return np.where(kept, flat, 0.0).reshape(matrix.shape)


def rescaled(matrices: Matrices) -> Matrices:
    """Weights after every neuron's mean incoming weight is made 1, and its outgoing weights are multiplied instead.

    A neuron without incoming weight stays as it is.
    """
    *inputs, output = matrices
    mean_F = np.sum([matrix.mean(axis=1) for matrix in inputs], axis=0)
    factor_F = np.where(mean_F > 0, mean_F, 1.0)[:, None]
    return (*(matrix / factor_F for matrix in inputs), output * factor_F)


def ffn_graph(matrices: Matrices) -> BipartiteGraph:
    """The graph of one FFN: neurons, then the channels that are read, then those that are written."""
    *inputs, output = matrices
    return BipartiteGraph(np.concatenate((np.sum(inputs, axis=0) if len(inputs) > 1 else inputs[0], output), axis=1))


def coactivation_graph(sums_FF: NDArray[np.floating], share: float) -> SparseGraph:
    """Graph of the heaviest `share` of all pairs of neurons, by Ochiai's coefficient.

    Parameters
    ----------
    sums_FF : co-activation of all pairs of neurons, symmetric, not negative; on the diagonal a neuron's with itself
    share : in (0, 1]: share of the pairs that become edges, rounded up; fewer where fewer are ever active together

    Returns
    -------
    SparseGraph
        A neuron that is never active has no edge.

    Raises
    ------
    DataError
        Not a square matrix, a value is negative or not finite, or no two neurons are ever active together.
    """
    sums = np.asarray(sums_FF)
    if sums.ndim != 2 or sums.shape[0] != sums.shape[1]:
        raise DataError(f"sums_FF has shape {sums.shape}: expected neurons x neurons")
    own_F = sums.diagonal().astype(np.float64)
    scale_F = np.where(own_F > 0, 1 / np.sqrt(np.where(own_F > 0, own_F, 1.0)), 0.0)
    edges = _heavy_pairs(sums, scale_F, share)
    if not edges.nnz:
        raise DataError(f"no two of {len(sums)} neurons are active together: expected some; take more texts")
    return SparseGraph.of(edges)


def _heavy_pairs(sums_FF: NDArray[np.floating], scale_F: Float64, share: float) -> csr_array:
    """Pairs above the threshold from both ends; only pairs of one block of rows are in float64 at a time."""
    n_neurons = len(sums_FF)
    n_kept = int(np.ceil(share * n_neurons * (n_neurons - 1) / 2))
    row, column = np.zeros(0, np.int64), np.zeros(0, np.int64)
    weight = np.zeros(0)
    for start in range(0, n_neurons, _BLOCK_ROWS):
        block = sums_FF[start : start + _BLOCK_ROWS].astype(np.float64)
        block *= scale_F[start : start + _BLOCK_ROWS, None] * scale_F
        if not np.isfinite(block).all() or (block < 0).any():
            raise DataError("sums_FF has values that are negative or not finite: expected co-activations")
        above = np.triu(np.ones(block.shape, np.bool_), start + 1) & (block > 0)
        i, j = np.nonzero(above)
        row, column = np.concatenate((row, i + start)), np.concatenate((column, j))
        weight = np.concatenate((weight, block[i, j]))
        if len(weight) > n_kept:
            order = np.argsort(-weight, kind="stable")[:n_kept]
            order.sort()
            row, column, weight = row[order], column[order], weight[order]
    return symmetric_edges(row, column, weight, n_neurons)
