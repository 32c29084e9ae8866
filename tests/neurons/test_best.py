import numpy as np
import pytest
from scipy.stats import kstest

from modularity.errors import DataError
from modularity.neurons import (
    best_neurons,
    evaluation_interval,
    neuron_predictivity,
    top_fraction_count,
    top_neurons,
)


def best_of(activations_RF, labels_SR, selection_R, **options):
    result = neuron_predictivity(activations_RF, labels_SR, selection_R, n_permutations=49, seed=2)
    column = activations_RF[:, top_neurons(result.score_SF, 1)[:, 0]]
    return best_neurons(result, column, labels_SR, selection_R, n_resamples=200, **options)


def draw(rng, n_rows, n_neurons):
    labels_SR = rng.permuted(np.tile(np.arange(n_rows) < n_rows // 2, (2, 1)), axis=1)
    return rng.standard_normal((n_rows, n_neurons)), labels_SR, rng.permutation(np.arange(n_rows) < n_rows // 2)


def test_planted_neuron_wins_and_its_interval_holds_the_evaluation_value():
    activations_RF, labels_SR, selection_R = draw(np.random.default_rng(0), 300, 200)
    activations_RF[:, 42] -= 1.5 * labels_SR[0]
    best = best_of(activations_RF, labels_SR, selection_R)
    assert best.neuron_S[0] == 42
    assert best.polarity_S[0] == -1
    assert best.p_value_S[0] == 1 / 50
    assert best.p_value_S[1] > 0.02
    assert (best.low_S < best.ap_evaluation_S).all()
    assert (best.ap_evaluation_S < best.high_S).all()
    assert best.low_S[0] > best.chance_evaluation_S[0]
    assert best.ap_S[0] > best.null_max_mean_S[0]


def test_max_statistic_p_values_are_uniform_under_the_null():
    rng = np.random.default_rng(1)
    p = np.concatenate([best_of(*draw(rng, 80, 40)).p_value_S for _ in range(30)])
    assert kstest(p - rng.random(60) / 50, "uniform").pvalue > 0.01


def test_interval_over_groups_is_wider_for_repeated_rows():
    activations_RF, labels_SR, selection_R = draw(np.random.default_rng(3), 60, 20)
    activations_RF, labels_SR, selection_R = (
        np.repeat(activations_RF, 5, axis=0), np.repeat(labels_SR, 5, axis=1), np.repeat(selection_R, 5),
    )  # fmt: skip
    plain = best_of(activations_RF, labels_SR, selection_R)
    grouped = best_of(activations_RF, labels_SR, selection_R, groups_R=np.repeat(np.arange(60), 5))
    assert (grouped.high_S - grouped.low_S > 1.3 * (plain.high_S - plain.low_S)).all()


def test_interval_covers_the_true_value():
    # two normal classes, shift 1: average precision of a large sample
    rng = np.random.default_rng(4)
    big = rng.standard_normal(200_000)
    labels = np.arange(200_000) < 100_000
    truth = evaluation_interval(big + labels, labels, 1, n_resamples=1).estimate
    covered = 0
    for seed in range(100):
        sample = rng.standard_normal(200) + (np.arange(200) < 100)
        interval = evaluation_interval(sample, np.arange(200) < 100, 1, n_resamples=200, seed=seed)
        covered += interval.low <= truth <= interval.high
    assert covered >= 88
    with pytest.raises(DataError, match="polarity is 0: expected 1 or -1"):
        evaluation_interval(big, labels, 0)


def test_shapes_are_checked():
    activations_RF, labels_SR, selection_R = draw(np.random.default_rng(0), 40, 3)
    result = neuron_predictivity(activations_RF, labels_SR, selection_R, n_permutations=5, seed=0)
    with pytest.raises(DataError, match=r"activations have shape \(40, 3\) and labels \(2, 40\) for 2 sub-functions"):
        best_neurons(result, activations_RF, labels_SR, selection_R)


def test_top_fraction_count_is_the_papers():
    assert top_fraction_count(3072, 0.01) == 30
    assert top_fraction_count(49152, 0.01) == 491
    assert top_fraction_count(3072, 0.02) == 61
    assert top_fraction_count(10, 1) == 10
    for fraction in (0, 1.2, 0.05, float("nan")):
        with pytest.raises(DataError, match=rf"top fraction {fraction} of 10 neurons: expected a fraction in \(0, 1\]"):
            top_fraction_count(10, fraction)


@pytest.mark.parametrize("n_clusters", [4, 12])
def test_few_clusters_of_one_label_are_drawn_apart_by_label(n_clusters):
    rng = np.random.default_rng(0)
    groups_R = np.repeat(np.arange(n_clusters), 5)
    labels_R = groups_R % 2 == 0
    interval = evaluation_interval(rng.normal(size=len(groups_R)), labels_R, 1, n_resamples=500, groups_R=groups_R)
    assert interval.low <= interval.estimate <= interval.high
