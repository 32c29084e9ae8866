"""The family of all layers and sub-functions: equal to the single test, found when planted, null when shuffled."""

import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import functional_experts, random_partition
from modularity.experts.family import Rule, family_null, functional_family


def lists(generator: np.random.Generator, n_subfunctions: int, n_neurons: int, k: int) -> np.ndarray:
    return np.stack([generator.choice(n_neurons, k, replace=False) for _ in range(n_subfunctions)])


def test_equals_the_single_test_in_every_layer() -> None:
    generator = np.random.default_rng(0)
    tops = [lists(generator, 3, n, k) for n, k in ((96, 12), (192, 20))]
    labels = [random_partition(96, 8, seed=1), generator.integers(0, 8, 192)]
    family = functional_family(tops, labels, rule=Rule(alpha=0.05), n_experts=8)
    for layer in range(2):
        for s in range(3):
            single = functional_experts(tops[layer][s], labels[layer], alpha=0.05, n_experts=8)
            np.testing.assert_array_equal(family.counts_LSE[layer, s], single.counts_E)
            np.testing.assert_allclose(family.p_value_LSE[layer, s], single.p_value_E, rtol=1e-10)
            np.testing.assert_array_equal(family.functional_LSE[layer, s], single.functional_E)
            assert family.proportion_LS[layer, s] == pytest.approx(single.proportion)
            assert family.degree_LS[layer, s] == pytest.approx(single.degree)
            assert family.concentration_LS[layer, s] == pytest.approx(single.concentration)


def test_a_planted_expert_is_found_by_either_rule_and_the_others_are_not() -> None:
    labels = np.repeat(np.arange(16), 32)
    generator = np.random.default_rng(1)
    planted = np.concatenate(
        [np.flatnonzero(labels == 5)[:12], generator.choice(np.flatnonzero(labels != 5), 8, replace=False)]
    )
    random = generator.choice(512, 20, replace=False)
    tops = [np.stack([planted, random])]
    for rule in (Rule(alpha=0.001), Rule(fdr=0.05)):
        family = functional_family(tops, [labels], rule=rule, n_experts=16)
        assert np.flatnonzero(family.functional_LSE[0, 0]).tolist() == [5]
        assert not family.functional_LSE[0, 1].any()
        assert family.degree_LS[0, 0] == pytest.approx(12 / (20 / 16))
        null = family_null(tops, [labels], rule=rule, n_experts=16, n_permutations=400, seed=2)
        assert null.proportion_NL.shape == (400, 1)
        assert (null.degree_NL.mean(axis=1) >= family.degree_LS.mean()).mean() < 0.01


def test_shuffled_labels_have_the_attained_size_and_no_concentration() -> None:
    labels = np.repeat(np.arange(16), 192)
    top = lists(np.random.default_rng(3), 4, 3072, 30)
    null = family_null([top], [labels], rule=Rule(alpha=0.001), n_experts=16, n_permutations=4000, seed=4)
    assert null.proportion_NL.mean() == pytest.approx(3.57e-4, rel=0.2)
    assert abs(null.concentration_NL.mean()) < 5e-4
    corrected = family_null([top], [labels], rule=Rule(fdr=0.05), n_experts=16, n_permutations=1000, seed=4)
    assert (corrected.proportion_NL.max(axis=1) > 0).mean() < 0.06


def test_p_values_of_random_lists_are_not_too_small() -> None:
    labels = np.repeat(np.arange(8), 16)
    generator = np.random.default_rng(5)
    p_values = []
    for draw in range(200):
        top = lists(generator, 2, 128, 12)
        observed = functional_family([top], [labels], rule=Rule(alpha=0.05), n_experts=8).concentration_LS.mean()
        null = family_null([top], [labels], rule=Rule(alpha=0.05), n_experts=8, n_permutations=99, seed=draw)
        p_values.append((1 + (null.concentration_NL.mean(axis=1) >= observed - 1e-12).sum()) / 100)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) < level + 3 * np.sqrt(level * (1 - level) / 200)


@pytest.mark.parametrize("levels", [{}, {"alpha": 0.1, "fdr": 0.1}, {"alpha": 0.0}, {"fdr": 1.0}])
def test_a_rule_has_one_level(levels: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected exactly one level, between 0 and 1"):
        Rule(**levels)


@pytest.mark.parametrize(
    ("tops", "message"),
    [
        ([], "lists for 0 layers, partitions for 1"),
        ([np.array([[0, 8]])], "expected \\(sub-functions, k\\) with neurons from 0 to 7"),
        ([np.array([0, 1])], "have shape \\(2,\\)"),
        ([np.array([[1, 1]])], "holds a neuron twice"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tops: list[np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        functional_family(tops, [np.repeat(np.arange(2), 4)], rule=Rule(alpha=0.05), n_experts=2)
