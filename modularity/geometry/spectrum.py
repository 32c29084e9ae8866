"""What a spectrum of singular values says about how many directions a map uses.

- numerical rank: singular values above max(m, n) · eps · largest, the size of rounding in float64; and the same with
  the eps of float32, below which a float32 computation shows noise (Golub and Van Loan 2013, section 5.4.1)
- stable rank: ‖J‖_F² / largest² (Rudelson and Vershynin 2007), the sum of squares in units of the largest
- effective rank: exp of the entropy of the singular values divided by their sum (Roy and Vetterli 2007)

All from exact singular values, or from a quadrature. The interval of an estimate holds the jackknife intervals over
probes of both rules, Gauss and Gauss-Radau, so that it covers what the Lanczos steps do not resolve, too. Counts above
a cut are interpolated between the nodes; their bounds are those of Chebyshev, Markov and Stieltjes: a node may stand
for values anywhere between its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from modularity.errors import DataError
from modularity.geometry.quadrature import Quadrature, Rule

LEVELS = (1e-1, 1e-2, 1e-3, 1e-4)
"""Shares of the largest singular value above which values are counted."""
CONFIDENCE = 0.95
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with an interval; exact ones have an interval of no width."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> "Estimate":
        """A number that is known."""
        return cls(value, value, value)


@dataclass(frozen=True)
class SpectrumMeasures:
    """Measures of one spectrum."""

    n_values: int
    """min(m, n): singular values, zeros included."""
    largest: float
    frobenius: Estimate
    rank: float
    """At the noise floor of float64; NaN where only a quadrature is known, which does not resolve it."""
    rank_float32: float
    """At that of float32; NaN likewise."""
    stable_rank: Estimate
    effective_rank: Estimate
    above: tuple[Estimate, ...]
    """Number of values above each of `LEVELS` times the largest."""


def noise_floor(largest: float, shape: tuple[int, int], *, dtype: type = np.float64) -> float:
    """max(m, n) · eps · largest: singular values below it cannot be told from zero in `dtype`."""
    return max(shape) * float(np.finfo(dtype).eps) * largest


def spectrum_measures(values_N: np.ndarray, shape: tuple[int, int]) -> SpectrumMeasures:
    """Measures of a matrix from all its singular values.

    Parameters
    ----------
    values_N : float64 array of shape (n,), n at most min(shape), not negative; values left out are zero
    shape : (m, n) of the matrix

    Raises
    ------
    DataError
        No value, a negative or not finite one, or more than the shape allows.
    """
    values = np.asarray(values_N, dtype=np.float64)
    if values.ndim != 1 or not 1 <= len(values) <= min(shape) or not np.isfinite(values).all() or values.min() < 0:
        raise DataError(
            f"singular values have shape {values.shape} for a matrix of shape {shape}; expected 1 to {min(shape)} "
            "finite numbers from 0 up"
        )
    largest = float(values.max())
    if largest == 0:
        zero = Estimate.exact(0.0)
        return SpectrumMeasures(min(shape), 0.0, zero, 0.0, 0.0, zero, zero, (zero,) * len(LEVELS))
    squares = float((values**2).sum())
    return SpectrumMeasures(
        n_values=min(shape),
        largest=largest,
        frobenius=Estimate.exact(squares**0.5),
        rank=float((values > noise_floor(largest, shape)).sum()),
        rank_float32=float((values > noise_floor(largest, shape, dtype=np.float32)).sum()),
        stable_rank=Estimate.exact(squares / largest**2),
        effective_rank=Estimate.exact(float(_effective_rank(values.sum(), _x_log_x(values).sum()))),
        above=tuple(Estimate.exact(float((values > level * largest).sum())) for level in LEVELS),
    )


def measures_of_quadrature(quadrature: Quadrature, largest: float) -> SpectrumMeasures:
    """Measures of an operator from quadrature rules.

    Parameters
    ----------
    quadrature : rules of two probes or more
    largest : the largest singular value, from `leading_singular_values`

    Returns
    -------
    measures : with 95 % intervals (Student, both rules); ranks at a noise floor are NaN
    """
    functions: tuple[Statistic, ...] = (np.square, lambda s: s, _x_log_x)
    rules: tuple[Rule, ...] = ("gauss", "radau")
    sums = [np.stack([quadrature.sums_V(each, rule=rule) for each in functions]) for rule in rules]

    def of(statistic: Callable[[np.ndarray], float]) -> Estimate:
        both = [_jackknife(total_KV, statistic) for total_KV in sums]
        value = float(np.mean([each.value for each in both]))
        return Estimate(value, min(each.low for each in both), max(each.high for each in both))

    counts = count_above(quadrature, np.array(LEVELS) * largest)
    above = [Estimate(*(float(part[i]) for part in counts)) for i in range(len(LEVELS))]
    return SpectrumMeasures(
        n_values=quadrature.n_singular_values,
        largest=largest,
        frobenius=of(lambda mean: float(mean[0]) ** 0.5),
        rank=float("nan"),
        rank_float32=float("nan"),
        stable_rank=of(lambda mean: float(mean[0]) / largest**2 if largest > 0 else 0.0),
        effective_rank=of(lambda mean: float(_effective_rank(mean[1], mean[2]))),
        above=tuple(above),
    )


def count_above(spectrum: np.ndarray | Quadrature, cuts_X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of singular values above each cut, with bounds (the number itself for exact values).

    Parameters
    ----------
    spectrum : all singular values that are not zero, or a quadrature
    cuts_X : float array of shape (n_cuts,)

    Returns
    -------
    counts_X, low_X, high_X : float64 arrays of shape (n_cuts,)
        For a quadrature the mean over probes, and the bounds of each probe with a 95 % Student interval around them
    """
    cuts = np.asarray(cuts_X, dtype=np.float64)
    if not isinstance(spectrum, Quadrature):
        ordered = np.sort(np.asarray(spectrum, dtype=np.float64))
        counts = len(ordered) - np.searchsorted(ordered, cuts, side="right").astype(np.float64)
        return counts, counts, counts
    floor = noise_floor(float(spectrum.nodes_VK.max()), (spectrum.n_singular_values, 1))
    each_VX, low_VX, high_VX = (np.stack(part) for part in zip(*(
        _counts_of_rule(np.where(nodes_K > floor, nodes_K, 0.0), weights_K, cuts)
        for nodes_K, weights_K in zip(spectrum.nodes_VK, spectrum.weights_VK, strict=True)
    ), strict=True))  # fmt: skip
    known_X = (spectrum.known_K[:, None] > cuts).sum(axis=0)
    n = spectrum.n_probes
    reach_X = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1)) * each_VX.std(axis=0, ddof=1) / n**0.5
    low_X, high_X = low_VX.mean(axis=0) - reach_X, high_VX.mean(axis=0) + reach_X
    most = spectrum.n_singular_values
    return (
        np.clip(each_VX.mean(axis=0) + known_X, 0, most),
        np.clip(low_X + known_X, 0, most),
        np.clip(high_X + known_X, 0, most),
    )


def _counts_of_rule(
    nodes_K: np.ndarray, weights_K: np.ndarray, cuts_X: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values above each cut by one Gauss rule: interpolated, at least, at most.

    Half of what a node stands for is taken to lie above it, and the count to be linear in the logarithm between nodes;
    below the smallest positive node it is linear in the value. Nodes at zero stand for no value above any cut.
    """
    kept = nodes_K > 0
    nodes_K, weights_K = nodes_K[kept], weights_K[kept]  # the largest first
    if not len(nodes_K):
        nothing = np.zeros(len(cuts_X))
        return nothing, nothing, nothing
    summed_K = np.concatenate([[0.0], np.cumsum(weights_K)])
    passed_X = np.searchsorted(-nodes_K, -cuts_X, side="left")  # nodes above the cut
    low_X = summed_K[np.maximum(passed_X - 1, 0)]
    high_X = summed_K[np.minimum(passed_X + 1, len(nodes_K))]
    middle_K = summed_K[1:] - weights_K / 2
    positive_X = np.maximum(cuts_X, np.finfo(np.float64).tiny)
    between_X = np.interp(-np.log(positive_X), -np.log(nodes_K), middle_K, left=0.0)
    foot_X = summed_K[-1] - weights_K[-1] / 2 * np.minimum(cuts_X / nodes_K[-1], 1.0)
    return np.where(cuts_X < nodes_K[-1], foot_X, between_X), low_X, high_X


def _x_log_x(values: np.ndarray) -> np.ndarray:
    positive = np.where(values > 0, values, 1.0)
    return np.where(values > 0, values * np.log(positive), 0.0)


def _effective_rank(total: float, total_log: float) -> float:
    """Exp of -Σ p log p with p = s / Σ s, from Σ s and Σ s log s."""
    return float(np.exp(np.log(total) - total_log / total)) if total > 0 else 0.0


def _jackknife(samples_KV: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Estimate:
    """A function of means over probes, with its jackknife interval (Efron and Tibshirani 1993, chapter 11)."""
    n = samples_KV.shape[1]
    value = statistic(samples_KV.mean(axis=1))
    left_out = (samples_KV.sum(axis=1, keepdims=True) - samples_KV) / (n - 1)
    each = np.array([statistic(left_out[:, index]) for index in range(n)])
    error = float(np.sqrt((n - 1) / n * ((each - each.mean()) ** 2).sum()))
    reach = float(student.ppf(0.5 + CONFIDENCE / 2, n - 1)) * error
    return Estimate(value, value - reach, value + reach)
