"""zstd frames of the inner chunks of a shard, written by one compiled loop that holds no lock of Python.

Neurons after a ReLU are mostly zero, and the zeros lie in runs: a chunk becomes the bytes of its other values, and a
sequence (bytes to copy, zeros to repeat) for each run. This is what zstd's format calls raw literals and sequences that
repeat the last byte; the sequences are entropy-coded with tables made for the share of zeros, so nothing is searched.
Chunks that do not shrink become raw blocks. Any zstd decoder reads the frames. They carry no checksum of their own: one
over the stored bytes follows each (`shards.py`), which for sparse chunks is a tenth of the bytes.

Format: RFC 8878 (frames, blocks, literals and sequences sections, finite state entropy).
Why our own: a library call for each chunk takes and releases the interpreter's lock, which kept a second thread from
helping, and it looks for repetitions that activations do not have; `benchmarks/store_reads.py` has the figures.
"""

from typing import Any, TypeAlias

import numpy as np
from numba import njit

from modularity.store.machine_words import BITS, nonzero_bits, store_word, trailing_zeros
from modularity.store.run_coders import FAR, N_CODES, SHORT, TABLE_LOG, TABLE_SIZE, RunCoders, run_coders

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_MAX_BLOCK = 2**17
_FRAME_BYTES = 9
"""Magic number, descriptor and content size before the first block."""
CHECKSUM_BYTES = 4
"""Left free after each frame, for the checksum over it."""


def encode_frames(
    block: Array, chunk: tuple[int, int], fill: object, out: Array, spans: Array, start: int, *, density: float | None
) -> int:
    """Write the frames of all chunks of a block, row chunks of one block of units after each other.

    After each frame `CHECKSUM_BYTES` are left as they were.

    Parameters
    ----------
    block : array of shape (rows, units), any strides, little-endian, items of 1, 2, 4 or 8 bytes
    chunk : rows and units of a chunk; chunks at the edge are padded with `fill`
    out : uint8, with room for `frames_bound` bytes from `start` on
    spans : uint64 of shape (row chunks, unit chunks, 2), receives offset and length of each frame and its free bytes
    start : offset in `out` of the first frame
    density : share of words that are not zero, to choose the tables by; None leaves the bytes as they are

    Returns
    -------
    end : offset after the last frame and its free bytes
    """
    word = np.dtype(f"u{block.dtype.itemsize}")
    n_bytes = chunk[0] * chunk[1] * word.itemsize
    scratch = np.zeros(-(-chunk[0] * chunk[1] // BITS) * BITS * word.itemsize // 8, dtype=np.uint64)
    words = scratch.view(word)
    if block.strides[1] != word.itemsize or block.strides[0] < 0:
        block = np.ascontiguousarray(block)
    stride = block.strides[0] // word.itemsize
    span = (len(block) - 1) * stride + block.shape[1]
    flat = np.lib.stride_tricks.as_strided(block.view(word), (span,), (word.itemsize,), writeable=False)
    padding = np.asarray(fill, dtype=block.dtype).view(word)[()]
    coders = run_coders(density or 1.0, word.itemsize)
    runs = np.empty((len(words) // 2 + 2, 2), dtype=np.int32)
    return _encode(
        flat, block.shape, stride, chunk, padding, scratch, words, n_bytes,
        out, spans, start, density is not None, coders, runs,
    )  # fmt: skip


def frames_bound(n_chunks: int, chunk_bytes: int) -> int:
    """Bytes that the frames of some chunks need at most, with what is tried before a chunk is left as it is."""
    raw = chunk_bytes + _FRAME_BYTES + CHECKSUM_BYTES + 3 * -(-chunk_bytes // _MAX_BLOCK)
    return n_chunks * raw + 2 * chunk_bytes + 256


@njit(cache=True, nogil=True)
def _encode(
    flat: Array, shape: tuple[int, int], stride: int, chunk: tuple[int, int], fill: Any, scratch: Array, words: Array,
    n_bytes: int, out: Array, spans: Array, start: int, sparse: bool, coders: RunCoders, runs: Array,
) -> int:  # fmt: skip
    position = start
    for unit_chunk in range(spans.shape[1]):
        for row_chunk in range(spans.shape[0]):
            _gather(flat, shape, stride, row_chunk * chunk[0], unit_chunk * chunk[1], chunk[0], chunk[1], fill, words)
            begin = position
            position = _frame_header(out, position, n_bytes)
            end = -1
            if sparse and n_bytes <= _MAX_BLOCK:
                end = _compressed_block(words, n_bytes, out, position, coders, runs)
            position = end if end >= 0 else _raw_blocks(scratch, n_bytes, out, position)
            position += CHECKSUM_BYTES
            spans[row_chunk, unit_chunk, 0] = np.uint64(begin)
            spans[row_chunk, unit_chunk, 1] = np.uint64(position - begin)
    return position


@njit(cache=True, nogil=True)
def _gather(
    flat: Array, shape: tuple[int, int], stride: int, row: int, unit: int, n_rows: int, n_units: int, fill: Any,
    words: Array,
) -> None:  # fmt: skip
    rows, units = min(n_rows, shape[0] - row), min(n_units, shape[1] - unit)
    if rows < n_rows or units < n_units:
        words[: n_rows * n_units] = fill
    # Unsigned places and no slices: a slice counts references, which takes longer than to copy a row.
    source, target, n = np.uint64(row * stride + unit), np.uint64(0), np.uint64(units)
    for _ in range(rows):
        for at in range(n):
            words[target + at] = flat[source + at]
        source += np.uint64(stride)
        target += np.uint64(n_units)


@njit(cache=True, nogil=True)
def _copy(source: Array, target: Array) -> None:
    # Counted from 0 over equal slices, so that it becomes vector instructions.
    for at in range(len(source)):
        target[at] = source[at]


@njit(cache=True, nogil=True)
def _frame_header(out: Array, position: int, n_bytes: int) -> int:
    # Content size in four bytes, one segment, no checksum.
    for byte in (0x28, 0xB5, 0x2F, 0xFD, 0xA0):
        out[position] = byte
        position += 1
    for shift in range(0, 32, 8):
        out[position] = (n_bytes >> shift) & 255
        position += 1
    return position


@njit(cache=True, nogil=True)
def _block_header(out: Array, position: int, kind: int, size: int, last: int) -> int:
    value = last | kind << 1 | size << 3
    for shift in range(0, 24, 8):
        out[position] = (value >> shift) & 255
        position += 1
    return position


@njit(cache=True, nogil=True)
def _raw_blocks(scratch: Array, n_bytes: int, out: Array, position: int) -> int:
    content = scratch.view(np.uint8)
    for at in range(0, n_bytes, _MAX_BLOCK):
        size = min(_MAX_BLOCK, n_bytes - at)
        position = _block_header(out, position, 0, size, int(at + size == n_bytes))
        _copy(content[at : at + size], out[position : position + size])
        position += size
    return position


@njit(cache=True, nogil=True)
def _compressed_block(words: Array, n_bytes: int, out: Array, position: int, coders: RunCoders, runs: Array) -> int:
    """Position after the block, or -1 when it would not be smaller than the content."""
    header, table = coders
    begin = position
    literals = begin + 6
    end, n_runs = _split_runs(words, n_bytes // words.itemsize, out, literals, runs)
    if n_runs == 0 or end - literals + 2 * n_runs + len(header) + 16 >= n_bytes:
        return -1
    n_literals = end - literals
    for shift, value in ((0, 3 << 2 | (n_literals & 15) << 4), (1, n_literals >> 4), (2, n_literals >> 12)):
        out[begin + 3 + shift] = value & 255
    position = end
    if n_runs < 128:
        out[position] = n_runs
        position += 1
    elif n_runs < 0x7F00:
        out[position] = (n_runs >> 8) + 128
        out[position + 1] = n_runs & 255
        position += 2
    else:
        out[position] = 255
        out[position + 1] = (n_runs - 0x7F00) & 255
        out[position + 2] = (n_runs - 0x7F00) >> 8
        position += 3
    for byte in header:
        out[position] = byte
        position += 1
    position = _write_runs(runs, n_runs, out, position, begin + 2 * n_bytes, table)
    size = position - begin - 3
    if size >= n_bytes:
        return -1
    _block_header(out, begin, 2, size, 1)
    return position


@njit(cache=True, nogil=True)
def _split_runs(words: Array, n_words: int, out: Array, begin: int, runs: Array) -> tuple[int, int]:
    """Copy what is not a run of zeros to `out`; runs hold (literal bytes, repeated zero bytes).

    `words` is filled with zeros to whole groups. Where a run begins cannot be predicted, so nothing branches on it:
    every value first writes the run before it, and counts it only if there was one.
    """
    word_bytes = words.itemsize
    position, n_runs, expected = begin, 0, 0
    for start in range(0, n_words, BITS):
        bits = nonzero_bits(words, start)
        while bits != 0:
            place = start + trailing_zeros(bits)
            bits &= bits - np.uint64(1)
            position, n_runs, begin = _write_zeros((place - expected) * word_bytes, out, position, begin, runs, n_runs)
            store_word(out, position, words[np.uint64(place)])
            position += word_bytes
            expected = place + 1
    position, n_runs, _ = _write_zeros((n_words - expected) * word_bytes, out, position, begin, runs, n_runs)
    return position, n_runs


@njit(cache=True, nogil=True, inline="always")
def _write_zeros(n_zeros: int, out: Array, position: int, begin: int, runs: Array, n_runs: int) -> tuple[int, int, int]:
    # The first byte of a run is a literal, the others repeat it; shorter than four bytes, all are literals.
    is_run = n_zeros >= 4
    store_word(out, position, np.uint32(0))
    position += 1 if is_run else n_zeros
    run = np.uint64(n_runs)
    runs[run, 0], runs[run, 1] = position - begin, n_zeros - 1
    n_runs += int(is_run)
    return position, n_runs, position if is_run else begin


_LITERAL, _MATCH = np.uint64(0), np.uint64(TABLE_SIZE)
"""Where the two kinds of length begin in the table."""
_STATES, _ONE = np.uint64(2**TABLE_LOG), np.uint64(1)


@njit(cache=True, nogil=True)
def _write_runs(runs: Array, n_runs: int, out: Array, position: int, limit: int, table: Array) -> int:
    """The runs from last to first as one bit stream, which a decoder reads backwards.

    Everything is unsigned: an index that may be negative would cost a comparison each time. And everything lies in one
    table: with an array for each, the states would not stay in registers.
    """
    stream, n_bits = np.uint64(0), np.uint64(0)
    run = np.uint64(n_runs - 1)
    literal_state = _first_state(table, _LITERAL, _entry(table, _LITERAL, np.uint64(runs[run, 0])))
    match_state = _first_state(table, _MATCH, _entry(table, _MATCH, np.uint64(runs[run, 1])))
    for at in range(n_runs):
        run = np.uint64(n_runs - 1 - at)
        n_literals, n_zeros = np.uint64(runs[run, 0]), np.uint64(runs[run, 1])
        literal, match = _entry(table, _LITERAL, n_literals), _entry(table, _MATCH, n_zeros)
        if at > 0:
            used = (_bits_key(match) + match_state) >> np.uint64(16)
            stream |= (match_state & ((_ONE << used) - _ONE)) << n_bits
            n_bits += used
            match_state = table[_MATCH + (match_state >> used) + _jump(match) - _STATES]
            used = (_bits_key(literal) + literal_state) >> np.uint64(16)
            stream |= (literal_state & ((_ONE << used) - _ONE)) << n_bits
            n_bits += used
            literal_state = table[_LITERAL + (literal_state >> used) + _jump(literal) - _STATES]
        stream |= (n_literals - _smallest(literal)) << n_bits
        n_bits += _extra_bits(literal)
        stream |= (n_zeros - _smallest(match)) << n_bits
        n_bits += _extra_bits(match)
        store_word(out, position, stream)  # more than is full: the rest is written again
        position += int(np.int64(n_bits >> np.uint64(3)))
        stream >>= n_bits & ~np.uint64(7)
        n_bits &= np.uint64(7)
        if position >= limit:
            return position
    for state in (match_state, literal_state):
        stream |= (state & (_STATES - _ONE)) << n_bits
        n_bits += np.uint64(TABLE_LOG)
    store_word(out, position, stream | _ONE << n_bits)
    return position + int(np.int64(n_bits >> np.uint64(3))) + 1


@njit(cache=True, nogil=True)
def _entry(table: Array, kind: np.uint64, length: np.uint64) -> np.uint64:
    """Entry of the code that a length has."""
    if length < np.uint64(SHORT):
        return table[kind + _STATES + length]
    code = np.uint64(FAR + N_CODES - 1)
    while table[kind + code] > length:
        code -= _ONE
    return table[kind + code + np.uint64(N_CODES)]


@njit(cache=True, nogil=True)
def _first_state(table: Array, kind: np.uint64, entry: np.uint64) -> np.uint64:
    half, key = np.uint64(16), _bits_key(entry)
    used = (key + (_ONE << np.uint64(15))) >> half
    return table[kind + (((used << half) - key) >> used) + _jump(entry) - _STATES]


@njit(cache=True, nogil=True, inline="always")
def _bits_key(entry: np.uint64) -> np.uint64:
    return entry & np.uint64(0xFFFFF)


@njit(cache=True, nogil=True, inline="always")
def _jump(entry: np.uint64) -> np.uint64:
    return (entry >> np.uint64(20)) & np.uint64(0xFFF)


@njit(cache=True, nogil=True, inline="always")
def _extra_bits(entry: np.uint64) -> np.uint64:
    return (entry >> np.uint64(32)) & np.uint64(0xFF)


@njit(cache=True, nogil=True, inline="always")
def _smallest(entry: np.uint64) -> np.uint64:
    return entry >> np.uint64(40)
