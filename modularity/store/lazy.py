"""Arrays of a run as lazily read xarray variables: only what is indexed is fetched, no dask needed."""

from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from modularity.store.arrays import StoredArray
from modularity.store.encoding import decode_values
from modularity.types import StorageDtype


class LazyArray(BackendArray):
    """A stored array behind xarray's indexing; bfloat16 and float16 activations decode to float32.

    Parameters
    ----------
    array : the stored array
    storage_dtype : how activations are decoded; None for results, which keep their dtype
    missing_as_fill : show parts that are not computed yet as the fill value instead of raising
    """

    def __init__(
        self, array: StoredArray, *, storage_dtype: StorageDtype | None = None, missing_as_fill: bool = False
    ) -> None:
        self.array, self.storage_dtype, self.missing_as_fill = array, storage_dtype, missing_as_fill
        self.shape = array.shape
        self.dtype = np.dtype("float32") if storage_dtype else array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[int | slice, ...]) -> np.ndarray:
        box: list[tuple[int, int]] = []
        after: list[int | slice] = []
        for part, size in zip(key, self.shape):
            if isinstance(part, slice):
                picked = range(size)[part]
                low, high = (min(picked[0], picked[-1]), max(picked[0], picked[-1]) + 1) if picked else (0, 0)
                box.append((low, high))
                after.append(slice(None, None, part.step))
            else:
                position = int(part) % size
                box.append((position, position + 1))
                after.append(0)
        stored = self.array.read(box, missing_as_fill=self.missing_as_fill)[tuple(after)]
        return decode_values(stored, self.storage_dtype) if self.storage_dtype else stored


def lazy_variable(
    array: StoredArray, *, storage_dtype: StorageDtype | None = None, missing_as_fill: bool = False
) -> xr.Variable:
    """Variable for xarray of a stored array, with its dimension names; nothing is read yet."""
    backend = LazyArray(array, storage_dtype=storage_dtype, missing_as_fill=missing_as_fill)
    return xr.Variable(array.dims, indexing.LazilyIndexedArray(backend))
