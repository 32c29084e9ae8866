"""Leading singular values of an operator by randomised block Krylov iteration, each with a bound on its error.

Source: Musco and Musco 2015, arXiv 1504.05477 (block Krylov); Halko, Martinsson and Tropp 2011 (random start blocks).
With Q an orthonormal basis of the span of J X, J JᵀJ X, …, the singular values of QᵀJ approach those of J from below.
For each value s with vectors u and v, ‖J v - s u‖ bounds the distance to the nearest singular value of J.
"""

from dataclasses import dataclass

import numpy as np
import torch

from modularity.errors import DataError
from modularity.geometry.operators import LinearOperator, Tensor, probe_vectors

ROUNDING = 1e-13
"""Rows that lose all but this share of their norm against the basis lie in its span."""


@dataclass(frozen=True, eq=False)
class LeadingValues:
    """The largest singular values that were found."""

    values_K: np.ndarray
    """float64, descending; each at most the singular value of its index."""
    residuals_K: np.ndarray
    """float64: a singular value of the operator lies within this distance of the value."""
    right_KN: Tensor
    """Orthonormal right singular vectors, in rows."""
    n_products: int
    """Vectors that were multiplied by the operator or its transpose."""


def leading_singular_values(
    operator: LinearOperator, n_values: int, *, n_iterations: int = 4, oversampling: int = 8, seed: int = 0
) -> LeadingValues:
    """The `n_values` largest singular values.

    Parameters
    ----------
    operator : the matrix J
    n_values : how many; at most the smaller side of J
    n_iterations : products with J Jᵀ after the first; the basis has up to (n_iterations + 1)(n_values + oversampling)
        vectors, which lie in memory with their images: 16 bytes for each entry
    oversampling : random vectors beyond `n_values`
    seed : of the start block

    Returns
    -------
    leading : values with residuals; fewer than asked where the operator has lower rank
    """
    smaller = min(operator.n_in, operator.n_out)
    if not 1 <= n_values <= smaller or n_iterations < 0 or oversampling < 0:
        raise DataError(
            f"{n_values=}, {n_iterations=}, {oversampling=}: expected 1 to {smaller} values, and numbers from 0 up"
        )
    width = min(n_values + oversampling, smaller)
    start = probe_vectors(width, operator.n_in, seed=seed).to(operator.device)
    basis = torch.empty((0, operator.n_out), dtype=torch.float64, device=operator.device)
    images = torch.empty((0, operator.n_in), dtype=torch.float64, device=operator.device)
    rows, n_products = operator.apply(start), width
    for _ in range(n_iterations + 1):
        fresh = orthonormal_rows(rows, basis)[: smaller - len(basis)]
        if not len(fresh):
            break
        pulled = operator.apply_transpose(fresh)
        basis, images = torch.cat([basis, fresh]), torch.cat([images, pulled])
        n_products += len(fresh)
        if len(basis) == smaller:
            break
        rows = operator.apply(pulled)
        n_products += len(fresh)
    if not len(basis):
        empty = np.zeros(0)
        return LeadingValues(empty, empty, images, n_products)
    left, values, right = _thin_svd(images)
    values, right = values[:n_values], right[:n_values]
    kept = values > 0
    values, right, left = values[kept], right[kept], left[:, :n_values][:, kept]
    outer = left.T @ basis
    residuals = torch.linalg.vector_norm(operator.apply(right) - values[:, None] * outer, dim=1)
    return LeadingValues(values.cpu().numpy(), residuals.cpu().numpy(), right, n_products + len(right))


def orthonormal_rows(rows: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows that span `rows` beyond the orthonormal rows of `basis`; dependent ones are left out."""
    before = torch.linalg.vector_norm(rows, dim=1)
    scale = before.max() if len(rows) else before.new_zeros(())
    if not len(rows) or not bool(scale > 0):
        return rows[:0]
    rest = rows / scale
    for _ in range(2):  # once more, since the first pass leaves rounding of the size of what it takes away
        rest = rest - (rest @ basis.T) @ basis
    factor_NK, upper_KK = torch.linalg.qr(rest.T)
    independent = upper_KK.diagonal().abs() > ROUNDING * max(1.0, float(upper_KK.diagonal().abs().max()))
    fresh = factor_NK.T[independent]
    fresh = fresh - (fresh @ basis.T) @ basis
    return torch.linalg.qr(fresh.T)[0].T if len(fresh) else fresh


def _thin_svd(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of a matrix with few rows: QR of its transpose first, so that only a small matrix is decomposed."""
    factor_NK, upper_KK = torch.linalg.qr(rows.T)
    left, values, right = torch.linalg.svd(upper_KK.T)
    return left, values, right @ factor_NK.T
