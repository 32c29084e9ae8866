"""Compiled kernels of the accumulators on a CPU: moments, bins, clamped sums of groups.

They run over blocks of neurons, each in one thread; what a neuron gets does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_BLOCK = 64
_ROWS = 512


def column_moments(values_RF: Array, *, n_threads: int = 1) -> tuple[Array, Array]:
    """Mean, and sum of squared distances from it, of every column, float64; at least one row.

    Sums are about the first row of each 512 rows, and merged by Chan's formulas: nothing large is subtracted.
    """
    mean, squares = np.zeros(values_RF.shape[1]), np.zeros(values_RF.shape[1])
    _over_blocks(values_RF.shape[1], lambda a, b: _moments(values_RF, a, b, mean, squares), n_threads)
    return mean, squares


def count_bins(values_RF: Array, edges: Array, counts_FB: Array, *, n_threads: int = 1) -> None:
    """Add the values of each neuron to its bins, in place.

    Parameters
    ----------
    values_RF : float32 or float64, finite
    edges : float64 and exact in float32, (n_edges,) or (F, n_edges), ascending
    counts_FB : int64 (F, n_edges + 1): below the first edge, each bin, from the last edge on
    """
    if edges.ndim == 1 and values_RF.dtype == np.float32:
        table, narrow = bin_table(edges), edges.astype(np.float32)
        bits_RF = values_RF.view(np.uint32)
        work = lambda a, b: _count_by_table(values_RF, bits_RF, narrow, table, counts_FB, a, b)  # noqa: E731
    else:
        own = np.broadcast_to(edges, (values_RF.shape[1], edges.shape[-1]))
        work = lambda a, b: _count_by_search(values_RF, own, counts_FB, a, b)  # noqa: E731
    _over_blocks(values_RF.shape[1], work, n_threads)


def bin_table(edges: Array) -> Array:
    """For the upper 16 bits of a float32: the bin of the smallest value that has them; int32 (65536,)."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    smallest = np.where(upper < 2**31, upper, upper | 0xFFFF).astype(np.uint32).view(np.float32)
    exact = np.nan_to_num(smallest, nan=np.inf).astype(np.float64)
    return np.searchsorted(edges, exact, side="right").astype(np.int32)


def add_clamped_groups(values_GKF: Array, sums_FF: Array, *, n_threads: int = 1) -> None:
    """Add min(1, sum over k of a_ki a_kj) of every group, for pairs i <= j, in place.

    Parameters
    ----------
    values_GKF : float64, not negative; zeros where a group has fewer members
    sums_FF : float64 (F, F); only what is on and above the diagonal changes
    """
    _over_blocks(values_GKF.shape[2], lambda a, b: _clamped(values_GKF, sums_FF, a, b), n_threads)


def _over_blocks(n_neurons: int, work: Callable[[int, int], None], n_threads: int) -> None:
    bounds = [(start, min(start + _BLOCK, n_neurons)) for start in range(0, n_neurons, _BLOCK)]
    if n_threads < 2 or len(bounds) < 2:
        for start, stop in bounds:
            work(start, stop)
        return
    with ThreadPoolExecutor(min(n_threads, len(bounds))) as pool:
        list(pool.map(lambda bound: work(*bound), bounds))


@njit(cache=True, nogil=True)
def _moments(values_RF, start, stop, mean_F, squares_F):  # type: ignore[no-untyped-def]
    n_rows, width = values_RF.shape[0], stop - start
    origin, total, square = np.empty(width), np.empty(width), np.empty(width)
    for first in range(0, n_rows, _ROWS):
        last = min(first + _ROWS, n_rows)
        for f in range(width):
            origin[f] = values_RF[first, start + f]
            total[f] = 0.0
            square[f] = 0.0
        for row in range(first, last):
            for f in range(width):
                distance = np.float64(values_RF[row, start + f]) - origin[f]
                total[f] += distance
                square[f] += distance * distance
        count = last - first
        for f in range(width):
            mean = total[f] / count
            share = count / last
            difference = origin[f] + mean - mean_F[start + f]
            squares_F[start + f] += max(square[f] - mean * total[f], 0.0) + difference * difference * first * share
            mean_F[start + f] += difference * share


@njit(cache=True, nogil=True)
def _count_by_table(values_RF, bits_RF, edges, table, counts_FB, start, stop):  # type: ignore[no-untyped-def]
    n_edges = edges.shape[0]
    for row in range(values_RF.shape[0]):
        for f in range(start, stop):
            place = table[bits_RF[row, f] >> np.uint32(16)]
            value = values_RF[row, f]
            while place < n_edges and value >= edges[place]:
                place += 1
            counts_FB[f, place] += 1


@njit(cache=True, nogil=True)
def _count_by_search(values_RF, edges_FE, counts_FB, start, stop):  # type: ignore[no-untyped-def]
    n_edges = edges_FE.shape[1]
    for row in range(values_RF.shape[0]):
        for f in range(start, stop):
            value, low, high = values_RF[row, f], 0, n_edges
            while low < high:
                middle = (low + high) // 2
                if value >= edges_FE[f, middle]:
                    low = middle + 1
                else:
                    high = middle
            counts_FB[f, low] += 1


@njit(cache=True, nogil=True)
def _clamped(values_GKF, sums_FF, start, stop):  # type: ignore[no-untyped-def]
    n_groups, size, n_neurons = values_GKF.shape
    products = np.empty(n_neurons)
    for g in range(n_groups):
        for i in range(start, stop):
            n_active = 0
            for k in range(size):
                own = values_GKF[g, k, i]
                if own > 0.0:
                    if n_active == 0:
                        for j in range(i, n_neurons):
                            products[j] = own * values_GKF[g, k, j]
                    else:
                        for j in range(i, n_neurons):
                            products[j] += own * values_GKF[g, k, j]
                    n_active += 1
            if n_active > 0:
                for j in range(i, n_neurons):
                    sums_FF[i, j] += min(products[j], 1.0)
