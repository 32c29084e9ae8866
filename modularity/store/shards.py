"""One Zarr shard or chunk as bytes: a compact encoder and decoder of the codecs that this package writes.

Format: Zarr v3 `sharding_indexed` with inner codecs `bytes` (little endian) and `zstd` (level 1, with checksum), and an
index at the end with codecs `bytes` and `crc32c`; unsharded chunks are `bytes` and `zstd`. Any Zarr v3 reader opens it.
Why our own: zarr 3.1.6 reads a shard before it writes it, fetches inner chunks one by one, and returns the fill value
where an object is missing; `benchmarks/store_reads.py` holds the figures. Inside a shard the chunks lie with the first
dimension (rows) varying fastest, so that one block of neurons over all rows is one contiguous range.
"""

import itertools
import math
import struct
from collections.abc import Callable, Iterator, Sequence

import google_crc32c
import numcodecs  # type: ignore[import-untyped]
import numpy as np

ZSTD_LEVEL = 1
_ABSENT = 2**64 - 1
_CODEC = numcodecs.Zstd(level=ZSTD_LEVEL, checksum=True)

Index = tuple[int, ...]
Box = tuple[tuple[int, int], ...]
ReadRange = Callable[[int, int], memoryview]


class DamagedBytesError(ValueError):
    """Bytes of a shard or chunk that cannot be decoded, or whose checksum does not match."""


def encode_chunk(block: np.ndarray, chunk: Index, fill: object) -> bytes:
    """Bytes of one unsharded chunk; a block at the edge of the array is padded with `fill`."""
    return bytes(_CODEC.encode(np.ascontiguousarray(_padded(block, chunk, fill)).reshape(-1)))


def decode_chunk(data: bytes | memoryview, chunk: Index, dtype: np.dtype) -> np.ndarray:
    """Values of one chunk, shape `chunk`; DamagedBytesError when the checksum or the length is wrong."""
    try:
        raw = _CODEC.decode(data)
    except (RuntimeError, ValueError) as error:
        raise DamagedBytesError(f"a chunk of {len(data)} bytes does not decompress ({error})") from None
    if len(raw) != math.prod(chunk) * dtype.itemsize:
        raise DamagedBytesError(f"a chunk holds {len(raw)} bytes, expected {math.prod(chunk) * dtype.itemsize}")
    return np.frombuffer(raw, dtype=dtype).reshape(chunk)


def encode_shard(block: np.ndarray, chunk: Index, shard: Index, fill: object) -> bytes:
    """Bytes of one whole shard.

    Parameters
    ----------
    block : array that starts where the shard starts; smaller than the shard at the edge of the array
    chunk, shard : shape of an inner chunk and of the shard, chunk divides shard
    fill : value that pads inner chunks at the edge; inner chunks wholly outside are left absent
    """
    grid = tuple(-(-size // step) for size, step in zip(block.shape, chunk))
    chunks = _chunks_row_fastest(_padded(block, tuple(n * step for n, step in zip(grid, chunk)), fill), grid, chunk)
    parts = [_CODEC.encode(values) for values in chunks]
    index = np.full((*(size // step for size, step in zip(shard, chunk)), 2), _ABSENT, dtype="<u8")
    offset = 0
    for place, part in zip(_places_row_fastest(grid), parts):
        index[place] = (offset, len(part))
        offset += len(part)
    index_bytes = index.tobytes()
    return b"".join([*parts, index_bytes, struct.pack("<I", google_crc32c.value(index_bytes))])


def index_length(chunk: Index, shard: Index) -> int:
    """Bytes of the index at the end of a shard, checksum included."""
    return 16 * math.prod(size // step for size, step in zip(shard, chunk)) + 4


def decode_index(tail: bytes | memoryview, chunk: Index, shard: Index) -> np.ndarray:
    """Offset and length of every inner chunk, shape (*chunks per dimension, 2), uint64; the checksum is verified."""
    length = index_length(chunk, shard)
    if len(tail) != length:
        raise DamagedBytesError(f"the shard is cut short: its index needs {length} bytes, {len(tail)} are there")
    body = bytes(tail[:-4])
    if struct.unpack("<I", tail[-4:])[0] != google_crc32c.value(body):
        raise DamagedBytesError("the checksum of the shard index does not match")
    return np.frombuffer(body, dtype="<u8").reshape(*(size // step for size, step in zip(shard, chunk)), 2)


def read_shard_box(read_range: ReadRange, index: np.ndarray, box: Box, chunk: Index, out: np.ndarray) -> None:
    """Fill `out` with a box (start, stop per dimension, relative to the shard), reading only the chunks it touches.

    Chunks that lie side by side in the shard are fetched as one range.
    """
    places = list(itertools.product(*(range(lo // n, -(-hi // n)) for (lo, hi), n in zip(box, chunk))))
    spans = [(int(index[place][0]), int(index[place][1]), place) for place in places]
    if any(offset == _ABSENT for offset, _, _ in spans):
        raise DamagedBytesError("the shard index lists a chunk as absent that holds rows of the array")
    for run in _contiguous(sorted(spans)):
        start = run[0][0]
        data = read_range(start, run[-1][0] + run[-1][1])
        for offset, length, place in run:
            values = decode_chunk(data[offset - start : offset - start + length], chunk, out.dtype)
            copy_overlap(values, tuple(p * n for p, n in zip(place, chunk)), out, tuple(lo for lo, _ in box))


def copy_overlap(values: np.ndarray, values_start: Index, out: np.ndarray, out_start: Index) -> None:
    """Copy what two boxes have in common; both starts are in the same coordinates."""
    source, target = [], []
    for v0, nv, o0, no in zip(values_start, values.shape, out_start, out.shape):
        lo, hi = max(v0, o0), min(v0 + nv, o0 + no)
        source.append(slice(lo - v0, hi - v0))
        target.append(slice(lo - o0, hi - o0))
    out[tuple(target)] = values[tuple(source)]


def _contiguous(spans: Sequence[tuple[int, int, Index]]) -> Iterator[list[tuple[int, int, Index]]]:
    run: list[tuple[int, int, Index]] = []
    for span in spans:
        if run and run[-1][0] + run[-1][1] != span[0]:
            yield run
            run = []
        run.append(span)
    if run:
        yield run


def _padded(block: np.ndarray, shape: Index, fill: object) -> np.ndarray:
    if block.shape == shape:
        return block
    padded = np.full(shape, fill, dtype=block.dtype)
    padded[tuple(slice(size) for size in block.shape)] = block
    return padded


def _chunks_row_fastest(block: np.ndarray, grid: Index, chunk: Index) -> np.ndarray:
    n_dims = block.ndim
    split = block.reshape([size for pair in zip(grid, chunk) for size in pair])
    order = [*range(2, 2 * n_dims, 2), 0, *range(1, 2 * n_dims, 2)]
    return np.ascontiguousarray(split.transpose(order)).reshape(math.prod(grid), math.prod(chunk))


def _places_row_fastest(grid: Index) -> Iterator[Index]:
    for *rest, row in itertools.product(*(range(n) for n in grid[1:]), range(grid[0])):
        yield (row, *rest)
