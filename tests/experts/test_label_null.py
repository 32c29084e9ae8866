"""Functional experts under permuted labels: valid where neurons of an expert are correlated, and able to find one."""

import numpy as np
import pytest
from scipy.stats import kstest

from modularity.errors import DataError
from modularity.experts import Rule, family_null, function_level, functional_family, label_null, list_counts
from modularity.stats import better_polarity, p_values, polarity_scales, predictivity_null, ranking_scores, top_neurons

N_EXPERTS, SIZE, N_ROWS, K = 8, 16, 60, 12
RULE = Rule(alpha=0.05)
FIGURES = ("proportion", "degree", "concentration")


def correlated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Activations whose neurons share half of their variance with their expert, and the expert of each neuron."""
    labels_F = np.repeat(np.arange(N_EXPERTS), SIZE)
    shared_RE = rng.standard_normal((N_ROWS, N_EXPERTS))
    return shared_RE[:, labels_F] + rng.standard_normal((N_ROWS, len(labels_F))), labels_F


def both_p_values(
    layers: list[np.ndarray], labels_F: np.ndarray, y_SR: np.ndarray, seed: int
) -> tuple[dict[str, float], dict[str, float]]:
    """P-values of the three figures over all layers, by permuted labels and by shuffled experts."""
    tops, permuted = [], []
    for activations_RF in layers:
        observed_SF = better_polarity(ranking_scores(activations_RF, y_SR), polarity_scales(y_SR)).score_SF
        null = predictivity_null(activations_RF, y_SR, observed_SF, n_permutations=99, seed=seed, n_top=K, n_threads=1)
        tops.append(top_neurons(observed_SF, K))
        permuted.append(np.swapaxes(null.top_SNK.neuron, 0, 1))
    partitions = [labels_F] * len(layers)
    found = functional_family(tops, partitions, rule=RULE, n_experts=N_EXPERTS)
    nulls = (
        label_null(permuted, partitions, rule=RULE, n_experts=N_EXPERTS),
        family_null(tops, partitions, rule=RULE, n_experts=N_EXPERTS, n_permutations=99, seed=seed),
    )
    labels, experts = (
        {
            name: float(
                p_values(np.array([getattr(found, f"{name}_LS").mean()]), getattr(null, f"{name}_NL").mean(axis=1))[0]
            )
            for name in FIGURES
        }
        for null in nulls
    )
    return labels, experts


def test_shuffled_labels_are_rejected_as_often_as_said_and_by_shuffled_experts_far_too_often() -> None:
    rng = np.random.default_rng(0)
    labels_p, experts_p = [], []
    for seed in range(240):
        activations_RF, labels_F = correlated(rng)
        y_SR = rng.permuted(np.tile(np.arange(N_ROWS) < N_ROWS // 2, (2, 1)), axis=1)
        by_labels, by_experts = both_p_values([activations_RF], labels_F, y_SR, seed)
        labels_p.append(list(by_labels.values()))
        experts_p.append(list(by_experts.values()))
    rates = (np.array(labels_p) <= 0.05).mean(axis=0)
    assert (rates <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 240)).all()
    concentration_p = np.array(labels_p)[:, 2] - rng.random(240) / 100  # discrete in steps of 1/100
    assert kstest(concentration_p, "uniform").pvalue > 0.01
    assert (np.array(experts_p)[:, 2] <= 0.05).mean() > 0.5


def test_functions_as_wholes_are_rejected_no_more_often_than_said() -> None:
    """Six sub-functions, four of which are two pairs of the same labels, so that lists repeat neurons."""
    rng = np.random.default_rng(5)
    labels_p, experts_p = [], []
    for seed in range(100):
        activations_RF, labels_F = correlated(rng)
        y_SR = rng.permuted(np.tile(np.arange(N_ROWS) < N_ROWS // 2, (6, 1)), axis=1)
        y_SR[3:5] = y_SR[:2]
        observed_SF = better_polarity(ranking_scores(activations_RF, y_SR), polarity_scales(y_SR)).score_SF
        null = predictivity_null(activations_RF, y_SR, observed_SF, n_permutations=99, seed=seed, n_top=K, n_threads=1)
        counts_NSE = list_counts(np.swapaxes(null.top_SNK.neuron, 0, 1), labels_F, N_EXPERTS)
        found = function_level(
            [top_neurons(observed_SF, K)], [labels_F],
            rule=Rule(fdr=0.2), n_experts=N_EXPERTS, n_permutations=300, seed=seed,
            label_counts_NLE=counts_NSE.sum(axis=1)[:, None],
        )  # fmt: skip
        assert found.label_null is not None
        observed_L = [getattr(found, f"{name}_L") for name in FIGURES]
        by_labels = [getattr(found.label_null, f"{name}_NL") for name in FIGURES]
        by_experts = [getattr(found, f"null_{name}_NL") for name in FIGURES]
        labels_p.append([p_values(*each)[0] for each in zip(observed_L, by_labels)])
        experts_p.append([p_values(*each)[0] for each in zip(observed_L, by_experts)])
    assert ((np.array(labels_p) <= 0.05).mean(axis=0) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)).all()
    assert (np.array(experts_p)[:, 2] <= 0.05).mean() > 0.3


def test_a_planted_expert_is_found() -> None:
    rng = np.random.default_rng(1)
    y_SR = rng.permuted(np.tile(np.arange(N_ROWS) < N_ROWS // 2, (2, 1)), axis=1)
    layers = []
    for planted in (3, None):
        activations_RF, labels_F = correlated(rng)
        if planted is not None:
            activations_RF[:, labels_F == planted] += 2.0 * y_SR[0][:, None]
        layers.append(activations_RF)
    by_labels, _ = both_p_values(layers, labels_F, y_SR, seed=2)
    assert by_labels["concentration"] <= 0.03


def test_counts_by_hand() -> None:
    labels_F = np.array([0, 0, 1, 1, 2, 2])
    top_NSK = np.array([[[0, 1], [0, 5]], [[4, 5], [2, 3]]], np.int32)
    counts_NSE = list_counts(top_NSK, labels_F, 4)
    assert counts_NSE.tolist() == [[[2, 0, 0, 0], [1, 0, 1, 0]], [[0, 0, 2, 0], [0, 2, 0, 0]]]
    assert counts_NSE.dtype == np.int32
    with pytest.raises(DataError, match=r"lists have shape \(2, 2, 2\).*neurons from 0 to 5"):
        list_counts(top_NSK - 1, labels_F, 4)


def test_figures_are_those_of_each_permutation_as_a_family_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    labels_LF = [np.repeat(np.arange(8), 12), rng.integers(0, 8, 64)]
    tops = [
        np.stack([[rng.choice(len(f), k, replace=False) for _ in range(3)] for _ in range(20)])
        for f, k in zip(labels_LF, (10, 7))
    ]
    for rule in (RULE, Rule(fdr=0.3)):
        null = label_null(tops, labels_LF, rule=rule, n_experts=8)
        for n in range(20):
            one = functional_family([top[n] for top in tops], labels_LF, rule=rule, n_experts=8)
            for name in FIGURES:
                expected_L = getattr(one, f"{name}_LS").mean(axis=1)
                np.testing.assert_allclose(getattr(null, f"{name}_NL")[n], expected_L, atol=1e-14)
        with monkeypatch.context() as patch:
            patch.setattr("modularity.experts.family.CELLS_AT_ONCE", 100)
            in_parts = label_null(tops, labels_LF, rule=rule, n_experts=8)
        for name in FIGURES:
            np.testing.assert_array_equal(getattr(in_parts, f"{name}_NL"), getattr(null, f"{name}_NL"))
