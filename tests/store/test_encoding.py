import numpy as np
import pytest

from modularity.errors import DataError, NumericError
from modularity.store.encoding import decode_values, encode_values, stored_dtype


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


def test_bfloat16_equals_torch():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) * 1e3
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(decode_values(encode_values(values, "bfloat16"), "bfloat16"), expected)


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
