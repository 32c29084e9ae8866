"""Permutation test of functional experts: expert labels are shuffled over the neurons, the lists of best neurons stay.

This is the baseline of Zhang et al. 2023 (arXiv 2305.18390) at the level of a function, 200 shuffled partitions, made
a test. It is valid when a neuron is in several lists, which the binomial of the paper ignores, and for experts of any
size.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modularity.errors import InputError
from modularity.experts.functional import (
    FunctionalExperts,
    check_lists,
    concentration_index,
    functional_experts,
    functional_experts_pooled,
)
from modularity.experts.partitions import check_labels

_BLOCK_BYTES = 2**25

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Tested:
    """A figure with its permutation null."""

    observed: float
    null_mean: float
    null_sd: float
    p_value: float
    """(1 + shuffled partitions with at least the observed value) / (1 + all of them)."""

    @classmethod
    def of(cls, observed: float, null_N: Float64) -> "Tested":
        """Observed value against the values of shuffled partitions."""
        # A value that is equal but for the order of a sum counts as reached.
        reached = int((null_N >= observed - 1e-12 * abs(observed)).sum())
        return cls(observed, float(null_N.mean()), float(null_N.std()), (1 + reached) / (1 + len(null_N)))


@dataclass(frozen=True)
class Relabelling:
    """Functional experts of one function or sub-function against shuffled partitions."""

    result: FunctionalExperts
    """Observed, by the paper's rule: hypergeometric for one list, binomial for several."""
    p_value_E: Float64
    """Share of shuffled counts, over all experts of the same size and the observed ones, that reach the count."""
    proportion: Tested
    degree: Tested
    concentration: Tested
    n_permutations: int
    seed: int


def relabelling(
    top_lists: Iterable[ArrayLike],
    labels_F: ArrayLike,
    *,
    alpha: float = 0.001,
    n_permutations: int = 1000,
    seed: int = 0,
    n_experts: int | None = None,
) -> Relabelling:
    """Test functional experts by shuffling the expert labels over the neurons.

    Experts of equal size share one null, so that p-values go down to 1 / (n_experts * (n_permutations + 1)).

    Parameters
    ----------
    top_lists : one int array of best neurons for every sub-function (one array in a list: level of a sub-function)
    labels_F : int array of shape (n_neurons,)
    alpha : nominal size of the paper's rule, which degree and proportion of the shuffled partitions use as well
    n_permutations : at least 1
    seed : int
    n_experts : as in `functional_experts`

    Returns
    -------
    Relabelling

    Raises
    ------
    DataError, InputError
        As `functional_experts_pooled`; also for `n_permutations` < 1.
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}: expected at least 1, usually 1000")
    labels = check_labels(labels_F)
    lists = check_lists(top_lists, len(labels))
    if len(lists) == 1:
        result = functional_experts(lists[0], labels, alpha=alpha, n_experts=n_experts)
    else:
        result = functional_experts_pooled(lists, labels, alpha=alpha, n_experts=n_experts)
    null_NE = shuffled_counts(lists, labels, len(result.sizes_E), n_permutations=n_permutations, seed=seed)
    functional_NE = null_NE >= result.critical_count_E
    ratio_NE = null_NE / np.where(result.expected_E > 0, result.expected_E, 1.0)
    degree_N = (ratio_NE * functional_NE).sum(axis=1) / np.maximum(functional_NE.sum(axis=1), 1)
    return Relabelling(
        result,
        _pooled_p_values(result, null_NE),
        Tested.of(result.proportion, functional_NE.mean(axis=1)),
        Tested.of(result.degree, degree_N),
        Tested.of(result.concentration, concentration_index(null_NE, result.sizes_E)),
        n_permutations,
        seed,
    )


def shuffled_counts(
    top_lists: Iterable[ArrayLike], labels_F: ArrayLike, n_experts: int, *, n_permutations: int, seed: int
) -> NDArray[np.int64]:
    """Counts of list entries in every expert for shuffled labels: int64 array of shape (n_permutations, n_experts)."""
    labels = check_labels(labels_F)
    neurons, times = np.unique(np.concatenate(check_lists(top_lists, len(labels))), return_counts=True)
    rng = np.random.default_rng(seed)
    counts_NE = np.empty((n_permutations, n_experts), np.int64)
    at_once = max(1, _BLOCK_BYTES // (8 * len(neurons)))
    for start in range(0, n_permutations, at_once):
        n = min(at_once, n_permutations - start)
        # Only the labels that the listed neurons receive matter: an ordered sample without replacement.
        drawn = np.stack([rng.choice(len(labels), len(neurons), replace=False) for _ in range(n)])
        cells = labels[drawn] + n_experts * np.arange(n)[:, None]
        weights = np.broadcast_to(times, cells.shape).ravel()
        counts = np.bincount(cells.ravel(), weights=weights, minlength=n * n_experts)
        counts_NE[start : start + n] = counts.reshape(n, n_experts)
    return counts_NE


def _pooled_p_values(result: FunctionalExperts, null_NE: NDArray[np.int64]) -> Float64:
    """Rank of every count among all counts of experts of its size, shuffled and observed."""
    p_value_E = np.empty(len(result.counts_E))
    for size in np.unique(result.sizes_E):
        same = result.sizes_E == size
        observed = result.counts_E[same]
        pool = np.sort(np.concatenate([null_NE[:, same].ravel(), observed]))
        p_value_E[same] = 1 - np.searchsorted(pool, observed, side="left") / len(pool)
    return p_value_E
