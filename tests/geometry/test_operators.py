"""Jacobian products against matrices that autograd builds entry by entry."""

import pytest
import torch

from modularity.errors import DataError
from modularity.geometry import DenseOperator, FunctionJacobian, dense_matrix, probe_vectors

POINT = probe_vectors(3, 4, seed=1)


def curved(point: torch.Tensor) -> torch.Tensor:
    return torch.softmax(point, dim=-1) @ point.T


@pytest.mark.parametrize("block", [1, 3, 8])
def test_products_are_those_of_the_jacobian(block: int) -> None:
    jacobian = torch.autograd.functional.jacobian(curved, POINT).reshape(9, 12)
    operator = FunctionJacobian(curved, POINT, block=block)
    right, left = probe_vectors(5, 12, seed=2), probe_vectors(5, 9, seed=3)
    torch.testing.assert_close(operator.apply(right), right @ jacobian.T)
    torch.testing.assert_close(operator.apply_transpose(left), left @ jacobian)
    torch.testing.assert_close(dense_matrix(operator, block=4), jacobian)
    assert (operator.n_out, operator.n_in) == (9, 12)


def test_dense_operator_multiplies_rows() -> None:
    matrix = probe_vectors(3, 2, seed=0)
    operator = DenseOperator(matrix)
    torch.testing.assert_close(operator.apply(torch.eye(2, dtype=torch.float64)), matrix.T)
    torch.testing.assert_close(dense_matrix(operator, block=2), matrix)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(DataError, match=r"dtype torch\.float32"):
        FunctionJacobian(curved, POINT.float())
    with pytest.raises(DataError, match="expected a float64 matrix"):
        DenseOperator(torch.zeros(2, 2))
    with pytest.raises(DataError, match="not finite"):
        FunctionJacobian(lambda x: x / 0, POINT)


def test_probes_are_the_same_every_time() -> None:
    assert torch.equal(probe_vectors(2, 9, seed=4, signs=True), probe_vectors(2, 9, seed=4, signs=True))
    assert set(probe_vectors(2, 9, seed=4, signs=True).unique().tolist()) == {-1.0, 1.0}
