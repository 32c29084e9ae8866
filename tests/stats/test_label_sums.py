"""Effects of labels: scipy's Welch t for any split, null p-values uniform, planted effects found."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, ttest_ind

from modularity.errors import DataError
from modularity.stats import LabelSums, merge_in_order


def sums(values: np.ndarray, labels: np.ndarray) -> LabelSums:
    accumulator = LabelSums.empty(len(labels), values.shape[1])
    accumulator.update(values, labels)
    return accumulator


@given(st.integers(0, 30), st.integers(0, 999), st.lists(st.integers(0, 30), max_size=4), st.sampled_from([0.0, 1e5]))
@settings(deadline=None)
def test_any_split_gives_one_pass(n_rows: int, seed: int, cuts: list[int], offset: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((n_rows, 3)) * [1, 10, 0] + offset
    labels = generator.integers(-1, 2, (2, n_rows))
    bounds = [0, *sorted(min(cut, n_rows) for cut in cuts), n_rows]
    merged = merge_in_order(sums(values[a:b], labels[:, a:b]) for a, b in pairwise(bounds))
    whole = sums(values, labels)
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(merged.arrays()[name], array, rtol=1e-11, atol=1e-9, err_msg=name)
    for s in range(2):
        for label in (0, 1):
            chosen = values[labels[s] == label]
            assert whole.count[s, label] == len(chosen)
            if len(chosen):
                np.testing.assert_allclose(whole.mean[s, label], chosen.mean(0), rtol=1e-12, atol=1e-12)
                np.testing.assert_allclose(whole.squares[s, label], len(chosen) * chosen.var(0), rtol=1e-9, atol=1e-8)


def test_t_and_p_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    values = generator.standard_normal((60, 4)) * 2 + 50
    labels = (np.arange(60) % 3 == 0)[None].astype(int)
    values[labels[0] == 1, 0] += 3
    effects = sums(values, labels).result()
    expected = ttest_ind(values[labels[0] == 1], values[labels[0] == 0], equal_var=False)
    np.testing.assert_allclose(effects.t_SF[0], expected.statistic, rtol=1e-10)
    np.testing.assert_allclose(effects.p_value_SF[0], expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(effects.degrees_SF[0], expected.df, rtol=1e-10)
    assert effects.effect_SF[0, 0] > 1
    assert np.abs(effects.effect_SF[0, 1:]).max() < 1


def test_effect_by_hand() -> None:
    effects = sums(np.array([[0.0], [2.0], [3.0], [5.0]]), np.array([[0, 0, 1, 1]])).result()
    assert effects.mean_S2F[0, :, 0].tolist() == [1.0, 4.0]
    assert effects.variance_S2F[0, :, 0].tolist() == [2.0, 2.0]
    assert effects.difference_SF[0, 0] == 3.0
    assert effects.effect_SF[0, 0] == pytest.approx(3 / np.sqrt(2) * (1 - 3 / 7))
    assert effects.t_SF[0, 0] == pytest.approx(3 / np.sqrt(2))
    assert effects.degrees_SF[0, 0] == pytest.approx(2)


def test_p_values_of_labels_that_mean_nothing_are_uniform() -> None:
    generator = np.random.default_rng(1)
    values = generator.standard_normal((200, 500))
    labels = generator.permutation(np.arange(200) % 2)[None]
    assert kstest(sums(values, labels).result().p_value_SF[0], "uniform").pvalue > 0.01


def test_constant_neurons_have_no_effect_and_rounding_makes_none() -> None:
    values = np.tile([[0.0, 0.1, 1.0]], (9, 1))
    labels = np.array([[0, 0, 0, 0, 1, 1, 1, 1, 1]])
    values[:, 2] = labels[0]
    effects = sums(values, labels).result()
    assert effects.p_value_SF.tolist() == [[1.0, 1.0, 0.0]]
    assert effects.t_SF.tolist() == [[0.0, 0.0, np.inf]]
    assert effects.effect_SF.tolist() == [[0.0, 0.0, np.inf]]


def test_too_few_rows_give_nan() -> None:
    effects = sums(np.array([[1.0], [2.0], [3.0]]), np.array([[0, 1, 1]])).result()
    assert np.isnan(effects.p_value_SF).all()
    assert effects.difference_SF[0, 0] == 1.5


def test_a_part_is_that_of_its_subfunctions_and_wrong_labels_are_refused() -> None:
    values, labels = np.arange(8.0).reshape(4, 2), np.array([[0, 1, 0, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(sums(values, labels).part(slice(1, 2)).mean, sums(values, labels[1:]).mean)
    with pytest.raises(DataError, match=r"labels have shape \(2, 4\), expected \(1, 4\)"):
        LabelSums.empty(1, 2).update(values, labels)
