import numpy as np
import pytest
import torch

from modularity.capture.storage_dtype import (
    STORAGE_LIMIT,
    TORCH_DTYPE,
    bfloat16_from_bits,
    bfloat16_to_bits,
    numpy_dtype,
    tensor_view,
)
from modularity.errors import DataError


def test_bits_of_hand_made_values():
    values = np.array([0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    assert bfloat16_to_bits(values).tolist() == [0, 0x8000, 0x3F80, 0xC000, 0x7F80, 0xFF80, 0x7FC0]


def test_ties_go_to_the_even_neighbour():
    # 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], dtype=np.float32)
    assert bfloat16_from_bits(bfloat16_to_bits(values)).tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]


def test_equal_to_torch_on_random_bit_patterns():
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


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_limit_is_where_rounding_reaches_infinity(dtype):
    limit = torch.tensor(STORAGE_LIMIT[dtype], dtype=torch.float64)
    assert limit.to(TORCH_DTYPE[dtype]).isinf()
    below = torch.nextafter(limit, torch.zeros((), dtype=torch.float64))
    # From float64 torch rounds to bfloat16 through float32, so the value below is taken there.
    below = torch.nextafter(limit.float(), torch.zeros(())) if dtype != "float32" else below
    assert below.to(TORCH_DTYPE[dtype]).isfinite()


def test_view_shares_memory_and_checks_the_dtype():
    stored = np.zeros((2, 3), dtype=numpy_dtype("bfloat16"))
    tensor_view(stored, "bfloat16").fill_(1.5)
    assert bfloat16_from_bits(stored).tolist() == [[1.5] * 3] * 2
    with pytest.raises(DataError, match="dtype uint16, but storage as float16 needs float16"):
        tensor_view(stored, "float16")
    stored.flags.writeable = False
    with pytest.raises(DataError, match=r"shape \(2, 3\), is read-only"):
        tensor_view(stored, "bfloat16")
