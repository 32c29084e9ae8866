"""The k best neurons under each of many permutations, kept while tiles of neurons pass by.

The order is total: the higher value (as float32) first, of equal values the lower neuron. So lists depend neither on
the order of the tiles nor on the blocks in which a layer is computed, and the lists of blocks merge to that of the
layer. A heap for each permutation holds k values and their neurons: 8 bytes each, and most values are turned away by
one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

NO_NEURON = -1


@dataclass(frozen=True)
class TopLists:
    """Lists of the best neurons, best first; arrays (..., k). Places without a neuron come last."""

    neuron: Array
    """int32: the neuron, -1 where there is none."""
    value: Array
    """float32: its value, -inf where there is none."""


class TopHeaps:
    """The k best neurons of each of `n_lists` lists, of the tiles added so far."""

    def __init__(self, n_lists: int, k: int) -> None:
        self._value = np.full((n_lists, k), -np.inf, np.float32)
        self._neuron = np.full((n_lists, k), np.iinfo(np.int32).max, np.int32)

    def add(self, values_NF: Array, first_neuron: int) -> None:
        """Add neighbouring neurons with float32 values of shape (n_lists, n_neurons)."""
        if self._value.shape[1]:
            _push(values_NF, first_neuron, self._value, self._neuron)

    def result(self) -> TopLists:
        """The lists in order."""
        neuron = np.where(np.isneginf(self._value), np.int32(NO_NEURON), self._neuron)
        return _ordered(TopLists(neuron, self._value), self._value.shape[1])


def merge_lists(parts: Sequence[TopLists], k: int) -> TopLists:
    """The k best of several lists of different neurons, for each place of the leading axes."""
    if len(parts) == 1:
        return TopLists(parts[0].neuron[..., :k], parts[0].value[..., :k])
    joined = (np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in ("neuron", "value"))
    return _ordered(TopLists(*joined), k)


def _ordered(lists: TopLists, k: int) -> TopLists:
    """The k best of each list in order."""
    last = np.where(lists.neuron == NO_NEURON, np.iinfo(np.int32).max, lists.neuron)
    order = np.lexsort((last, -lists.value), axis=-1)[..., :k]
    return TopLists(np.take_along_axis(lists.neuron, order, -1), np.take_along_axis(lists.value, order, -1))


@njit(cache=True, nogil=True)
def _push(values_NF, first_neuron, value_NK, neuron_NK):  # type: ignore[no-untyped-def]
    """Replace the worst entry, the root of each heap, by every neuron that is better; later neurons lose ties."""
    for n in range(values_NF.shape[0]):
        value_K, neuron_K = value_NK[n], neuron_NK[n]
        for f in range(values_NF.shape[1]):
            value, neuron = values_NF[n, f], first_neuron + f
            if value > value_K[0] or (value == value_K[0] and neuron < neuron_K[0]):
                _replace_root(value_K, neuron_K, value, neuron)


@njit(cache=True, nogil=True)
def _replace_root(value_K, neuron_K, value, neuron):  # type: ignore[no-untyped-def]
    """Let a new entry sink below all entries that are worse than it."""
    k, place = value_K.shape[0], 0
    while True:
        child = 2 * place + 1
        if child >= k:
            break
        other = child + 1
        if other < k and (
            value_K[other] < value_K[child] or (value_K[other] == value_K[child] and neuron_K[other] > neuron_K[child])
        ):
            child = other
        if value < value_K[child] or (value == value_K[child] and neuron > neuron_K[child]):
            break
        value_K[place], neuron_K[place] = value_K[child], neuron_K[child]
        place = child
    value_K[place], neuron_K[place] = value, neuron
