"""Control partitions: what the method finds without balance, and in weights without structure."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from modularity.errors import InputError
from modularity.experts.balanced_kmeans import balanced_kmeans
from modularity.experts.partitions import check_rows, inertia


@dataclass(frozen=True)
class UnbalancedPartition:
    """Experts of whatever size k-means gives them."""

    labels_F: NDArray[np.int32]
    """Expert of every neuron; experts with neurons are numbered without gaps."""
    sizes_E: NDArray[np.int64]
    """Neurons of every expert that has any."""
    n_empty: int
    """Experts asked for that received no neuron (fewer distinct rows than experts)."""
    inertia: float
    """Sum of squared distances to the mean of the expert."""


def kmeans_partition(rows_FD: ArrayLike, n_experts: int, *, n_restarts: int = 1, seed: int = 0) -> UnbalancedPartition:
    """Partition by scikit-learn's k-means, without balance: what equal sizes cost.

    Parameters
    ----------
    rows_FD : array of shape (n_neurons, n_dims), finite
    n_experts : int, at most n_neurons
    n_restarts, seed : of scikit-learn's KMeans

    Returns
    -------
    UnbalancedPartition, which `functional_experts` takes as it is: every expert then has its own critical count

    Raises
    ------
    InputError
        `n_experts` or `n_restarts` is out of range.
    DataError
        The rows are not a matrix of finite numbers.
    """
    rows = check_rows(rows_FD)
    if not 1 <= n_experts <= len(rows):
        raise InputError(f"n_experts is {n_experts}: expected 1 to {len(rows)}, the number of neurons")
    if n_restarts < 1:
        raise InputError(f"n_restarts is {n_restarts}: expected at least 1")
    with warnings.catch_warnings():
        # Raised for fewer distinct rows than experts, which n_empty reports.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(n_experts, n_init=n_restarts, random_state=seed).fit(rows).labels_
    used, labels = np.unique(found, return_inverse=True)
    labels_F: NDArray[np.int32] = labels.astype(np.int32)
    return UnbalancedPartition(labels_F, np.bincount(labels_F), n_experts - len(used), inertia(rows, labels_F))


def shuffled_weight_partition(
    rows_FD: ArrayLike, n_experts: int, *, n_restarts: int = 1, seed: int = 0
) -> NDArray[np.int32]:
    """Balanced k-means of the rows with all their entries shuffled: the same values, no structure left.

    A partition that depends on the data, unlike a random one, but not on what the neurons have in common. Normalise
    after shuffling if it matters: entries move between rows, so row lengths even out.

    Parameters
    ----------
    rows_FD, n_experts, n_restarts, seed : as in `balanced_kmeans`; the seed also shuffles

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,)

    Raises
    ------
    InputError, DataError
        As `balanced_kmeans`.
    """
    rows = check_rows(rows_FD)
    shuffled = np.random.default_rng([seed, 1]).permutation(rows.ravel()).reshape(rows.shape)
    return balanced_kmeans(shuffled, n_experts, n_restarts=n_restarts, seed=seed)
