"""Control of the false discovery rate within a named family of tests.

Source: Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57, 289-300.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def benjamini_hochberg(p_values: Array, *, axis: int | None = None) -> Array:
    """Adjusted p-values (q-values): rejecting all q <= α keeps the expected share of false rejections at most α.

    Valid for independent and for positively dependent tests. The caller chooses the family: for predictivity the
    neurons of all layers of one sub-function.

    Parameters
    ----------
    p_values : array of any shape, in [0, 1], without NaN
    axis : the axis along which tests form one family; None when the whole array is one family

    Returns
    -------
    q_values : float64 array of the same shape, in [0, 1]

    Raises
    ------
    DataError
        A p-value is NaN or outside [0, 1].
    """
    values = np.asarray(p_values, np.float64)
    wrong = ~((values >= 0) & (values <= 1))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(
            f"p-value {values[place]} at {place}, {int(wrong.sum())} such of {values.size}: expected values in [0, 1], "
            "leave out the tests that were not done"
        )
    if values.size == 0:
        return values.copy()
    if axis is None:
        return _adjust(values.reshape(1, -1)).reshape(values.shape)
    moved = np.moveaxis(values, axis, -1)
    adjusted = _adjust(moved.reshape(-1, moved.shape[-1])).reshape(moved.shape)
    return np.ascontiguousarray(np.moveaxis(adjusted, -1, axis))


def _adjust(families: Array) -> Array:
    """q-values of each row: p·n/rank, made monotone from the largest p-value down."""
    n_tests = families.shape[1]
    order = np.argsort(families, axis=1, kind="stable")
    scaled = np.take_along_axis(families, order, axis=1) * (n_tests / np.arange(1, n_tests + 1))
    monotone = np.minimum(np.minimum.accumulate(scaled[:, ::-1], axis=1)[:, ::-1], 1.0)
    adjusted = np.empty(families.shape)
    np.put_along_axis(adjusted, order, monotone, axis=1)
    return adjusted
