from dataclasses import fields

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import average_precision_score, roc_auc_score

from modularity.errors import DataError
from modularity.neurons import NeuronPredictivity, average_precision, merge_blocks, neuron_predictivity
from modularity.stats import benjamini_hochberg, polarity_scales


def halves(rng, n_rows):
    return rng.permutation(np.arange(n_rows) < n_rows // 2)


def balanced(rng, n_subfunctions, n_rows):
    return rng.permuted(np.tile(np.arange(n_rows) < n_rows // 2, (n_subfunctions, 1)), axis=1)


def run(activations_RF, labels_SR, selection_R, **options) -> NeuronPredictivity:
    return neuron_predictivity(activations_RF, labels_SR, selection_R, **{"n_permutations": 40, "seed": 1, **options})


def test_average_precision_needs_arrays_alone():
    ap_SF = average_precision(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[True, False, True, False]]))
    np.testing.assert_allclose(ap_SF, [[5 / 6]])


def test_every_field_by_definition_on_subsets_of_rows():
    rng = np.random.default_rng(0)
    activations_RF = np.maximum(rng.standard_normal((160, 6)), 0).astype(np.float16)
    labels_SR = balanced(rng, 4, 160).astype(np.int8)
    labels_SR[1, 100:], labels_SR[3, 100:], labels_SR[2, :40] = -1, -1, -1
    selection_R = halves(rng, 160)
    result = run(activations_RF, labels_SR, selection_R)
    for s, labels_R in enumerate(labels_SR):
        select, evaluate = (labels_R >= 0) & selection_R, (labels_R >= 0) & ~selection_R
        y, z = labels_R[select] == 1, labels_R[evaluate] == 1
        for f, values in enumerate(activations_RF.T.astype(np.float64)):
            scores = [average_precision_score(side, values[select]) for side in (y, ~y)]
            scales = polarity_scales(y[None]).part(0)
            stands_out = [scale.score(score) for scale, score in zip((scales.positive, scales.negative), scores)]
            above = [(score - share) / (1 - share) for score, share in zip(scores, (y.mean(), 1 - y.mean()))]
            positive = stands_out[0] >= stands_out[1]
            assert result.ap_SF[s, f] == pytest.approx(scores[0 if positive else 1], abs=1e-12)
            assert result.floor_SF[s, f] == pytest.approx(y.mean() if positive else 1 - y.mean())
            assert result.polarity_SF[s, f] == (1 if positive else -1)
            assert result.normalised_SF[s, f] == pytest.approx(above[0 if positive else 1], abs=1e-12)
            assert result.score_SF[s, f] == pytest.approx(max(stands_out), abs=1e-10)
            assert result.auroc_SF[s, f] == pytest.approx(roc_auc_score(y, values[select]), abs=1e-12)
            wanted = z if positive else ~z
            assert result.ap_evaluation_SF[s, f] == pytest.approx(
                average_precision_score(wanted, values[evaluate]), abs=1e-12
            )
            assert result.auroc_evaluation_SF[s, f] == pytest.approx(roc_auc_score(z, values[evaluate]), abs=1e-12)
            assert result.chance_evaluation_SF[s, f] == pytest.approx(wanted.mean())
            threshold = values[select].mean()
            same_way = ((values[select] > threshold) == y).mean() >= 0.5
            accuracy = ((values[evaluate] > threshold) == z).mean()
            assert result.accuracy_SF[s, f] == pytest.approx(accuracy if same_way else 1 - accuracy)
    assert result.null_max_SN.shape == (4, 40)


def test_subfunctions_do_not_depend_on_their_company():
    rng = np.random.default_rng(1)
    activations_RF, labels_SR = rng.standard_normal((120, 9)), balanced(rng, 3, 120).astype(np.int8)
    labels_SR[1, :30] = -1
    selection_R = halves(rng, 120)
    together, alone = run(activations_RF, labels_SR, selection_R), run(activations_RF, labels_SR[1:2], selection_R)
    for name in ("ap_SF", "p_value_SF", "null_max_SN", "ap_evaluation_SF", "accuracy_SF"):
        np.testing.assert_array_equal(getattr(together, name)[1], getattr(alone, name)[0])


def test_no_halves_use_all_rows_twice():
    rng = np.random.default_rng(2)
    activations_RF, labels_SR = rng.standard_normal((80, 5)), balanced(rng, 2, 80)
    result = run(activations_RF, labels_SR, None)
    np.testing.assert_array_equal(result.ap_SF, result.ap_evaluation_SF)
    np.testing.assert_array_equal(result.auroc_SF, result.auroc_evaluation_SF)
    assert (result.accuracy_SF >= 0.5).all()


def test_planted_neurons_are_found_in_both_polarities():
    rng = np.random.default_rng(3)
    activations_RF, labels_SR = rng.standard_normal((300, 400)), balanced(rng, 2, 300)
    activations_RF[:, 11] += 1.5 * labels_SR[0]
    activations_RF[:, 222] -= 1.5 * labels_SR[1]
    result = run(activations_RF, labels_SR, halves(rng, 300), n_permutations=100)
    found = benjamini_hochberg(result.p_value_SF, axis=1) < 0.05
    assert result.p_value_SF.argmin(axis=1).tolist() == [11, 222]
    assert found[0, 11]
    assert found[1, 222]
    assert found.sum() <= 4  # at this level a false discovery now and then is in order
    assert (result.polarity_SF[0, 11], result.polarity_SF[1, 222]) == (1, -1)
    assert result.ap_evaluation_SF[0, 11] > 0.75
    assert result.ap_evaluation_SF[1, 222] > 0.75
    assert result.accuracy_SF[1, 222] > 0.7


def test_a_neuron_of_the_rare_label_is_found_in_its_polarity():
    rng = np.random.default_rng(6)
    activations_RF = rng.standard_normal((400, 300))
    labels_R = rng.permutation(np.arange(400) < 40)
    activations_RF[:, 17] += 2 * labels_R
    selection_R = halves(rng, 400)
    result = run(activations_RF, labels_R[None], selection_R, n_permutations=99)
    assert result.score_SF.argmax() == 17
    assert result.p_value_SF.argmin() == 17
    assert result.polarity_SF[0, 17] == 1
    assert 0.3 < (result.polarity_SF == 1).mean() < 0.9
    assert result.ap_SF[0, 17] == average_precision_score(labels_R[selection_R], activations_RF[selection_R, 17])
    paper = run(activations_RF, labels_R[None], None, rule="larger")
    assert (paper.polarity_SF == -1).all()
    largest = average_precision_score(~labels_R, activations_RF[:, 5])
    assert paper.ap_SF[0, 5] == pytest.approx(largest, abs=1e-12)
    assert paper.normalised_SF[0, 5] == pytest.approx((largest - 0.9) / 0.1, abs=1e-12)
    assert paper.score_SF.argmax() != 17
    np.testing.assert_array_equal(paper.score_SF, paper.normalised_SF)


def test_unbalanced_labels_that_are_shuffled_give_uniform_p_values():
    rng = np.random.default_rng(7)
    p_value, p_max = [], []
    for seed in range(60):
        activations_RF = rng.standard_normal((150, 4)) @ rng.standard_normal((4, 60))
        labels_R = rng.permutation(np.arange(150) < 15)
        result = run(activations_RF, labels_R[None], None, n_permutations=99, seed=seed)
        p_value.append(result.p_value_SF[0, rng.integers(60)])
        p_max.append((1 + (result.null_max_SN[0] >= result.score_SF.max()).sum() - rng.random()) / 100)
    assert kstest(p_value, "uniform").pvalue > 0.01
    assert kstest(p_max, "uniform").pvalue > 0.01


def test_balanced_labels_are_chosen_alike_by_both_rules():
    rng = np.random.default_rng(8)
    activations_RF, labels_SR = rng.standard_normal((100, 50)), balanced(rng, 2, 100)
    ours, theirs = (run(activations_RF, labels_SR, None, rule=rule) for rule in ("standardised", "larger"))
    differ = {"score_SF", "p_value_SF", "null_mean_SF", "null_sd_SF", "null_max_SN", "null_top_value_SNK"}
    for field in fields(NeuronPredictivity):
        if field.name not in differ:
            np.testing.assert_array_equal(getattr(ours, field.name), getattr(theirs, field.name))
    np.testing.assert_array_equal(np.argsort(ours.score_SF, axis=1), np.argsort(theirs.score_SF, axis=1))
    assert np.corrcoef(ours.p_value_SF.ravel(), theirs.p_value_SF.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(ours.ap_SF, 0.5 + 0.5 * ours.normalised_SF, rtol=1e-15)


def test_null_looks_null_and_selection_is_optimistic():
    rng = np.random.default_rng(4)
    p_value, best, best_evaluated = [], [], []
    for seed in range(30):
        activations_RF, labels_SR = rng.standard_normal((120, 100)), balanced(rng, 2, 120)
        result = run(activations_RF, labels_SR, halves(rng, 120), seed=seed)
        p_value.extend(result.p_value_SF[:, rng.integers(100)])
        winner = result.ap_SF.argmax(axis=1)
        best.extend(result.ap_SF.max(axis=1))
        best_evaluated.extend(result.ap_evaluation_SF[[0, 1], winner] - result.chance_evaluation_SF[[0, 1], winner])
    assert kstest(p_value, "uniform").pvalue > 0.01
    assert min(best) > 0.6
    assert abs(np.mean(best_evaluated)) < 0.04


def test_blocks_merge_to_the_layer():
    rng = np.random.default_rng(5)
    activations_RF, labels_SR = rng.standard_normal((90, 70)), balanced(rng, 3, 90)
    selection_R = halves(rng, 90)
    labels_SR = labels_SR.astype(np.int8)
    labels_SR[1, :20] = -1  # a group of its own
    clusters_R = np.arange(90) // 2
    options = {"n_top": 9, "clusters_R": clusters_R}
    whole = run(activations_RF, labels_SR, selection_R, **options)
    blocks = [run(activations_RF[:, part], labels_SR, selection_R, **options) for part in (slice(0, 31), slice(31, 70))]
    merged = merge_blocks(blocks)
    for name in ("ap_SF", "polarity_SF", "ap_evaluation_SF", "null_max_SN", "null_top_SNK", "floor_SF", "accuracy_SF"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    with pytest.raises(DataError, match="no blocks to merge"):
        merge_blocks([])


@pytest.mark.parametrize(
    ("labels", "selection", "message"),
    [
        (np.ones((1, 7), bool), None, r"labels have shape \(1, 7\): expected \(sub-functions, 8\)"),
        (np.full((1, 8), 2), None, r"dtype int64 and values from 2 to 2: expected bool, or integers 1, 0 and -1"),
        (np.ones((1, 8)), None, "dtype float64 and values from 1.0 to 1.0: expected bool"),
        (
            np.arange(8)[None] < 4,
            np.arange(8) < 4,
            "sub-function 0 has 4 positive and 0 negative rows in its selection half",
        ),
        (
            np.arange(8)[None] < 2,
            np.arange(8) < 4,
            "0 positive and 4 negative rows in its evaluation half: expected both",
        ),
        (np.arange(8)[None] < 2, np.arange(8), r"selection_R is int64 of shape \(8,\): expected bool of shape \(8,\)"),
    ],
)
def test_unusable_inputs_are_refused(labels, selection, message):
    with pytest.raises(DataError, match=message):
        run(np.ones((8, 3)), labels, selection)
