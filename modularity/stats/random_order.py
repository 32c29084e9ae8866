"""Average precision of labels in random order: its mean, standard deviation and skewness, exactly.

For P labels 1 among n rows in a random order without ties, AP = (1 / P) · Σ y_i H_i / i, with y_i the label at rank i
and H_i = y_1 + … + y_i (Zhang et al. 2023, arXiv 2305.18390, rank neurons by this number). Were the labels independent,
1 with probability θ, the joint moments of H and of the sum would follow from rank to rank, and be polynomials in θ.
Since y_i² = y_i, the coefficient of θ^k is a sum over sets of k different ranks, all of which hold label 1 with
probability P (P - 1) … / (n (n - 1) …) when exactly P are drawn. So these numbers in place of θ^k give the moments for
given P, in n steps.

Where label 1 is the more frequent, 1 - AP = (1 / P) · Σ y_i (i - H_i) / i is followed instead, in the rarer label,
because the moments of a number close to 1 leave nothing of its skewness in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_ORDER = 3
_DEGREE = 2 * _ORDER
_CHOOSE = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 2, 1, 0], [1, 3, 3, 1]], np.float64)


@dataclass(frozen=True)
class RandomOrder:
    """Average precision of one number of labels 1 among all rows, over random orders without ties."""

    mean: float
    """Above the share of label 1, the more so the fewer rows."""
    sd: float
    """Standard deviation, above 0."""
    skewness: float
    """Third central moment over the cubed standard deviation: positive for a rare label, about 0 for balanced ones."""


@lru_cache(maxsize=4096)
def random_order(n_positive: int, n_rows: int) -> RandomOrder:
    """Moments of the average precision of `n_positive` labels 1 among `n_rows` rows in random order.

    Raises
    ------
    DataError
        There is no row of one of the classes.
    """
    if not 0 < n_positive < n_rows:
        raise DataError(f"{n_positive} of {n_rows} rows have label 1: expected rows of both classes")
    lost = 2 * n_positive > n_rows
    n_followed = n_rows - n_positive if lost else n_positive
    drawn = np.arange(_DEGREE + 1)
    steps = np.maximum(n_followed - drawn, 0) / np.maximum(n_rows - drawn, 1)
    chances_K = np.concatenate([[1.0], np.cumprod(steps)[:-1]])
    _, first, second, third = _coefficients(n_rows, lost) @ chances_K / float(n_positive) ** np.arange(_ORDER + 1)
    variance = second - first**2
    skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
    if lost:
        return RandomOrder(float(1 - first), float(np.sqrt(variance)), float(-skewness))
    return RandomOrder(float(first), float(np.sqrt(variance)), float(skewness))


@lru_cache(maxsize=256)
def _coefficients(n_rows: int, lost: bool) -> Array:
    """Coefficients of θ^k in the moments 0 … 3 of the sum, float64 (4, 7); `lost`: of the lost precision."""
    coefficients: Array = _follow(n_rows, lost, _CHOOSE)
    return coefficients


@njit(cache=True, nogil=True)
def _follow(n_rows, lost, choose):  # type: ignore[no-untyped-def]
    """Follow E[H^a M^b], a + b <= 3, over the ranks; M is the sum so far, H the followed labels so far."""
    moments = np.zeros((_ORDER + 1, _ORDER + 1, _DEGREE + 1))
    moments[0, 0, 0] = 1.0
    for rank in range(1, n_rows + 1):
        before = moments.copy()
        for b in range(_ORDER + 1):
            for a in range(_ORDER + 1 - b):
                with_label, without = moments[a, b], before[a, b].copy()
                if lost:  # another label adds H / rank to the sum
                    without[:] = 0.0
                    for j in range(b + 1):
                        without += choose[b, j] / rank**j * before[a + j, b - j]
                with_label[:] = without
                with_label[1:] -= without[:-1]
                for j in range(1 if lost else b + 1):  # this one makes H + 1, and adds (H + 1) / rank
                    for h in range(a + j + 1):
                        weight = choose[b, j] / rank**j * choose[a + j, h]
                        with_label[1:] += weight * before[h, b - j, :-1]
    return moments[0]
