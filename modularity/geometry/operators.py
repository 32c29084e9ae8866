"""Linear maps that are known only by what they do to vectors: a matrix, or the Jacobian of a function at a point.

Vectors come in blocks, one in each row, so that one pass serves many. Jacobian times vector is forward-mode automatic
differentiation, transposed Jacobian times vector reverse-mode; both are mapped over the block by `torch.func`, which
shares everything that does not depend on the vector.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch

from modularity.errors import DataError

Tensor = torch.Tensor


class LinearOperator(Protocol):
    """A real matrix of shape (n_out, n_in), in float64."""

    n_out: int
    n_in: int
    device: torch.device

    def apply(self, vectors_VN: Tensor) -> Tensor:
        """The matrix times each row: [V, n_in] to [V, n_out]."""
        ...

    def apply_transpose(self, vectors_VM: Tensor) -> Tensor:
        """The transposed matrix times each row: [V, n_out] to [V, n_in]."""
        ...


@dataclass(frozen=True, eq=False)
class DenseOperator:
    """A matrix as an operator."""

    matrix_MN: Tensor
    """float64 [n_out, n_in]."""

    def __post_init__(self) -> None:
        if self.matrix_MN.ndim != 2 or self.matrix_MN.dtype != torch.float64:
            raise DataError(
                f"matrix has shape {tuple(self.matrix_MN.shape)} and dtype {self.matrix_MN.dtype}; expected a float64 "
                "matrix"
            )

    @property
    def n_out(self) -> int:
        """Rows."""
        return int(self.matrix_MN.shape[0])

    @property
    def n_in(self) -> int:
        """Columns."""
        return int(self.matrix_MN.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the matrix lies."""
        return self.matrix_MN.device

    def apply(self, vectors_VN: Tensor) -> Tensor:
        """See `LinearOperator.apply`."""
        return vectors_VN @ self.matrix_MN.T

    def apply_transpose(self, vectors_VM: Tensor) -> Tensor:
        """See `LinearOperator.apply_transpose`."""
        return vectors_VM @ self.matrix_MN


class FunctionJacobian:
    """Jacobian of a function at a point, both flattened.

    Parameters
    ----------
    function : differentiable, from a float64 tensor of the shape of `point` to one float64 tensor
    point : float64
    block : vectors that are mapped at once; more need more memory

    Raises
    ------
    DataError
        `point` or the value is not float64, or not finite.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], point: Tensor, *, block: int = 8) -> None:
        if point.dtype != torch.float64:
            raise DataError(f"the point has dtype {point.dtype}; expected float64, in which ranks are counted")
        _load_forward_mode()
        self._function, self._point, self._block = function, point, max(1, block)
        with torch.enable_grad():
            pulled: tuple[Any, ...] = torch.func.vjp(function, point)
        value, self._pull = pulled
        if value.dtype != torch.float64 or not bool(torch.isfinite(value).all()):
            raise DataError(f"the function gives dtype {value.dtype} or values that are not finite; expected float64")
        self._out_shape = value.shape
        self.n_in, self.n_out, self.device = point.numel(), value.numel(), point.device

    def apply(self, vectors_VN: Tensor) -> Tensor:
        """See `LinearOperator.apply`."""
        push = torch.func.vmap(lambda v: torch.func.jvp(self._function, (self._point,), (v,))[1])
        return self._mapped(push, vectors_VN, self._point.shape, self.n_out)

    def apply_transpose(self, vectors_VM: Tensor) -> Tensor:
        """See `LinearOperator.apply_transpose`."""
        pull = torch.func.vmap(lambda v: self._pull(v)[0])
        return self._mapped(pull, vectors_VM, self._out_shape, self.n_in)

    def _mapped(self, mapped: Callable[[Tensor], Tensor], vectors: Tensor, shape: torch.Size, length: int) -> Tensor:
        found = torch.empty((len(vectors), length), dtype=torch.float64, device=self.device)
        for start in range(0, len(vectors), self._block):
            part = vectors[start : start + self._block]
            found[start : start + len(part)] = mapped(part.reshape(len(part), *shape)).reshape(len(part), length)
        return found


@cache
def _load_forward_mode() -> None:
    """First use of forward-mode differentiation: torch then compiles rules with a function that it has deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        one = torch.ones(1, dtype=torch.float64)
        torch.func.jvp(torch.sin, (one,), (one,))


def dense_matrix(operator: LinearOperator, *, block: int = 256) -> Tensor:
    """The matrix of an operator, float64 [n_out, n_in], row by row from the transposed products."""
    matrix_MN = torch.empty((operator.n_out, operator.n_in), dtype=torch.float64, device=operator.device)
    for start in range(0, operator.n_out, block):
        stop = min(start + block, operator.n_out)
        rows = torch.zeros((stop - start, operator.n_out), dtype=torch.float64, device=operator.device)
        rows[torch.arange(stop - start), torch.arange(start, stop)] = 1.0
        matrix_MN[start:stop] = operator.apply_transpose(rows)
    return matrix_MN


def dense_singular_values(operator: LinearOperator, *, block: int = 256) -> np.ndarray:
    """All singular values of an operator, from its whole matrix: float64, descending."""
    return np.asarray(torch.linalg.svdvals(dense_matrix(operator, block=block)).cpu().numpy())


def probe_vectors(n_vectors: int, length: int, *, seed: int, signs: bool = False) -> Tensor:
    """Random rows on the CPU, the same on every machine: standard normal, or signs with entries of 1 and -1."""
    generator = np.random.default_rng(seed)
    if signs:
        values = 2.0 * generator.integers(0, 2, (n_vectors, length)) - 1.0
    else:
        values = generator.standard_normal((n_vectors, length))
    return torch.from_numpy(values)
