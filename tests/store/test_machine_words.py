import numpy as np
import pytest
from numba import njit

from modularity.store.machine_words import BITS, nonzero_bits, store_word, trailing_zeros


@njit
def bits_of(words, start):
    return nonzero_bits(words, start)


@njit
def lowest(bits):
    return trailing_zeros(bits)


@njit
def stored(out, position, value):
    store_word(out, position, value)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_bit_is_set_for_each_word_that_is_not_zero(dtype, start):
    rng = np.random.default_rng(start)
    words = (rng.integers(1, 200, 80) * (rng.random(80) < 0.3)).astype(dtype)
    expected = sum(1 << k for k in range(BITS) if words[start + k])
    assert int(bits_of(words, start)) == expected


@pytest.mark.parametrize("place", [0, 1, 31, 32, 62, 63])
def test_the_lowest_set_bit_is_found(place):
    assert lowest(np.uint64(1 << place | 1 << 63)) == place


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("position", [0, 1, 3, 8])
def test_a_word_is_stored_lowest_byte_first_and_nothing_beside_it(dtype, position):
    value = np.dtype(dtype).type(0x0123456789ABCDEF & (256 ** np.dtype(dtype).itemsize - 1))
    out = np.full(20, 7, np.uint8)
    stored(out, position, value)
    expected = np.full(20, 7, np.uint8)
    expected[position : position + value.itemsize] = np.frombuffer(value.tobytes(), np.uint8)
    assert out.tolist() == expected.tolist()
