"""Which dimensions differ by category: one-way analysis of variance per dimension, with texts as units.

In place of hand-picked streams (card D4): F of every dimension, its p under the F distribution, and the p of the
largest F of all dimensions under permuted labels. Positions are averaged within each text first, so that units are
independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import f as f_distribution

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Anova:
    """One-way analysis of variance of D dimensions."""

    f_value_D: Array
    """Mean square between categories over that within; infinite where only categories differ, 0 for a constant."""
    p_value_D: Array
    eta_squared_D: Array
    """Share of the variance that lies between categories, 0 to 1."""
    highest_D: Array
    """int64: category with the largest mean, the lowest number under ties."""


def mean_by_text(values_RD: Array, text_R: Array) -> Array:
    """Mean of the rows of every text, float64 of shape (T, D)."""
    n_rows_T = np.bincount(text_R)
    sums_TD = np.zeros((len(n_rows_T), values_RD.shape[1]))
    np.add.at(sums_TD, text_R, np.asarray(values_RD, np.float64))
    return sums_TD / n_rows_T[:, None]


def anova(values_TD: Array, category_T: Array) -> Anova:
    """Analysis of variance of every column.

    Parameters
    ----------
    values_TD : float64, one row for each text
    category_T : number of the category of each text

    Raises
    ------
    DataError
        No text is left over to estimate the variance within categories.
    """
    n_categories, n_texts = int(category_T.max()) + 1, len(category_T)
    if n_texts <= n_categories:
        raise DataError(f"{n_texts} texts in {n_categories} categories: expected more texts than categories")
    between_D, within_D, means_CD = _sums_of_squares(values_TD, category_T, n_categories)
    total_D = between_D + within_D
    f_value_D = _f_values(between_D, within_D, n_categories, n_texts)
    p_value_D = f_distribution.sf(f_value_D, n_categories - 1, n_texts - n_categories)
    eta_D = np.divide(between_D, total_D, out=np.zeros_like(total_D), where=total_D > 0)
    return Anova(f_value_D, p_value_D, eta_D, np.argmax(means_CD, axis=0))


def largest_f_p_value(values_TD: Array, category_T: Array, *, n_permutations: int, seed: int) -> float:
    """P of the largest F of all columns: (1 + b) / (1 + n_permutations) over permuted labels."""
    n_categories, n_texts = int(category_T.max()) + 1, len(category_T)
    generator = np.random.default_rng(seed)
    observed = _largest(values_TD, category_T, n_categories)
    reached = sum(
        _largest(values_TD, generator.permutation(category_T), n_categories) >= observed * (1 - 1e-10)
        for _ in range(n_permutations)
    )
    assert n_texts == len(values_TD)
    return (1 + reached) / (1 + n_permutations)


def _largest(values_TD: Array, category_T: Array, n_categories: int) -> float:
    between_D, within_D, _ = _sums_of_squares(values_TD, category_T, n_categories)
    return float(_f_values(between_D, within_D, n_categories, len(category_T)).max(initial=0.0))


def _sums_of_squares(values_TD: Array, category_T: Array, n_categories: int) -> tuple[Array, Array, Array]:
    one_hot_CT = (category_T == np.arange(n_categories)[:, None]).astype(np.float64)
    n_C = one_hot_CT.sum(axis=1)
    moved_TD = values_TD - values_TD.mean(axis=0)
    means_CD = one_hot_CT @ moved_TD / n_C[:, None]
    between_D = n_C @ means_CD**2
    within_D = np.maximum((moved_TD**2).sum(axis=0) - between_D, 0.0)
    # What rounding leaves of a constant is no variance.
    scale_D = 1e-24 * len(category_T) * (np.abs(values_TD).max(axis=0, initial=0.0) ** 2)
    return np.where(between_D > scale_D, between_D, 0.0), np.where(within_D > scale_D, within_D, 0.0), means_CD


def _f_values(between_D: Array, within_D: Array, n_categories: int, n_texts: int) -> Array:
    mean_between_D = between_D / (n_categories - 1)
    mean_within_D = within_D / (n_texts - n_categories)
    f_value_D = np.where(mean_between_D > 0, np.inf, 0.0)
    np.divide(mean_between_D, mean_within_D, out=f_value_D, where=mean_within_D > 0)
    return f_value_D
