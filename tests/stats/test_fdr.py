import numpy as np
import pytest
from scipy.stats import false_discovery_control

from modularity.errors import DataError
from modularity.stats import benjamini_hochberg


def test_golden():
    # p·n/rank = .05, .04, .04·, .2 -> monotone from the largest down
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.03, 0.01, 0.02, 0.8])), [0.04, 0.04, 0.04, 0.8])


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_equal_to_scipy(axis):
    p = np.random.default_rng(0).random((7, 30)) ** 3
    p[2] = p[2, 0]
    np.testing.assert_allclose(
        benjamini_hochberg(p, axis=axis), false_discovery_control(p, axis=axis).reshape(p.shape), rtol=1e-14
    )


def test_false_discovery_rate_is_kept():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        p = np.concatenate([rng.random(180), rng.random(20) * 1e-4])
        rejected = benjamini_hochberg(p) <= 0.1
        shares.append(rejected[:180].sum() / max(1, rejected.sum()))
    assert np.mean(shares) == pytest.approx(0.09, abs=0.012)  # level times the share of true nulls


def test_empty_family():
    assert benjamini_hochberg(np.empty((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.5])
def test_values_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(DataError, match=rf"p-value {bad} at \(1, 0\), 1 such of 4: expected values in \[0, 1\]"):
        benjamini_hochberg(np.array([[0.1, 0.2], [bad, 0.3]]))
