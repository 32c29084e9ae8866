"""One Zarr shard or chunk as bytes: a compact encoder and decoder of the codecs that this package writes.

Format: Zarr v3 `sharding_indexed` with inner codecs `bytes` (little endian), `zstd` and `crc32c`, and an index at the
end with codecs `bytes` and `crc32c`; unsharded chunks are `bytes` and `zstd` with its checksum. Any Zarr v3 reader
opens it.

A shard is compressed when most of its values are zero (`frames.py`). Neurons after a ReLU are, and shrink to about a
tenth. Dense floats would shrink by a few hundredths at a fifth of the speed, so their frames hold the bytes as they
are.

Why our own: zarr 3.1.6 reads a shard before it writes it, fetches inner chunks one by one, and returns the fill value
where an object is missing; `benchmarks/store_reads.py` holds the figures. Inside a shard the chunks lie with the first
dimension (rows) varying fastest, so that one block of neurons over all rows is one contiguous range.
"""

import itertools
import math
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

import google_crc32c
import numpy as np
import zstandard

ZSTD_LEVEL = 1
SPARSE_SHARE = 0.7
"""Share of zeros from which a shard is compressed."""
_SAMPLED_VALUES = 2**16
_ABSENT = 2**64 - 1
_CHECKSUM = struct.Struct("<I")
"""A CRC-32C, after the bytes it is of."""

Index = tuple[int, ...]
Box = tuple[tuple[int, int], ...]
ReadRange = Callable[[int, int], memoryview]


class DamagedBytesError(ValueError):
    """Bytes of a shard or chunk that cannot be decoded, or whose checksum does not match."""


class _Contexts(threading.local):
    """The zstd contexts of one thread: making one for each chunk takes longer than the chunk."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True)
        self.decompressor = zstandard.ZstdDecompressor()


_CONTEXTS = _Contexts()


def encode_chunk(block: np.ndarray, chunk: Index, fill: object) -> bytes:
    """Bytes of one unsharded chunk; a block at the edge of the array is padded with `fill`."""
    return _CONTEXTS.compressor.compress(np.ascontiguousarray(_padded(block, chunk, fill)).reshape(-1).data)


def decode_chunk(data: bytes | memoryview, chunk: Index, dtype: np.dtype) -> np.ndarray:
    """Values of one chunk, shape `chunk`; DamagedBytesError when the checksum or the length is wrong."""
    expected = math.prod(chunk) * dtype.itemsize
    try:
        # A damaged header may claim any size: nothing of the kind is allocated.
        claimed = zstandard.frame_content_size(data)
        raw = _CONTEXTS.decompressor.decompress(data) if claimed == expected else b""
    except zstandard.ZstdError as error:
        raise DamagedBytesError(f"a chunk of {len(data)} bytes does not decompress ({error})") from None
    if len(raw) != expected:
        raise DamagedBytesError(f"a chunk holds {claimed} bytes, expected {expected}")
    return np.frombuffer(raw, dtype=dtype).reshape(chunk)


def encode_shard(block: np.ndarray, chunk: Index, shard: Index, fill: object) -> memoryview:
    """Bytes of one whole shard.

    Parameters
    ----------
    block : array that starts where the shard starts; smaller than the shard at the edge of the array
    chunk, shard : shape of an inner chunk and of the shard, chunk divides shard
    fill : value that pads inner chunks at the edge; inner chunks wholly outside are left absent
    """
    from modularity.store.frames import encode_frames, frames_bound  # only writers wait for the compiler

    grid = tuple(-(-size // step) for size, step in zip(block.shape, chunk))
    index = np.full((*(size // step for size, step in zip(shard, chunk)), 2), _ABSENT, dtype="<u8")
    chunk_bytes = math.prod(chunk) * block.dtype.itemsize
    out = np.empty(frames_bound(math.prod(grid), chunk_bytes) + index.nbytes + 4, dtype=np.uint8)
    nonzero = _nonzero_share(block)
    density = nonzero if nonzero <= 1 - SPARSE_SHARE else None
    by_layer = math.prod(chunk[1:2]) == 1 and chunk[3:] == block.shape[3:]
    end = 0
    if by_layer:
        for layer in range(block.shape[1]):
            plane = block[:, layer].reshape(len(block), -1)
            spans = np.empty((grid[0], math.prod(grid[2:]), 2), dtype=np.uint64)
            size = chunk[0], math.prod(chunk[2:])
            end = encode_frames(plane, size, fill, out, spans, end, density=density)
            _add_checksums(out, spans)
            index[: grid[0], layer][tuple(slice(n) for n in (grid[0], *grid[2:]))] = spans.reshape(
                grid[0], *grid[2:], 2
            )
    else:
        spans = np.empty((1, 1, 2), dtype=np.uint64)
        for place in _places_row_fastest(grid):
            part = block[tuple(slice(p * n, (p + 1) * n) for p, n in zip(place, chunk))]
            values = _padded(part, chunk, fill).reshape(1, -1)
            end = encode_frames(values, values.shape, fill, out, spans, end, density=density)
            _add_checksums(out, spans)
            index[place] = spans[0, 0]
    tail = index.tobytes()
    tail += _CHECKSUM.pack(google_crc32c.value(tail))
    out[end : end + len(tail)] = np.frombuffer(tail, dtype=np.uint8)
    return out[: end + len(tail)].data


def index_length(chunk: Index, shard: Index) -> int:
    """Bytes of the index at the end of a shard, checksum included."""
    return 16 * math.prod(size // step for size, step in zip(shard, chunk)) + 4


def decode_index(tail: bytes | memoryview, chunk: Index, shard: Index) -> np.ndarray:
    """Offset and length of every inner chunk, shape (*chunks per dimension, 2), uint64; the checksum is verified."""
    length = index_length(chunk, shard)
    if len(tail) != length:
        raise DamagedBytesError(f"the shard is cut short: its index needs {length} bytes, {len(tail)} are there")
    body = bytes(tail[: -_CHECKSUM.size])
    if _CHECKSUM.unpack(tail[-_CHECKSUM.size :])[0] != google_crc32c.value(body):
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
            values = decode_chunk(_checked(data[offset - start : offset - start + length]), chunk, out.dtype)
            copy_overlap(values, tuple(p * n for p, n in zip(place, chunk)), out, tuple(lo for lo, _ in box))


def copy_overlap(values: np.ndarray, values_start: Index, out: np.ndarray, out_start: Index) -> None:
    """Copy what two boxes have in common; both starts are in the same coordinates."""
    source, target = [], []
    for v0, nv, o0, no in zip(values_start, values.shape, out_start, out.shape):
        lo, hi = max(v0, o0), min(v0 + nv, o0 + no)
        source.append(slice(lo - v0, hi - v0))
        target.append(slice(lo - o0, hi - o0))
    out[tuple(target)] = values[tuple(source)]


def _add_checksums(out: np.ndarray, spans: np.ndarray) -> None:
    for start, length in spans.reshape(-1, 2).tolist():
        end = start + length - _CHECKSUM.size
        _CHECKSUM.pack_into(out.data, end, google_crc32c.value(out[start:end]))


def _checked(data: memoryview) -> memoryview:
    """The bytes before the checksum, which must be that of them."""
    content, tail = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
    if len(data) < _CHECKSUM.size or _CHECKSUM.unpack(tail)[0] != google_crc32c.value(np.frombuffer(content, np.uint8)):
        raise DamagedBytesError(f"the checksum of a chunk of {len(data)} bytes does not match")
    return content


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


def _nonzero_share(block: np.ndarray) -> float:
    """Share of the values that are not zero, from some rows that lie evenly apart."""
    rows = block[:: max(1, block.size // _SAMPLED_VALUES)]
    return float(np.count_nonzero(rows)) / rows.size


def _places_row_fastest(grid: Index) -> Iterator[Index]:
    for *rest, row in itertools.product(*(range(n) for n in grid[1:]), range(grid[0])):
        yield (row, *rest)
