"""Partitions of the neurons of a layer into experts: measures that hold for any partition, and the random one.

A partition is an int array `labels_F` with the expert of every neuron, 0 … n_experts - 1.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import adjusted_rand_score

from modularity.errors import DataError
from modularity.experts.assignment import require_divisible


def check_rows(rows_FD: ArrayLike, name: str = "rows_FD") -> NDArray[np.floating]:
    """The rows as a finite floating matrix, float32 unless they are float64; DataError otherwise."""
    rows = np.asarray(rows_FD)
    if rows.ndim != 2 or 0 in rows.shape:
        raise DataError(f"{name} has shape {rows.shape}: expected neurons x dimensions, at least one of each")
    if rows.dtype.kind not in "fiu":
        raise DataError(f"{name} has dtype {rows.dtype}: expected real numbers")
    rows = rows if rows.dtype == np.float64 else rows.astype(np.float32, copy=False)
    if not np.isfinite(rows).all():
        f, d = np.argwhere(~np.isfinite(rows))[0]
        raise DataError(f"{name}[{f}, {d}] is {rows[f, d]}: expected finite weights; is the checkpoint damaged?")
    return rows


def check_labels(labels_F: ArrayLike, n_neurons: int | None = None) -> NDArray[np.int64]:
    """The labels as int64; DataError unless they are one-dimensional, integers, not negative, one per neuron."""
    labels = np.asarray(labels_F)
    if labels.ndim != 1 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise DataError(f"labels_F has shape {labels.shape} and dtype {labels.dtype}: expected one integer per neuron")
    if n_neurons is not None and len(labels) != n_neurons:
        raise DataError(f"labels_F has {len(labels)} entries: expected {n_neurons}, one per neuron")
    if labels.min() < 0:
        f = int(labels.argmin())
        raise DataError(f"labels_F[{f}] is {labels[f]}: experts are numbered from 0; leave neurons without expert out")
    return labels.astype(np.int64)


def normalise_rows(rows_FD: ArrayLike) -> NDArray[np.floating]:
    """Rows divided by their Euclidean length (float64 norms), as MoEfication clusters them.

    Source: Zhang et al. 2022, arXiv 2110.01786. A zero row (a pruned neuron) has no direction and stays zero.

    Parameters
    ----------
    rows_FD : array of shape (n_neurons, n_dims), finite: input weights of the neurons

    Returns
    -------
    rows_FD : array of the same shape, float64 for float64 input, else float32; lengths 1, or 0 for zero rows

    Raises
    ------
    DataError
        Not a matrix of finite numbers.
    """
    rows = check_rows(rows_FD)
    # Scaling by the largest entry first keeps squares of tiny and huge weights in range.
    scale_F = np.abs(rows).max(axis=1, initial=0.0).astype(np.float64)
    scaled = rows / np.where(scale_F > 0, scale_F, 1.0)[:, None]
    norm_F = np.sqrt(np.einsum("fd,fd->f", scaled, scaled))
    return (scaled / np.where(norm_F > 0, norm_F, 1.0)[:, None]).astype(rows.dtype)


def random_partition(n_neurons: int, n_experts: int, *, seed: int | np.random.Generator) -> NDArray[np.int32]:
    """Random balanced partition: every one equally likely; the baseline of every expert-level figure.

    Parameters
    ----------
    n_neurons, n_experts : the second divides the first
    seed : int or generator

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,)

    Raises
    ------
    InputError
        `n_experts` does not divide `n_neurons`; the message names the nearest divisors.
    """
    size = require_divisible(n_neurons, n_experts)
    labels = np.repeat(np.arange(n_experts, dtype=np.int32), size)
    return np.random.default_rng(seed).permutation(labels)


def expert_sums(rows_FD: NDArray, labels_F: NDArray, n_experts: int) -> NDArray[np.float64]:
    """Sum of the rows of every expert, in float64: array of shape (n_experts, n_dims). The caller has checked both."""
    sums_ED = np.zeros((n_experts, rows_FD.shape[1]))
    _add_rows(rows_FD, labels_F, sums_ED)
    return sums_ED


def inertia(rows_FD: ArrayLike, labels_F: ArrayLike) -> float:
    """Sum of squared distances of the rows to the mean of their expert, in float64.

    Parameters
    ----------
    rows_FD : array of shape (n_neurons, n_dims), finite
    labels_F : int array of shape (n_neurons,); experts may be of any size

    Returns
    -------
    float, not negative

    Raises
    ------
    DataError
        Rows or labels are not as described.
    """
    rows = check_rows(rows_FD)
    labels = check_labels(labels_F, len(rows))
    count_E = np.bincount(labels)
    centres_ED = expert_sums(rows, labels, len(count_E)) / np.maximum(count_E, 1)[:, None]
    return float(_squared_distances(rows, labels, centres_ED).sum())


def adjusted_rand(labels_F: ArrayLike, other_F: ArrayLike) -> float:
    """Agreement of two partitions of the same neurons: 1 when equal up to names of experts, 0 at chance.

    Adjusted Rand index of Hubert and Arabie (1985), as scikit-learn computes it.

    Raises
    ------
    DataError
        The partitions have different lengths.
    """
    labels = check_labels(labels_F)
    return float(adjusted_rand_score(labels, check_labels(other_F, len(labels))))


def expert_predictivity(predictivity_F: ArrayLike, labels_F: ArrayLike) -> NDArray[np.float64]:
    """Mean predictivity of the neurons of every expert.

    Parameters
    ----------
    predictivity_F : array of shape (..., n_neurons), finite; leading dimensions (sub-functions) are kept
    labels_F : int array of shape (n_neurons,); every expert up to the largest label has a neuron

    Returns
    -------
    mean_E : float64 array of shape (..., n_experts)

    Raises
    ------
    DataError
        An expert has no neuron, a value is not finite, or the lengths differ.
    """
    predictivity = np.asarray(predictivity_F, dtype=np.float64)
    if predictivity.ndim == 0 or not np.isfinite(predictivity).all():
        raise DataError(f"predictivity_F of shape {predictivity.shape}: expected finite values, one per neuron")
    labels = check_labels(labels_F, predictivity.shape[-1])
    count_E = np.bincount(labels)
    if not count_E.all():
        empty = np.flatnonzero(count_E == 0)
        raise DataError(f"experts {empty[:10].tolist()} have no neuron, so no mean: number the experts without gaps")
    start_E = np.concatenate(([0], np.cumsum(count_E)[:-1]))
    return np.add.reduceat(predictivity[..., np.argsort(labels, kind="stable")], start_E, axis=-1) / count_E


@njit(cache=True, nogil=True)
def _add_rows(rows_FD: NDArray, labels_F: NDArray, sums_ED: NDArray[np.float64]) -> None:
    """Add every row to the sum of its expert."""
    for f in range(len(labels_F)):
        e = labels_F[f]
        for d in range(rows_FD.shape[1]):
            sums_ED[e, d] += rows_FD[f, d]


@njit(cache=True, nogil=True, fastmath={"reassoc"})
def _squared_distances(rows_FD: NDArray, labels_F: NDArray, centres_ED: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distance of every row to the centre of its expert, in float64."""
    distance_F = np.empty(len(labels_F))
    for f in range(len(labels_F)):
        total = 0.0
        for d in range(rows_FD.shape[1]):
            difference = rows_FD[f, d] - centres_ED[labels_F[f], d]
            total += difference * difference
        distance_F[f] = total
    return distance_F
