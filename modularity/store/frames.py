"""zstd frames of the inner chunks of a shard, written by one compiled loop that holds no lock of Python.

Neurons after a ReLU are mostly zero, and the zeros lie in runs: a chunk becomes the bytes of its other values, and a
sequence (bytes to copy, zeros to repeat) for each run. This is what zstd's format calls raw literals and sequences that
repeat the last byte; the sequences are entropy-coded with tables made for the share of zeros, so nothing is searched.
Chunks that do not shrink become raw blocks. Every frame carries the checksum, and any zstd decoder reads it.

Format: RFC 8878 (frames, blocks, literals and sequences sections, finite state entropy); the checksum is XXH64.
Why our own: a library call for each chunk takes and releases the interpreter's lock, which kept a second thread from
helping, and it looks for repetitions that activations do not have; `benchmarks/store_reads.py` has the figures.
"""

from typing import Any, TypeAlias

import numpy as np
from numba import njit

from modularity.store.machine_words import BITS, nonzero_bits, store_word, trailing_zeros
from modularity.store.run_coders import TABLE_LOG, Coding, RunCoders, run_coders

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_MAX_BLOCK = 2**17
_FRAME_BYTES = 9
"""Magic number, descriptor and content size before the first block."""


def encode_frames(
    block: Array, chunk: tuple[int, int], fill: object, out: Array, spans: Array, start: int, *, density: float | None
) -> int:
    """Write the frames of all chunks of a block, row chunks of one block of units after each other.

    Parameters
    ----------
    block : array of shape (rows, units), any strides, little-endian, items of 1, 2, 4 or 8 bytes
    chunk : rows and units of a chunk; chunks at the edge are padded with `fill`
    out : uint8, with room for `frames_bound` bytes from `start` on
    spans : uint64 of shape (row chunks, unit chunks, 2), receives offset and length of each frame
    start : offset in `out` of the first frame
    density : share of words that are not zero, to choose the tables by; None leaves the bytes as they are

    Returns
    -------
    end : offset after the last frame
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
    raw = chunk_bytes + _FRAME_BYTES + 4 + 3 * -(-chunk_bytes // _MAX_BLOCK)
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
            checksum = _xxh64(scratch, n_bytes)
            for shift in range(0, 32, 8):
                out[position] = np.uint8((checksum >> np.uint64(shift)) & np.uint64(255))
                position += 1
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
    for r in range(rows):
        source = (row + r) * stride + unit
        _copy(flat[source : source + units], words[r * n_units : r * n_units + units])


@njit(cache=True, nogil=True)
def _copy(source: Array, target: Array) -> None:
    # Counted from 0 over equal slices, so that it becomes vector instructions.
    for at in range(len(source)):
        target[at] = source[at]


@njit(cache=True, nogil=True)
def _frame_header(out: Array, position: int, n_bytes: int) -> int:
    # Content size in four bytes, one segment, checksum at the end.
    for byte in (0x28, 0xB5, 0x2F, 0xFD, 0xA4):
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
    header, literal, match = coders
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
    position = _write_runs(runs, n_runs, out, position, begin + 2 * n_bytes, literal, match)
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


@njit(cache=True, nogil=True)
def _code_of(length: np.uint64, codes: Array, baselines: Array) -> np.uint64:
    if length < np.uint64(len(codes)):
        return np.uint64(codes[length])
    code = len(baselines) - 1
    while baselines[code] > length:
        code -= 1
    return np.uint64(code)


@njit(cache=True, nogil=True)
def _write_runs(runs: Array, n_runs: int, out: Array, position: int, limit: int, literal: Coding, match: Coding) -> int:
    """The runs from last to first as one bit stream, which a decoder reads backwards.

    Everything is unsigned: an index that may be negative would cost a comparison each time.
    """
    literal_states, literal_symbols, literal_codes, literal_base, literal_bits = literal
    match_states, match_symbols, match_codes, match_base, match_bits = match
    one, half = np.uint64(1), np.uint64(16)
    stream, n_bits, literal_state, match_state = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    for run in range(n_runs - 1, -1, -1):
        n_literals, n_zeros = np.uint64(runs[run, 0]), np.uint64(runs[run, 1])
        literal_code = _code_of(n_literals, literal_codes, literal_base)
        match_code = _code_of(n_zeros, match_codes, match_base)
        if run == n_runs - 1:
            match_state = _first_state(match_states, match_symbols, match_code)
            literal_state = _first_state(literal_states, literal_symbols, literal_code)
        else:
            used = (match_state + match_symbols[match_code, 0]) >> half
            stream |= (match_state & ((one << used) - one)) << n_bits
            n_bits += used
            match_state = match_states[(match_state >> used) + match_symbols[match_code, 1]]
            used = (literal_state + literal_symbols[literal_code, 0]) >> half
            stream |= (literal_state & ((one << used) - one)) << n_bits
            n_bits += used
            literal_state = literal_states[(literal_state >> used) + literal_symbols[literal_code, 1]]
        stream |= (n_literals - literal_base[literal_code]) << n_bits
        n_bits += literal_bits[literal_code]
        stream |= (n_zeros - match_base[match_code]) << n_bits
        n_bits += match_bits[match_code]
        store_word(out, position, stream)  # more than is full: the rest is written again
        position += int(np.int64(n_bits >> np.uint64(3)))
        stream >>= n_bits & ~np.uint64(7)
        n_bits &= np.uint64(7)
        if position >= limit:
            return position
    for state in (match_state, literal_state):
        stream |= (state & ((one << np.uint64(TABLE_LOG)) - one)) << n_bits
        n_bits += np.uint64(TABLE_LOG)
    store_word(out, position, stream | one << n_bits)
    return position + int(np.int64(n_bits >> np.uint64(3))) + 1


@njit(cache=True, nogil=True)
def _first_state(states: Array, symbols: Array, code: np.uint64) -> np.uint64:
    half = np.uint64(16)
    used = (symbols[code, 0] + (np.uint64(1) << np.uint64(15))) >> half
    return states[(((used << half) - symbols[code, 0]) >> used) + symbols[code, 1]]


_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)


@njit(cache=True, nogil=True, inline="always")
def _rotated(value: np.uint64, n: int) -> np.uint64:
    return (value << np.uint64(n)) | (value >> np.uint64(64 - n))


@njit(cache=True, nogil=True)
def _xxh64(lanes: Array, n_bytes: int) -> np.uint64:
    """XXH64 with seed 0 of the first `n_bytes` of an array of uint64."""
    n_lanes, at = n_bytes // 8, 0
    if n_bytes >= 32:
        a, b, c, d = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
        while at + 4 <= n_lanes:
            a = _rotated(a + lanes[at] * _P2, 31) * _P1
            b = _rotated(b + lanes[at + 1] * _P2, 31) * _P1
            c = _rotated(c + lanes[at + 2] * _P2, 31) * _P1
            d = _rotated(d + lanes[at + 3] * _P2, 31) * _P1
            at += 4
        total = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        for part in (a, b, c, d):
            total = (total ^ (_rotated(part * _P2, 31) * _P1)) * _P1 + _P4
    else:
        total = _P5
    total += np.uint64(n_bytes)
    while at < n_lanes:
        total = _rotated(total ^ (_rotated(lanes[at] * _P2, 31) * _P1), 27) * _P1 + _P4
        at += 1
    rest = n_bytes - 8 * n_lanes
    tail = lanes[n_lanes] if rest else np.uint64(0)
    if rest >= 4:
        total = _rotated(total ^ ((tail & np.uint64(0xFFFFFFFF)) * _P1), 23) * _P2 + _P3
        tail >>= np.uint64(32)
        rest -= 4
    for _ in range(rest):
        total = _rotated(total ^ ((tail & np.uint64(255)) * _P5), 11) * _P1
        tail >>= np.uint64(8)
    total = (total ^ (total >> np.uint64(33))) * _P2
    total = (total ^ (total >> np.uint64(29))) * _P3
    return total ^ (total >> np.uint64(32))
