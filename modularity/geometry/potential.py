"""A projection to the plane that keeps local and global structure: potential distances of a diffusion, as PHATE has it.

Source: Moon et al. 2019, Nature Biotechnology 37, 1482-1492: an adaptive kernel, t steps of its random walk, distances
between the logarithms of the probabilities, metric multidimensional scaling. The last step is scikit-learn's SMACOF.
The package `phate` is not used: it brings ten packages along, among them a plotting library, for these few lines.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from sklearn.manifold import smacof

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

DECAY = 40.0
"""Exponent of the kernel beyond the distance of the k-th neighbour."""
LARGEST_RATIO = 700.0 ** (1 / DECAY)
"""Of distances: beyond it the kernel is zero in float64."""
MAX_STEPS = 100
FLOOR = 1e-7


def squared_distances(gram_RR: Array) -> Array:
    """Squared Euclidean distances of all pairs of rows from their Gram matrix."""
    diagonal_R = np.diagonal(gram_RR)
    found = np.maximum(diagonal_R[:, None] + diagonal_R[None, :] - 2 * gram_RR, 0.0)
    np.fill_diagonal(found, 0.0)
    return found


def adaptive_kernel(distance_RR: Array, n_neighbours: int) -> Array:
    """Symmetric kernel: the mean of exp(-(d / d_k)^40) with the distance d_k to the k-th neighbour of either row."""
    scale_R = np.sort(distance_RR, axis=1)[:, n_neighbours]
    smallest = distance_RR[distance_RR > 0].min(initial=np.inf)
    scale_R = np.maximum(scale_R, smallest if np.isfinite(smallest) else 1.0)
    ratio = np.minimum(distance_RR / scale_R[:, None], LARGEST_RATIO)
    kernel = np.exp(-(ratio**DECAY))
    found: Array = (kernel + kernel.T) / 2
    return found


def entropy_knee(kernel_RR: Array) -> int:
    """Steps t at which the von Neumann entropy of the diffusion stops to fall fast: the knee of two fitted lines."""
    root_R = np.sqrt(kernel_RR.sum(axis=1))  # the walk has the eigenvalues of this symmetric matrix
    values = np.clip(np.abs(np.linalg.eigvalsh(kernel_RR / root_R[:, None] / root_R[None, :])), 0.0, 1.0)
    entropies = []
    for steps in range(1, MAX_STEPS + 1):
        share = values**steps
        share = share[share > 1e-15] / share.sum()
        entropies.append(float(-(share * np.log(share)).sum()))
    steps_T, entropy_T = np.arange(1.0, MAX_STEPS + 1), np.array(entropies)
    errors = [
        _line_error(steps_T[:knee], entropy_T[:knee]) + _line_error(steps_T[knee - 1 :], entropy_T[knee - 1 :])
        for knee in range(2, MAX_STEPS)
    ]
    return int(np.argmin(errors)) + 2


def _line_error(x: Array, y: Array) -> float:
    fitted = np.polyval(np.polyfit(x, y, 1), x) if len(x) > 2 else y
    return float(((y - fitted) ** 2).sum())


def potential_projection(gram_RR: Array, *, n_neighbours: int = 5, seed: int = 0) -> Array:
    """Coordinates of the rows in the plane.

    Parameters
    ----------
    gram_RR : float64 Gram matrix
    n_neighbours : neighbours that set the width of the kernel of each row
    seed : of the scaling; it starts from the classical solution, so that little depends on it

    Returns
    -------
    coordinates_R2 : float64; all zero where all rows are equal

    Raises
    ------
    DataError
        There are not more rows than neighbours.
    """
    if not 1 <= n_neighbours < len(gram_RR):
        raise DataError(f"{n_neighbours=} with {len(gram_RR)} rows: expected at least 1 and fewer than the rows")
    distance_RR = np.sqrt(squared_distances(gram_RR))
    if not distance_RR.any():
        return np.zeros((len(gram_RR), 2))
    kernel_RR = adaptive_kernel(distance_RR, n_neighbours)
    walk_RR = kernel_RR / kernel_RR.sum(axis=1, keepdims=True)
    potential_RR = -np.log(np.linalg.matrix_power(walk_RR, entropy_knee(kernel_RR)) + FLOOR)
    apart_RR = np.sqrt(squared_distances(potential_RR @ potential_RR.T))
    start_R2 = _classical(apart_RR)
    coordinates_R2, _ = smacof(
        apart_RR, metric=True, n_components=2, init=start_R2, n_init=1, random_state=seed, normalized_stress=False
    )
    found: Array = coordinates_R2 - coordinates_R2.mean(axis=0)
    return found


def _classical(distance_RR: Array) -> Array:
    """Classical scaling: the two largest components of the doubly centred squared distances."""
    squares = distance_RR**2
    inner = -0.5 * (squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean())
    values, vectors = np.linalg.eigh(inner)
    found: Array = vectors[:, :-3:-1] * np.sqrt(np.maximum(values[:-3:-1], 0.0))
    return found
