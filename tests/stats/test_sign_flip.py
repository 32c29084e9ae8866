"""Sign-flip test: by hand, uniform under the null, and its messages."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import t as student

from modularity.errors import DataError
from modularity.stats import mean_interval, sign_flip_p_values, sign_flip_test


def test_three_pairs_by_hand() -> None:
    """Sums of ±1 ±2 ±3: 6 4 2 0 0 -2 -4 -6; two of eight are as far from zero as 6."""
    found = sign_flip_test(np.array([1.0, 2.0, 3.0]))
    assert (found.p_value, found.smallest_p_value, found.n, found.is_exact) == (0.25, 0.25, 3, True)
    assert (found.mean, found.sd) == (2.0, 1.0)
    assert sign_flip_test(np.array([-1.0, 2.0, 3.0])).p_value == 0.5
    assert sign_flip_test(np.zeros(4)).p_value == 1.0


def test_all_signs_are_counted_one_by_one() -> None:
    values = np.random.default_rng(0).standard_normal(7) + 0.4
    sums = [abs(sum(sign * value for sign, value in zip(signs, values))) for signs in product((-1, 1), repeat=7)]
    expected = np.mean([each >= abs(values.sum()) - 1e-12 for each in sums])
    assert sign_flip_test(values).p_value == pytest.approx(expected)


def test_equal_differences_reach_the_smallest_p() -> None:
    """Sums that differ by rounding only count as equal: .1 eight times, in whatever order."""
    assert sign_flip_test(np.full(8, 0.1)).p_value == 2 / 256


def test_many_pairs_are_drawn_and_agree_with_the_exact_test() -> None:
    values = np.random.default_rng(1).standard_normal(13) + 0.5
    drawn = sign_flip_test(values, n_flips=20_000)
    signs = 1 - 2 * ((np.arange(2**13)[:, None] >> np.arange(13)) & 1)
    assert not drawn.is_exact
    assert drawn.p_value == pytest.approx(float((np.abs(signs @ values) >= values.sum() - 1e-12).mean()), abs=0.01)
    assert drawn.p_value >= drawn.smallest_p_value == 1 / 20_001


def test_p_values_are_uniform_without_an_effect() -> None:
    generator = np.random.default_rng(2)
    p = np.array([sign_flip_test(generator.standard_t(3, 8)).p_value for _ in range(2000)])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.03)


def test_interval_of_a_mean() -> None:
    values = np.array([0.1, 0.3, 0.35, 0.05])
    found = mean_interval(values)
    expected = student.interval(0.95, 3, loc=values.mean(), scale=values.std(ddof=1) / 2)
    assert (found.low, found.high) == pytest.approx(expected)
    assert np.isnan(mean_interval(np.array([1.0])).low)
    assert np.isnan(sign_flip_test(np.array([1.0])).sd)


@pytest.mark.parametrize("values", [np.array([]), np.array([np.nan, 1.0]), np.ones((2, 2))])
def test_wrong_differences_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"differences .*expected finite numbers, at least one"):
        sign_flip_test(values)
    with pytest.raises(DataError, match=r"0 values with confidence=0.95"):
        mean_interval(np.array([]))


@pytest.mark.parametrize("n", [5, 40])
def test_many_lines_have_the_p_values_of_each_alone(n: int) -> None:
    lines = np.random.default_rng(2).normal(0.2, 1, (7, n))
    p_values, smallest = sign_flip_p_values(lines, seed=3, n_flips=199)
    alone = [sign_flip_test(line, seed=3, n_flips=199) for line in lines]
    assert p_values.tolist() == [each.p_value for each in alone]
    assert smallest == alone[0].smallest_p_value
    with pytest.raises(DataError, match="expected finite numbers"):
        sign_flip_p_values(lines[0])
