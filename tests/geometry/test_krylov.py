"""Leading values against dense decompositions: planted ranks, flat spectra, repeated values, zero."""

import numpy as np
import pytest
import torch
from planted_spectra import with_spectrum

from modularity.errors import DataError
from modularity.geometry import DenseOperator, leading_singular_values, probe_vectors


@pytest.mark.parametrize("shape", [(90, 60), (60, 90)])
@pytest.mark.parametrize("ratio", [0.8, 0.97])
def test_values_and_bounds_hold(shape: tuple[int, int], ratio: float) -> None:
    values = ratio ** np.arange(60)
    leading = leading_singular_values(DenseOperator(with_spectrum(values, *shape)), 8)
    error = np.abs(leading.values_K[:, None] - values[None, :]).min(axis=1)
    assert (leading.values_K <= values[:8] * (1 + 1e-12)).all()
    assert (error <= leading.residuals_K + 1e-12).all()
    np.testing.assert_allclose(leading.values_K[:4], values[:4], rtol=1e-4)
    torch.testing.assert_close(leading.right_KN @ leading.right_KN.T, torch.eye(8, dtype=torch.float64))


def test_a_planted_rank_is_exhausted() -> None:
    values = np.array([3.0, 2.0, 2.0, 1.0])
    leading = leading_singular_values(DenseOperator(with_spectrum(values, 50, 40)), 10)
    np.testing.assert_allclose(leading.values_K[:4], values, rtol=1e-10)
    assert (leading.values_K[4:] < 1e-10).all()
    assert (leading.residuals_K < 1e-10).all()


def test_zero_has_no_values() -> None:
    leading = leading_singular_values(DenseOperator(torch.zeros(7, 5, dtype=torch.float64)), 3)
    assert leading.values_K.size == 0


def test_all_values_of_a_small_matrix() -> None:
    matrix = probe_vectors(6, 9, seed=5)
    leading = leading_singular_values(DenseOperator(matrix), 6, n_iterations=8)
    np.testing.assert_allclose(leading.values_K, torch.linalg.svdvals(matrix).numpy(), rtol=1e-10)


def test_more_values_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match=r"n_values=6.*1 to 5 values"):
        leading_singular_values(DenseOperator(torch.zeros(7, 5, dtype=torch.float64)), 6)
