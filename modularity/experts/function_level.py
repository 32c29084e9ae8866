"""Functional experts of a function as a whole: the top lists of its sub-functions together, in all layers.

Source: Zhang et al. 2023, arXiv 2305.18390, Tables 1 and 4, level of a function. The lists of all sub-functions are
concatenated, repeats kept, and the count of an expert is taken for binomial (n, n_e / N). The baseline of the paper is
shuffled partitions: expert labels are exchanged over the neurons, the lists stay. Any lists of correlated neurons lie
in fewer experts than that. The null of a function is therefore the lists of permuted labels, brought to the same
experts and judged by the same p-values.

Departure: a neuron recurs in several lists, which the binomial ignores. The corrected rule therefore reads p-values
from the shuffled partitions, which repeat neurons just as the lists do, and keeps a false discovery rate over the
experts of all layers. Shuffled partitions go through the same rule, each as a family of its own; one without a
functional expert counts as degree 0.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from modularity.errors import DataError, InputError
from modularity.experts.family import FamilyNull, Rule
from modularity.experts.functional import check_lists, concentration_index, functional_experts_pooled
from modularity.experts.partitions import check_labels
from modularity.stats import benjamini_hochberg

_BLOCK_BYTES = 2**25

Bool = NDArray[np.bool_]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class FunctionLevel:
    """Functional experts of one function in L layers, with N shuffled partitions and with permuted labels as nulls."""

    counts_LE: Int64
    """List entries in every expert, repeats counted."""
    sizes_LE: Int64
    """Neurons of every expert."""
    n_top_L: Int64
    """Entries of all lists together."""
    p_binomial_LE: Float64
    """P(X >= count), entries taken for independent draws: the paper's p-value, not corrected."""
    p_permutation_LE: Float64
    """Share of shuffled counts, over all experts of the same size and the observed ones, that reach the count."""
    q_permutation_LE: Float64
    """Benjamini-Hochberg over the experts of all layers."""
    functional_LE: Bool
    """By the rule: `alpha` decides on the binomial p, `fdr` on the permutation p."""
    proportion_L: Float64
    """Share of the experts that are functional."""
    degree_L: Float64
    """Mean over functional experts of count over expected count, 0 without any."""
    concentration_L: Float64
    """Threshold-free, see `concentration_index`; repeats lift it, here and in the null."""
    null_proportion_NL: Float64
    null_degree_NL: Float64
    null_concentration_NL: Float64
    label_null: FamilyNull | None
    """The figures of lists of permuted labels; None where none were given."""

    @property
    def expected_LE(self) -> Float64:
        """Expected count of every expert."""
        share_LE: Float64 = self.sizes_LE / self.sizes_LE.sum(axis=1, keepdims=True)
        return self.n_top_L[:, None] * share_LE


def function_level(
    top_LSK: Sequence[Iterable[ArrayLike]],
    labels_LF: Sequence[ArrayLike],
    *,
    rule: Rule,
    n_experts: int,
    n_permutations: int = 1000,
    seed: int = 0,
    label_counts_NLE: NDArray[np.integer] | None = None,
) -> FunctionLevel:
    """Functional experts of a function, tested by shuffling the expert labels over the neurons of each layer.

    Experts of equal size share one null, so that p-values go down to 1 / (n_experts * (n_permutations + 1)); an expert
    of a size of its own reaches no less than 1 / (n_permutations + 1).

    Parameters
    ----------
    top_LSK : for every layer the best neurons of each sub-function, int arrays without duplicates
    labels_LF : for every layer an int array (n_neurons,): the expert of each neuron; sizes may differ
    rule : when an expert is functional
    n_experts : experts of each layer
    n_permutations : shuffled partitions, at least 1
    seed : int; layers are shuffled independently
    label_counts_NLE : list entries in every expert under permuted labels, repeats counted. Under `fdr` their p-values
        come from the shuffles of the observed lists

    Raises
    ------
    DataError, InputError
        As `functional_experts_pooled`; also for numbers of layers that differ and for `n_permutations` < 1.
    """
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}: expected at least 1, usually 1000")
    if len(top_LSK) != len(labels_LF) or not len(labels_LF):
        raise DataError(
            f"lists for {len(top_LSK)} layers, partitions for {len(labels_LF)}: expected as many, at least one"
        )
    counts_L, sizes_L, binomial_L, permutation_L = [], [], [], []
    for layer, (top, labels) in enumerate(zip(top_LSK, labels_LF)):
        lists = list(top)
        found = functional_experts_pooled(lists, labels, n_experts=n_experts)
        null_NE = shuffled_counts(lists, labels, n_experts, n_permutations=n_permutations, seed=[seed, layer])
        permuted_NE = null_NE[:0] if label_counts_NLE is None else label_counts_NLE[:, layer]
        counts_L.append(np.vstack([found.counts_E, null_NE, permuted_NE]))
        sizes_L.append(found.sizes_E)
        binomial_L.append(_binomial_p_values(counts_L[-1], found.sizes_E))
        permutation_L.append(rank_p_values(counts_L[-1], found.sizes_E, n_ranked=n_permutations + 1))
    binomial_NLE, permutation_NLE = np.stack(binomial_L, axis=1), np.stack(permutation_L, axis=1)
    decisive_NLE = permutation_NLE if rule.alpha is None else binomial_NLE
    functional_NLE = rule.decide(decisive_NLE.reshape(len(decisive_NLE), -1)).reshape(decisive_NLE.shape)
    counts_NLE, sizes_LE = np.stack(counts_L, axis=1), np.stack(sizes_L)
    proportion_NL, degree_NL = functional_NLE.mean(axis=-1), _degree(counts_NLE, sizes_LE, functional_NLE)
    concentration_NL = np.stack([concentration_index(c, s) for c, s in zip(counts_L, sizes_L)], axis=1)
    shuffled, permuted = slice(1, n_permutations + 1), slice(n_permutations + 1, None)
    return FunctionLevel(
        counts_LE=counts_NLE[0],
        sizes_LE=sizes_LE,
        n_top_L=counts_NLE[0].sum(axis=-1),
        p_binomial_LE=binomial_NLE[0],
        p_permutation_LE=permutation_NLE[0],
        q_permutation_LE=benjamini_hochberg(permutation_NLE[0]),
        functional_LE=functional_NLE[0],
        proportion_L=proportion_NL[0],
        degree_L=degree_NL[0],
        concentration_L=concentration_NL[0],
        null_proportion_NL=proportion_NL[shuffled],
        null_degree_NL=degree_NL[shuffled],
        null_concentration_NL=concentration_NL[shuffled],
        label_null=None
        if label_counts_NLE is None
        else FamilyNull(proportion_NL[permuted], degree_NL[permuted], concentration_NL[permuted]),
    )


def shuffled_counts(
    top_lists: Iterable[ArrayLike],
    labels_F: ArrayLike,
    n_experts: int,
    *,
    n_permutations: int,
    seed: int | Sequence[int],
) -> Int64:
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


def rank_p_values(counts_NE: Int64, sizes_E: Int64, *, n_ranked: int | None = None) -> Float64:
    """Share of the counts of experts of the same size that reach each count; rows are partitions, observed or not.

    The first `n_ranked` rows, all by default, are the counts that are ranked; a count above them all gets the share of
    one of them.
    """
    p_value_NE = np.empty(counts_NE.shape)
    for size in np.unique(sizes_E):
        same = np.flatnonzero(sizes_E == size)
        pool = counts_NE[:, same]
        ranked = pool[:n_ranked]
        reached = np.cumsum(np.bincount(ranked.ravel(), minlength=int(pool.max()) + 1)[::-1])[::-1]
        p_value_NE[:, same] = np.maximum(reached, 1)[pool] / ranked.size
    return p_value_NE


def _binomial_p_values(counts_NE: Int64, sizes_E: Int64) -> Float64:
    """P(X >= count) from one table of tails for each size."""
    sizes, of_E = np.unique(sizes_E, return_inverse=True)
    n_top = int(counts_NE[0].sum())
    tail_ZK = binom.sf(np.arange(-1, n_top), n_top, sizes[:, None] / sizes_E.sum())
    p_value_NE: Float64 = tail_ZK[of_E, counts_NE]
    return p_value_NE


def _degree(counts_NLE: Int64, sizes_LE: Int64, functional_NLE: Bool) -> Float64:
    """Mean over functional experts of count over expected count, (N, L); 0 without any."""
    expected_LE = counts_NLE[0].sum(axis=-1, keepdims=True) * sizes_LE / sizes_LE.sum(axis=-1, keepdims=True)
    ratio_NLE = counts_NLE / np.where(expected_LE > 0, expected_LE, 1.0)
    degree_NL: Float64 = (ratio_NLE * functional_NLE).sum(axis=-1) / np.maximum(functional_NLE.sum(axis=-1), 1)
    return degree_NL
