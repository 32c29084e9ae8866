"""Are texts of one category more alike than texts of different ones? A score, its exact null, and an interval.

Score = mean similarity of pairs of different texts of one category minus that of pairs of different categories (flaws
of cards D2-D5). Texts are the units: a pair of texts has one similarity, the mean over pairs of their positions, and a
text is never compared with itself. Many similarities (layers, heads, measures) are tested at once: they share the
labellings and the resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.geometry.labellings import Labellings

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

CHUNK_LABELLINGS = 16_384
CHUNK_MATRICES = 64
ROUNDING = 1e-12


@dataclass(frozen=True)
class CategoryScores:
    """Scores of M similarity matrices, arrays of shape (M,)."""

    within_M: Array
    """Mean similarity of two texts of one category."""
    between_M: Array
    """Mean similarity of two texts of different categories."""
    score_M: Array
    """`within_M - between_M`."""
    null_mean_M: Array
    null_sd_M: Array
    null_low_M: Array
    """5 % quantile of the score over labellings."""
    null_high_M: Array
    """95 % quantile."""
    p_value_M: Array
    """Share of labellings with at least this score (one-sided)."""


def text_pairs(n_texts: int) -> tuple[Array, Array]:
    """First and second text of every pair of different texts."""
    first, second = np.triu_indices(n_texts, 1)
    return first, second


def category_scores(similarity_MTT: Array, category_T: Array, null: Labellings) -> CategoryScores:
    """Scores with their null over labellings.

    Parameters
    ----------
    similarity_MTT : float64 similarities of texts, symmetric; the diagonal is not used
    category_T : number of the category of each text
    null : labellings of the same sizes

    Raises
    ------
    DataError
        Shapes do not fit, values are not finite, or no category has two texts.
    """
    pairs_PM, same_P = _pairs(similarity_MTT, category_T)
    n_within, n_pairs = int(same_P.sum()), len(same_P)
    total_M, within_M = pairs_PM.sum(axis=0), pairs_PM[same_P].sum(axis=0)
    score_M = within_M / n_within - (total_M - within_M) / (n_pairs - n_within)
    found: list[Array] = []
    for start in range(0, pairs_PM.shape[1], CHUNK_MATRICES):
        here = slice(start, start + CHUNK_MATRICES)
        null_MN = _null_sums(pairs_PM[:, here], null.category_NT)
        null_MN = null_MN / n_within - (total_M[here, None] - null_MN) / (n_pairs - n_within)
        tolerance_M = ROUNDING * np.maximum(np.abs(pairs_PM[:, here]).max(axis=0), 1.0)
        n_reached_M = (null_MN >= (score_M[here] - tolerance_M)[:, None]).sum(axis=1)
        p_value_M = null.p_values(n_reached_M)
        mean_M, sd_M = null_MN.mean(axis=1), null_MN.std(axis=1)
        low_M, high_M = np.quantile(null_MN, [0.05, 0.95], axis=1, overwrite_input=True)
        found.append(np.stack([mean_M, sd_M, low_M, high_M, p_value_M]))
    mean_M, sd_M, low_M, high_M, p_value_M = np.concatenate(found, axis=1)
    between_M = (total_M - within_M) / (n_pairs - n_within)
    return CategoryScores(within_M / n_within, between_M, score_M, mean_M, sd_M, low_M, high_M, p_value_M)


def _null_sums(pairs_PM: Array, category_NT: Array) -> Array:
    """Sum over the pairs of one category under every labelling, (M, N)."""
    first, second = text_pairs(category_NT.shape[1])
    sums_MN = np.empty((pairs_PM.shape[1], len(category_NT)))
    for start in range(0, len(category_NT), CHUNK_LABELLINGS):
        labels_TN = np.ascontiguousarray(category_NT[start : start + CHUNK_LABELLINGS].T)
        same_PN = (labels_TN[first] == labels_TN[second]).astype(np.float64)
        sums_MN[:, start : start + CHUNK_LABELLINGS] = pairs_PM.T @ same_PN
    return sums_MN


def _pairs(similarity_MTT: Array, category_T: Array) -> tuple[Array, Array]:
    """Similarity of every pair of texts, (P, M), and whether its texts are of one category."""
    n_texts = len(category_T)
    if similarity_MTT.ndim != 3 or similarity_MTT.shape[1:] != (n_texts, n_texts):
        raise DataError(f"similarities of shape {similarity_MTT.shape}: expected (M, {n_texts}, {n_texts})")
    first, second = text_pairs(n_texts)
    pairs_PM = np.ascontiguousarray(similarity_MTT[:, first, second].T, dtype=np.float64)
    if not np.isfinite(pairs_PM).all():
        raise DataError(f"{int((~np.isfinite(pairs_PM)).sum())} similarities are NaN or infinite")
    same_P = category_T[first] == category_T[second]
    if not same_P.any() or same_P.all():
        raise DataError("expected two or more categories, one of them with two or more texts")
    return pairs_PM, same_P


@dataclass(frozen=True)
class ScoreIntervals:
    """Percentile intervals of the scores of M matrices."""

    low_M: Array
    high_M: Array
    n_redrawn: int
    """Resamples that were drawn again because no category had two different texts, or all were one category."""


def score_intervals(
    similarity_MTT: Array,
    category_T: Array,
    *,
    n_resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScoreIntervals:
    """Bootstrap over texts within categories; copies of one text are never compared with each other.

    Raises
    ------
    DataError
        As `category_scores`; or almost every resample has no pair within a category (two texts in each).
    """
    pairs_PM, same_P = _pairs(similarity_MTT, category_T)
    first, second = text_pairs(len(category_T))
    weights_NP, n_redrawn = _pair_weights(category_T, first, second, same_P, n_resamples, seed)
    low, high = [], []
    within_NP, between_NP = weights_NP * same_P, weights_NP * ~same_P
    for start in range(0, pairs_PM.shape[1], CHUNK_MATRICES):
        part_PM = pairs_PM[:, start : start + CHUNK_MATRICES]
        scores_NM = within_NP @ part_PM / within_NP.sum(axis=1, keepdims=True)
        scores_NM -= between_NP @ part_PM / between_NP.sum(axis=1, keepdims=True)
        ends = np.quantile(scores_NM, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
        low.append(ends[0])
        high.append(ends[1])
    return ScoreIntervals(np.concatenate(low), np.concatenate(high), n_redrawn)


def _pair_weights(
    category_T: Array, first: Array, second: Array, same_P: Array, n_resamples: int, seed: int
) -> tuple[Array, int]:
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(category_T == category) for category in np.unique(category_T)]
    kept: list[Array] = []
    n_kept = n_drawn = 0
    while n_kept < n_resamples:
        n = n_resamples - n_kept
        if n_drawn > 100 * n_resamples:
            raise DataError(f"{n_drawn} resamples gave {n_kept} with a pair within a category; give more texts")
        counts_NT = np.zeros((n, len(category_T)))
        for texts in members:
            drawn = texts[generator.integers(0, len(texts), (n, len(texts)))]
            np.add.at(counts_NT, (np.arange(n)[:, None], drawn), 1.0)
        weights_NP = counts_NT[:, first] * counts_NT[:, second]
        usable_N = (weights_NP[:, same_P].sum(axis=1) > 0) & (weights_NP[:, ~same_P].sum(axis=1) > 0)
        kept.append(weights_NP[usable_N])
        n_kept, n_drawn = n_kept + int(usable_N.sum()), n_drawn + n
    return np.concatenate(kept), n_drawn - n_resamples


def category_blocks(similarity_TT: Array, category_T: Array) -> Array:
    """Mean similarity of different texts of every pair of categories, float64 of shape (C, C); NaN without a pair."""
    n = int(category_T.max()) + 1
    blocks_CC = np.full((n, n), np.nan)
    different_TT = ~np.eye(len(category_T), dtype=bool)
    for one, other in np.ndindex(n, n):
        chosen = different_TT & (category_T == one)[:, None] & (category_T == other)[None, :]
        if chosen.any():
            blocks_CC[one, other] = similarity_TT[chosen].mean()
    return blocks_CC
