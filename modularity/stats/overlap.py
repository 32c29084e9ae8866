"""Whether sub-functions use the same neurons: overlap of their top lists, and rank correlation of all their scores.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 1 (right): |intersection| / k of the k best neurons of a layer,
averaged over layers, then over the pairs of two functions; a function with itself leaves out the pairs of a
sub-function with itself. Departures: ties are broken by the lowest index (the released code leaves them to
`argpartition`) and can be counted, and blocks of functions are tested by permuting which sub-function belongs to which
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import hypergeom, rankdata

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FunctionOverlap:
    """Mean similarity of the sub-functions of two functions, against random assignment to functions."""

    functions: tuple[str, ...]
    """Names of the functions, in order of first appearance; both axes of the arrays."""
    mean_GG: Array
    """float64 array (functions, functions): mean over pairs; NaN for a function of one sub-function with itself."""
    null_mean_GG: Array
    """float64: the same, averaged over permutations of the assignment."""
    null_sd_GG: Array
    """float64: its standard deviation over permutations."""
    p_above_GG: Array
    """float64: permutation p-value for a mean this high."""
    p_below_GG: Array
    """float64: permutation p-value for a mean this low."""
    within_minus_between: float
    """Mean over pairs within a function minus mean over pairs of different functions; NaN when there are none."""
    p_within_above_between: float
    """Permutation p-value for a difference this high; NaN when there is no such difference."""


def top_neurons(predictivity_F: Array, k: int) -> Array:
    """Indices of the k largest values, descending; ties by lowest index.

    Parameters
    ----------
    predictivity_F : float array of shape (n_neurons,), or (..., n_neurons) for several lists; any scores
    k : at least 1, at most n_neurons

    Returns
    -------
    indices : int64 array of shape (..., k)
    """
    n_neurons = predictivity_F.shape[-1]
    if not 1 <= k <= n_neurons:
        raise DataError(f"k is {k}: expected between 1 and the {n_neurons} neurons")
    if np.isnan(predictivity_F).any():
        raise DataError(
            f"{int(np.isnan(predictivity_F).sum())} of {predictivity_F.size} values are NaN: expected numbers"
        )
    best: Array = np.argsort(-predictivity_F, axis=-1, kind="stable")[..., :k]
    return best


def boundary_ties(values_SF: Array, k: int) -> Array:
    """How many neurons outside each top list equal its last value: those that the order of neurons left out."""
    best = np.take_along_axis(values_SF, top_neurons(values_SF, k), axis=-1)
    last = best[..., -1:]
    ties: Array = (values_SF == last).sum(axis=-1) - (best == last).sum(axis=-1)
    return ties


def n_common(values_SF: Array, k: int) -> Array:
    """Size of the intersection of the top lists of every two sub-functions, int64 array of shape (S, S)."""
    members_SF = np.zeros(values_SF.shape, np.float32)
    np.put_along_axis(members_SF, top_neurons(values_SF, k), 1.0, axis=-1)
    common: Array = np.rint(members_SF @ np.swapaxes(members_SF, -1, -2)).astype(np.int64)
    return common


def top_k_overlap(values_SF: Array, k: int) -> Array:
    """|intersection| / k of the top lists of every two sub-functions.

    Parameters
    ----------
    values_SF : float array of shape (n_subfunctions, n_neurons), such as the predictivity of one layer; leading axes
        (layers) are kept
    k : length of the top lists

    Returns
    -------
    overlap_SS : float64 array of shape (n_subfunctions, n_subfunctions), ones on the diagonal; by chance k / N
    """
    overlap: Array = n_common(values_SF, k) / k
    return overlap


def jaccard(values_SF: Array, k: int) -> Array:
    """|intersection| / |union| of the top lists of every two sub-functions; shapes as for `top_k_overlap`."""
    common = n_common(values_SF, k)
    index: Array = common / (2 * k - common)
    return index


def rank_correlation(values_SF: Array) -> Array:
    """Spearman correlation over neurons of every two sub-functions; NaN where all values of one are equal."""
    ranks = rankdata(values_SF, axis=-1)
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=-1, keepdims=True))
    scaled = np.divide(centred, norms, out=np.full(centred.shape, np.nan), where=norms > 0)
    return np.clip(scaled @ np.swapaxes(scaled, -1, -2), -1.0, 1.0)


def chance_overlap(k: int, n_neurons: int) -> float:
    """Expected |intersection| / k of two independent lists of k out of n_neurons: k / n_neurons."""
    if not 1 <= k <= n_neurons:
        raise DataError(f"k is {k}: expected between 1 and the {n_neurons} neurons")
    return k / n_neurons


def chance_jaccard(k: int, n_neurons: int) -> float:
    """Expected |intersection| / |union| of two independent lists of k out of n_neurons, exact."""
    chance_overlap(k, n_neurons)
    shared = np.arange(k + 1)
    return float((hypergeom.pmf(shared, n_neurons, k, k) * shared / (2 * k - shared)).sum())


def overlap_p_values(n_common_SS: Array, k: int, n_neurons: int) -> Array:
    """Exact probability that two independent lists of k out of n_neurons share at least so many (hypergeometric)."""
    chance_overlap(k, n_neurons)
    tail: Array = np.asarray(hypergeom.sf(np.asarray(n_common_SS) - 1, n_neurons, k, k), np.float64)
    return tail


def function_overlap(
    similarity_SS: Array, functions: Sequence[str], *, n_permutations: int = 1000, seed: int = 0
) -> FunctionOverlap:
    """Average a sub-function × sub-function matrix over the blocks of functions, with a permutation null.

    Parameters
    ----------
    similarity_SS : symmetric float array, averaged over layers by the caller
    functions : the function of each sub-function
    n_permutations, seed : draws of the null, which permutes `functions` over the sub-functions
    """
    names = tuple(dict.fromkeys(functions))
    if similarity_SS.shape != (len(functions), len(functions)):
        raise DataError(
            f"similarity has shape {similarity_SS.shape}: expected one row and column for each of {len(functions)}"
        )
    member_SG = np.equal.outer(np.array(functions, object), np.array(names, object)).astype(np.float64)
    if n_permutations < 1:
        raise DataError(f"n_permutations is {n_permutations}: expected at least 1")
    shuffled_NS = np.random.default_rng(seed).permuted(np.tile(np.arange(len(functions)), (n_permutations, 1)), axis=1)
    mean_GG, difference = _block_means(similarity_SS, member_SG[None])
    null_NGG, null_N = _block_means(similarity_SS, member_SG[shuffled_NS])
    slack = 1e-12  # equal sums in another order
    above = (1.0 + (null_NGG >= mean_GG - slack).sum(axis=0)) / (1.0 + n_permutations)
    below = (1.0 + (null_NGG <= mean_GG + slack).sum(axis=0)) / (1.0 + n_permutations)
    missing = np.isnan(mean_GG[0])
    within = (1.0 + (null_N >= difference - slack).sum()) / (1.0 + n_permutations)
    return FunctionOverlap(
        functions=names,
        mean_GG=mean_GG[0],
        null_mean_GG=null_NGG.mean(axis=0),
        null_sd_GG=null_NGG.std(axis=0),
        p_above_GG=np.where(missing, np.nan, above),
        p_below_GG=np.where(missing, np.nan, below),
        within_minus_between=float(difference[0]),
        p_within_above_between=float("nan") if np.isnan(difference[0]) else float(within),
    )


def _block_means(similarity_SS: Array, member_NSG: Array) -> tuple[Array, Array]:
    """Means of the blocks without self pairs, and within minus between, for several assignments at once."""
    others_SS = similarity_SS.copy()
    np.fill_diagonal(others_SS, 0.0)
    member_NGS = np.swapaxes(member_NSG, 1, 2)
    sums_NGG = member_NGS @ (others_SS @ member_NSG)
    sizes_NG = member_NSG.sum(axis=1)
    pairs_NGG = sizes_NG[:, :, None] * sizes_NG[:, None, :] - np.eye(sizes_NG.shape[1]) * sizes_NG[:, :, None]
    means_NGG = np.divide(sums_NGG, pairs_NGG, out=np.full(sums_NGG.shape, np.nan), where=pairs_NGG > 0)
    within = np.trace(sums_NGG, axis1=1, axis2=2), np.trace(pairs_NGG, axis1=1, axis2=2)
    all_pairs = sums_NGG.sum(axis=(1, 2)), pairs_NGG.sum(axis=(1, 2))
    parts = within, (all_pairs[0] - within[0], all_pairs[1] - within[1])
    shares = [np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0) for total, count in parts]
    return means_NGG, shares[0] - shares[1]
