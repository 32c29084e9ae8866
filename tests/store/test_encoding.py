import numpy as np
import pytest

from modularity.errors import DataError, NumericError
from modularity.store.encoding import bfloat16_from_bits, bfloat16_to_bits, decode_values, encode_values, stored_dtype


def test_float32_is_kept_as_it_is():
    values = np.array([1.5, -np.inf, np.nan], np.float32)
    assert encode_values(values, "float32") is values
    assert decode_values(values, "float32") is values


def test_bfloat16_rounds_to_nearest_even():
    # 1 + 2^-8 lies half way between 1 and 1 + 2^-7: even is 1. 1 + 3 * 2^-8 lies half way too: even is 1 + 2^-6.
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -2.0, np.nan], np.float32)
    bits = encode_values(values, "bfloat16")
    assert bits.tolist() == [0x3F80, 0x3F80, 0x3F82, 0xC000, 0x7FC0]
    np.testing.assert_array_equal(decode_values(bits, "bfloat16"), np.array([1, 1, 1 + 2**-6, -2, np.nan], np.float32))


def test_bits_are_passed_through():
    bits = np.array([0x3F80], np.uint16)
    assert encode_values(bits, "bfloat16") is bits


@pytest.mark.parametrize(("dtype", "value"), [("float16", 70000.0), ("bfloat16", 3.4e38)])
def test_overflow_is_an_error(dtype, value):
    with pytest.raises(NumericError, match=rf"1 values up to .* do not fit {dtype}; store them as float32"):
        encode_values(np.array([value, 1], np.float32), dtype)


def test_integers_are_no_activations():
    with pytest.raises(DataError, match="values have dtype int64, expected a float dtype or float16"):
        encode_values(np.array([1]), "float16")


def test_stored_dtypes():
    assert [stored_dtype(name).name for name in ("float32", "float16", "bfloat16")] == ["float32", "float16", "uint16"]


def test_bits_of_hand_made_values():
    values = np.array([0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    assert bfloat16_to_bits(values).tolist() == [0, 0x8000, 0x3F80, 0xC000, 0x7F80, 0xFF80, 0x7FC0]


def test_ties_go_to_the_even_neighbour():
    # 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], dtype=np.float32)
    assert bfloat16_from_bits(bfloat16_to_bits(values)).tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]


def test_equal_to_torch_on_random_bit_patterns():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).bfloat16()
    np.testing.assert_array_equal(bfloat16_to_bits(values), expected.view(torch.uint16).numpy())
    np.testing.assert_array_equal(bfloat16_from_bits(bfloat16_to_bits(values)), expected.float().numpy())


def test_all_bfloat16_values_come_back_exactly():
    bits = np.arange(2**16, dtype=np.uint16)
    values = bfloat16_from_bits(bits)
    number = ~np.isnan(values)
    np.testing.assert_array_equal(bfloat16_to_bits(values[number]), bits[number])
    assert np.isnan(bfloat16_from_bits(bfloat16_to_bits(values[~number]))).all()


def test_bits_of_another_dtype_are_refused():
    with pytest.raises(DataError, match="dtype int32, expected uint16"):
        bfloat16_from_bits(np.zeros(3, dtype=np.int32))
