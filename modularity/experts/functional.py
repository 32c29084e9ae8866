"""Functional experts: experts that hold more of a function's best neurons than chance, and the modularisation degree.

Source: Zhang et al. 2023, arXiv 2305.18390, Tables 1 and 4. The k best neurons of a sub-function fall into the
experts; with no relation between neurons and experts the number c_e in an expert of n_e of the N neurons is
hypergeometric (N, n_e, k). An expert is functional when c_e > x*, the smallest x with P(X > x) <= alpha: that is,
when P(X >= c_e) <= alpha. At the level of a function the lists of all its sub-functions are concatenated and c_e is
taken for binomial (n, n_e / N).

The degree is the mean over functional experts of c_e over its expectation, 0 when none is functional.

Departures: exact p-values are returned, for a correction over the whole family (`family.py`); experts may
differ in size, each then has its own critical count; a concentration index does not depend on a threshold; and since
a neuron recurs in several lists, which the binomial ignores, `function_level` gives p-values that allow for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, hypergeom

from modularity.errors import DataError, InputError
from modularity.experts.partitions import check_labels

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class FunctionalExperts:
    """Which experts of one layer carry one sub-function, or one function."""

    counts_E: Int64
    """Best neurons in every expert, duplicates counted."""
    sizes_E: Int64
    """Neurons of every expert."""
    n_top: int
    """Length of the list, or of the lists together."""
    p_value_E: Float64
    """P(X >= count) under the hypergeometric, or binomial, null; exact, one-sided, not corrected."""
    critical_count_E: Int64
    """Smallest functional count of every expert; one more than possible when no count is rare enough."""
    attained_size_E: Float64
    """P(X >= critical count): the real size of the test, at most alpha because counts are discrete."""
    functional_E: Bool
    """Counts of at least the critical count (the paper's rule)."""
    proportion: float
    """Share of the experts that are functional."""
    degree: float
    """Modularisation degree: mean of count over expected count of the functional experts, 0 without any."""
    concentration: float
    """Threshold-free: see `concentration_index`."""
    alpha: float
    """Nominal size of the test."""

    @property
    def expected_E(self) -> Float64:
        """Expected count of every expert under the null."""
        return self.n_top * self.sizes_E / self.sizes_E.sum()

    @property
    def critical_count(self) -> int:
        """Smallest functional count, of experts of equal size; DataError when sizes differ."""
        if self.critical_count_E.min() != self.critical_count_E.max():
            raise DataError(
                f"experts have {self.sizes_E.min()} to {self.sizes_E.max()} neurons, so critical counts differ: "
                "read critical_count_E"
            )
        return int(self.critical_count_E[0])


def functional_experts(
    top_indices: ArrayLike, labels_F: ArrayLike, *, alpha: float = 0.001, n_experts: int | None = None
) -> FunctionalExperts:
    """Functional experts of one sub-function, by the exact hypergeometric test.

    Parameters
    ----------
    top_indices : int array of shape (k,), the best neurons of the layer, without duplicates
    labels_F : int array of shape (n_neurons,), expert of every neuron; experts may differ in size
    alpha : nominal size, in (0, 1); the paper has 0.001
    n_experts : when the last experts have no neuron; by default the largest label + 1

    Returns
    -------
    FunctionalExperts

    Raises
    ------
    DataError
        Indices outside of the layer or twice in the list, or labels that are not a partition.
    InputError
        `alpha` is not in (0, 1), or `n_experts` is smaller than the largest label + 1.
    """
    labels, sizes_E = _sizes(labels_F, n_experts)
    top = _check_top(top_indices, len(labels))
    counts_E = np.bincount(labels[top], minlength=len(sizes_E))
    tail, critical = _hypergeometric_tails(sizes_E, len(top), _check_alpha(alpha))
    return _summarise(counts_E, sizes_E, len(top), tail, critical, alpha)


def functional_experts_pooled(
    top_lists: Iterable[ArrayLike], labels_F: ArrayLike, *, alpha: float = 0.001, n_experts: int | None = None
) -> FunctionalExperts:
    """Functional experts of one function: the lists of its sub-functions together, binomial test (the paper's variant).

    Draws are not independent when a neuron is in several lists; `function_level` has p-values that allow for that.

    Parameters
    ----------
    top_lists : one int array of best neurons for every sub-function, each without duplicates
    labels_F, alpha, n_experts : as in `functional_experts`

    Returns
    -------
    FunctionalExperts

    Raises
    ------
    DataError, InputError
        As `functional_experts`; also for no list at all.
    """
    labels, sizes_E = _sizes(labels_F, n_experts)
    top = np.concatenate(check_lists(top_lists, len(labels)))
    counts_E = np.bincount(labels[top], minlength=len(sizes_E))
    tail, critical = _binomial_tails(sizes_E, len(top), _check_alpha(alpha))
    return _summarise(counts_E, sizes_E, len(top), tail, critical, alpha)


def modularisation(counts_E: ArrayLike, sizes_E: ArrayLike, functional_E: ArrayLike) -> tuple[float, float]:
    """Proportion of functional experts, and degree: mean over them of count over expected count, 0 without any.

    Parameters
    ----------
    counts_E, sizes_E : int arrays of shape (n_experts,): best neurons, and neurons, of every expert
    functional_E : bool array of shape (n_experts,), by whatever rule

    Returns
    -------
    proportion, degree : float
    """
    counts, sizes, functional = np.asarray(counts_E), np.asarray(sizes_E), np.asarray(functional_E, dtype=np.bool_)
    if not functional.any():
        return 0.0, 0.0
    expected_E = counts.sum() * sizes / sizes.sum()
    return float(functional.mean()), float(np.mean(counts[functional] / expected_E[functional]))


def concentration_index(counts_E: ArrayLike, sizes_E: ArrayLike) -> Float64:
    """How far pairs of best neurons share an expert beyond chance: 0 expected at chance, 1 when all are in one expert.

    With J the share of pairs of list entries that lie in one expert, and J0 the same share over all pairs of neurons,
    (J - J0) / (1 - J0). Simpson's index corrected for chance: its expectation over random partitions is exactly 0 for
    a list without duplicates, whatever its length and the sizes. For experts of equal size it orders counts as
    chi-square does.

    Parameters
    ----------
    counts_E : int array of shape (..., n_experts)
    sizes_E : int array of shape (n_experts,)

    Returns
    -------
    float64 array of shape (...), at most 1; 0 for lists of fewer than two entries or a single expert
    """
    counts, sizes = np.asarray(counts_E, dtype=np.float64), np.asarray(sizes_E, dtype=np.float64)
    n_top, n_neurons = counts.sum(axis=-1), sizes.sum()
    chance = float((sizes * (sizes - 1)).sum() / max(n_neurons * (n_neurons - 1), 1.0))
    shared = (counts * (counts - 1)).sum(axis=-1) / np.maximum(n_top * (n_top - 1), 1.0)
    defined = (n_top > 1) & (chance < 1)
    return np.asarray(np.where(defined, (shared - chance) / max(1 - chance, 1e-300), 0.0))


def hypergeometric_critical_count(n_neurons: int, size: int, k: int, *, alpha: float = 0.001) -> tuple[int, float]:
    """Smallest functional count, and its attained size, of `size` among `n_neurons` neurons for a list of `k`."""
    tail, critical = _hypergeometric_tails(np.array([size, n_neurons - size]), k, _check_alpha(alpha))
    return int(critical[0]), float(tail[0, critical[0]])


def binomial_critical_count(n_draws: int, n_experts: int, *, alpha: float = 0.001) -> tuple[int, float]:
    """Smallest functional count, and its attained size, of one of `n_experts` equal experts for `n_draws` entries."""
    tail, critical = _binomial_tails(np.ones(n_experts, np.int64), n_draws, _check_alpha(alpha))
    return int(critical[0]), float(tail[0, critical[0]])


def check_lists(top_lists: Iterable[ArrayLike], n_neurons: int) -> list[Int64]:
    """The lists of best neurons as int64 arrays; DataError when there is none or one is not a set of neurons."""
    lists = [_check_top(top, n_neurons, f"list {number}") for number, top in enumerate(top_lists)]
    if not lists:
        raise DataError("no list of best neurons: expected one for every sub-function of the function")
    return lists


def _check_top(top_indices: ArrayLike, n_neurons: int, name: str = "top_indices") -> Int64:
    top = np.asarray(top_indices)
    if top.ndim != 1 or top.size == 0 or top.dtype.kind not in "iu":
        raise DataError(f"{name} has shape {top.shape} and dtype {top.dtype}: expected a list of neuron numbers")
    if top.min() < 0 or top.max() >= n_neurons:
        wrong = int(top.min()) if top.min() < 0 else int(top.max())
        raise DataError(f"{name} holds neuron {wrong}: expected 0 to {n_neurons - 1}, the neurons of the partition")
    values, counts = np.unique(top, return_counts=True)
    if counts.max() > 1:
        raise DataError(
            f"{name} holds neuron {values[counts.argmax()]} {counts.max()} times: expected every neuron once"
        )
    return top.astype(np.int64)


def _check_alpha(alpha: float, name: str = "alpha") -> float:
    if not 0 < alpha < 1:
        raise InputError(f"{name} is {alpha}: expected a value between 0 and 1")
    return alpha


def _sizes(labels_F: ArrayLike, n_experts: int | None) -> tuple[Int64, Int64]:
    labels = check_labels(labels_F)
    n_labels = int(labels.max()) + 1
    if n_experts is not None and n_experts < n_labels:
        raise InputError(
            f"n_experts is {n_experts}, but labels_F holds expert {n_labels - 1}: expected at least {n_labels}"
        )
    return labels, np.bincount(labels, minlength=n_experts or 0)


def _hypergeometric_tails(sizes_E: Int64, k: int, alpha: float) -> tuple[Float64, Int64]:
    """P(X >= c) for c = 0 … k + 1, and the critical count, of every expert."""
    distinct, of_E = np.unique(sizes_E, return_inverse=True)
    tail = hypergeom.sf(np.arange(-1, k + 1), int(sizes_E.sum()), distinct[:, None], k)
    return _critical(tail, alpha, of_E)


def _binomial_tails(sizes_E: Int64, n_draws: int, alpha: float) -> tuple[Float64, Int64]:
    """As `_hypergeometric_tails`, for draws with replacement."""
    distinct, of_E = np.unique(sizes_E, return_inverse=True)
    tail = binom.sf(np.arange(-1, n_draws + 1), n_draws, distinct[:, None] / sizes_E.sum())
    return _critical(tail, alpha, of_E)


def _critical(tail: Float64, alpha: float, of_E: Int64) -> tuple[Float64, Int64]:
    """First count whose tail is at most alpha; the last column of the tail, beyond every count, is 0."""
    return tail[of_E], np.argmax(tail <= alpha, axis=1)[of_E]


def _summarise(
    counts_E: Int64, sizes_E: Int64, n_top: int, tail_EK: Float64, critical_E: Int64, alpha: float
) -> FunctionalExperts:
    experts = np.arange(len(counts_E))
    functional_E = counts_E >= critical_E
    proportion, degree = modularisation(counts_E, sizes_E, functional_E)
    return FunctionalExperts(
        counts_E=counts_E,
        sizes_E=sizes_E,
        n_top=n_top,
        p_value_E=tail_EK[experts, counts_E],
        critical_count_E=critical_E,
        attained_size_E=tail_EK[experts, critical_E],
        functional_E=functional_E,
        proportion=proportion,
        degree=degree,
        concentration=float(concentration_index(counts_E, sizes_E)),
        alpha=alpha,
    )
