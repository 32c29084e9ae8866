"""Storage dtypes of activations: float32, float16, and bfloat16 kept as its 16 bits in a uint16 array.

Zarr has no bfloat16 data type that every reader knows, so the bits are stored as uint16 with the attribute
`modularity:dtype: bfloat16`. A bfloat16 is the upper half of a float32; rounding is to nearest, ties to even.
"""

import numpy as np

from modularity.errors import DataError, NumericError
from modularity.types import StorageDtype

NAN_BITS = 0x7FC0
"""The quiet NaN of bfloat16, fill value of arrays that hold its bits."""

_NUMPY: dict[str, np.dtype] = {
    "float32": np.dtype("float32"),
    "float16": np.dtype("float16"),
    "bfloat16": np.dtype("uint16"),
}


def stored_dtype(storage_dtype: StorageDtype) -> np.dtype:
    """NumPy dtype that holds values stored as `storage_dtype`: bfloat16 is held as uint16 bits."""
    return _NUMPY[storage_dtype]


def encode_values(values: np.ndarray, storage_dtype: StorageDtype) -> np.ndarray:
    """Values as they are stored; a finite value that would become infinite is an error.

    Parameters
    ----------
    values : float32, float64 or float16 array, or an array that already has the stored dtype (uint16 bits of bfloat16)
    storage_dtype : what the array on disk holds

    Raises
    ------
    DataError
        The dtype of `values` is not a float and not the stored one.
    NumericError
        A finite value is too large for the storage dtype.
    """
    target = stored_dtype(storage_dtype)
    if values.dtype == target:
        return values
    if values.dtype.kind != "f":
        raise DataError(
            f"values have dtype {values.dtype}, expected a float dtype or {target} to be stored as {storage_dtype}"
        )
    if storage_dtype == "bfloat16":
        encoded = bfloat16_to_bits(values)
        overflowed = ((encoded & 0x7FFF) == 0x7F80) & np.isfinite(values)
    else:
        with np.errstate(over="ignore"):
            encoded = values.astype(target)
        overflowed = np.isinf(encoded) & np.isfinite(values)
    if overflowed.any():
        worst = float(np.abs(values[overflowed]).max())
        raise NumericError(
            f"{int(overflowed.sum())} values up to {worst:g} do not fit {storage_dtype}; store them as float32"
        )
    return encoded


def decode_values(stored: np.ndarray, storage_dtype: StorageDtype) -> np.ndarray:
    """Exact float32 values of a stored array."""
    if storage_dtype == "bfloat16":
        return bfloat16_from_bits(stored)
    return stored.astype(np.float32, copy=False)


def bfloat16_to_bits(values: np.ndarray) -> np.ndarray:
    """Round float32 values to bfloat16, nearest with ties to even, and return their bits.

    Parameters
    ----------
    values : float array of any shape; converted to float32 first

    Returns
    -------
    bits : uint16 array of the same shape; every NaN becomes the quiet NaN 0x7FC0
    """
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # Adding 0x7FFF, or 0x8000 when the last kept bit is odd, carries exactly when nearest-even rounds up.
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(NAN_BITS), rounded)


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
