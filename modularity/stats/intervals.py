"""Confidence intervals: bootstrap over rows (plain, by group, within strata), Wilson's (share), Student's (mean).

Sources: Efron and Tibshirani 1993 (percentile interval, resampling of clusters); Wilson 1927, J. Am. Stat. Assoc. 22.
A resample is a vector of row weights (how often each row was drawn), and a statistic takes many of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.special import ndtri
from scipy.stats import t as student

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CHUNK_VALUES = 2**21  # weights held at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    estimate: float
    """The statistic of the rows as they are."""
    low: float
    """Lower bound."""
    high: float
    """Upper bound."""
    confidence: float
    """Nominal coverage, such as 0.95."""


def bootstrap_interval(
    statistic: Callable[[Array], Array],
    n_rows: int,
    *,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    groups_R: Array | None = None,
    strata_R: Array | None = None,
) -> Interval:
    """Percentile bootstrap interval of a statistic of weighted rows.

    Parameters
    ----------
    statistic : function of weights of shape (n, n_rows) that returns n values; weights of one are the rows as they are
    n_rows : rows to draw from
    n_resamples, confidence, seed : size, nominal coverage in (0, 1) and random state of the bootstrap
    groups_R : rows with one value here are drawn together (clustered bootstrap, for rows that share a text or template)
    strata_R : rows with different values here are drawn apart, each stratum keeps its size (the labels, usually)

    Raises
    ------
    DataError
        The statistic is not finite on a resample, for example because a class is missing: stratify by the label.
    """
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}: expected a number between 0 and 1, such as 0.95")
    estimate = float(statistic(np.ones((1, n_rows)))[0])
    generator = np.random.default_rng(seed)
    draw = _Resampler(n_rows, groups_R, strata_R)
    step = max(1, CHUNK_VALUES // n_rows)
    sizes = [min(step, n_resamples - first) for first in range(0, n_resamples, step)]
    values_N = np.concatenate([statistic(draw.weights(size, generator)) for size in sizes])
    n_bad = int((~np.isfinite(values_N)).sum())
    if n_bad:
        raise DataError(
            f"the statistic is not finite on {n_bad} of {n_resamples} resamples of {n_rows} rows: "
            "expected it to exist on each, pass the labels as strata_R or give more rows"
        )
    low, high = np.quantile(values_N, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, float(low), float(high), confidence)


def wilson_interval(n_successes: int, n_trials: int, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share, sensible for small counts and for shares near 0 and 1."""
    if not 0 <= n_successes <= n_trials or n_trials < 1:
        raise DataError(f"{n_successes} of {n_trials}: expected 0 <= successes <= trials and at least one trial")
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}: expected a number between 0 and 1, such as 0.95")
    z = float(ndtri((1 + confidence) / 2))
    share = n_successes / n_trials
    centre = (share + z * z / (2 * n_trials)) / (1 + z * z / n_trials)
    half = z * np.sqrt(share * (1 - share) / n_trials + (z / (2 * n_trials)) ** 2) / (1 + z * z / n_trials)
    low = 0.0 if n_successes == 0 else float(centre - half)
    high = 1.0 if n_successes == n_trials else float(centre + half)
    return Interval(share, low, high, confidence)


def mean_interval(values_N: Array, *, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of independent values, such as seeds; its bounds are NaN with one value.

    Raises
    ------
    DataError
        No value, or `confidence` is not in (0, 1).
    """
    if not len(values_N) or not 0 < confidence < 1:
        raise DataError(f"{len(values_N)} values with {confidence=}: expected at least one, and a number in (0, 1)")
    estimate, n = float(np.mean(values_N)), len(values_N)
    if n < 2:
        return Interval(estimate, float("nan"), float("nan"), confidence)
    half = float(student.ppf((1 + confidence) / 2, n - 1)) * float(np.std(values_N, ddof=1)) / np.sqrt(n)
    return Interval(estimate, float(estimate - half), float(estimate + half), confidence)


def ratio_intervals(
    sums_XU: Array, sizes_XU: Array, *, n_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Percentile bootstrap intervals of many weighted means at once, over the same resamples of units.

    A unit is a cluster of rows; the mean of a line is the sum of `sums_XU` by that of `sizes_XU` over units.

    Parameters
    ----------
    sums_XU : array of shape (n_lines, n_units), finite: sum of the values of each unit
    sizes_XU : array that broadcasts to that shape, not negative: how many values they are
    n_resamples, confidence, seed : as in `bootstrap_interval`

    Returns
    -------
    estimate_X, low_X, high_X : float64; a bound is NaN with one unit, or where a resample has no value

    Raises
    ------
    DataError
        No unit, values that are not finite, or a line without any value.
    """
    sums = np.asarray(sums_XU, dtype=np.float64)
    sizes = np.broadcast_to(np.asarray(sizes_XU, dtype=np.float64), sums.shape)
    totals = sizes.sum(axis=1)
    if sums.ndim != 2 or not np.isfinite(sums).all() or (sizes < 0).any() or not (totals > 0).all():
        raise DataError(
            f"sums of shape {sums.shape}, the smallest number of values {totals.min(initial=np.inf)}: expected finite "
            "sums (lines, units) and at least one value in every line"
        )
    estimate_X = sums.sum(axis=1) / totals
    n_units = sums.shape[1]
    if n_units < 2:
        missing = np.full(len(sums), np.nan)
        return estimate_X, missing, missing
    generator, drawn = np.random.default_rng(seed), []
    step = max(1, CHUNK_VALUES // n_units)
    for first in range(0, n_resamples, step):
        size = min(step, n_resamples - first)
        weights_NU = generator.multinomial(n_units, np.full(n_units, 1 / n_units), size=size).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn.append((sums @ weights_NU.T) / (sizes @ weights_NU.T))
    low_X, high_X = np.quantile(np.concatenate(drawn, axis=1), [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return estimate_X, low_X, high_X


class _Resampler:
    """Draws row weights; units are rows or groups, each unit lies in one stratum."""

    def __init__(self, n_rows: int, groups_R: Array | None, strata_R: Array | None) -> None:
        if n_rows < 1:
            raise DataError(f"{n_rows} rows: expected at least one")
        for name, array in (("groups_R", groups_R), ("strata_R", strata_R)):
            if array is not None and array.shape != (n_rows,):
                raise DataError(f"{name} has shape {array.shape}: expected ({n_rows},)")
        unit_R = np.arange(n_rows) if groups_R is None else np.unique(groups_R, return_inverse=True)[1]
        stratum_R = np.zeros(n_rows, np.int64) if strata_R is None else np.unique(strata_R, return_inverse=True)[1]
        n_units = int(unit_R.max()) + 1
        stratum_U = np.zeros(n_units, np.int64)
        stratum_U[unit_R] = stratum_R
        mixed = np.flatnonzero(stratum_U[unit_R] != stratum_R)
        if len(mixed):
            raise DataError(
                f"row {mixed[0]} shares a group with a row of another stratum: expected each group within one stratum, "
                "pass either groups_R or strata_R"
            )
        self.unit_R, self.n_units = unit_R, n_units
        self.strata = [np.flatnonzero(stratum_U == stratum) for stratum in range(int(stratum_U.max()) + 1)]

    def weights(self, n_resamples: int, generator: np.random.Generator) -> Array:
        """Weights of shape (n_resamples, n_rows), float64."""
        counts = np.zeros(n_resamples * self.n_units)
        begin = np.arange(n_resamples)[:, None] * self.n_units
        for units in self.strata:
            drawn = units[generator.integers(0, len(units), (n_resamples, len(units)))]
            counts += np.bincount((begin + drawn).ravel(), minlength=len(counts))
        weights: Array = counts.reshape(n_resamples, self.n_units)[:, self.unit_R]
        return weights
