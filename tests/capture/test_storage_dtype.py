import numpy as np
import pytest
import torch

from modularity.capture.storage_dtype import STORAGE_LIMIT, TORCH_DTYPE, tensor_view
from modularity.errors import DataError
from modularity.store import bfloat16_from_bits, stored_dtype


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_limit_is_where_rounding_reaches_infinity(dtype):
    limit = torch.tensor(STORAGE_LIMIT[dtype], dtype=torch.float64)
    assert limit.to(TORCH_DTYPE[dtype]).isinf()
    below = torch.nextafter(limit, torch.zeros((), dtype=torch.float64))
    # From float64 torch rounds to bfloat16 through float32, so the value below is taken there.
    below = torch.nextafter(limit.float(), torch.zeros(())) if dtype != "float32" else below
    assert below.to(TORCH_DTYPE[dtype]).isfinite()


def test_view_shares_memory_and_checks_the_dtype():
    stored = np.zeros((2, 3), dtype=stored_dtype("bfloat16"))
    tensor_view(stored, "bfloat16").fill_(1.5)
    assert bfloat16_from_bits(stored).tolist() == [[1.5] * 3] * 2
    with pytest.raises(DataError, match="dtype uint16, but storage as float16 needs float16"):
        tensor_view(stored, "float16")
    stored.flags.writeable = False
    with pytest.raises(DataError, match=r"shape \(2, 3\), is read-only"):
        tensor_view(stored, "bfloat16")
