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


def n_shared(top_NSK: Array, n_neurons: int) -> Array:
    """Neurons that every two lists of one layer share, in each of N draws.

    Parameters
    ----------
    top_NSK : int array (n_draws, n_lists, k), every neuron at most once in a list; -1 is no neuron
    n_neurons : neurons of the layer

    Returns
    -------
    shared_NSS : int64 array (n_draws, n_lists, n_lists); the diagonal holds the lengths of the lists
    """
    n_draws, n_lists, _ = top_NSK.shape
    shared_NSS = np.empty((n_draws, n_lists, n_lists), np.int64)
    rows_S1 = np.arange(n_lists)[:, None]
    for draw, top_SK in enumerate(top_NSK):
        # Column n_neurons takes the places without a neuron and is left out; products of 0 and 1 are exact in float32.
        member_SF = np.zeros((n_lists, n_neurons + 1), np.float32)
        member_SF[rows_S1, np.where(top_SK < 0, n_neurons, top_SK)] = 1
        shared_NSS[draw] = member_SF[:, :-1] @ member_SF[:, :-1].T
    return shared_NSS


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
