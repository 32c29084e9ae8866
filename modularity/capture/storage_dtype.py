"""How captured values are stored: float32, float16, or bfloat16 as its 16 bits in uint16 (NumPy has no bfloat16).

A bfloat16 is the upper half of a float32. Rounding is to nearest, ties to even, as in IEEE 754; NaN stays NaN.
"""

import numpy as np
import torch

from modularity.errors import DataError
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

_NUMPY: dict[StorageDtype, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
}
_NAN_BITS = np.uint16(0x7FC0)


def numpy_dtype(storage_dtype: StorageDtype) -> np.dtype:
    """The NumPy dtype that holds values stored as `storage_dtype`: bfloat16 is held as uint16 bits."""
    return _NUMPY[storage_dtype]


def bfloat16_to_bits(values: np.ndarray) -> np.ndarray:
    """Round float32 values to bfloat16, nearest with ties to even, and return their bits.

    Parameters
    ----------
    values : float array of any shape; converted to float32 first

    Returns
    -------
    bits : uint16 array of the same shape; every NaN becomes the quiet NaN 0x7FC0
    """
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    # Adding 0x7FFF, or 0x8000 when the last kept bit is odd, carries exactly when nearest-even rounds up.
    rounded = ((bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(
        np.uint16
    )
    return np.where(np.isnan(values), _NAN_BITS, rounded)


def bfloat16_from_bits(bits: np.ndarray) -> np.ndarray:
    """Exact float32 values of bfloat16 bits.

    Parameters
    ----------
    bits : uint16 array of any shape

    Returns
    -------
    values : float32 array of the same shape

    Raises
    ------
    DataError
        `bits` is not uint16.
    """
    if bits.dtype != np.uint16:
        raise DataError(f"bfloat16 bits have dtype {bits.dtype}, expected uint16; pass the stored array unchanged")
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def tensor_view(stored: np.ndarray, storage_dtype: StorageDtype) -> torch.Tensor:
    """Torch tensor on the memory of a stored array, with the float dtype that its bits mean.

    Raises
    ------
    DataError
        The array's dtype is not the one of `storage_dtype`, or it cannot be written to.
    """
    expected = numpy_dtype(storage_dtype)
    if stored.dtype != expected:
        raise DataError(f"array to fill has dtype {stored.dtype}, but storage as {storage_dtype} needs {expected}")
    if not stored.flags.writeable:
        raise DataError(f"array to fill, of shape {stored.shape}, is read-only; pass an array that owns its memory")
    return torch.from_numpy(stored).view(TORCH_DTYPE[storage_dtype])
