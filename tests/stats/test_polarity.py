import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from modularity.stats import better_polarity, polarity_floors, ranking_scores


def chosen(activations_RF, labels_SR, rule="above_floor"):
    return better_polarity(ranking_scores(activations_RF, labels_SR), polarity_floors(labels_SR, rule=rule))


@pytest.mark.parametrize("n_positive", [6, 23, 30, 51])
def test_equals_scikit_learn_one_neuron_at_a_time(n_positive):
    rng = np.random.default_rng(n_positive)
    activations_RF = rng.standard_normal((60, 40)).round(1)
    labels_R = rng.permutation(np.arange(60) < n_positive)
    ours, papers = (chosen(activations_RF, labels_R[None], rule) for rule in ("above_floor", "larger"))
    share = n_positive / 60
    for f, values_R in enumerate(activations_RF.T):
        plus, minus = average_precision_score(labels_R, values_R), average_precision_score(~labels_R, values_R)
        above = [(plus - share) / (1 - share), (minus - (1 - share)) / share]
        assert ours.statistic_SF[0, f] == pytest.approx(max(above), abs=1e-12)
        assert ours.positive_SF[0, f] == (above[0] >= above[1])
        assert ours.ap_SF[0, f] == pytest.approx(plus if above[0] >= above[1] else minus, abs=1e-12)
        assert papers.ap_SF[0, f] == pytest.approx(max(plus, minus), abs=1e-12)
        floor = max(share, 1 - share)
        assert papers.statistic_SF[0, f] == pytest.approx((max(plus, minus) - floor) / (1 - floor), abs=1e-12)
    for each in (ours, papers):
        np.testing.assert_allclose(each.floor_SF + (1 - each.floor_SF) * each.statistic_SF, each.ap_SF, rtol=1e-14)


def test_a_constant_neuron_is_exactly_zero_and_a_perfect_one_exactly_one():
    for n_rows in (7, 10, 30, 101):
        for n_positive in range(1, n_rows):
            labels_R = np.arange(n_rows) < n_positive
            activations_RF = np.stack([np.ones(n_rows), labels_R, ~labels_R], axis=1).astype(np.float32)
            found = chosen(activations_RF, labels_R[None])
            np.testing.assert_array_equal(found.statistic_SF, [[0, 1, 1]])
            np.testing.assert_array_equal(found.positive_SF, [[True, True, False]])


def test_rare_labels_do_not_decide_the_polarity():
    rng = np.random.default_rng(0)
    labels_R = np.arange(500) < 50
    activations_RF = rng.standard_normal((500, 400)).astype(np.float32)
    assert 0.3 < chosen(activations_RF, labels_R[None]).positive_SF.mean() < 0.9
    assert not chosen(activations_RF, labels_R[None], "larger").positive_SF.any()
