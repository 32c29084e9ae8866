"""Scores of label words: golden numbers, and collapse."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from modularity.errors import DataError, NumericError
from modularity.interventions import logit_margins, task_scores


def test_golden_numbers_by_hand() -> None:
    logits = np.array([[2.0, 1.0], [3.0, 0.0], [0.0, 1.0], [1.0, 1.5], [0.5, 0.0]])
    found = task_scores(logits, np.array([0, 0, 0, 1, 1]))
    assert (found.n, found.accuracy, found.majority) == (5, 0.6, 0.6)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.mcc == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 2 * 2 * 3))
    assert found.margin == pytest.approx((1 + 3 - 1 + 0.5 - 0.5) / 5)
    assert (found.answer_share, found.top_answer, found.collapsed) == (0.6, 0, False)
    assert found.as_dict()["accuracy"] == 0.6


def test_several_classes() -> None:
    rng = np.random.default_rng(0)
    gold, logits = rng.integers(0, 3, 200), rng.standard_normal((200, 3))
    found = task_scores(logits, gold)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(gold, logits.argmax(axis=1)))
    assert logit_margins(np.array([[1.0, 4.0, 2.0]]), np.array([2])).tolist() == [-2.0]


def test_one_answer_to_everything_is_a_collapse_at_chance() -> None:
    gold = np.array([0] * 10 + [1] * 20)
    found = task_scores(np.tile([1.0, 0.0], (30, 1)), gold)
    assert (found.collapsed, found.top_answer, found.answer_share) == (True, 0, 1.0)
    assert found.accuracy < found.majority
    assert (found.balanced_accuracy, found.mcc) == (0.5, 0.0)


def test_a_task_of_nearly_one_class_does_not_collapse() -> None:
    gold = np.array([0] * 99 + [1])
    assert not task_scores(np.tile([1.0, 0.0], (100, 1)), gold).collapsed


@pytest.mark.parametrize(
    ("logits", "gold", "error", "message"),
    [
        (np.zeros((3, 1)), np.zeros(3, int), DataError, r"logits have shape \(3, 1\)"),
        (np.zeros((3, 2)), np.zeros(3), DataError, "dtype float64"),
        (np.zeros((3, 2)), np.zeros(3, int), DataError, r"classes \[1\] do not occur"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), DataError, r"classes \[2\] do not occur"),
        (np.array([[0.0, np.inf], [0, 0]]), np.array([0, 1]), NumericError, "logit of example 0 is not finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(logits, gold, error, message) -> None:
    with pytest.raises(error, match=message):
        task_scores(logits, gold)
