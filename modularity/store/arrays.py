"""Dense arrays of a run: Zarr v3 arrays written in whole shards (or chunks) and read box by box.

`documents.py` makes and reads the metadata, `shards.py` the bytes of shards. Every write returns the hash of each
object, for the commit record; every read of an object that is missing or damaged is an error, never a fill value.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from modularity.errors import DataError, StoreError
from modularity.store.ledger import ArrayWrite, Ledger, StoredObject
from modularity.store.shards import (
    DamagedBytesError,
    Index,
    copy_overlap,
    decode_chunk,
    decode_index,
    encode_chunk,
    encode_shard,
    index_length,
    read_shard_box,
)
from modularity.store.space import MissingObjectError, Space

REMOTE_THREADS = 16
_T = TypeVar("_T")
_R = TypeVar("_R")


def default_threads(space: Space) -> int:
    """Threads for encoding and fetching: the CPUs of this process locally, more where requests wait on a network."""
    return len(os.sched_getaffinity(0)) if space.is_local else REMOTE_THREADS


class StoredArray:
    """One array of a run, for whole-object writes and for reads of boxes.

    Parameters
    ----------
    space, ledger : of the run
    path : of the array, relative to the run
    metadata : the array as zarr opened it
    """

    def __init__(self, space: Space, ledger: Ledger, path: str, metadata: Any) -> None:
        _check_codecs(metadata, space.address(path))
        self.space, self.ledger, self.path = space, ledger, path
        self.shape: Index = tuple(metadata.shape)
        self.dtype: np.dtype = np.dtype(metadata.dtype)
        self.dims: tuple[str, ...] = tuple(metadata.metadata.dimension_names)
        self.attributes: dict[str, Any] = dict(metadata.attrs)
        self.chunk: Index = tuple(metadata.chunks)
        self.shard: Index | None = tuple(metadata.shards) if metadata.shards else None
        self.fill = metadata.fill_value

    @property
    def object_shape(self) -> Index:
        """Shape of what one object holds: the shard, or the chunk of an unsharded array."""
        return self.shard or self.chunk

    @property
    def n_objects(self) -> int:
        """Objects of the complete array."""
        return int(np.prod([-(-size // step) for size, step in zip(self.shape, self.object_shape)]))

    def write(self, values: np.ndarray, start: Index, *, n_threads: int | None = None) -> ArrayWrite:
        """Encode and write whole objects.

        Parameters
        ----------
        values : array of the dtype on disk, any strides
        start : where it begins; a multiple of the shard (chunk) shape, and the end too, or the end of the array

        Returns
        -------
        write : region and hash of every object, for the commit record

        Raises
        ------
        DataError
            dtype, rank, alignment or size is wrong; nothing was written.
        """
        self._check_block(values, start)
        steps = self.object_shape
        places = list(
            itertools.product(
                *(range(lo // n, -(-(lo + size) // n)) for lo, size, n in zip(start, values.shape, steps))
            )
        )

        def store(place: Index) -> StoredObject:
            corner = [p * n - lo for p, n, lo in zip(place, steps, start)]
            block = values[tuple(slice(c, c + n) for c, n in zip(corner, steps))]
            data: bytes | memoryview
            if self.shard:
                data = encode_shard(block, self.chunk, self.shard, self.fill)
            else:
                data = encode_chunk(block, self.chunk, self.fill)
            path = self._object_path(place)
            self.space.write(path, data)
            return StoredObject(path, hashlib.sha256(data).hexdigest(), len(data))

        objects = parallel_map(store, places, n_threads or default_threads(self.space))
        return ArrayWrite(self.path, start, tuple(lo + n for lo, n in zip(start, values.shape)), tuple(objects))

    def read(
        self, box: Sequence[tuple[int, int]], *, missing_as_fill: bool = False, n_threads: int | None = None
    ) -> np.ndarray:
        """Values of a box, reading only the inner chunks that it touches.

        Parameters
        ----------
        box : (start, stop) per dimension, within the shape
        missing_as_fill : leave the fill value where no object exists and no item is committed that wrote it

        Raises
        ------
        StoreError
            An object is missing or damaged; the message names it and the item that wrote it.
        """
        out = np.full([hi - lo for lo, hi in box], self.fill, dtype=self.dtype)
        places = list(itertools.product(*(range(lo // n, -(-hi // n)) for (lo, hi), n in zip(box, self.object_shape))))
        if out.size == 0:
            return out

        def load(place: Index) -> None:
            path = self._object_path(place)
            try:
                self._read_object(path, place, box, out)
            except MissingObjectError:
                if not missing_as_fill or any(
                    s.path == path for r in self.ledger.records().values() for s in r.objects
                ):
                    raise self.ledger.explain(path, "the object is missing") from None
            except DamagedBytesError as error:
                raise self.ledger.explain(path, f"the object is damaged: {error}") from None

        parallel_map(load, places, n_threads or default_threads(self.space))
        return out

    def _read_object(self, path: str, place: Index, box: Sequence[tuple[int, int]], out: np.ndarray) -> None:
        corner = tuple(p * n for p, n in zip(place, self.object_shape))
        if self.shard is None:
            copy_overlap(
                decode_chunk(self.space.read(path), self.chunk, self.dtype), corner, out, tuple(lo for lo, _ in box)
            )
            return
        bounds = [(max(lo, c), min(hi, c + n)) for (lo, hi), c, n in zip(box, corner, self.shard)]
        part = out[tuple(slice(lo - start, hi - start) for (lo, hi), (start, _) in zip(bounds, box))]
        index = decode_index(self.space.read_tail(path, index_length(self.chunk, self.shard)), self.chunk, self.shard)
        local = tuple((lo - c, hi - c) for (lo, hi), c in zip(bounds, corner))
        read_shard_box(lambda start, stop: self.space.read_range(path, start, stop), index, local, self.chunk, part)

    def _object_path(self, place: Index) -> str:
        return "/".join([self.path, "c", *(str(p) for p in place)])

    def _check_block(self, values: np.ndarray, start: Index) -> None:
        where = f"block of shape {values.shape} at {start} of {self.path}"
        if values.dtype != self.dtype:
            raise DataError(f"{where} has dtype {values.dtype}, the array holds {self.dtype}; convert it first")
        if values.ndim != len(self.shape) or len(start) != len(self.shape):
            raise DataError(f"{where}: the array has the dimensions {self.dims}")
        for dim, lo, size, whole, step in zip(self.dims, start, values.shape, self.shape, self.object_shape):
            hi = lo + size
            if lo < 0 or hi > whole or size == 0 or lo % step or (hi % step and hi != whole):
                raise DataError(
                    f"{where}: {dim} {lo}..{hi} of {whole} does not cover whole objects of {step}; "
                    f"start at a multiple of {step}, and end at one or at {whole}"
                )


def parallel_map(function: Callable[[_T], _R], values: Sequence[_T], n_threads: int) -> list[_R]:
    """Results in order, over threads when there is more than one value; the first error is raised."""
    if len(values) < 2 or n_threads < 2:
        return [function(value) for value in values]
    with ThreadPoolExecutor(min(n_threads, len(values))) as pool:
        return list(pool.map(function, values))


def _check_codecs(metadata: Any, address: str) -> None:
    codecs = [codec.to_dict() for codec in metadata.metadata.codecs]
    kinds = [codec["name"] for codec in codecs]
    if kinds == ["sharding_indexed"]:
        kinds += [codec["name"] for codec in codecs[0]["configuration"]["codecs"]]
    if kinds not in (["sharding_indexed", "bytes", "zstd", "crc32c"], ["bytes", "zstd"]):
        raise StoreError(
            f"{address} has the codecs {kinds}, which this version of the package does not "
            "write; open it with zarr instead"
        )
