"""Zarr metadata and coordinates as bytes, made and read by zarr in memory.

Every byte of a run goes through `Space`: one place that writes whole objects, names what fails, and retries.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zarr
import zarr.storage
from zarr.buffer.cpu import Buffer
from zarr.codecs import Crc32cCodec, ZstdCodec

from modularity.store.encoding import NAN_BITS
from modularity.store.shards import ZSTD_LEVEL, Index

METADATA = "zarr.json"
_SHARD_CODECS = ZstdCodec(level=ZSTD_LEVEL, checksum=False), Crc32cCodec()
_CHUNK_CODECS = (ZstdCodec(level=ZSTD_LEVEL, checksum=True),)


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


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a group."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode()


def group_attributes(document: bytes) -> dict[str, Any]:
    """Attributes in the `zarr.json` of a group; ValueError if it is none."""
    values = json.loads(document)
    if not isinstance(values, dict) or values.get("node_type") != "group" or values.get("zarr_format") != 3:
        raise ValueError("it is not the metadata of a Zarr v3 group")
    attributes = values.get("attributes", {})
    if not isinstance(attributes, dict):
        raise ValueError("its attributes are no mapping")  # noqa: TRY004
    return attributes


def array_document(spec: ArraySpec) -> bytes:
    """The `zarr.json` of an array that holds no data yet."""

    def make(store: Any) -> None:
        zarr.create_array(
            store,
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
        )

    return _objects_of(make)[METADATA]


def coordinate_objects(dims: tuple[str, ...], values: np.ndarray) -> dict[str, bytes]:
    """All objects of a small array, strings included, by path: one chunk and the metadata."""
    chunk = tuple(max(1, size) for size in values.shape)

    def make(store: Any) -> None:
        array = zarr.create_array(
            store,
            shape=values.shape,
            dtype=str if values.dtype.kind in "OUT" else values.dtype,
            chunks=chunk,
            compressors=_CHUNK_CODECS,
            dimension_names=dims,
            config={"write_empty_chunks": True},
            zarr_format=3,
        )
        array[...] = values

    with warnings.catch_warnings():
        # Strings are stored as Zarr's `string` with vlen-utf8, which zarr-python marks as not yet final.
        warnings.simplefilter("ignore")
        return _objects_of(make)


def opened_array(objects: Mapping[str, bytes]) -> Any:
    """The zarr array of some objects: its metadata alone, or with the chunks that are read."""
    kept = {path: Buffer.from_bytes(data) for path, data in objects.items()}
    return zarr.open_array(zarr.storage.MemoryStore(kept, read_only=True), mode="r", zarr_format=3)


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


def _objects_of(make: Callable[[Any], None]) -> dict[str, bytes]:
    kept: dict[str, Any] = {}
    make(zarr.storage.MemoryStore(kept))
    return {path: buffer.to_bytes() for path, buffer in kept.items()}
