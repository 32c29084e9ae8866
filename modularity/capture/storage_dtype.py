"""The torch side of the storage dtypes: tensors on the memory of the arrays that are stored.

NumPy has no bfloat16; how its 16 bits stand in a uint16 array is the store's (`modularity/store/encoding.py`).
"""

import numpy as np
import torch

from modularity.errors import DataError
from modularity.store import stored_dtype
from modularity.types import StorageDtype

TORCH_DTYPE: dict[StorageDtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""The torch dtype with the same bits."""

STORAGE_LIMIT: dict[StorageDtype, float] = {
    "float32": float(2**128 - 2**103),
    "float16": 65520.0,
    "bfloat16": float(2**128 - 2**119),
}
"""Magnitude from which a value rounds to infinity: half a unit in the last place above the largest finite one."""


def tensor_view(stored: np.ndarray, storage_dtype: StorageDtype) -> torch.Tensor:
    """Torch tensor on the memory of a stored array, with the float dtype that its bits mean.

    Raises
    ------
    DataError
        The array's dtype is not the one of `storage_dtype`, or it cannot be written to.
    """
    expected = stored_dtype(storage_dtype)
    if stored.dtype != expected:
        raise DataError(f"array to fill has dtype {stored.dtype}, but storage as {storage_dtype} needs {expected}")
    if not stored.flags.writeable:
        raise DataError(f"array to fill, of shape {stored.shape}, is read-only; pass an array that owns its memory")
    return torch.from_numpy(stored).view(TORCH_DTYPE[storage_dtype])
