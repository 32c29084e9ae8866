"""Shared top neurons of two sub-functions over several layers: the exact p-value of their total.

In each layer the intersection of two independent lists of k out of N is hypergeometric; over layers the counts add, so
the null of the total is the convolution of the layers' distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import hypergeom

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def total_overlap_p_values(n_common_SS: Array, k_L: Sequence[int], n_neurons_L: Sequence[int]) -> Array:
    """Probability that independent lists share at least so many neurons over all layers together.

    Parameters
    ----------
    n_common_SS : int array of any shape: shared neurons, summed over layers
    k_L, n_neurons_L : length of the lists and neurons of each layer

    Returns
    -------
    p_value_SS : float64 array of the same shape, in (0, 1], exact

    Raises
    ------
    DataError
        Lists and layers differ in number, a list is longer than its layer, or a total is impossible.
    """
    if len(k_L) != len(n_neurons_L) or not len(k_L):
        raise DataError(f"{len(k_L)} list lengths for {len(n_neurons_L)} layers: expected as many, at least one")
    if any(not 1 <= k <= n for k, n in zip(k_L, n_neurons_L)):
        raise DataError(f"lists of {list(k_L)} out of {list(n_neurons_L)} neurons: expected 1 to all of a layer")
    total = np.ones(1)
    for k, n_neurons in zip(k_L, n_neurons_L):
        total = np.convolve(total, hypergeom.pmf(np.arange(k + 1), n_neurons, k, k))
    counts = np.asarray(n_common_SS)
    if counts.size and (counts.min() < 0 or counts.max() >= len(total)):
        raise DataError(f"totals from {counts.min()} to {counts.max()}: expected 0 to {len(total) - 1}")
    tail = np.cumsum(total[::-1])[::-1]
    tail /= tail[0]
    p_values: Array = tail[counts]
    return p_values
