"""Functional experts of all layers and sub-functions at once, with one decision rule for the whole family.

`functional_experts` looks at one list in one layer. A statement about a function speaks of all its sub-functions in
all layers, so the rule is applied to that family: the paper's threshold (Zhang et al. 2023, arXiv 2305.18390), or the
false discovery rate over the family.

Two nulls answer two questions. `label_null` takes the lists of best neurons under permuted labels: do experts hold the
best neurons of a function more than those of labels that mean nothing? Neurons of an expert are correlated, so the
latter gather in experts as well. `family_null` keeps the lists and shuffles the expert labels over the neurons of each
layer, in the same way for all sub-functions, because their lists share neurons: are these lists gathered in these
experts more than in random partitions? That is so for any lists of correlated neurons; it is no test of a function.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import hypergeom

from modularity.errors import DataError, InputError
from modularity.experts.functional import concentration_index
from modularity.experts.partitions import check_labels
from modularity.stats import benjamini_hochberg

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

CELLS_AT_ONCE = 2**22
"""Counts whose p-values are held at a time."""


@dataclass(frozen=True)
class Rule:
    """When an expert is called functional: exactly one of the two levels is set."""

    alpha: float | None = None
    """Every expert with P(X >= count) at most this: the paper's rule, .001 there."""
    fdr: float | None = None
    """Experts whose Benjamini-Hochberg q over the family is at most this."""

    def __post_init__(self) -> None:
        levels = [level for level in (self.alpha, self.fdr) if level is not None]
        if len(levels) != 1 or not 0 < levels[0] < 1:
            raise InputError(f"{self}: expected exactly one level, between 0 and 1")

    def decide(self, p_value_NX: Float64) -> NDArray[np.bool_]:
        """Functional or not; each row of (n_families, n_tests) is a family of its own."""
        if self.alpha is not None:
            return p_value_NX <= self.alpha
        assert self.fdr is not None
        return benjamini_hochberg(p_value_NX, axis=1) <= self.fdr


@dataclass(frozen=True)
class FunctionalFamily:
    """Functional experts of S sub-functions in L layers; arrays (n_layers, n_subfunctions, ...)."""

    counts_LSE: Int64
    """Best neurons in every expert."""
    p_value_LSE: Float64
    """P(X >= count), hypergeometric, exact, not corrected."""
    functional_LSE: NDArray[np.bool_]
    """By the rule, over the whole family."""
    proportion_LS: Float64
    """Share of the experts that are functional."""
    degree_LS: Float64
    """Mean over functional experts of count over expected count, 0 without any."""
    concentration_LS: Float64
    """Threshold-free, see `concentration_index`."""


@dataclass(frozen=True)
class FamilyNull:
    """The same figures under a null, means over sub-functions; arrays (n_permutations, n_layers)."""

    proportion_NL: Float64
    degree_NL: Float64
    concentration_NL: Float64


def functional_family(
    top_LSK: Sequence[ArrayLike], labels_LF: Sequence[ArrayLike], *, rule: Rule, n_experts: int
) -> FunctionalFamily:
    """Functional experts of several sub-functions in several layers.

    Parameters
    ----------
    top_LSK : for every layer an int array (n_subfunctions, k): the best neurons of each sub-function, each once
    labels_LF : for every layer an int array (n_neurons,): the expert of each neuron; sizes may differ
    rule : when an expert is functional
    n_experts : experts of each layer

    Raises
    ------
    DataError
        Numbers of layers differ, or lists and labels do not fit each other.
    """
    tops, labels = _checked(top_LSK, labels_LF)
    counts_LSE = np.stack([_counts(top, label[None], n_experts)[0] for top, label in zip(tops, labels)])
    sizes_LE = np.stack([np.bincount(label, minlength=n_experts) for label in labels])
    p_value_LSE = np.stack([_p_values(c[None], s, t.shape[1])[0] for c, s, t in zip(counts_LSE, sizes_LE, tops)])
    functional_LSE = rule.decide(p_value_LSE.reshape(1, -1)).reshape(p_value_LSE.shape)
    return FunctionalFamily(
        counts_LSE,
        p_value_LSE,
        functional_LSE,
        functional_LSE.mean(axis=-1),
        _degree(counts_LSE, sizes_LE[:, None], functional_LSE),
        np.stack([concentration_index(c, s) for c, s in zip(counts_LSE, sizes_LE)]),
    )


def family_null(
    top_LSK: Sequence[ArrayLike],
    labels_LF: Sequence[ArrayLike],
    *,
    rule: Rule,
    n_experts: int,
    n_permutations: int = 1000,
    seed: int = 0,
) -> FamilyNull:
    """Expert labels shuffled over the neurons of each layer, lists unchanged: figures of random partitions.

    Each permutation is a family of its own, so a corrected rule is applied as it is to the observed values.

    Parameters
    ----------
    top_LSK, labels_LF, rule, n_experts : as in `functional_family`
    n_permutations : draws
    seed : int
    """
    tops, labels = _checked(top_LSK, labels_LF)
    generator = np.random.default_rng(seed)
    counts_L = []
    for top, label in zip(tops, labels):
        shuffled_NF = np.tile(label, (n_permutations, 1))
        generator.permuted(shuffled_NF, axis=1, out=shuffled_NF)
        counts_L.append(_counts(top, shuffled_NF, n_experts))
    sizes_LE = np.stack([np.bincount(label, minlength=n_experts) for label in labels])
    return null_of_counts(np.stack(counts_L, axis=1), sizes_LE, rule=rule)


def label_null(
    top_LNSK: Sequence[ArrayLike], labels_LF: Sequence[ArrayLike], *, rule: Rule, n_experts: int
) -> FamilyNull:
    """The null of `functional_family`: lists of best neurons under permuted labels, experts unchanged.

    Parameters
    ----------
    top_LNSK : for every layer an int array (n_permutations, n_subfunctions, k); permutation n is the same one in all
    labels_LF, rule, n_experts : as in `functional_family`
    """
    counts_L = [list_counts(top, label, n_experts) for top, label in zip(top_LNSK, labels_LF)]
    sizes_LE = np.stack([np.bincount(check_labels(label), minlength=n_experts) for label in labels_LF])
    return null_of_counts(np.stack(counts_L, axis=1), sizes_LE, rule=rule)


def list_counts(top_NSK: ArrayLike, labels_F: ArrayLike, n_experts: int) -> NDArray[np.int32]:
    """Neurons of many lists in every expert: int32 array (n_permutations, n_subfunctions, n_experts)."""
    labels, top = check_labels(labels_F), np.asarray(top_NSK)
    if top.ndim != 3 or top.size == 0 or top.min() < 0 or top.max() >= len(labels):
        raise DataError(
            f"lists have shape {top.shape}: expected (permutations, sub-functions, k) with neurons from 0 to "
            f"{len(labels) - 1}"
        )
    n_lists = top.shape[0] * top.shape[1]
    cells = labels[top.reshape(n_lists, -1)] + n_experts * np.arange(n_lists)[:, None]
    counts = np.bincount(cells.ravel(), minlength=n_lists * n_experts)
    return counts.reshape(*top.shape[:2], n_experts).astype(np.int32)


def null_of_counts(counts_NLSE: NDArray, sizes_LE: NDArray, *, rule: Rule) -> FamilyNull:
    """Figures of every permutation, each a family of its own, from the counts in experts of these sizes."""
    at_once = max(1, CELLS_AT_ONCE // counts_NLSE[0].size)
    parts = [
        _null_part(counts_NLSE[first : first + at_once].astype(np.int64), sizes_LE, rule)
        for first in range(0, len(counts_NLSE), at_once)
    ]
    return FamilyNull(*(np.concatenate(figure) for figure in zip(*parts)))


def _null_part(counts_NLSE: Int64, sizes_LE: NDArray, rule: Rule) -> tuple[Float64, Float64, Float64]:
    k_L = counts_NLSE[0, :, 0].sum(axis=-1)
    p_value_NLSE = np.stack([_p_values(counts_NLSE[:, i], s, int(k)) for i, (s, k) in enumerate(zip(sizes_LE, k_L))], 1)
    functional_NLSE = rule.decide(p_value_NLSE.reshape(len(counts_NLSE), -1)).reshape(p_value_NLSE.shape)
    concentration_NLS = np.stack([concentration_index(counts_NLSE[:, i], s) for i, s in enumerate(sizes_LE)], axis=1)
    return (
        functional_NLSE.mean(axis=(2, 3)),
        _degree(counts_NLSE, sizes_LE[:, None], functional_NLSE).mean(axis=2),
        concentration_NLS.mean(axis=2),
    )


def _checked(top_LSK: Sequence[ArrayLike], labels_LF: Sequence[ArrayLike]) -> tuple[list[Int64], list[Int64]]:
    if len(top_LSK) != len(labels_LF) or not len(labels_LF):
        raise DataError(
            f"lists for {len(top_LSK)} layers, partitions for {len(labels_LF)}: expected as many, at least one"
        )
    labels = [check_labels(label) for label in labels_LF]
    tops = [np.asarray(top, dtype=np.int64) for top in top_LSK]
    for layer, (top, label) in enumerate(zip(tops, labels)):
        if top.ndim != 2 or top.size == 0 or top.min() < 0 or top.max() >= len(label):
            raise DataError(
                f"lists of layer number {layer} have shape {top.shape}: expected (sub-functions, k) with neurons from "
                f"0 to {len(label) - 1}"
            )
        if any(len(np.unique(row)) < len(row) for row in top):
            raise DataError(f"a list of layer number {layer} holds a neuron twice: expected every neuron once")
    return tops, labels


def _counts(top_SK: Int64, labels_NF: NDArray, n_experts: int) -> Int64:
    """Listed neurons in every expert, (N, S, E)."""
    n_draws, n_lists = len(labels_NF), len(top_SK)
    cells_NSK = labels_NF[:, top_SK] + n_experts * np.arange(n_draws * n_lists).reshape(n_draws, n_lists, 1)
    counts = np.bincount(cells_NSK.ravel(), minlength=n_draws * n_lists * n_experts)
    return counts.reshape(n_draws, n_lists, n_experts)


def _p_values(counts_NSE: Int64, sizes_E: Int64, k: int) -> Float64:
    """P(X >= count) from one table of tails for each size."""
    sizes, of_E = np.unique(sizes_E, return_inverse=True)
    tail_ZK = hypergeom.sf(np.arange(-1, k), int(sizes_E.sum()), sizes[:, None], k)
    tails: Float64 = tail_ZK[of_E, counts_NSE]
    return tails


def _degree(counts: NDArray, sizes: NDArray, functional: NDArray[np.bool_]) -> Float64:
    """Mean over functional experts of count over expected count, on the last axis; 0 without any."""
    n_top = counts.sum(axis=-1, keepdims=True)
    expected = n_top * sizes / sizes.sum(axis=-1, keepdims=True)
    ratio = np.divide(counts, expected, out=np.zeros(counts.shape), where=expected > 0)
    degree: Float64 = (ratio * functional).sum(axis=-1) / np.maximum(functional.sum(axis=-1), 1)
    return degree
