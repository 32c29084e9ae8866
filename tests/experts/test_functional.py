from fractions import Fraction
from math import comb

import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import (
    binomial_critical_count,
    concentration_index,
    functional_experts,
    functional_experts_pooled,
    hypergeometric_critical_count,
    modularisation,
    random_partition,
)


def exact_tail(n_neurons, size, k, count):
    ways = sum(comb(size, c) * comb(n_neurons - size, k - c) for c in range(count, min(size, k) + 1))
    return float(Fraction(ways, comb(n_neurons, k)))


# Card A5: T5-base (3,072 neurons, 16 experts, 30 best) and Switch-base-16 (49,152 neurons, 16 experts, 491 best).
def test_golden_critical_counts_of_t5_and_switch():
    assert hypergeometric_critical_count(3072, 192, 30) == (8, pytest.approx(3.57e-4, abs=5e-7))
    assert hypergeometric_critical_count(49152, 3072, 491) == (49, pytest.approx(9.04e-4, abs=5e-7))
    assert binomial_critical_count(240, 16)[0] == 29
    assert binomial_critical_count(3928, 16)[0] == 295


def test_p_values_are_exact_to_twelve_digits():
    labels = np.repeat(np.arange(16), 192)
    top = np.concatenate([np.arange(12), np.arange(192, 200), np.arange(3062, 3072)])
    result = functional_experts(top, labels)
    assert result.counts_E.tolist() == [12, 8] + [0] * 13 + [10]
    expected = [exact_tail(3072, 192, 30, int(c)) for c in result.counts_E]
    assert result.p_value_E == pytest.approx(expected, rel=1e-10)
    assert result.critical_count == 8
    assert result.functional_E.nonzero()[0].tolist() == [0, 1, 15]
    assert result.attained_size_E == pytest.approx(np.full(16, exact_tail(3072, 192, 30, 8)), rel=1e-10)
    assert result.proportion == 3 / 16
    assert result.degree == pytest.approx((12 + 8 + 10) / 3 / 1.875)
    assert result.expected_E.tolist() == [1.875] * 16


def test_rule_of_the_paper_by_its_own_words():
    # x* = smallest x with P(X > x) <= alpha; functional iff c > x*.
    for n_neurons, size, k, alpha in [(64, 8, 10, 0.01), (60, 20, 15, 0.001), (96, 3, 40, 0.05), (50, 50, 5, 0.001)]:
        above = [exact_tail(n_neurons, size, k, x + 1) for x in range(k + 1)]
        x_star = next(x for x, p in enumerate(above) if p <= alpha)
        assert hypergeometric_critical_count(n_neurons, size, k, alpha=alpha)[0] == x_star + 1


def test_experts_of_different_size_have_their_own_critical_count():
    labels = np.repeat([0, 1, 2, 4], [100, 20, 5, 3])
    result = functional_experts([100, 101, 120, 121, 122], labels, alpha=0.01, n_experts=6)
    assert result.sizes_E.tolist() == [100, 20, 5, 0, 3, 0]
    expected = [exact_tail(128, int(s), 5, int(c)) for s, c in zip(result.sizes_E, result.counts_E, strict=True)]
    assert result.p_value_E == pytest.approx(expected, rel=1e-10)
    for size, critical in zip(result.sizes_E, result.critical_count_E, strict=True):
        assert critical == hypergeometric_critical_count(128, int(size), 5, alpha=0.01)[0]
    assert result.functional_E.tolist() == [False, False, True, False, False, False]
    assert result.degree == pytest.approx(3 / (5 * 5 / 128))
    with pytest.raises(DataError, match="experts have 0 to 100 neurons, so critical counts differ: read critical_c"):
        _ = result.critical_count


def test_no_count_is_rare_enough_in_one_expert():
    result = functional_experts([0, 1], np.zeros(8, int))
    assert result.critical_count == 3
    assert result.attained_size_E.tolist() == [0.0]
    assert (result.proportion, result.degree, result.concentration) == (0.0, 0.0, 0.0)


def test_planted_functional_expert_is_found():
    rng = np.random.default_rng(0)
    labels = random_partition(3072, 16, seed=1)
    inside = rng.choice(np.flatnonzero(labels == 5), 15, replace=False)
    outside = rng.choice(np.flatnonzero(labels != 5), 15, replace=False)
    result = functional_experts(np.concatenate([inside, outside]), labels)
    assert result.functional_E.nonzero()[0].tolist() == [5]
    assert result.degree == pytest.approx(8.0)
    assert result.concentration > 0.1


def test_shuffled_partitions_reach_the_attained_size_and_p_values_are_super_uniform():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(4), 16)
    results = [functional_experts(rng.choice(64, 12, replace=False), labels, alpha=0.05) for _ in range(1500)]
    attained = results[0].attained_size_E[0]
    share = np.mean([r.functional_E.mean() for r in results])
    assert share == pytest.approx(attained, abs=4 * np.sqrt(attained / 6000))
    p_values = np.array([r.p_value_E for r in results]).ravel()
    for level in (0.001, 0.01, 0.05, 0.1, 0.3, 0.6):
        assert (p_values <= level).mean() <= level + 3 * np.sqrt(level / len(p_values))
    assert np.mean([r.concentration for r in results]) == pytest.approx(0.0, abs=0.005)


def test_pooled_lists_keep_duplicates_and_are_binomial():
    labels = np.repeat(np.arange(4), 25)
    lists = [[0, 1, 2, 30], [0, 1, 2, 99], [0, 1, 2, 55]]
    result = functional_experts_pooled(lists, labels, alpha=0.01)
    assert result.counts_E.tolist() == [9, 1, 1, 1]
    assert result.n_top == 12
    tail = [sum(comb(12, x) * 0.25**x * 0.75 ** (12 - x) for x in range(c, 13)) for c in (9, 1)]
    assert result.p_value_E[:2] == pytest.approx(tail, rel=1e-12)
    assert result.critical_count == binomial_critical_count(12, 4, alpha=0.01)[0] == 8
    assert result.degree == pytest.approx(9 / 3)


def test_modularisation_of_any_rule():
    assert modularisation([6, 2, 0, 0], [5, 5, 5, 5], [True, True, False, False]) == (0.5, 2.0)
    assert modularisation([6, 2, 0, 0], [5, 5, 5, 5], [False] * 4) == (0.0, 0.0)
    assert modularisation([4, 4], [10, 30], [True, False]) == (0.5, 2.0)


def test_concentration_index():
    sizes = np.full(4, 10)
    assert concentration_index([5, 0, 0, 0], sizes) == 1.0
    # Pairs sharing an expert: 2 of 6; by chance 4 * 45 / 780.
    assert concentration_index([2, 2, 0, 0], sizes) == pytest.approx((2 / 6 - 180 / 780) / (1 - 180 / 780))
    assert concentration_index(np.array([[1, 0, 0, 0], [1, 1, 1, 1]]), sizes) == pytest.approx([0.0, -0.3])
    assert concentration_index([3], [9]) == 0.0


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ([], r"top_indices has shape \(0,\) and dtype float64: expected a list of neuron numbers"),
        ([0.5], "expected a list of neuron numbers"),
        ([[0]], r"top_indices has shape \(1, 1\)"),
        ([0, 8], "top_indices holds neuron 8: expected 0 to 7, the neurons of the partition"),
        ([-1, 2], "top_indices holds neuron -1: expected 0 to 7"),
        ([3, 1, 3], "top_indices holds neuron 3 2 times: expected every neuron once"),
    ],
)
def test_bad_lists(top, message):
    with pytest.raises(DataError, match=message):
        functional_experts(top, np.repeat([0, 1], 4))


def test_bad_options():
    labels = np.repeat([0, 1], 4)
    with pytest.raises(InputError, match="alpha is 1: expected a value between 0 and 1"):
        functional_experts([0], labels, alpha=1)
    with pytest.raises(InputError, match="n_experts is 1, but labels_F holds expert 1: expected at least 2"):
        functional_experts([0], labels, n_experts=1)
    with pytest.raises(DataError, match="no list of best neurons: expected one for every sub-function"):
        functional_experts_pooled([], labels)
    with pytest.raises(DataError, match="list 1 holds neuron 9: expected 0 to 7"):
        functional_experts_pooled([[0], [9]], labels)
