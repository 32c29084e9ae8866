"""Experts of a whole function: numbers by hand, the law of shuffled counts, planted found, nothing found in noise."""

import numpy as np
import pytest
from scipy.stats import binom

from modularity.errors import DataError, InputError
from modularity.experts import (
    FunctionLevel,
    Rule,
    function_level,
    functional_experts_pooled,
    random_partition,
    random_partition_baseline,
)
from modularity.experts.function_level import rank_p_values, shuffled_counts
from modularity.stats import p_values


def one_layer(lists, labels, *, rule=None, n_permutations=99, seed=0) -> FunctionLevel:
    n_experts = int(np.max(labels)) + 1
    rule = rule or Rule(alpha=0.001)
    return function_level([lists], [labels], rule=rule, n_experts=n_experts, n_permutations=n_permutations, seed=seed)


def p_of(observed_L: np.ndarray, null_NL: np.ndarray) -> float:
    return float(p_values(observed_L.mean(), null_NL.mean(axis=1)))


def test_numbers_by_hand() -> None:
    # 12 neurons in 3 experts of 4. The three lists put 5 of 6 entries into expert 0, neuron 0 thrice.
    labels = np.repeat([0, 1, 2], 4)
    found = one_layer([[0, 1], [0, 2], [0, 11]], labels, rule=Rule(alpha=0.02), n_permutations=2000)
    assert found.counts_LE.tolist() == [[5, 0, 1]]
    assert found.n_top_L.tolist() == [6]
    assert found.expected_LE.tolist() == [[2.0, 2.0, 2.0]]
    # Binomial (6, 1/3): 13/729 for 5 or 6, 665/729 for at least 1.
    assert found.p_binomial_LE[0] == pytest.approx([13 / 729, 1.0, 665 / 729])
    assert found.functional_LE.tolist() == [[True, False, False]]
    assert found.proportion_L == pytest.approx([1 / 3])
    assert found.degree_L == pytest.approx([5 / 2])
    # Of 15 pairs of entries 10 share an expert; of 66 pairs of neurons 18 do.
    assert found.concentration_L == pytest.approx([(10 / 15 - 18 / 66) / (1 - 18 / 66)])
    # Four distinct neurons, one of weight 3. An expert reaches 5 when it gets that one (1/3) and, in its 3 other places
    # of 11, two of the three others (3 * 8 of C(11, 3) = 165 ways) or all three (1 way).
    exact = (1 / 3) * (3 * 8 + 1) / 165
    assert found.p_permutation_LE[0, 0] == pytest.approx(exact, rel=0.15)
    # At most one of the three experts reaches 5; its ratio is then 5 / 2, or 6 / 2.
    assert found.null_proportion_NL.mean() == pytest.approx(exact, rel=0.15)
    assert found.null_degree_NL.mean() == pytest.approx(24 / 165 * 5 / 2 + 1 / 165 * 3, rel=0.15)


def test_binomial_p_and_degree_are_those_of_the_pooled_lists_in_every_layer() -> None:
    generator = np.random.default_rng(0)
    labels = [random_partition(96, 8, seed=1), generator.integers(0, 8, 160)]
    tops = [[generator.choice(len(label), 12, replace=False) for _ in range(3)] for label in labels]
    found = function_level(tops, labels, rule=Rule(alpha=0.2), n_experts=8, n_permutations=5)
    for layer in range(2):
        single = functional_experts_pooled(tops[layer], labels[layer], alpha=0.2, n_experts=8)
        np.testing.assert_array_equal(found.counts_LE[layer], single.counts_E)
        np.testing.assert_allclose(found.p_binomial_LE[layer], single.p_value_E)
        np.testing.assert_allclose(found.expected_LE[layer], single.expected_E)
        np.testing.assert_array_equal(found.functional_LE[layer], single.functional_E)
        assert found.proportion_L[layer] == pytest.approx(single.proportion)
        assert found.degree_L[layer] == pytest.approx(single.degree)
        assert found.concentration_L[layer] == pytest.approx(single.concentration)


def test_shuffled_counts_follow_the_multivariate_hypergeometric_law() -> None:
    labels = np.repeat([0, 1, 2], [4, 6, 10])
    counts = shuffled_counts([[0, 1, 2, 3, 4]], labels, 4, n_permutations=20_000, seed=0)
    assert counts.shape == (20_000, 4)
    assert (counts.sum(axis=1) == 5).all()
    assert counts.mean(axis=0) == pytest.approx([1.0, 1.5, 2.5, 0.0], abs=0.03)
    variance = 5 * np.array([0.2, 0.3, 0.5]) * np.array([0.8, 0.7, 0.5]) * 15 / 19
    assert counts[:, :3].var(axis=0) == pytest.approx(variance, rel=0.05)


def test_duplicates_move_together() -> None:
    # The same four neurons in three lists: every shuffled count is a multiple of three.
    counts = shuffled_counts([[0, 1, 2, 3]] * 3, np.repeat(np.arange(5), 8), 5, n_permutations=300, seed=1)
    assert (counts % 3 == 0).all()
    assert (counts.sum(axis=1) == 12).all()


def test_rank_p_values_by_hand() -> None:
    counts_NE = np.array([[4, 0, 3], [2, 2, 3], [3, 1, 3]])
    # Experts 0 and 1 have one size and one pool: 0, 1, 2, 2, 3, 4.
    assert (6 * rank_p_values(counts_NE, np.array([5, 5, 7]))).tolist() == [[1, 6, 6], [4, 4, 6], [2, 5, 6]]
    # Ranked are 2, 2, 3, 1 in one pool and 3, 3 in the other: 4 is above all of its pool.
    by_others = rank_p_values(counts_NE[[1, 2, 0]], np.array([5, 5, 7]), n_ranked=2)
    assert (4 * by_others[2]).tolist() == [1, 4, 4]


def test_duplicates_alone_do_not_make_an_expert_functional() -> None:
    same = np.random.default_rng(1).choice(320, 8, replace=False)
    tests = [one_layer([same] * 6, random_partition(320, 8, seed=s), seed=s) for s in range(100)]
    # The binomial rule of the paper counts the eight neurons as 48 draws and rejects far too often.
    assert np.mean([t.functional_LE for t in tests]) > 0.01
    assert np.mean([t.p_permutation_LE <= 0.001 for t in tests]) <= 0.002
    corrected = [one_layer([same] * 6, random_partition(320, 8, seed=s), rule=Rule(fdr=0.05)) for s in range(100)]
    assert np.mean([t.functional_LE.any() for t in corrected]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


@pytest.mark.parametrize("rule", [Rule(alpha=0.05), Rule(fdr=0.3)], ids=["alpha", "fdr"])
def test_p_values_are_super_uniform_under_the_null(rule: Rule) -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(6), [20, 20, 20, 10, 10, 40])
    tests = []
    for seed in range(250):
        tops = [[rng.choice(120, 12, replace=False) for _ in range(2)] for _ in range(2)]
        tests.append(function_level(tops, [labels] * 2, rule=rule, n_experts=6, n_permutations=59, seed=seed))
    concentration = np.array([p_of(t.concentration_L, t.null_concentration_NL) for t in tests])
    for values in (
        np.array([t.p_permutation_LE for t in tests]).ravel(),
        concentration,
        np.array([p_of(t.degree_L, t.null_degree_NL) for t in tests]),
        np.array([p_of(t.proportion_L, t.null_proportion_NL) for t in tests]),
    ):
        for level in (0.05, 0.1, 0.3, 0.6):
            assert (values <= level).mean() <= level + 3.5 * np.sqrt(level * (1 - level) / 250)
    assert concentration.mean() == pytest.approx(0.5, abs=0.06)


def test_layers_are_shuffled_independently() -> None:
    labels, top = np.repeat(np.arange(4), 16), [[0, 1, 2, 3, 20, 40]]
    found = function_level([top] * 2, [labels] * 2, rule=Rule(alpha=0.05), n_experts=4, n_permutations=1000)
    assert abs(np.corrcoef(found.null_concentration_NL.T)[0, 1]) < 0.1


def test_planted_expert_is_found_and_its_null_is_the_exact_baseline() -> None:
    labels = np.repeat(np.arange(16), 192)
    top = np.concatenate([np.arange(15), 200 * np.arange(1, 16)])
    for rule in (Rule(alpha=0.05), Rule(fdr=0.05)):
        found = one_layer([top], labels, rule=rule, n_permutations=4000)
        assert np.flatnonzero(found.functional_LE[0]).tolist() == [0]
        assert found.p_permutation_LE[0, 0] == pytest.approx(1 / (16 * 4001))
        assert found.q_permutation_LE[0, 0] == pytest.approx(1 / 4001)
        assert found.degree_L == pytest.approx([15 / (30 / 16)])
        assert p_of(found.degree_L, found.null_degree_NL) <= 2 / 4001
        assert found.null_concentration_NL.mean() == pytest.approx(0.0, abs=0.002)
    # The binomial threshold of one list equals a hypergeometric one at the same count.
    found = one_layer([top], labels, rule=Rule(alpha=0.04), n_permutations=4000)
    critical = int(np.argmax(binom.sf(np.arange(-1, 30), 30, 1 / 16) <= 0.04))
    baseline = random_partition_baseline(3072, 16, 30, alpha=0.04)
    assert critical == baseline.critical_count
    error = found.null_degree_NL.std() / np.sqrt(4000)
    assert found.null_degree_NL.mean() == pytest.approx(baseline.degree, abs=4 * error)
    assert found.null_proportion_NL.mean() == pytest.approx(baseline.proportion, rel=0.1)


def test_shuffled_partitions_without_a_functional_expert_count_as_zero() -> None:
    found = one_layer([[0, 1, 2]], np.repeat(np.arange(8), 8), rule=Rule(alpha=1e-6), n_permutations=50)
    assert found.degree_L.tolist() == [0.0]
    assert (found.null_degree_NL == 0).all()
    assert (found.null_proportion_NL == 0).all()
    assert p_of(found.degree_L, found.null_degree_NL) == 1.0


def test_a_figure_equal_to_every_shuffled_one_has_p_one() -> None:
    found = one_layer([[0, 1, 2, 3]], np.repeat([0, 1], 2), n_permutations=20)
    assert found.p_permutation_LE.tolist() == [[1.0, 1.0]]
    assert p_of(found.concentration_L, found.null_concentration_NL) == 1.0


def test_seed_decides() -> None:
    labels = np.repeat(np.arange(4), 10)
    first, again, other = (one_layer([[0, 1, 2, 9]], labels, seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.null_concentration_NL, again.null_concentration_NL)
    assert (first.null_concentration_NL != other.null_concentration_NL).any()


def test_bad_input() -> None:
    with pytest.raises(InputError, match="n_permutations is 0: expected at least 1"):
        one_layer([[0]], [0, 1], n_permutations=0)
    with pytest.raises(DataError, match="no list of best neurons"):
        one_layer([], [0, 1])
    with pytest.raises(DataError, match="lists for 2 layers, partitions for 1: expected as many"):
        function_level([[[0]]] * 2, [[0, 1]], rule=Rule(alpha=0.05), n_experts=2)
    with pytest.raises(InputError, match="n_experts is 1, but labels_F holds expert 1"):
        function_level([[[0]]], [[0, 1]], rule=Rule(alpha=0.05), n_experts=1)
