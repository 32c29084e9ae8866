"""How much the order of neurons (or experts) by predictivity changes between checkpoints of a training run.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 4: Spearman correlation of consecutive checkpoints.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from scipy.stats import rankdata

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def stabilisation(predictivity_TSF: Array) -> Array:
    """Spearman correlation, over neurons or experts, of each checkpoint with the next.

    Parameters
    ----------
    predictivity_TSF : float array of shape (n_checkpoints, n_subfunctions, n_neurons), checkpoints in training order

    Returns
    -------
    rho_TS : float64 array of shape (n_checkpoints - 1, n_subfunctions), in [-1, 1]; equal values share their average
        rank; NaN where all values of a checkpoint are equal

    Raises
    ------
    DataError
        Fewer than two checkpoints or neurons, or a value is not finite.
    """
    if predictivity_TSF.ndim != 3 or predictivity_TSF.shape[0] < 2 or predictivity_TSF.shape[2] < 2:
        raise DataError(
            f"predictivity has shape {predictivity_TSF.shape}: expected (checkpoints, sub-functions, neurons) "
            "with at least two checkpoints and two neurons"
        )
    if not np.isfinite(predictivity_TSF).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(predictivity_TSF))[0])
        raise DataError(
            f"predictivity at (checkpoint, sub-function, neuron) = {place} is not finite: expected a number"
        )
    ranks_TSF = rankdata(predictivity_TSF, axis=-1)
    return correlation(ranks_TSF[:-1], ranks_TSF[1:])


def correlation(first: Array, second: Array) -> Array:
    """Pearson correlation along the last axis; NaN where one side is constant."""
    centred = [side - side.mean(axis=-1, keepdims=True) for side in (first, second)]
    norms = [np.sqrt((side**2).sum(axis=-1)) for side in centred]
    scale = norms[0] * norms[1]
    products = (centred[0] * centred[1]).sum(axis=-1)
    rho: Array = np.where(scale > 0, products / np.where(scale > 0, scale, 1.0), np.nan)
    return np.clip(rho, -1.0, 1.0)
