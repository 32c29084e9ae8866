"""Which components light up or go dark for a category: effect sizes over texts, with permutation p-values.

The activity of a component (a head, an FFN block, an expert) for a text is the mean over its rows of the root mean
square of what the component gives out. A category is compared with all other texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.geometry.labellings import labellings

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CHUNK = 4_096


@dataclass(frozen=True)
class ActivityEffects:
    """Of C categories against the rest and K components, arrays of shape (C, K)."""

    mean_CK: Array
    """Mean activity over the texts of the category."""
    rest_CK: Array
    """Mean over all other texts."""
    effect_CK: Array
    """Hedges' g: difference over the pooled standard deviation, with the correction for small samples; positive where
    the component lights up. Infinite where the texts of both sides do not vary but differ, 0 where nothing differs."""
    p_value_CK: Array
    """Two-sided: share of labellings whose absolute difference of means is at least the observed one."""
    is_exact: bool
    n_labellings: int
    """Labellings behind the p-values of the last category: all, or those drawn."""


def root_mean_square(values_RKU: Array) -> Array:
    """Root mean square over the units of every row and component, float64 (R, K); NaN units count as absent.

    A component of which a row has no unit (an expert that the token was not sent to) has activity 0.
    """
    squares = np.square(np.asarray(values_RKU, np.float64))
    present = ~np.isnan(squares)
    n = present.sum(axis=-1)
    sums = np.where(present, squares, 0.0).sum(axis=-1)
    return np.sqrt(np.divide(sums, n, out=np.zeros_like(sums), where=n > 0))


def activity_effects(
    activity_TK: Array, category_T: Array, *, limit: int = 200_000, n_draws: int = 9_999, seed: int = 0
) -> ActivityEffects:
    """Compare the activity of every component in each category with that in all other texts.

    Parameters
    ----------
    activity_TK : float64 activity of every text and component
    category_T : number of the category of each text
    limit, n_draws, seed : as for `labellings`
    """
    n_categories = int(category_T.max()) + 1
    parts = []
    is_exact, number = True, 0
    for category in range(n_categories):
        inside_T = category_T == category
        mean_K, rest_K, effect_K = _effect(activity_TK[inside_T], activity_TK[~inside_T])
        null = labellings(inside_T.astype(np.int64), by_name=True, limit=limit, n_draws=n_draws, seed=seed)
        p_value_K = _p_values(activity_TK, null.category_NT, np.abs(mean_K - rest_K), null.p_values)
        parts.append((mean_K, rest_K, effect_K, p_value_K))
        is_exact, number = is_exact and null.is_exact, len(null.category_NT)
    mean_CK, rest_CK, effect_CK, p_value_CK = (np.stack(columns) for columns in zip(*parts))
    return ActivityEffects(mean_CK, rest_CK, effect_CK, p_value_CK, is_exact, number)


def _effect(inside_TK: Array, rest_TK: Array) -> tuple[Array, Array, Array]:
    n, m = len(inside_TK), len(rest_TK)
    mean_K, rest_K = inside_TK.mean(axis=0), rest_TK.mean(axis=0)
    squares_K = ((inside_TK - mean_K) ** 2).sum(axis=0) + ((rest_TK - rest_K) ** 2).sum(axis=0)
    sd_K = np.sqrt(squares_K / (n + m - 2))
    correction = 1 - 3 / (4 * (n + m) - 9)
    difference_K = mean_K - rest_K
    effect_K = np.where(difference_K == 0, 0.0, np.copysign(np.inf, difference_K))
    small_K = 1e-12 * np.maximum(np.abs(mean_K), np.abs(rest_K))
    np.divide(correction * difference_K, sd_K, out=effect_K, where=sd_K > small_K)
    effect_K[np.abs(difference_K) <= small_K] = 0.0
    return mean_K, rest_K, effect_K


def _p_values(activity_TK: Array, inside_NT: Array, observed_K: Array, p_values: Any) -> Array:
    n_inside = int(inside_NT[0].sum())
    n_rest = inside_NT.shape[1] - n_inside
    total_K = activity_TK.sum(axis=0)
    n_reached_K = np.zeros(activity_TK.shape[1])
    tolerance_K = 1e-12 * np.abs(activity_TK).max(axis=0, initial=0.0)
    for start in range(0, len(inside_NT), CHUNK):
        sums_NK = inside_NT[start : start + CHUNK].astype(np.float64) @ activity_TK
        difference_NK = np.abs(sums_NK / n_inside - (total_K - sums_NK) / n_rest)
        n_reached_K += (difference_NK >= observed_K - tolerance_K).sum(axis=0)
    result: Array = p_values(n_reached_K)
    return result
