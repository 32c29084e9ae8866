import numpy as np
import pytest
from scipy.stats import spearmanr

from modularity.errors import DataError
from modularity.stats import stabilisation


def test_golden():
    steps_TSF = np.array([[[1.0, 2, 3]], [[10, 20, 30]], [[3, 2, 1]], [[1, 1, 2]]])
    np.testing.assert_allclose(stabilisation(steps_TSF), [[1], [-1], [-np.sqrt(3) / 2]])


def test_equal_to_scipy_with_ties():
    steps_TSF = np.random.default_rng(0).integers(0, 5, (4, 3, 60)).astype(float)
    rho_TS = stabilisation(steps_TSF)
    assert rho_TS.shape == (3, 3)
    for t in range(3):
        for s in range(3):
            assert rho_TS[t, s] == pytest.approx(spearmanr(steps_TSF[t, s], steps_TSF[t + 1, s]).statistic, abs=1e-13)


def test_constant_checkpoint_has_no_correlation():
    rho_TS = stabilisation(np.array([[[1.0, 1]], [[1, 2]], [[3, 4]]]))
    assert np.isnan(rho_TS[0, 0])
    assert rho_TS[1, 0] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 2, 1), (2, 3)])
def test_too_few_are_refused(shape):
    with pytest.raises(DataError, match=r"expected \(checkpoints, sub-functions, neurons\) with at least two"):
        stabilisation(np.ones(shape))


def test_nan_is_refused():
    steps_TSF = np.ones((2, 2, 3))
    steps_TSF[1, 0, 2] = np.nan
    with pytest.raises(DataError, match=r"\(1, 0, 2\) is not finite"):
        stabilisation(steps_TSF)
