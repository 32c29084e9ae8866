"""Are paired differences centred on zero? Permutation test by the signs, exact for few pairs.

Source: Fisher 1935, The Design of Experiments, section 21; Pitman 1937. If the two members of a pair are exchangeable,
every difference is as likely with the other sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.stats.intervals import Interval, mean_interval

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_EXACT = 12
"""Pairs up to which all signs are counted: 4,096."""
ROUNDING = 1e-12
"""Relative slack within which two sums count as equal, so that rounding never makes a p-value smaller."""
_LINES = 256
"""Lines that are tested at a time."""


@dataclass(frozen=True)
class SignFlip:
    """Outcome of `sign_flip_test`."""

    mean: float
    """Mean difference."""
    sd: float
    """Standard deviation of the differences (n - 1); NaN with one pair."""
    interval: Interval
    """Student interval of the mean; its bounds are NaN with one pair."""
    p_value: float
    """Two-sided: share of the signs, the observed ones counted, whose mean is as far from zero."""
    smallest_p_value: float
    """What no result of so many pairs can be below."""
    n: int
    """Pairs."""
    is_exact: bool
    """Whether all signs were counted."""


def sign_flip_test(differences_N: Array, *, seed: int = 0, n_flips: int = 9999, confidence: float = 0.95) -> SignFlip:
    """Two-sided test of paired differences.

    Parameters
    ----------
    differences_N : float array of shape (n_pairs,), finite, at least one
    seed, n_flips : random state and number of the draws of signs beyond 12 pairs
    confidence : nominal coverage of the interval, in (0, 1)

    Raises
    ------
    DataError
        No pair, or a difference that is not finite.
    """
    values_N = np.asarray(differences_N, dtype=np.float64)
    if values_N.ndim != 1 or not len(values_N) or not np.isfinite(values_N).all() or n_flips < 1:
        raise DataError(
            f"differences {values_N.tolist()} with {n_flips=}: expected finite numbers, at least one, and a flip"
        )
    n, is_exact = len(values_N), len(values_N) <= MAX_EXACT
    sums = np.abs(_signs(n, seed=seed, n_flips=n_flips, is_exact=is_exact) @ values_N)
    slack = ROUNDING * float(np.abs(values_N).sum())
    return SignFlip(
        mean=float(values_N.mean()),
        sd=float(values_N.std(ddof=1)) if n > 1 else float("nan"),
        interval=mean_interval(values_N, confidence=confidence),
        p_value=float((sums >= abs(values_N.sum()) - slack).mean()),
        smallest_p_value=2.0 / 2**n if is_exact else 1.0 / (1 + n_flips),
        n=n,
        is_exact=is_exact,
    )


def sign_flip_p_values(differences_XN: Array, *, seed: int = 0, n_flips: int = 9999) -> tuple[Array, float]:
    """Two-sided p-values of many lines of paired differences, all under the same signs.

    Parameters
    ----------
    differences_XN : float array of shape (n_lines, n_pairs), finite, at least one pair
    seed, n_flips : as in `sign_flip_test`

    Returns
    -------
    p_value_X : float64 array of shape (n_lines,), as `sign_flip_test` gives for each line
    smallest_p_value : what no result of so many pairs can be below

    Raises
    ------
    DataError
        No pair, or a difference that is not finite.
    """
    values_XN = np.asarray(differences_XN, dtype=np.float64)
    if values_XN.ndim != 2 or not values_XN.shape[1] or not np.isfinite(values_XN).all() or n_flips < 1:
        raise DataError(
            f"differences of shape {values_XN.shape} with {n_flips=}: expected finite numbers (lines, pairs), at least "
            "one pair, and a flip"
        )
    n, is_exact = values_XN.shape[1], values_XN.shape[1] <= MAX_EXACT
    edge_X = np.abs(values_XN.sum(axis=1)) - ROUNDING * np.abs(values_XN).sum(axis=1)
    signs = _signs(n, seed=seed, n_flips=n_flips, is_exact=is_exact)
    found_X = np.zeros(len(values_XN))
    for start in range(0, len(values_XN), _LINES):
        lines = slice(start, start + _LINES)
        found_X[lines] = (np.abs(values_XN[lines] @ signs.T) >= edge_X[lines, None]).mean(axis=1)
    return found_X, 2.0 / 2**n if is_exact else 1.0 / (1 + n_flips)


def _signs(n: int, *, seed: int, n_flips: int, is_exact: bool) -> Array:
    """Rows of -1 and 1, the observed signs among them."""
    if is_exact:
        bits: Array = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return 1.0 - 2.0 * bits
    drawn = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (n_flips, n))
    return np.concatenate([np.ones((1, n)), drawn])
