"""zstd frames of the inner chunks of a shard, written by one compiled loop that holds no lock of Python.

Neurons after a ReLU are mostly zero, and the zeros lie in runs: a chunk becomes the bytes of its other values, and a
sequence (bytes to copy, zeros to repeat) for each run. This is what zstd's format calls raw literals and sequences that
repeat the last byte; the sequences are entropy-coded with tables made for the share of zeros, so nothing is searched.
Chunks that do not shrink become raw blocks. Every frame carries the checksum, and any zstd decoder reads it.

Format: RFC 8878 (frames, blocks, literals and sequences sections, finite state entropy); the checksum is XXH64.
Why our own: a library call for each chunk takes and releases the interpreter's lock, which kept a second thread from
helping, and it looks for repetitions that activations do not have; `benchmarks/store_reads.py` has the figures.
"""

import math
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numba import njit

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Codes: TypeAlias = tuple[Array, Array, Array]
"""Code of each short length; smallest length and number of extra bits of each code."""
Coding: TypeAlias = tuple[Array, Array, Array, Array, Array]
"""States and symbols of the entropy coder, and the codes, of one kind of length."""
Coders: TypeAlias = tuple[Array, Coding, Coding]
"""Modes and probabilities as a block holds them; literal lengths; match lengths."""

_TABLE_LOG = 8
_MAX_BLOCK = 2**17
_FRAME_BYTES = 9
"""Magic number, descriptor and content size before the first block."""
_DENSITIES = (0.4, 0.25, 0.15, 0.08, 0.04, 0.02, 0.01)
"""Shares of non-zero values for which there are tables; a shard takes the nearest."""


def _code_table(direct: int, first: int, extra_bits: tuple[int, ...]) -> Codes:
    """Code of each length up to 2,047; smallest length and number of extra bits of each code, int64.

    The first `direct` codes, from length `first` on, stand for one length each.
    """
    bits = np.array([0] * direct + list(extra_bits), dtype=np.int64)
    lengths = first + np.concatenate([[0], np.cumsum(2 ** bits[:-1])])
    return np.maximum(np.searchsorted(lengths, np.arange(2048), side="right") - 1, 0), lengths, bits


_LITERAL_CODES = _code_table(16, 0, (1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16))
_MATCH_CODES = _code_table(32, 3, (1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16))


def _nearest(density: float) -> float:
    return min(_DENSITIES, key=lambda known: abs(math.log(max(density, 1e-9) / known)))


@lru_cache
def _coders(density: float, word_bytes: int) -> Coders:
    """Coders of the runs of chunks in which a share `density` of the words is not zero."""
    runs = np.arange(1, 4000)
    # As if values were zero independently: run lengths are geometric. A zero byte of each run is a literal.
    literal = _distribution(runs * word_bytes + 1, density ** (runs - 1) * (1 - density), _LITERAL_CODES[1])
    match = _distribution(runs * word_bytes - 1, (1 - density) ** (runs - 1) * density, _MATCH_CODES[1])
    # Modes: tables for both lengths; every offset is the same code (0: the last offset again, which starts as 1).
    modes = 2 << 6 | 1 << 4 | 2 << 2
    header = bytes([modes]) + _described(literal) + bytes([0]) + _described(match)
    return (
        np.frombuffer(header, np.uint8),
        (*_transitions(literal), *_LITERAL_CODES),
        (*_transitions(match), *_MATCH_CODES),
    )


def _distribution(lengths: Array, weights: Array, baselines: Array) -> Array:
    """Counts of every code that sum to the table size; each is at least one, so any length can be coded."""
    codes = np.searchsorted(baselines, lengths, side="right") - 1
    possible = (lengths >= baselines[0]) & (codes >= 0)
    mass = np.bincount(codes[possible], weights[possible], minlength=len(baselines))
    counts = 1 + np.floor(mass / mass.sum() * (2**_TABLE_LOG - len(baselines))).astype(np.int64)
    counts[np.argmax(counts)] += 2**_TABLE_LOG - counts.sum()
    return counts


def _transitions(counts: Array) -> tuple[Array, Array]:
    """Next states, and of each symbol `deltaNbBits` and `deltaFindState` of the reference implementation."""
    size = 2**_TABLE_LOG
    spread = np.empty(size, dtype=np.int64)
    position = 0
    for symbol, count in enumerate(counts):
        for _ in range(count):
            spread[position] = symbol
            position = (position + (size >> 1) + (size >> 3) + 3) & (size - 1)
    states = size + np.argsort(spread, kind="stable")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    symbols = np.empty((len(counts), 2), dtype=np.int64)
    for symbol, count in enumerate(map(int, counts)):
        most_bits = _TABLE_LOG - ((count - 1).bit_length() - 1 if count > 1 else 0)
        symbols[symbol] = (most_bits << 16) - (count << most_bits), first[symbol] - count
    return states.astype(np.int64), symbols


def _described(counts: Array) -> bytes:
    """Counts, all positive, as a frame holds them (RFC 8878, 4.1.1)."""
    stream, n_bits = _TABLE_LOG - 5, 4
    remaining, threshold, width = 2**_TABLE_LOG + 1, 2**_TABLE_LOG, _TABLE_LOG + 1
    for count in map(int, counts):
        spare = 2 * threshold - 1 - remaining
        remaining -= count
        value = count + 1
        if value >= threshold:
            value += spare
        stream |= value << n_bits
        n_bits += width - (value < spare)
        while remaining < threshold:
            width, threshold = width - 1, threshold >> 1
    return stream.to_bytes(-(-n_bits // 8), "little")


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
    scratch = np.zeros(-(-n_bytes // 8), dtype=np.uint64)
    words = scratch.view(word)[: chunk[0] * chunk[1]]
    if block.strides[1] != word.itemsize or block.strides[0] < 0:
        block = np.ascontiguousarray(block)
    stride = block.strides[0] // word.itemsize
    span = (len(block) - 1) * stride + block.shape[1]
    flat = np.lib.stride_tricks.as_strided(block.view(word), (span,), (word.itemsize,), writeable=False)
    padding = np.asarray(fill, dtype=block.dtype).view(word)[()]
    coders = _coders(_nearest(density or 1.0), word.itemsize)
    places = np.empty(len(words) + len(scratch) + 2, dtype=np.int64)
    runs = np.empty((len(words) // 2 + 1, 2), dtype=np.int64)
    return _encode(
        flat, block.shape, stride, chunk, padding, scratch, words, n_bytes,
        out, spans, start, density is not None, coders, places, runs,
    )  # fmt: skip


def frames_bound(n_chunks: int, chunk_bytes: int) -> int:
    """Bytes that the frames of some chunks need at most, with what is tried before a chunk is left as it is."""
    raw = chunk_bytes + _FRAME_BYTES + 4 + 3 * -(-chunk_bytes // _MAX_BLOCK)
    return n_chunks * raw + 2 * chunk_bytes + 256


@njit(cache=True, nogil=True)
def _encode(
    flat: Array, shape: tuple[int, int], stride: int, chunk: tuple[int, int], fill: Any, scratch: Array, words: Array,
    n_bytes: int, out: Array, spans: Array, start: int, sparse: bool, coders: Coders, places: Array, runs: Array,
) -> int:  # fmt: skip
    position = start
    for unit_chunk in range(spans.shape[1]):
        for row_chunk in range(spans.shape[0]):
            _gather(flat, shape, stride, row_chunk * chunk[0], unit_chunk * chunk[1], chunk[0], chunk[1], fill, words)
            begin = position
            position = _frame_header(out, position, n_bytes)
            end = -1
            if sparse and n_bytes <= _MAX_BLOCK:
                end = _compressed_block(scratch, words, n_bytes, out, position, coders, places, runs)
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
        words[:] = fill
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
def _compressed_block(
    lanes: Array, words: Array, n_bytes: int, out: Array, position: int, coders: Coders, places: Array, runs: Array
) -> int:
    """Position after the block, or -1 when it would not be smaller than the content."""
    header, literal, match = coders
    begin = position
    literals = begin + 6
    end, n_runs = _split_runs(lanes, words, out, literals, places, runs)
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
def _split_runs(lanes: Array, words: Array, out: Array, begin: int, places: Array, runs: Array) -> tuple[int, int]:
    """Copy what is not a run of zeros to `out`; runs hold (literal bytes, repeated zero bytes)."""
    word_bytes, n_words = words.itemsize, len(words)
    n_places = _nonzero_places(lanes, words, places)
    places[n_places] = n_words
    position, n_runs, expected = begin, 0, 0
    for index in range(n_places + 1):
        place = places[index]
        n_zeros = (place - expected) * word_bytes
        if n_zeros > 0:
            # The first byte of a run is a literal, the others repeat it; shorter than four bytes, all are literals.
            out[position] = 0
            position += 1
            if n_zeros >= 4:
                runs[n_runs, 0], runs[n_runs, 1] = position - begin, n_zeros - 1
                n_runs += 1
                begin = position
            else:
                for _ in range(n_zeros - 1):
                    out[position] = 0
                    position += 1
        if place == n_words:
            break
        expected = place + 1
        bits = np.uint64(words[place])
        for _ in range(word_bytes):
            out[position] = np.uint8(bits & np.uint64(255))
            bits >>= np.uint64(8)
            position += 1
    return position, n_runs


@njit(cache=True, nogil=True)
def _nonzero_places(lanes: Array, words: Array, places: Array) -> int:
    """Ascending indices of the words that are not zero; first those lanes of eight bytes that are not.

    Without branches on the values, which could not be predicted. `places` has room for both lists.
    """
    per_lane = 8 // words.itemsize
    found = places[len(words) + 1 :]
    n_found = 0
    for at in range(len(lanes)):
        found[n_found] = at * per_lane
        n_found += int(lanes[at] != 0)
    n_places = 0
    for index in range(n_found):
        for at in range(found[index], found[index] + per_lane):
            if at < len(words):
                places[n_places] = at
                n_places += int(words[at] != 0)
    return n_places


@njit(cache=True, nogil=True)
def _code_of(length: int, codes: Array, baselines: Array) -> int:
    if length < len(codes):
        return int(codes[length])
    code = len(baselines) - 1
    while baselines[code] > length:
        code -= 1
    return code


@njit(cache=True, nogil=True)
def _write_runs(runs: Array, n_runs: int, out: Array, position: int, limit: int, literal: Coding, match: Coding) -> int:
    """The runs from last to first as one bit stream, which a decoder reads backwards."""
    literal_states, literal_symbols, literal_codes, literal_base, literal_bits = literal
    match_states, match_symbols, match_codes, match_base, match_bits = match
    stream, n_bits = np.uint64(0), 0
    literal_state = match_state = 0
    for run in range(n_runs - 1, -1, -1):
        n_literals, n_zeros = runs[run, 0], runs[run, 1]
        literal_code = _code_of(n_literals, literal_codes, literal_base)
        match_code = _code_of(n_zeros, match_codes, match_base)
        if run == n_runs - 1:
            match_state = _first_state(match_states, match_symbols, match_code)
            literal_state = _first_state(literal_states, literal_symbols, literal_code)
        else:
            used = (match_state + match_symbols[match_code, 0]) >> 16
            stream |= np.uint64(match_state & ((1 << used) - 1)) << np.uint64(n_bits)
            n_bits += used
            match_state = match_states[(match_state >> used) + match_symbols[match_code, 1]]
            used = (literal_state + literal_symbols[literal_code, 0]) >> 16
            stream |= np.uint64(literal_state & ((1 << used) - 1)) << np.uint64(n_bits)
            n_bits += used
            literal_state = literal_states[(literal_state >> used) + literal_symbols[literal_code, 1]]
        stream |= np.uint64(n_literals - literal_base[literal_code]) << np.uint64(n_bits)
        n_bits += literal_bits[literal_code]
        stream |= np.uint64(n_zeros - match_base[match_code]) << np.uint64(n_bits)
        n_bits += match_bits[match_code]
        for byte in range(3 if n_bits < 32 else 8):  # more than is full: the rest is written again
            out[position + byte] = np.uint8((stream >> np.uint64(8 * byte)) & np.uint64(255))
        position += n_bits >> 3
        stream >>= np.uint64(n_bits & ~7)
        n_bits &= 7
        if position >= limit:
            return position
    for state in (match_state, literal_state):
        stream |= np.uint64(state & ((1 << _TABLE_LOG) - 1)) << np.uint64(n_bits)
        n_bits += _TABLE_LOG
    stream |= np.uint64(1) << np.uint64(n_bits)
    n_bits += 1
    while n_bits > 0:
        out[position] = np.uint8(stream & np.uint64(255))
        stream >>= np.uint64(8)
        n_bits -= 8
        position += 1
    return position


@njit(cache=True, nogil=True)
def _first_state(states: Array, symbols: Array, code: int) -> int:
    used = (symbols[code, 0] + (1 << 15)) >> 16
    return states[(((used << 16) - symbols[code, 0]) >> used) + symbols[code, 1]]


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
