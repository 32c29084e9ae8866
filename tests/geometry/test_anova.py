"""Analysis of variance per dimension against SciPy, constants, and the largest F under permuted labels."""

import numpy as np
import pytest
from scipy.stats import f_oneway

from modularity.errors import DataError
from modularity.geometry.anova import anova, largest_f_p_value, mean_by_text

CATEGORY = np.repeat([0, 1, 2], [4, 3, 5])


def test_f_and_p_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(12, 6)) + 100
    found = anova(values, CATEGORY)
    f, p = f_oneway(*(values[c == CATEGORY] for c in range(3)))
    np.testing.assert_allclose(found.f_value_D, f)
    np.testing.assert_allclose(found.p_value_D, p)
    np.testing.assert_allclose(found.eta_squared_D, 2 * f / (2 * f + 9))


def test_constants_and_perfect_separation() -> None:
    values = np.stack([np.full(12, 0.1), CATEGORY == 1, np.arange(12)], axis=1).astype(np.float64)
    found = anova(values, CATEGORY)
    assert found.f_value_D[:2].tolist() == [0.0, np.inf]
    assert found.p_value_D[:2].tolist() == [1.0, 0.0]
    assert found.eta_squared_D[:2].tolist() == [0.0, 1.0]
    assert found.highest_D.tolist() == [0, 1, 2]


def test_positions_are_averaged_within_texts() -> None:
    means = mean_by_text(np.array([[1.0], [3.0], [10.0]], np.float32), np.array([0, 0, 1]))
    assert means.tolist() == [[2.0], [10.0]]


def test_largest_f_of_many_dimensions_is_judged_as_a_largest() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(12, 200))
    assert anova(noise, CATEGORY).p_value_D.min() < 0.05
    p = [largest_f_p_value(rng.normal(size=(12, 40)), CATEGORY, n_permutations=39, seed=i) for i in range(40)]
    assert np.mean(np.array(p) <= 0.1) < 0.3
    noise[:, 7] += 6 * CATEGORY
    assert largest_f_p_value(noise, CATEGORY, n_permutations=99, seed=0) == pytest.approx(0.01)


def test_one_text_in_each_category_is_refused() -> None:
    with pytest.raises(DataError, match="more texts than categories"):
        anova(np.ones((2, 1)), np.array([0, 1]))
