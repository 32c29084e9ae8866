"""Host memory of work items, recycled: as many item-size buffers as are alive at once, however many items there are.

Writing into fresh memory costs a page fault every 4 KiB (6.7 GB/s against 17-41 GB/s measured on 2 cores), so a buffer
goes back to the pool after its rows are in the store. Memory is layer-major, one layer's rows are contiguous, because a
Zarr shard holds one layer.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from modularity.errors import InputError
from modularity.store import stored_dtype
from modularity.types import Site, SiteShape, StorageDtype


@dataclass(frozen=True)
class ItemBuffer:
    """Arrays for the rows of one work item, borrowed from a `BufferPool`."""

    arrays: dict[Site, np.ndarray]
    """(n_rows, n_layers, *unit_shape) for each site, in the storage dtype; contents are undefined until filled."""
    memory: dict[Site, np.ndarray]
    """The item-size memory behind them, (n_layers, rows_per_item, *unit_shape), C-contiguous."""


def row_bytes(shapes: Mapping[Site, SiteShape], storage_dtype: StorageDtype) -> int:
    """Bytes of one stored row over all sites and layers."""
    n_values = sum(len(shape.layers) * prod(shape.unit_shape) for shape in shapes.values())
    return n_values * stored_dtype(storage_dtype).itemsize


class BufferPool:
    """Hands out item-size host buffers and takes them back; thread-safe, never blocks.

    How many exist is bounded by whoever holds them: with a `BackgroundWriter` of `max_pending` items that releases each
    buffer at the end of `write`, there are at most `max_pending + 1`.

    Parameters
    ----------
    shapes : what is captured
    rows_per_item : rows of the largest work item
    storage_dtype : dtype of the stored values
    """

    def __init__(
        self, shapes: Mapping[Site, SiteShape], rows_per_item: int, *, storage_dtype: StorageDtype = "float32"
    ) -> None:
        self._shapes = dict(shapes)
        self._rows = rows_per_item
        self._dtype = stored_dtype(storage_dtype)
        self._free: list[dict[Site, np.ndarray]] = []
        self._lock = threading.Lock()
        self.n_allocated = 0
        self.nbytes_each = rows_per_item * row_bytes(shapes, storage_dtype)

    def acquire(self, n_rows: int) -> ItemBuffer:
        """A buffer for `n_rows` rows, recycled if one is free.

        Raises
        ------
        InputError
            `n_rows` is not in 1 … rows_per_item.
        """
        if not 1 <= n_rows <= self._rows:
            raise InputError(f"n_rows={n_rows}: expected 1 to rows_per_item={self._rows}; cut the work accordingly")
        with self._lock:
            memory = self._free.pop() if self._free else self._allocate()
        arrays = {site: array[:, :n_rows].swapaxes(0, 1) for site, array in memory.items()}
        return ItemBuffer(arrays=arrays, memory=memory)

    def release(self, buffer: ItemBuffer) -> None:
        """Give a buffer back; its arrays must not be used afterwards.

        Raises
        ------
        ValueError
            The buffer was given back already.
        """
        with self._lock:
            if any(memory is buffer.memory for memory in self._free):
                raise ValueError("buffer released twice; its rows may already be overwritten")
            self._free.append(buffer.memory)

    def _allocate(self) -> dict[Site, np.ndarray]:
        self.n_allocated += 1
        return {
            site: np.empty((len(shape.layers), self._rows, *shape.unit_shape), dtype=self._dtype)
            for site, shape in self._shapes.items()
        }
