"""How many label vectors the permutation of clusters can give at all: few, where clusters differ in size."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln


def n_arrangements(labels_R: ArrayLike, clusters_R: ArrayLike | None = None) -> float:
    """Number of distinct label vectors among the permutations of `permute_labels`, the observed one included.

    Clusters change places with clusters of their own size only, rows within their cluster. Of clusters of size z with
    m positive rows each pattern has C(z, m) orders, and the numbers m of all clusters of one size change places. So a
    cluster of a size of its own, with labels that do not differ, contributes a single arrangement.

    With random draws, a p-value cannot be expected below 1 / this number, however many permutations are drawn.

    Parameters
    ----------
    labels_R : bool or 0/1 array of shape (n_rows,)
    clusters_R : int array of shape (n_rows,), equal for rows of one cluster; None when every row stands for itself

    Returns
    -------
    float, at least 1; infinity above 1e300
    """
    labels = np.asarray(labels_R, dtype=np.int64)
    clusters = np.arange(len(labels)) if clusters_R is None else np.asarray(clusters_R)
    _, of_R = np.unique(clusters, return_inverse=True)
    sizes_C, positives_C = np.bincount(of_R), np.bincount(of_R, weights=labels).astype(np.int64)
    log_number = float(_log_choose(sizes_C, positives_C).sum())
    for size in np.unique(sizes_C):
        alike = np.bincount(positives_C[sizes_C == size])
        log_number += float(gammaln(alike.sum() + 1) - gammaln(alike + 1).sum())
    if log_number > math.log(1e300):
        return math.inf
    number = math.exp(log_number)
    return float(round(number)) if number < 1e9 else number


def _log_choose(n: np.ndarray, k: np.ndarray) -> np.ndarray:
    result: np.ndarray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return result
