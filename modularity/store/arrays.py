"""Dense arrays of a run: Zarr v3 arrays written in whole shards (or chunks) and read box by box.

zarr makes and reads the metadata; the bytes of shards go through `shards.py`. Every write returns the hash of each
object, for the commit record; every read of an object that is missing or damaged is an error, never a fill value.
"""

import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from modularity.errors import DataError, StoreError
from modularity.store.encoding import NAN_BITS
from modularity.store.ledger import ArrayWrite, Ledger, StoredObject
from modularity.store.shards import (
    ZSTD_LEVEL,
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
_SHARD_CODECS = ZstdCodec(level=ZSTD_LEVEL, checksum=False), Crc32cCodec()
_CHUNK_CODECS = (ZstdCodec(level=ZSTD_LEVEL, checksum=True),)
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class ArraySpec:
    """Metadata of one array, known before anything is written."""

    dims: tuple[str, ...]
    shape: Index
    dtype: str
    """NumPy name of the dtype on disk."""
    chunk: Index
    """Inner chunk when sharded, else the chunk."""
    shard: Index | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fill(self) -> float | int | bool:
        """NaN for floats and bfloat16 bits, -1 for signed integers, 0 and False otherwise."""
        kind = np.dtype(self.dtype).kind
        if kind == "u" and self.attributes.get("modularity:dtype") == "bfloat16":
            return NAN_BITS
        return {"f": float("nan"), "i": -1, "u": 0, "b": False}[kind]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, for digests."""
        return {
            "dims": list(self.dims),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "chunk": list(self.chunk),
            "shard": list(self.shard) if self.shard else None,
            "attributes": dict(self.attributes),
        }


def create_array(space: Space, path: str, spec: ArraySpec) -> None:
    """Write the metadata of an array (no data), replacing an array of that name that holds none yet."""
    zarr.create_array(
        space.zarr_store(),
        name=path,
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunk,
        shards=spec.shard,
        compressors=_SHARD_CODECS if spec.shard else _CHUNK_CODECS,
        filters=None,
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes=dict(spec.attributes),
        config={"write_empty_chunks": True},
        zarr_format=3,
        overwrite=True,
    )


def write_coordinate(space: Space, path: str, dims: tuple[str, ...], values: np.ndarray) -> None:
    """Write a small array in one go, strings included, as one chunk."""
    chunk = tuple(max(1, size) for size in values.shape)
    with warnings.catch_warnings():
        # Strings are stored as Zarr's `string` with vlen-utf8, which zarr-python marks as not yet final.
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            space.zarr_store(),
            name=path,
            shape=values.shape,
            dtype=str if values.dtype.kind in "OUT" else values.dtype,
            chunks=chunk,
            compressors=_CHUNK_CODECS,
            dimension_names=dims,
            config={"write_empty_chunks": True},
            zarr_format=3,
            overwrite=True,
        )
        array[...] = values


def coordinate_sha256(values: np.ndarray) -> str:
    """Hash of the values of a coordinate: shape, kind, and bytes (UTF-8 with lengths for strings)."""
    digest = hashlib.sha256(f"{values.shape}".encode())
    if values.dtype.kind in "OUT":
        for text in values.ravel():
            data = str(text).encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    else:
        digest.update(values.dtype.str.encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


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


def open_group(space: Space, path: str, problem: str) -> Any:
    """A zarr group; StoreError with `problem` when there is none or its metadata is damaged."""
    try:
        return zarr.open_group(space.zarr_store(read_only=True), path=path, mode="r", zarr_format=3)
    except FileNotFoundError:
        raise StoreError(problem) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{space.address(path)}/zarr.json is damaged ({error}); restore it from a copy") from None


def read_coordinates(space: Space, group: Any, path: str) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
    """Name, dimensions and values of each coordinate array of a group; StoreError if one does not match its hash."""
    for name, expected in dict(group.attrs["modularity:content"]["coordinates"]).items():
        try:
            array = group[name]
            values = np.asarray(array[...])
        except Exception as error:
            # zarr and its codecs raise RuntimeError, ValueError, KeyError and others for damaged bytes.
            raise StoreError(
                f"{space.address(path)}/{name} cannot be read ({error}); restore it from a copy"
            ) from error
        if coordinate_sha256(values) != expected:
            raise StoreError(f"{space.address(path)}/{name} does not match its recorded hash; restore it from a copy")
        if values.dtype.kind in "OT":
            values = np.array(values.tolist(), dtype=str).reshape(values.shape)
        yield name, tuple(array.metadata.dimension_names), values


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
