"""Activity of components: effect sizes by hand, exact p-values by brute force, silence and absence."""

from itertools import combinations

import numpy as np
import pytest

from modularity.geometry.activity import activity_effects, root_mean_square

CATEGORY = np.array([0, 0, 0, 1, 1, 1, 1])


def test_root_mean_square_leaves_absent_units_out() -> None:
    values = np.array([[[3.0, 4.0], [np.nan, 2.0], [np.nan, np.nan]]])
    np.testing.assert_allclose(root_mean_square(values), [[np.sqrt(12.5), 2.0, 0.0]])


def test_effect_is_hedges_g() -> None:
    activity = np.array([5.0, 6.0, 7.0, 1.0, 2.0, 3.0, 2.0])[:, None]
    found = activity_effects(activity, CATEGORY)
    pooled = np.sqrt((2 * 1.0 + 3 * (2 / 3)) / 5)
    assert found.effect_CK[0, 0] == pytest.approx((6 - 2) / pooled * (1 - 3 / 19))
    assert found.effect_CK[1, 0] == pytest.approx(-found.effect_CK[0, 0])
    assert (found.mean_CK[0, 0], found.rest_CK[0, 0]) == (6.0, 2.0)


def test_exact_p_equals_brute_force() -> None:
    activity = np.random.default_rng(0).normal(size=(7, 5)) + 0.8 * (CATEGORY == 0)[:, None]
    found = activity_effects(activity, CATEGORY)
    for k in range(5):

        def difference(chosen: tuple[int, ...], k: int = k) -> float:
            inside = np.isin(np.arange(7), chosen)
            return abs(activity[inside, k].mean() - activity[~inside, k].mean())

        null = np.array([difference(chosen) for chosen in combinations(range(7), 3)])
        assert found.p_value_CK[0, k] == pytest.approx((null >= difference((0, 1, 2)) - 1e-12).mean())
    assert found.is_exact
    assert found.n_labellings == 35


def test_silent_and_perfectly_selective_components() -> None:
    activity = np.stack([np.zeros(7), np.full(7, 0.1), (CATEGORY == 1).astype(float)], axis=1)
    found = activity_effects(activity, CATEGORY)
    assert found.effect_CK[:, 0].tolist() == [0.0, 0.0]
    assert found.effect_CK[:, 1].tolist() == [0.0, 0.0]
    assert found.effect_CK[:, 2].tolist() == [-np.inf, np.inf]
    assert found.p_value_CK[:, 2].tolist() == pytest.approx([1 / 35, 1 / 35])
    assert (found.p_value_CK[:, :2] == 1).all()
