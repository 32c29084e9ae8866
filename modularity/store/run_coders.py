"""Entropy coding of the run lengths of a zstd frame: tables made for a share of zeros, not counted from the data.

A run is a number of bytes to copy (literals) and a number of zero bytes to repeat (a match). Both are coded by finite
state entropy, whose tables every frame carries in its header; lengths that seldom occur keep a small probability, so
any chunk can be coded with any tables.

Format: RFC 8878, sections 3.1.1.3.2 (sequences) and 4.1 (finite state entropy).
"""

import math
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Codes: TypeAlias = tuple[Array, Array]
"""Smallest length and number of extra bits of each code (int64)."""
RunCoders: TypeAlias = tuple[Array, Array]
"""Modes and probabilities as a block holds them (uint8); tables of literal and of match lengths, as one (uint64)."""

TABLE_LOG = 8
"""A coder has 2 to the power of this states."""
SHORT = 2048
"""Lengths below this have an entry of their own."""
N_CODES = 53
"""Room for the codes of a kind of length."""
FAR = 2**TABLE_LOG + SHORT
"""Where the smallest length of each code begins in a table, and after it the entry of each code."""
TABLE_SIZE = FAR + 2 * N_CODES
"""Values in the table of one kind of length, the states first."""
_DENSITIES = (0.4, 0.25, 0.15, 0.08, 0.04, 0.02, 0.01)
"""Shares of non-zero values for which there are tables; a shard takes the nearest."""


def _code_table(direct: int, first: int, extra_bits: tuple[int, ...]) -> Codes:
    """Smallest length and number of extra bits of each code.

    The first `direct` codes, from length `first` on, stand for one length each.
    """
    bits = np.array([0] * direct + list(extra_bits), dtype=np.int64)
    return first + np.concatenate([[0], np.cumsum(2 ** bits[:-1])]), bits


_LITERAL_CODES = _code_table(16, 0, (1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16))
_MATCH_CODES = _code_table(32, 3, (1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16))


def run_coders(density: float, word_bytes: int) -> RunCoders:
    """Coders of the runs of chunks in which about a share `density` of the words is not zero."""
    return _coders(min(_DENSITIES, key=lambda known: abs(math.log(max(density, 1e-9) / known))), word_bytes)


@lru_cache
def _coders(density: float, word_bytes: int) -> RunCoders:
    runs = np.arange(1, 4000)
    # As if values were zero independently: run lengths are geometric. A zero byte of each run is a literal.
    literal = _distribution(runs * word_bytes + 1, density ** (runs - 1) * (1 - density), _LITERAL_CODES[0])
    match = _distribution(runs * word_bytes - 1, (1 - density) ** (runs - 1) * density, _MATCH_CODES[0])
    # Modes: tables for both lengths; every offset is the same code (0: the last offset again, which starts as 1).
    modes = 2 << 6 | 1 << 4 | 2 << 2
    header = bytes([modes]) + _described(literal) + bytes([0]) + _described(match)
    table = np.concatenate([_table(literal, _LITERAL_CODES), _table(match, _MATCH_CODES)])
    return np.frombuffer(header, np.uint8), table


def _table(counts: Array, codes: Codes) -> Array:
    """One kind of length: states, entries of short lengths, then smallest length and entry of each code.

    An entry holds what the coder needs of a code, from the lowest bit on: `deltaNbBits` of the reference implementation
    (20 bits), its `deltaFindState` plus the number of states (12), the number of extra bits (8), the smallest length.
    """
    states, symbols = _transitions(counts)
    lengths, extra_bits = codes
    entries = symbols[:, 0] | (symbols[:, 1] + 2**TABLE_LOG) << 20 | extra_bits << 32 | lengths << 40
    code = np.maximum(np.searchsorted(lengths, np.arange(SHORT), side="right") - 1, 0)
    unused = np.zeros(N_CODES - len(lengths), dtype=np.int64)
    parts = states, entries[code], lengths, unused + 2**62, entries, unused
    return np.concatenate(parts).astype(np.uint64)


def _distribution(lengths: Array, weights: Array, baselines: Array) -> Array:
    """Counts of every code that sum to the table size; each is at least one, so any length can be coded."""
    codes = np.searchsorted(baselines, lengths, side="right") - 1
    possible = codes >= 0
    mass = np.bincount(codes[possible], weights[possible], minlength=len(baselines))
    counts = 1 + np.floor(mass / mass.sum() * (2**TABLE_LOG - len(baselines))).astype(np.int64)
    counts[np.argmax(counts)] += 2**TABLE_LOG - counts.sum()
    return counts


def _transitions(counts: Array) -> tuple[Array, Array]:
    """Next states, and of each symbol `deltaNbBits` and `deltaFindState` of the reference implementation.

    Both arrays are int64.
    """
    size = 2**TABLE_LOG
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
        most_bits = TABLE_LOG - ((count - 1).bit_length() - 1 if count > 1 else 0)
        symbols[symbol] = (most_bits << 16) - (count << most_bits), first[symbol] - count
    return states, symbols


def _described(counts: Array) -> bytes:
    """Counts, all positive, as a frame holds them (RFC 8878, 4.1.1)."""
    stream, n_bits = TABLE_LOG - 5, 4
    remaining, threshold, width = 2**TABLE_LOG + 1, 2**TABLE_LOG, TABLE_LOG + 1
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
