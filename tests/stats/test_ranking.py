import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from modularity.errors import DataError
from modularity.stats import (
    average_precision,
    floor,
    normalised,
    predictivity,
    ranking,
    ranking_scores,
    threshold_accuracy,
    threshold_accuracy_chance,
    weighted_average_precision,
)


def random_labels(rng, n_subfunctions, n_rows):
    labels_SR = rng.random((n_subfunctions, n_rows)) < np.linspace(0.03, 0.97, n_subfunctions)[:, None]
    labels_SR[:, 0], labels_SR[:, 1] = True, False
    return labels_SR


ACTIVATIONS = {
    "gaussian": lambda rng: rng.standard_normal((211, 5)),
    "heavy ties": lambda rng: rng.integers(-2, 3, (211, 5)),
    "relu": lambda rng: np.maximum(rng.standard_normal((211, 5)) - np.array([-9, 0, 1, 2, 9]), 0),
    "gelu-like": lambda rng: np.where(rng.random((211, 5)) < 0.4, 0, rng.standard_normal((211, 5))),
    "constant": lambda rng: np.array([0, 1, -1, 3e-5, -0.0]) * np.ones((211, 1)),
}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_equal_to_scikit_learn(kind, dtype):
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = ACTIVATIONS[kind](rng).astype(dtype), random_labels(rng, 11, 211)
    scores = ranking_scores(activations_RF, labels_SR, n_threads=2)
    for s, labels in enumerate(labels_SR):
        for f, values in enumerate(activations_RF.T.astype(np.float64)):
            assert abs(scores.ap_positive_SF[s, f] - average_precision_score(labels, values)) < 1e-12
            assert abs(scores.ap_negative_SF[s, f] - average_precision_score(~labels, values)) < 1e-12
            assert abs(scores.auroc_SF[s, f] - roc_auc_score(labels, values)) < 1e-12


def ap_by_definition(labels, values):
    """Σ over distinct values, descending, of (recall step) · precision."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(values), reverse=True):
        above = [label for label, value in zip(labels, values) if value >= threshold]
        total += (sum(above) / sum(labels) - recall) * sum(above) / len(above)
        recall = sum(above) / sum(labels)
    return total


def auroc_by_definition(labels, values):
    pairs = [(a > b) + (a == b) / 2 for a, y in zip(values, labels) if y for b, z in zip(values, labels) if not z]
    return sum(pairs) / len(pairs)


rows_with_labels = st.lists(
    st.tuples(
        st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 3.0]) | st.floats(-(2.0**100), 2.0**100, width=32),
        st.booleans(),
    ),
    min_size=2,
    max_size=40,
).filter(lambda rows: len({label for _, label in rows}) == 2)


@settings(max_examples=150, deadline=None)
@given(rows_with_labels, st.sampled_from([np.float32, np.float64]))
def test_equal_to_definition(rows, dtype):
    values, labels = zip(*rows)
    scores = ranking_scores(np.array(values, dtype)[:, None], np.array([labels]))
    assert scores.ap_positive_SF[0, 0] == pytest.approx(ap_by_definition(labels, values), abs=1e-12)
    assert scores.ap_negative_SF[0, 0] == pytest.approx(ap_by_definition([not y for y in labels], values), abs=1e-12)
    assert scores.auroc_SF[0, 0] == pytest.approx(auroc_by_definition(labels, values), abs=1e-12)


def test_constant_neuron_gets_exactly_the_floor():
    rng = np.random.default_rng(0)
    labels_SR = rng.random((40, 997)) < rng.random((40, 1))
    labels_SR[:, 0], labels_SR[:, 1] = True, False
    for value in (0.0, 0.3, -7.0):
        scores = ranking_scores(np.full((997, 2), value, np.float32), labels_SR)
        np.testing.assert_array_equal(scores.predictivity_SF, floor(labels_SR)[:, None] * [1, 1])
        np.testing.assert_array_equal(scores.ap_positive_SF[:, 0], labels_SR.sum(axis=1) / 997)
        np.testing.assert_array_equal(scores.auroc_SF, 0.5)
        np.testing.assert_array_equal(normalised(scores.predictivity_SF, floor(labels_SR)), 0.0)


def test_threads_label_batches_and_order_do_not_change_a_bit(monkeypatch):
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = rng.standard_normal((70, 200)).astype(np.float32), random_labels(rng, 21, 70)
    wanted = ranking_scores(activations_RF, labels_SR, n_threads=1)
    monkeypatch.setattr(ranking, "LABEL_BYTES", 1)
    parts = ranking_scores(activations_RF, labels_SR, n_threads=3)
    for name in ("ap_positive_SF", "ap_negative_SF", "auroc_SF"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(wanted, name))
    np.testing.assert_array_equal(average_precision(activations_RF, labels_SR), wanted.ap_positive_SF)
    shuffled = ranking_scores(activations_RF[:, ::-1], labels_SR[::-1])
    np.testing.assert_array_equal(shuffled.auroc_SF, wanted.auroc_SF[::-1, ::-1])


def test_rows_select_without_a_copy():
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = rng.standard_normal((90, 6)), random_labels(rng, 3, 90)
    rows = rng.permutation(90)[:41]
    rows[:2] = [0, 1]
    chosen = ranking_scores(activations_RF, labels_SR[:, rows], rows_R=rows)
    np.testing.assert_array_equal(
        chosen.ap_negative_SF, ranking_scores(activations_RF[rows], labels_SR[:, rows]).ap_negative_SF
    )
    with pytest.raises(DataError, match="expected indices of the 90 rows"):
        ranking_scores(activations_RF, labels_SR, rows_R=np.arange(1, 91))


def test_symmetries():
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = rng.integers(-4, 5, (150, 9)).astype(np.float32), random_labels(rng, 4, 150)
    scores, inverted = ranking_scores(activations_RF, labels_SR), ranking_scores(activations_RF, ~labels_SR)
    np.testing.assert_array_equal(scores.ap_positive_SF, inverted.ap_negative_SF)
    np.testing.assert_allclose(scores.auroc_SF, 1 - inverted.auroc_SF, atol=1e-15)
    np.testing.assert_allclose(ranking_scores(-activations_RF, labels_SR).auroc_SF, 1 - scores.auroc_SF, atol=1e-15)
    monotone = ranking_scores(np.exp(activations_RF.astype(np.float64)) - 1, labels_SR)
    np.testing.assert_array_equal(monotone.ap_positive_SF, scores.ap_positive_SF)


def test_floors_of_the_published_tasks():
    # Class counts of the inputs of arXiv 2305.18390: at most 1,000 examples for each original label.
    shares = {"CoLA": (691, 1000), "MRPC": (684, 1000), "MNLI-a": (2, 3), "RTE": (527, 1000), "SST-2": (509, 1000)}
    floors = []
    for n_true, n_rows in shares.values():
        floors.append(floor(np.arange(n_rows)[None] < n_true)[0])
    np.testing.assert_allclose(floors, [0.691, 0.684, 0.667, 0.527, 0.509], atol=5e-4)
    assert sum(floors) + 3 * 0.5 == pytest.approx(4.578, abs=5e-4)
    np.testing.assert_array_equal(floor(np.array([[True, False, False, False]])), [0.75])


def test_predictivity_is_the_better_polarity():
    np.testing.assert_array_equal(predictivity(np.array([0.2, 0.9]), np.array([0.6, 0.5])), [0.6, 0.9])


def test_threshold_accuracy():
    activations_RF = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0]])
    labels_SR = np.array([[False, False, True, True], [True, True, True, False]])
    # strictly above: a value on the threshold counts as below
    np.testing.assert_array_equal(
        threshold_accuracy(activations_RF, labels_SR, np.array([2.0, 5.0])), [[1, 0.5], [0.75, 0.75]]
    )
    per_subfunction = np.array([[3.0, 4.0], [3.5, 6.0]])
    np.testing.assert_array_equal(
        threshold_accuracy(activations_RF, labels_SR, per_subfunction), [[0.75, 0.5], [1, 0.75]]
    )
    with pytest.raises(DataError, match=r"thresholds have shape \(3,\): expected \(2,\) or \(2, 2\)"):
        threshold_accuracy(activations_RF, labels_SR, np.zeros(3))


def test_chance_of_the_best_accuracy():
    assert threshold_accuracy_chance(16 * 36864, 872) == pytest.approx(0.590, abs=5e-4)
    assert threshold_accuracy_chance(16 * 36864, 13470) == pytest.approx(0.523, abs=5e-4)
    with pytest.raises(DataError, match="0 looks at 5 rows"):
        threshold_accuracy_chance(0, 5)


def test_weighted_average_precision_counts_repeated_rows():
    rng = np.random.default_rng(0)
    scores_R, labels_R = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    weights_NR = rng.integers(0, 3, (5, 60))
    for weights, value in zip(weights_NR, weighted_average_precision(scores_R, labels_R, weights_NR)):
        rows = np.repeat(np.arange(60), weights)
        assert value == pytest.approx(average_precision_score(labels_R[rows], scores_R[rows]), abs=1e-12)
    assert np.isnan(weighted_average_precision(scores_R, labels_R, (~labels_R)[None])).all()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.ones((2, 4), bool),
            r"sub-function 0 has 4 true and 0 false, sub-function 1 .*: expected rows of both classes",
        ),
        (np.array([[True, False, True, True], [False] * 4]), r"^sub-function 1 has 0 true and 4 false: expected"),
        (np.zeros((7, 4), bool), "and 2 more: expected rows of both classes"),
        (np.ones((2, 4), int), "dtype int64: expected bool, use `labels == 1`"),
        (np.ones((2, 5), bool), r"shape \(2, 5\): expected \(sub-functions, 4\)"),
        (np.ones(4, bool), r"shape \(4,\): expected"),
    ],
)
def test_unusable_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        average_precision(np.ones((4, 3), np.float32), labels)
