"""The lists of best neurons under permuted labels, merged over blocks, and how many of them each expert holds.

All blocks and layers of a function are ranked under the same permutations: they are drawn from the seed of the config,
the labels, the rows and the clusters of a sub-function alone. So permutation n is one draw for the whole function.
Sub-functions over the same rows also share it; those over different rows are permuted separately.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from modularity.experts import list_counts
from modularity.stats import TopLists, merge_lists


def permuted_top(results: xr.Dataset, index: int, k: int) -> np.ndarray:
    """The k best neurons of one layer under each permutation: int32 array (n_permutations, n_subfunctions, k).

    Parameters
    ----------
    results : the dense results of a function
    index : place of the layer
    k : at most the length of the stored lists; values are compared in float32, ties go to the lowest index
    """
    neuron_SBNK = results["null_top"].isel(layer=index).values
    value_SBNK = results["null_top_value"].isel(layer=index).values
    blocks = [TopLists(neuron_SBNK[:, b], value_SBNK[:, b]) for b in range(neuron_SBNK.shape[1])]
    merged: np.ndarray = np.swapaxes(merge_lists(blocks, k).neuron, 0, 1)
    return merged


def permuted_counts(
    results: xr.Dataset, labels_MLF: Sequence[Sequence[np.ndarray]], k_L: Sequence[int], n_experts: int
) -> list[np.ndarray]:
    """Best neurons in every expert under each permutation, for each partition an int32 array (N, L, S, E).

    Parameters
    ----------
    results : the dense results of a function; its lists are read one layer at a time
    labels_MLF : for each partition and layer the expert of every neuron
    k_L : length of the top lists of each layer
    n_experts : experts of each layer
    """
    counts_ML: list[list[np.ndarray]] = [[] for _ in labels_MLF]
    for index, k in enumerate(k_L):
        top_NSK = permuted_top(results, index, k)
        for labels_LF, counts_L in zip(labels_MLF, counts_ML):
            counts_L.append(list_counts(top_NSK, labels_LF[index], n_experts))
    return [np.stack(counts_L, axis=1) for counts_L in counts_ML]
