"""Gram matrices of activation vectors, and every similarity that follows from them alone.

The Gram matrix G = X Xᵀ of R vectors holds all their lengths and angles; so cosine, scaled cosine, centring, the
removal of principal components and principal coordinates are computed from its R × R numbers, whatever the width D.
Source: cards D2 and D3 (NickyP and Fowler 2022) for `cosine` and `scaled`; Mu and Viswanath 2018 (arXiv 1702.01417) for
the removal of the mean and of the largest components, which dominate raw cosine.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MEASURES = ("cosine", "scaled", "centred", "components_removed")
"""Similarities of `similarity`: of the study, of the study, and two corrections of the first."""


def gram_matrix(values_RD: Array) -> Array:
    """Inner products of all rows, float64 array of shape (R, R).

    Raises
    ------
    DataError
        The array is not two-dimensional, or a value is NaN or infinite.
    """
    values = np.asarray(values_RD, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(f"array of shape {values.shape}: expected (rows, width) with finite values")
    gram: Array = values @ values.T
    return gram


def cosine_similarity(gram_RR: Array) -> Array:
    """Cosines of all pairs of rows, in [-1, 1]; a row of length zero has similarity 0 with all, itself included."""
    length_R = np.sqrt(np.maximum(np.diagonal(gram_RR), 0.0))
    scale_R = np.divide(1.0, length_R, out=np.zeros_like(length_R), where=length_R > 0)
    return np.clip(gram_RR * scale_R[:, None] * scale_R[None, :], -1.0, 1.0)


def scaled_similarity(gram_RR: Array) -> Array:
    """Inner products over the largest squared length of the set: S_ij = x_i·x_j / max_k |x_k|² (card D3)."""
    largest = float(np.diagonal(gram_RR).max(initial=0.0))
    return gram_RR / largest if largest > 0 else np.zeros_like(gram_RR)


def centred(gram_RR: Array) -> Array:
    """Gram matrix of the rows minus their mean; rows of which only rounding is left are zero."""
    mean_R = gram_RR.mean(axis=0)
    return _without_rounding(gram_RR - mean_R[:, None] - mean_R[None, :] + mean_R.mean(), gram_RR)


def without_components(gram_RR: Array, n_removed: int) -> Array:
    """Gram matrix of the rows minus their mean and minus their projections on the largest principal components.

    Parameters
    ----------
    gram_RR : Gram matrix, not yet centred
    n_removed : components to remove, from 0 to R - 1
    """
    if not 0 <= n_removed < len(gram_RR):
        raise DataError(f"{n_removed=}: expected 0 to {len(gram_RR) - 1}, fewer than the rows")
    kept = centred(gram_RR)
    if n_removed:
        values, vectors = np.linalg.eigh(kept)
        top_RN = vectors[:, -n_removed:]
        kept = _without_rounding(kept - (top_RN * values[-n_removed:]) @ top_RN.T, gram_RR)
    return kept


def _without_rounding(rest_RR: Array, gram_RR: Array) -> Array:
    """What is left of a Gram matrix, without rows whose squared length is within the rounding of what it was.

    Their angles would be those of rounding errors, which follow what was taken off.
    """
    floor = len(gram_RR) * np.finfo(np.float64).eps * np.trace(gram_RR)
    kept_R = np.diagonal(rest_RR) > floor
    return np.where(kept_R[:, None] & kept_R, rest_RR, 0.0)


def similarity(gram_RR: Array, measure: str, *, n_removed: int = 1) -> Array:
    """Similarity of all pairs of rows.

    Parameters
    ----------
    gram_RR : float64 Gram matrix
    measure : `cosine`; `scaled`; `centred`, cosine after the mean is taken off; `components_removed`, cosine after also
        the largest `n_removed` principal components are taken off
    n_removed : components to remove

    Raises
    ------
    DataError
        An unknown measure, or more components than rows.
    """
    if measure == "cosine":
        return cosine_similarity(gram_RR)
    if measure == "scaled":
        return scaled_similarity(gram_RR)
    if measure == "centred":
        return cosine_similarity(centred(gram_RR))
    if measure == "components_removed":
        return cosine_similarity(without_components(gram_RR, n_removed))
    raise DataError(f"{measure=}: expected one of {', '.join(MEASURES)}")


def principal_coordinates(gram_RR: Array, n_components: int = 2) -> tuple[Array, Array]:
    """Coordinates of the rows along their largest principal components (PCA), from the Gram matrix alone.

    Returns
    -------
    coordinates_RN : float64 of shape (R, n_components); the sign makes the largest coordinate of each positive
    share_N : float64, share of the variance along each; zeros where all rows are equal
    """
    values, vectors = np.linalg.eigh(centred(gram_RR))
    values_N = np.maximum(values[::-1][:n_components], 0.0)
    coordinates_RN = vectors[:, ::-1][:, :n_components] * np.sqrt(values_N)
    largest_N = np.argmax(np.abs(coordinates_RN), axis=0)
    coordinates_RN *= np.where(np.take_along_axis(coordinates_RN, largest_N[None], axis=0) < 0, -1.0, 1.0)
    total = float(np.maximum(values, 0.0).sum())
    return coordinates_RN, values_N / total if total > 0 else np.zeros_like(values_N)


def text_means(similarity_RR: Array, text_R: Array) -> Array:
    """Mean similarity of every pair of texts over all pairs of their rows, float64 array of shape (T, T).

    Parameters
    ----------
    similarity_RR : similarity of rows
    text_R : number of the text of each row, 0 … T - 1
    """
    n_rows_T = np.bincount(text_R)
    if (n_rows_T == 0).any():
        raise DataError(f"texts {np.flatnonzero(n_rows_T == 0).tolist()} have no row; number texts without gaps")
    share_TR = np.zeros((len(n_rows_T), len(text_R)))
    share_TR[text_R, np.arange(len(text_R))] = 1.0 / n_rows_T[text_R]
    means: Array = share_TR @ similarity_RR @ share_TR.T
    return means
