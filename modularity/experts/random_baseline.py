"""Functional experts and modularisation degree expected of a random balanced partition: exact, not sampled.

Under a random partition the counts of the k best neurons in the experts are jointly multivariate hypergeometric. That
is the law of independent binomial (n_e, k / N) counts given that they sum to k, so a dynamic programme over the
experts needs only two tables over (draws used, functional experts so far): the probability, and the expected sum of
count / expected count over the functional ones. The degree divides that sum by their number; a draw without a
functional expert has degree 0.

The release of Zhang et al. 2023 (arXiv 2305.18390) inserts constants instead: proportion .001, degree .0205 (T5) and
.0223 (Switch); exact are 3.57e-4 and .0249, 9.04e-4 and .0236 (the expected sum over functional experts, instead of
their mean, would be .0249 and .0237).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from modularity.errors import InputError
from modularity.experts.assignment import require_divisible
from modularity.experts.functional import hypergeometric_critical_count


@dataclass(frozen=True)
class RandomPartitionBaseline:
    """Expectations over random balanced partitions, for one list of best neurons."""

    proportion: float
    """Expected share of functional experts: the attained size of the test."""
    degree: float
    """Expected modularisation degree, draws without a functional expert counted as 0."""
    any_functional: float
    """Probability that at least one expert is functional."""
    critical_count: int
    """Smallest functional count."""
    attained_size: float
    """P(X >= critical count) of one expert."""


def random_partition_baseline(
    n_neurons: int, n_experts: int, k: int, *, alpha: float = 0.001
) -> RandomPartitionBaseline:
    """Exact expectation of proportion and degree at the level of a sub-function.

    Parameters
    ----------
    n_neurons, n_experts : the second divides the first
    k : best neurons in the list, 1 … n_neurons
    alpha : nominal size of the test, in (0, 1)

    Returns
    -------
    RandomPartitionBaseline

    Raises
    ------
    InputError
        `n_experts` does not divide `n_neurons`, or `k` or `alpha` is out of range.
    """
    size = require_divisible(n_neurons, n_experts)
    if not 1 <= k <= n_neurons:
        raise InputError(f"k is {k}: expected 1 to {n_neurons}, the number of neurons")
    critical, attained = hypergeometric_critical_count(n_neurons, size, k, alpha=alpha)
    if critical > min(size, k):
        return RandomPartitionBaseline(0.0, 0.0, 0.0, critical, 0.0)
    probability_MK, ratio_MK = _joint_tables(size, n_experts, k, critical, k / n_neurons)
    total = probability_MK[:, k].sum()
    n_functional = np.arange(1, len(probability_MK))
    return RandomPartitionBaseline(
        proportion=attained,
        degree=float((ratio_MK[1:, k] / n_functional).sum() / total) * n_experts / k,
        any_functional=float(probability_MK[1:, k].sum() / total),
        critical_count=critical,
        attained_size=attained,
    )


def _joint_tables(
    size: int, n_experts: int, k: int, critical: int, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and weighted sum of functional counts for every number of functional experts (rows) and of draws used."""
    count_K = np.arange(k + 1)
    weight_K = binom.pmf(count_K, size, share)
    low_K = np.where(count_K < critical, weight_K, 0.0)
    high_K = weight_K - low_K
    most = min(n_experts, k // critical)
    probability, summed = np.zeros((most + 1, k + 1)), np.zeros((most + 1, k + 1))
    probability[0, 0] = 1.0
    for _ in range(n_experts):
        next_probability = _convolve(probability, low_K)
        next_summed = _convolve(summed, low_K)
        next_probability[1:] += _convolve(probability[:-1], high_K)
        next_summed[1:] += _convolve(summed[:-1], high_K) + _convolve(probability[:-1], high_K * count_K)
        probability, summed = next_probability, next_summed
    return probability, summed


def _convolve(table_MK: NDArray[np.float64], weight_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every row convolved with the weights, cut at k; direct sums of positive terms, so that small tails stay exact."""
    width = table_MK.shape[1]
    return np.stack([np.convolve(row, weight_K)[:width] if row.any() else np.zeros(width) for row in table_MK])
