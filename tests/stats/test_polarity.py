import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import average_precision_score

from modularity.stats import (
    better_polarity,
    max_statistic_p_values,
    polarity_scales,
    predictivity_null,
    random_order,
    ranking_scores,
    top_neurons,
)


def chosen(activations_RF, labels_SR, rule="standardised"):
    return better_polarity(ranking_scores(activations_RF, labels_SR), polarity_scales(labels_SR, rule=rule))


def score_by_hand(ap, n_label, n_rows):
    order = random_order(n_label, n_rows)
    t, g = (ap - order.mean) / order.sd, order.skewness
    return t if abs(g) < 1e-3 else 6 / g * (np.cbrt(1 + g * t / 2) - 1) + g / 6


@pytest.mark.parametrize("n_positive", [6, 23, 30, 51])
def test_equals_scikit_learn_one_neuron_at_a_time(n_positive):
    rng = np.random.default_rng(n_positive)
    activations_RF = rng.standard_normal((60, 40)).round(1)
    labels_R = rng.permutation(np.arange(60) < n_positive)
    ours, papers = (chosen(activations_RF, labels_R[None], rule) for rule in ("standardised", "larger"))
    for f, values_R in enumerate(activations_RF.T):
        aps = [average_precision_score(side, values_R) for side in (labels_R, ~labels_R)]
        scores = [score_by_hand(ap, n_label, 60) for ap, n_label in zip(aps, (n_positive, 60 - n_positive))]
        assert ours.score_SF[0, f] == pytest.approx(max(scores), abs=1e-9)
        assert ours.positive_SF[0, f] == (scores[0] >= scores[1])
        assert ours.ap_SF[0, f] == pytest.approx(aps[0 if scores[0] >= scores[1] else 1], abs=1e-12)
        assert papers.ap_SF[0, f] == pytest.approx(max(aps), abs=1e-12)
        floor = max(n_positive, 60 - n_positive) / 60
        assert papers.score_SF[0, f] == pytest.approx((max(aps) - floor) / (1 - floor), abs=1e-12)
    np.testing.assert_array_equal(papers.score_SF, papers.normalised_SF)
    for each in (ours, papers):
        np.testing.assert_allclose(each.floor_SF + (1 - each.floor_SF) * each.normalised_SF, each.ap_SF, rtol=1e-14)


def test_a_constant_neuron_is_at_its_floor_and_a_perfect_one_is_best_in_its_polarity():
    for n_rows in (7, 10, 30, 101):
        for n_positive in range(1, n_rows):
            labels_R = np.arange(n_rows) < n_positive
            activations_RF = np.stack([np.ones(n_rows), labels_R, ~labels_R], axis=1).astype(np.float32)
            found = chosen(activations_RF, labels_R[None])
            np.testing.assert_array_equal(found.normalised_SF, [[0, 1, 1]])
            np.testing.assert_array_equal(found.positive_SF[0, 1:], [True, False])
            assert (found.score_SF[0, 1:] > found.score_SF[0, 0]).all()


def test_scores_turn_back_into_average_precision():
    labels_SR = np.arange(200) < np.array([[3], [20], [100], [180]])
    scales = polarity_scales(labels_SR)
    for scale in (scales.positive, scales.negative):
        ap_SF = scale.floor_S[:, None] + (1 - scale.floor_S[:, None]) * np.linspace(0, 1, 50)
        score_SF = scale.score(ap_SF)
        assert (np.diff(score_SF, axis=1) > 0).all()
        np.testing.assert_allclose(scale.average_precision(score_SF), ap_SF, rtol=1e-9)
        np.testing.assert_array_equal(scale.part(2).score(ap_SF[2]), score_SF[2])
        assert (scale.average_precision(score_SF + 20) <= 1).all()


def test_balanced_labels_rank_as_by_the_larger_average_precision():
    rng = np.random.default_rng(1)
    labels_R = rng.permutation(np.arange(300) < 150)
    activations_RF = np.maximum(rng.standard_normal((300, 500)), 0) * (rng.random(500) < 0.9)
    ours, papers = (chosen(activations_RF, labels_R[None], rule) for rule in ("standardised", "larger"))
    np.testing.assert_array_equal(ours.positive_SF, papers.positive_SF)
    np.testing.assert_array_equal(ours.normalised_SF, papers.normalised_SF)
    np.testing.assert_array_equal(top_neurons(ours.score_SF, 500), top_neurons(papers.score_SF, 500))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_neither_polarity_has_the_best_of_many_unrelated_neurons(share):
    rng = np.random.default_rng(2)
    labels_R = np.arange(400) < round(400 * share)
    best, top, every = [], [], []
    for _ in range(40):
        found = chosen(rng.standard_normal((400, 1500)).astype(np.float32), labels_R[None])
        list_F = top_neurons(found.score_SF, 15)[0]
        best.append(found.positive_SF[0, list_F[0]])
        top.append(found.positive_SF[0, list_F].mean())
        every.append(found.positive_SF.mean())
    assert 0.25 < np.mean(best) < 0.8
    assert 0.4 < np.mean(top) < 0.6
    assert 0.48 < np.mean(every) < 0.52


@pytest.mark.parametrize("sign", [1, -1])
def test_a_planted_neuron_of_a_rare_label_is_found_among_many(sign):
    rng = np.random.default_rng(3)
    labels_R = np.arange(400) < 40
    found = 0
    for _ in range(30):
        activations_RF = rng.standard_normal((400, 1500)).astype(np.float32)
        activations_RF[:, 700] += sign * 0.9 * labels_R
        better = chosen(activations_RF, labels_R[None])
        found += better.score_SF.argmax() == 700 and better.positive_SF[0, 700] == (sign == 1)
    assert found > 20


def test_shuffled_rare_labels_give_uniform_p_values():
    rng = np.random.default_rng(4)
    p_value, p_max = [], []
    for seed in range(60):
        activations_RF = np.maximum(rng.standard_normal((100, 3)) @ rng.standard_normal((3, 40)), 0)
        labels_SR = rng.permutation(np.arange(100) < 10)[None]
        observed_SF = chosen(activations_RF, labels_SR).score_SF
        null = predictivity_null(activations_RF, labels_SR, observed_SF, n_permutations=99, seed=seed)
        p_value.append(null.p_value_SF[0, rng.integers(40)])
        p_max.append(max_statistic_p_values(observed_SF.max(axis=1, keepdims=True), null.max_SN)[0, 0])
    assert kstest(p_value, "uniform").pvalue > 0.01
    assert kstest(np.array(p_max) - rng.random(60) / 100, "uniform").pvalue > 0.01
