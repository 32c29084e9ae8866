"""Experts of neurons that fire together: balanced partition of the graph of co-activations.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786), co-activation graph split. Weights below .99 times the
smallest positive decile are dropped, the others divided by that and rounded down, and METIS (Karypis and Kumar 1998)
cuts the graph into experts with little weight between them. METIS balances to some percent only; surplus neurons then
move to experts with free places.

Departures, all undone by variant `released`: METIS may be out of balance by 20 % instead of 3 %, since the neurons of
small experts could not move otherwise, and gets the neurons in random order; a surplus neuron goes where the least
weight is lost, in a fixed order, not at random; exchanges of pairs follow until none raises the weight within experts;
the deciles leave out the diagonal, which holds no pair. METIS comes from `pymetis`, an optional dependency (wrapper
MIT, METIS Apache 2.0).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array

from modularity.errors import DataError, InputError
from modularity.experts.assignment import require_divisible
from modularity.experts.exchange import refine_weights

Labels = NDArray[np.int32]
Float64 = NDArray[np.float64]

_MARGIN = 0.99
"""Share of the decile from which on a weight is kept."""
_MAX_SEED = 2**31 - 1
_BLOCK_ROWS = 512
_ASYMMETRY = 1e-4
"""Relative difference of the two weights of a pair that rounding explains; the upper triangle is used."""
_LOOSE_BALANCE = 200
"""Imbalance left to METIS, in thousandths: with its default of 30 no neuron of an expert of 32 can move."""


@dataclass(frozen=True)
class CoactivationPartition:
    """A balanced partition of a co-activation graph."""

    labels_F: Labels
    """Expert of every neuron."""
    within_share: float
    """Share of the weight of all pairs, before the threshold, that lies within experts."""
    chance_within_share: float
    """Expectation of `within_share` for a random balanced partition: the share of pairs within experts."""
    threshold: float
    """Weight of an edge of integer weight 1; lighter pairs have no edge."""
    n_edges: int
    """Pairs of neurons with an edge."""
    n_isolated: int
    """Neurons without an edge, which METIS puts anywhere."""
    n_moved: int
    """Neurons moved after METIS to even out the sizes."""
    n_swaps: int
    """Pairs of neurons exchanged after that."""


def coactivation_partition(
    weights_FF: ArrayLike, n_experts: int, *, seed: int = 0, variant: Literal["corrected", "released"] = "corrected"
) -> CoactivationPartition:
    """Partition neurons into experts of equal size so that little co-activation lies between experts.

    Deterministic for a seed and a version of METIS. The graph takes 48 bytes for each pair of neurons with an edge.

    Parameters
    ----------
    weights_FF : array of shape (n_neurons, n_neurons), symmetric, finite, not negative: how much pairs of neurons are
        active together, in any unit; the diagonal does not matter
    n_experts : int, divides n_neurons
    seed : of METIS, of the order in which neurons are given to it and exchanged; of the moves under `released`
    variant : `released`: as the authors' code, see above

    Returns
    -------
    CoactivationPartition

    Raises
    ------
    InputError
        `n_experts` does not divide the number of neurons, or `pymetis` is not installed.
    DataError
        The weights are not as described, or no two neurons are active together.
    """
    weights = _check_weights(weights_FF)
    n_neurons = len(weights)
    size = require_divisible(n_neurons, n_experts)
    threshold = coactivation_threshold(weights, variant=variant)
    graph = _graph(weights, threshold)
    rng = np.random.default_rng(seed)
    metis_seed = int(rng.integers(_MAX_SEED))
    if variant == "released":
        cut_F = _cut(graph, n_experts, seed=metis_seed)
        even_F = labels_F = _move_at_random(cut_F, n_experts, rng)
        n_swaps = 0
    else:
        # On graphs of some hundred neurons for each expert METIS does not use its seed; the order of neurons matters.
        order = rng.permutation(n_neurons)
        cut_F = np.empty(n_neurons, np.int32)
        cut_F[order] = _cut(graph[order][:, order], n_experts, seed=metis_seed, ufactor=_LOOSE_BALANCE)
        even_F = _move_least_lost(graph, cut_F, n_experts)
        labels_F, n_swaps, _ = refine_weights(weights, even_F, n_experts, rng=rng)
    total = float(weights.sum(dtype=np.float64) - np.trace(weights, dtype=np.float64))
    return CoactivationPartition(
        labels_F=labels_F,
        within_share=_within(weights, labels_F, n_experts) / total,
        chance_within_share=(size - 1) / max(n_neurons - 1, 1),
        threshold=threshold,
        n_edges=graph.nnz // 2,
        n_isolated=int((np.diff(graph.indptr) == 0).sum()),
        n_moved=int((even_F != cut_F).sum()),
        n_swaps=n_swaps,
    )


def coactivation_threshold(
    weights_FF: NDArray[np.floating], *, variant: Literal["corrected", "released"] = "corrected"
) -> float:
    """Least weight of an edge: .99 times the smallest decile (10 %, 20 %, … 100 %) of the weights that is positive.

    Raises
    ------
    DataError
        All weights of pairs are zero.
    """
    pairs = np.asarray(weights_FF)
    if variant == "corrected":
        pairs = pairs[np.tri(len(pairs), k=-1, dtype=np.bool_)]
    deciles = np.percentile(pairs, np.arange(10, 101, 10)) if pairs.size else np.zeros(1)
    if deciles[-1] <= 0:
        raise DataError(
            f"all co-activations of {len(weights_FF)} neurons are zero: expected neurons that are active together; "
            "count over more tokens"
        )
    return float(deciles[deciles > 0][0]) * _MARGIN


def _check_weights(weights_FF: ArrayLike) -> NDArray[np.floating]:
    weights = np.asarray(weights_FF)
    if (
        weights.ndim != 2
        or weights.shape[0] != weights.shape[1]
        or weights.size == 0
        or weights.dtype.kind not in "fiu"
    ):
        raise DataError(
            f"weights_FF has shape {weights.shape} and dtype {weights.dtype}: expected real numbers, neurons x neurons"
        )
    weights = weights if weights.dtype.kind == "f" and weights.itemsize >= 4 else weights.astype(np.float64)
    for start in range(0, len(weights), _BLOCK_ROWS):
        block, mirrored = weights[start : start + _BLOCK_ROWS], weights[:, start : start + _BLOCK_ROWS].T
        bad = ~np.isfinite(block) | (block < 0)
        if bad.any():
            f, g = np.argwhere(bad)[0]
            raise DataError(
                f"weights_FF[{start + f}, {g}] is {block[f, g]}: expected co-activations, finite and not negative"
            )
        differs = np.abs(block - mirrored) > _ASYMMETRY * np.maximum(block, mirrored)
        if differs.any():
            f, g = np.argwhere(differs)[0]
            raise DataError(
                f"weights_FF[{start + f}, {g}] is {block[f, g]}, [{g}, {start + f}] is {mirrored[f, g]}: "
                "expected the same weight both ways"
            )
    return weights


def _graph(weights_FF: NDArray[np.floating], threshold: float) -> csr_array:
    """Symmetric graph of integer weights without loops, from the upper triangle."""
    row, column = np.nonzero(np.triu(weights_FF >= threshold, 1))
    weight = np.floor(weights_FF[row, column] / threshold).astype(np.int64)
    if not len(weight):
        raise DataError(f"no pair of neurons reaches the threshold {threshold:g}: only the diagonal is heavy")
    both = (np.concatenate((row, column)), np.concatenate((column, row)))
    return coo_array((np.concatenate((weight, weight)), both), shape=weights_FF.shape).tocsr()


def _cut(graph: csr_array, n_experts: int, **options: int) -> Labels:
    """Labels from METIS, roughly balanced."""
    metis = _metis()
    integer = metis.zero_copy_dtype()
    # Sums of weights must fit the integers of this build of METIS.
    excess = -(-int(graph.data.sum()) // (int(np.iinfo(integer).max) // 2))
    weights = np.maximum(graph.data // max(excess, 1), 1)
    adjacency = metis.CSRAdjacency(graph.indptr.astype(integer), graph.indices.astype(integer))
    found = metis.part_graph(
        n_experts, adjacency, eweights=weights.astype(integer), options=metis.Options(**options)
    ).vertex_part
    return np.array(found, dtype=np.int32)


def _metis() -> Any:
    try:
        import pymetis  # Optional, so imported where it is needed.
    except ImportError as error:
        raise InputError(
            f"partition by co-activation needs the graph partitioner pymetis ({error}): "
            "pip install 'modularity[graph]', or pip install pymetis"
        ) from None
    return pymetis


def _move_least_lost(graph: csr_array, labels_F: Labels, n_experts: int) -> Labels:
    """Move surplus neurons one by one, always the one that loses the least weight; lowest index among equals."""
    labels = labels_F.copy()
    size = len(labels) // n_experts
    count_E = np.bincount(labels, minlength=n_experts)
    weight_FE = np.asarray(graph @ np.eye(n_experts, dtype=np.int64)[labels])
    while count_E.max() > size:
        free = np.flatnonzero(count_E < size)
        surplus = np.flatnonzero(count_E[labels] > size)
        lost = weight_FE[surplus, labels[surplus]][:, None] - weight_FE[np.ix_(surplus, free)]
        row, column = np.divmod(int(lost.argmin()), len(free))
        f, old, new = surplus[row], labels[surplus[row]], free[column]
        neighbours, weights = _edges(graph, int(f))
        weight_FE[neighbours, old] -= weights
        weight_FE[neighbours, new] += weights
        labels[f] = new
        count_E[old] -= 1
        count_E[new] += 1
    return labels


def _move_at_random(labels_F: Labels, n_experts: int, rng: np.random.Generator) -> Labels:
    """Move random neurons of experts with a surplus to random free places."""
    labels = labels_F.copy()
    size = len(labels) // n_experts
    count_E = np.bincount(labels, minlength=n_experts)
    drawn = [rng.permutation(np.flatnonzero(labels == e))[size:] for e in np.flatnonzero(count_E > size)]
    if drawn:
        labels[rng.permutation(np.concatenate(drawn))] = np.repeat(np.arange(n_experts), np.maximum(size - count_E, 0))
    return labels


def _edges(graph: csr_array, neuron: int) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    span = slice(graph.indptr[neuron], graph.indptr[neuron + 1])
    return graph.indices[span], graph.data[span]


def _within(weights_FF: NDArray[np.floating], labels_F: Labels, n_experts: int) -> float:
    """Weight of the ordered pairs within experts, without the diagonal, in float64."""
    total = 0.0
    for expert in range(n_experts):
        members = np.flatnonzero(labels_F == expert)
        block = weights_FF[np.ix_(members, members)]
        total += float(block.sum(dtype=np.float64) - np.trace(block, dtype=np.float64))
    return total
