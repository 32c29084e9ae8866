"""Linear centred kernel alignment (CKA) between sets of vectors of the same rows, with a null over texts.

Source: Kornblith et al. 2019 (arXiv 1905.00414); the debiased form after Székely and Rizzo 2014, as in Nguyen et al.
2021 (arXiv 2010.15327): the plain form is near 1 for any two sets that are wider than there are rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.geometry.gram import centred

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Alignment:
    """CKA of every pair of M sets of vectors, arrays of shape (M, M)."""

    cka_MM: Array
    """Plain linear CKA, 0 to 1; 0 with a set whose vectors are all equal."""
    debiased_MM: Array
    """Debiased: its expectation is 0 for unrelated sets of independent rows; may be negative. 0 likewise."""
    null_mean_MM: Array
    """Mean of the plain CKA when the texts of the second set are exchanged as wholes."""
    null_high_MM: Array
    """95 % quantile of it."""
    p_value_MM: Array
    """(1 + b) / (1 + permutations) of the plain CKA; 1 on the diagonal is not a test: it is NaN."""


def linear_cka(gram_MRR: Array) -> Array:
    """Plain linear CKA of every pair of Gram matrices, float64 (M, M)."""
    return _cosines(_flat(np.stack([centred(gram) for gram in gram_MRR])))


def debiased_cka(gram_MRR: Array) -> Array:
    """Debiased linear CKA of every pair of Gram matrices; needs four rows or more."""
    n = gram_MRR.shape[1]
    if n < 4:
        raise DataError(f"{n} rows: debiased CKA needs 4 or more")
    return _cosines(_flat(np.stack([_u_centred(centred(gram)) for gram in gram_MRR])))


def _u_centred(gram_RR: Array) -> Array:
    n = len(gram_RR)
    hollow = gram_RR - np.diag(np.diagonal(gram_RR))
    sums_R = hollow.sum(axis=0)
    found = hollow - (sums_R[:, None] + sums_R[None, :]) / (n - 2) + sums_R.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(found, 0.0)
    return found


def _flat(matrices_MRR: Array) -> Array:
    flat: Array = matrices_MRR.reshape(len(matrices_MRR), -1)
    return flat


def _cosines(flat_MV: Array) -> Array:
    products_MM = flat_MV @ flat_MV.T
    length_M = np.sqrt(np.maximum(np.diagonal(products_MM), 0.0))
    scale_M = np.divide(1.0, length_M, out=np.zeros_like(length_M), where=length_M > 0)
    cosines: Array = products_MM * scale_M[:, None] * scale_M[None, :]
    return cosines


def alignment(gram_MRR: Array, text_R: Array, *, n_permutations: int = 200, seed: int = 0) -> Alignment:
    """CKA of every pair with its null: texts of the second set exchanged, rows of a text kept together and in order.

    Parameters
    ----------
    gram_MRR : float64 Gram matrices of the same rows
    text_R : number of the text of each row, ascending; each text has the same number of rows
    n_permutations, seed : of the null

    Raises
    ------
    DataError
        Texts differ in their number of rows, or are not in order.
    """
    n_texts = int(text_R.max()) + 1
    n_rows, rest = divmod(len(text_R), n_texts)
    if rest or not np.array_equal(text_R, np.repeat(np.arange(n_texts), n_rows)):
        raise DataError("rows must be ordered by text, with the same number of rows for each text")
    plain_MRR = np.stack([centred(gram) for gram in gram_MRR])
    flat_MV = _flat(plain_MRR)
    cka_MM = _cosines(flat_MV)
    length_M = np.linalg.norm(flat_MV, axis=1)
    scale_M = np.divide(1.0, length_M, out=np.zeros_like(length_M), where=length_M > 0)
    generator = np.random.default_rng(seed)
    null_NMM = np.empty((n_permutations, *cka_MM.shape))
    for draw in range(n_permutations):
        rows = (generator.permutation(n_texts)[:, None] * n_rows + np.arange(n_rows)).ravel()
        moved_MV = _flat(plain_MRR[:, rows][:, :, rows])
        null_NMM[draw] = (flat_MV @ moved_MV.T) * scale_M[:, None] * scale_M[None, :]
    p_value_MM = (1.0 + (null_NMM >= cka_MM - 1e-12).sum(axis=0)) / (1.0 + n_permutations)
    np.fill_diagonal(p_value_MM, np.nan)
    return Alignment(
        cka_MM, debiased_cka(gram_MRR), null_NMM.mean(axis=0), np.quantile(null_NMM, 0.95, axis=0), p_value_MM
    )
