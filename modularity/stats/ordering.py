"""The rows of every neuron in descending order of activation, for a tile of neurons at a time.

Everything that ranks neurons (average precision, AUROC, permutation nulls) needs this order once and then only labels.
There is no argsort: each non-zero activation becomes one unsigned integer, the order-preserving bits of the score above
and the row number below, and these keys go through two passes of a radix sort on the leading bits of their range, then
one insertion pass (a full radix sort where many scores agree in these bits). Zeros are not sorted at all: they are one
tie group whose place, after the positive and before the negative scores, is known. A ReLU layer with 95 % zeros has a
twentieth of the keys. -0.0 is a zero. float64 and longer dtypes are replaced by their dense ranks first, which are
exact in float32 up to 2**24 rows.

On 2,000 rows and a CPU with AVX2 but not AVX-512, sorting and reading the keys takes about as long as NumPy's
vectorised sort alone (13 and 14 µs a neuron); it needs no padding to equal lengths and never holds Python's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from modularity.errors import DataError

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

TILE_NEURONS = 64
TILE_BYTES = 16 * 2**20
BYTES_PER_SCORE = 16  # key (8), row (4) and tie run (4)
MAX_RANKED_ROWS = 2**24  # dense ranks are held in float32
ROWS_AT_ONCE = 32  # rows that are transposed together
FEW_KEYS = 24  # sorted by insertion alone
NARROW_DIGIT, WIDE_DIGIT, MANY_KEYS = 8, 11, 512  # bits of a radix pass, below and from this many keys on


@dataclass(frozen=True)
class OrderedTile:
    """The descending order of the rows for some neighbouring neurons; zeros are implied."""

    first_neuron: int
    n_rows: int
    rows_FR: Array
    """uint32 array of shape (n_neurons, n_rows): rows of the non-zero activations, best first."""
    runs_FR: Array
    """uint32 array of the same shape: start, stop, start, stop … of the tie runs of two or more in `rows_FR`."""
    counts: Array
    """int64 array of shape (n_neurons,): non-zero activations."""
    n_positive: Array
    """int64 array of shape (n_neurons,): activations above zero."""
    n_runs: Array
    """int64 array of shape (n_neurons,): tie runs among the non-zero activations."""


def check_activations(activations_RF: Array) -> None:
    """Refuse what cannot be ranked: not two-dimensional, not floating point, without rows; DataError says which."""
    if activations_RF.ndim != 2:
        raise DataError(f"activations have shape {activations_RF.shape}: expected (rows, neurons)")
    if activations_RF.dtype.kind != "f":
        raise DataError(
            f"activations have dtype {activations_RF.dtype}: expected a float dtype, use .astype(np.float32)"
        )
    if activations_RF.shape[0] == 0:
        raise DataError(f"activations have shape {activations_RF.shape}: expected at least one row")
    if activations_RF.shape[0] >= 2**32 - 1:
        raise DataError(f"activations have {activations_RF.shape[0]} rows: at most {2**32 - 2} can be ranked")


def tile_ranges(n_rows: int, n_neurons: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of tiles of neurons, such that one tile stays under `TILE_BYTES` where one neuron does."""
    width = max(1, min(TILE_NEURONS, TILE_BYTES // (BYTES_PER_SCORE * n_rows)))
    for start in range(0, n_neurons, width):
        yield start, min(start + width, n_neurons)


def over_tiles(work: Callable[[int, int], None], n_rows: int, n_neurons: int, n_threads: int | None) -> None:
    """Call `work(start, stop)` for every tile, in threads; the first error stops the rest and is raised.

    `n_threads` None means as many threads as this process may use cores. Results do not depend on it.
    """
    if n_threads is not None and n_threads < 1:
        raise DataError(f"n_threads is {n_threads}: expected at least 1, or None for the cores of this process")
    n_workers = n_threads if n_threads is not None else available_cores()
    with ThreadPoolExecutor(n_workers) as pool:
        futures = [pool.submit(work, start, stop) for start, stop in tile_ranges(n_rows, n_neurons)]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def order_tile(activations_RF: Array, rows_R: Array, start: int, stop: int) -> OrderedTile:
    """Descending order of `activations_RF[rows_R, start:stop]`, neuron by neuron.

    Parameters
    ----------
    activations_RF : array of shape (n_rows, n_neurons), any float dtype
    rows_R : int64 array, the rows that take part; row numbers of the result index this array
    start, stop : the neurons of the tile

    Raises
    ------
    DataError
        An activation is NaN or infinite; the message names the first such neuron and the row.
    """
    bits, rows, column = _score_bits(activations_RF, rows_R, start, stop)
    n_neurons, n_rows = stop - start, len(rows_R)
    narrow = bits.dtype == np.uint16
    magnitude, infinite = (
        (np.uint32(0x7FFF), np.uint32(0x7C00)) if narrow else (np.uint32(0x7FFFFFFF), np.uint32(0x7F800000))
    )
    keys: Array = np.empty((n_neurons, n_rows), np.uint64)
    counts = np.zeros(n_neurons, np.int64)
    if _write_keys(bits, rows, column, magnitude, infinite, keys, counts):
        raise _not_finite(activations_RF, rows_R, start, stop)
    ordered_FR, runs_FR = np.empty(keys.shape, np.uint32), np.empty(keys.shape, np.uint32)
    n_positive, n_runs = np.empty(n_neurons, np.int64), np.empty(n_neurons, np.int64)
    _order_keys(keys, counts, magnitude, ordered_FR, runs_FR, n_positive, n_runs)
    return OrderedTile(start, n_rows, ordered_FR, runs_FR, counts, n_positive, n_runs)


def _score_bits(activations_RF: Array, rows_R: Array, start: int, stop: int) -> tuple[Array, Array, int]:
    """Unsigned view of the scores, the rows to read in it, and the column of the tile's first neuron."""
    dtype = activations_RF.dtype.newbyteorder("=")
    plain = activations_RF.flags.c_contiguous and activations_RF.dtype.isnative
    if plain and dtype in (np.float16, np.float32):
        return activations_RF.view(np.uint32 if dtype == np.float32 else np.uint16), rows_R, start
    tile_RF = np.ascontiguousarray(activations_RF[rows_R, start:stop])
    everything = np.arange(len(rows_R), dtype=np.int64)
    if dtype in (np.float16, np.float32):
        return tile_RF.astype(dtype).view(np.uint32 if dtype == np.float32 else np.uint16), everything, 0
    if len(rows_R) > MAX_RANKED_ROWS:
        raise DataError(f"{len(rows_R)} rows of {dtype}: at most {MAX_RANKED_ROWS} are ranked, use float32 activations")
    if not np.isfinite(tile_RF).all():
        raise _not_finite(activations_RF, rows_R, start, stop)
    return _dense_ranks(tile_RF).view(np.uint32), everything, 0


def _dense_ranks(values_RF: Array) -> Array:
    """float32 numbers that are ordered and tied like the values of each column, with the sign of the values."""
    order_RF = np.argsort(values_RF, axis=0)
    sorted_RF = np.take_along_axis(values_RF, order_RF, axis=0)
    steps_RF = np.ones(values_RF.shape, np.int32)
    np.not_equal(sorted_RF[1:], sorted_RF[:-1], out=steps_RF[1:], casting="unsafe")
    n_negative_F = np.where(sorted_RF < 0, steps_RF, 0).sum(axis=0)
    n_zero_F = np.where(sorted_RF == 0, steps_RF, 0).sum(axis=0)
    dense_RF = np.cumsum(steps_RF, axis=0, dtype=np.int32)
    signed_RF = np.where(sorted_RF < 0, dense_RF - n_negative_F - 1, dense_RF - n_negative_F - n_zero_F)
    ranks_RF = np.empty(values_RF.shape, np.float32)
    np.put_along_axis(ranks_RF, order_RF, signed_RF.astype(np.float32), axis=0)
    return ranks_RF


def _not_finite(activations_RF: Array, rows_R: Array, start: int, stop: int) -> DataError:
    bad_RF = ~np.isfinite(activations_RF[rows_R, start:stop])
    neuron = int(np.flatnonzero(bad_RF.any(axis=0))[0])
    row = int(rows_R[np.flatnonzero(bad_RF[:, neuron])[0]])
    value = activations_RF[row, start + neuron]
    return DataError(
        f"activation of neuron {start + neuron} in row {row} is {value}: expected finite values "
        f"({int(bad_RF.sum())} of {bad_RF.size} values of neurons {start} to {stop - 1} are not), capture them again"
    )


@njit(cache=True, nogil=True)
def _write_keys(bits, rows, column, magnitude, infinite, keys, counts):  # type: ignore[no-untyped-def]
    """Key of a non-zero score: bits that grow as the score falls, above the row number; True if one is not finite."""
    n_neurons, n_rows = keys.shape
    block = np.empty((ROWS_AT_ONCE, n_neurons), np.uint32)
    not_finite = 0
    for first in range(0, n_rows, ROWS_AT_ONCE):
        height = min(ROWS_AT_ONCE, n_rows - first)
        for r in range(height):
            scores = bits[rows[first + r], column : column + n_neurons]
            for i in range(n_neurons):
                score = np.uint32(scores[i])
                block[r, i] = score
                not_finite += np.uint32(score & infinite) == infinite
        for i in range(n_neurons):
            mine, free = keys[i], counts[i]
            for r in range(height):
                score = block[r, i]
                size = np.uint32(score & magnitude)
                if size != 0:
                    falling = score if score != size else np.uint32(score ^ magnitude)
                    mine[free] = (np.uint64(falling) << np.uint64(32)) | np.uint64(first + r)
                    free += 1
            counts[i] = free
    return not_finite > 0


@njit(cache=True, nogil=True)
def _order_keys(keys, counts, magnitude, ordered_FR, runs_FR, n_positive, n_runs):  # type: ignore[no-untyped-def]
    """Sort the keys of each neuron and read rows, tie runs and the number of positive scores from them."""
    spare = np.empty(keys.shape[1], np.uint64)
    counters = np.empty(2**WIDE_DIGIT, np.uint32)
    for i in range(keys.shape[0]):
        mine = _sorted_keys(keys[i, : counts[i]], spare[: counts[i]], counters)
        ordered = ordered_FR[i]
        n_negative, n_tied = 0, 0
        for k in range(counts[i]):
            ordered[k] = np.uint32(mine[k] & np.uint64(0xFFFFFFFF))
            n_negative += (mine[k] >> np.uint64(32)) > np.uint64(magnitude)
        for k in range(1, counts[i]):
            n_tied += (mine[k] >> np.uint64(32)) == (mine[k - 1] >> np.uint64(32))
        n_positive[i] = counts[i] - n_negative
        n_runs[i] = _write_runs(mine, runs_FR[i]) if n_tied else 0


@njit(cache=True, nogil=True)
def _write_runs(keys, runs):  # type: ignore[no-untyped-def]
    """Write (start, stop) of every run of two or more equal scores; returns how many there are."""
    found, start = 0, 0
    for k in range(1, keys.shape[0] + 1):
        if k == keys.shape[0] or (keys[k] >> np.uint64(32)) != (keys[k - 1] >> np.uint64(32)):
            if k - start > 1:
                runs[2 * found] = start
                runs[2 * found + 1] = k
                found += 1
            start = k
    return found


@njit(cache=True, nogil=True)
def _sorted_keys(keys, spare, counters):  # type: ignore[no-untyped-def]
    """The keys in ascending order, in `keys` or in `spare`; both are overwritten."""
    n_keys = keys.shape[0]
    if n_keys <= FEW_KEYS:
        _insertion_sort(keys)
        return keys
    smallest, largest = keys[0], keys[0]
    for key in keys:
        smallest, largest = min(smallest, key), max(largest, key)
    floor = smallest >> np.uint64(32)
    span = (largest >> np.uint64(32)) - floor
    n_bits = 0
    while (span >> np.uint64(n_bits)) != 0:
        n_bits += 1
    digit = NARROW_DIGIT if n_keys < MANY_KEYS else WIDE_DIGIT
    left_over = max(0, n_bits - 2 * digit)
    _radix_pass(keys, spare, floor, left_over, digit, counters)
    _radix_pass(spare, keys, floor, left_over + digit, digit, counters)
    if left_over == 0:
        return keys
    if _n_same_prefix_pairs(keys, floor, left_over) <= 4 * n_keys:
        _insertion_sort(keys)
        return keys
    source, target = keys, spare
    for shift in range(0, n_bits, digit):
        _radix_pass(source, target, floor, shift, digit, counters)
        source, target = target, source
    return source


@njit(cache=True, nogil=True)
def _radix_pass(source, target, floor, shift, digit, counters):  # type: ignore[no-untyped-def]
    """Stable distribution of the keys by `digit` bits of (score - floor), from bit `shift` on."""
    mask, down = np.uint64((1 << digit) - 1), np.uint64(shift)
    counters[: 1 << digit] = 0
    for key in source:
        counters[(((key >> np.uint64(32)) - floor) >> down) & mask] += np.uint32(1)
    total = np.uint32(0)
    for value in range(1 << digit):
        found = counters[value]
        counters[value] = total
        total += found
    for key in source:
        bucket = (((key >> np.uint64(32)) - floor) >> down) & mask
        target[counters[bucket]] = key
        counters[bucket] += np.uint32(1)


@njit(cache=True, nogil=True)
def _n_same_prefix_pairs(keys, floor, left_over):  # type: ignore[no-untyped-def]
    """Pairs of keys that agree above the last `left_over` bits: a bound on the swaps of the insertion sort."""
    n_pairs, n_same = 0, 0
    for k in range(1, keys.shape[0]):
        here, before = (keys[k] >> np.uint64(32)) - floor, (keys[k - 1] >> np.uint64(32)) - floor
        n_same = n_same + 1 if (here >> np.uint64(left_over)) == (before >> np.uint64(left_over)) else 0
        n_pairs += n_same
    return n_pairs


@njit(cache=True, nogil=True)
def _insertion_sort(keys):  # type: ignore[no-untyped-def]
    """Sort in place; the number of steps is the number of keys plus the number of inversions."""
    for k in range(1, keys.shape[0]):
        key, free = keys[k], k
        while free > 0 and keys[free - 1] > key:
            keys[free] = keys[free - 1]
            free -= 1
        keys[free] = key
