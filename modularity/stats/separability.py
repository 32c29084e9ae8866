"""How far one capability can be taken away without the other: area between a pruning curve and the diagonal.

Source: Pochinkov 2023; Pochinkov and Schoots 2024, arXiv 2403.01267. x and y are the drops of accuracy on kept and on
pruned texts, as shares of the original accuracy; A = 2 * integral of (y - x) dx. A = 1 if the pruned capability goes
first and alone, 0 on the diagonal, -1 if the kept one goes first; more than 1 where the kept one improves. Departure:
a curve that stops early is closed by the straight line to (1, 1), where both are gone; this adds
(y_n - x_n) * (1 - x_n) to A.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def relative_drops(accuracy_XN: Array) -> Array:
    """Drops as shares of the first accuracy along the last axis; NaN where it is zero.

    Parameters
    ----------
    accuracy_XN : float array of shape (..., n_steps + 1), the unchanged model first
    """
    first = accuracy_XN[..., :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        drops: Array = np.where(first > 0, 1.0 - accuracy_XN / first, np.nan)
    return drops


def separability_area(kept_XN: Array, pruned_XN: Array) -> Array:
    """Area A of one curve, or of many.

    Parameters
    ----------
    kept_XN, pruned_XN : accuracy on kept and on pruned texts, float arrays of shape (..., n_steps + 1), the unchanged
        model first

    Returns
    -------
    area_X : float64 of shape (...); NaN where an unchanged model has no accuracy to lose

    Raises
    ------
    DataError
        Shapes differ, or there is no step.
    """
    if kept_XN.shape != pruned_XN.shape or kept_XN.shape[-1] < 2:
        raise DataError(f"accuracies of shapes {kept_XN.shape} and {pruned_XN.shape}: expected one shape, and a step")
    x, y = relative_drops(np.asarray(kept_XN, np.float64)), relative_drops(np.asarray(pruned_XN, np.float64))
    above = y - x
    walked = ((above[..., 1:] + above[..., :-1]) * np.diff(x, axis=-1)).sum(-1)
    area: Array = walked + above[..., -1] * (1.0 - x[..., -1])
    return area
