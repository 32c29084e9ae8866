"""Importances of units: by hand, merged in any way, and the order in which units go."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.errors import DataError
from modularity.stats.accumulators import merge_in_order
from modularity.stats.importance import ImportanceSums, highest, pruning_scores

ROWS = np.array([[1.0, -4.0, 0.0], [-1.0, 0.0, 0.0], [4.0, 4.0, 0.0], [0.0, 0.0, 0.0]])


def test_every_importance_by_hand() -> None:
    sums = ImportanceSums.of(ROWS)
    assert sums.importance("abs").tolist() == [1.5, 2.0, 0.0]
    assert sums.importance("rms") == pytest.approx([np.sqrt(18 / 4), np.sqrt(8), 0.0])
    assert sums.importance("std") == pytest.approx(ROWS.std(axis=0))
    assert sums.importance("freq").tolist() == [0.5, 0.25, 0.0]
    assert sums.importance("sqrt") == pytest.approx([1.0, 1.0, 0.0])
    assert sums.importance("mean_difference") == pytest.approx([1.0, 0.0, 0.0])


@given(cuts=st.lists(st.integers(0, 37), max_size=5), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_any_cut_merges_to_the_whole(cuts: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(3.0, 2.0, (37, 4)).astype(np.float32)
    whole = ImportanceSums.of(rows)
    merged = merge_in_order(ImportanceSums.of(part) for part in np.split(rows, sorted(cuts)))
    for name, array in whole.arrays().items():
        assert merged.arrays()[name] == pytest.approx(array, rel=1e-12), name
    assert merged.importance("std") == pytest.approx(rows.astype(np.float64).std(axis=0), rel=1e-12)


def test_std_is_exact_far_from_zero() -> None:
    rows = 1e6 + np.random.default_rng(0).normal(size=(1000, 2))
    parts = merge_in_order(ImportanceSums.of(part) for part in np.array_split(rows, 7))
    assert parts.importance("std") == pytest.approx(rows.std(axis=0), rel=1e-9)


def test_score_is_a_ratio_and_the_difference_of_means_has_no_direction() -> None:
    one, other = ImportanceSums.of(ROWS), ImportanceSums.of(ROWS[:, ::-1] + 1)
    ratio = pruning_scores(one, other, "abs", epsilon=0.5)
    assert ratio == pytest.approx(one.importance("abs") / (other.importance("abs") + 0.5))
    back = pruning_scores(other, one, "mean_difference", epsilon=0.5)
    assert back == pytest.approx(pruning_scores(one, other, "mean_difference", epsilon=0.5))


def test_the_highest_go_ties_by_lowest_index() -> None:
    scores = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
    assert highest(scores, 2, allowed_F=np.ones(5, bool)).tolist() == [1, 2]
    assert highest(scores, 2, allowed_F=np.array([True, False, True, True, True])).tolist() == [2, 4]
    assert highest(scores, 9, allowed_F=np.array([True, False, True, False, False])).tolist() == [0, 2]


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="at least one token"):
        ImportanceSums.empty(3).importance("abs")
    with pytest.raises(DataError, match="expected one of abs, rms"):
        ImportanceSums.of(ROWS).importance("loud")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected finite ones"):
        ImportanceSums.of(np.array([[np.nan]]))
    with pytest.raises(DataError, match="epsilon=0"):
        pruning_scores(ImportanceSums.of(ROWS), ImportanceSums.of(ROWS), "abs", epsilon=0)
    with pytest.raises(DataError, match="merge accumulators of the same neurons"):
        ImportanceSums.empty(3).merge(ImportanceSums.empty(4))


def test_importances_that_are_not_finite_are_refused() -> None:
    sums = ImportanceSums.of(ROWS)
    sums.absolute[1] = np.nan
    with pytest.raises(DataError, match=r"importance 'abs' of 1 of 3 units is not finite: .*load it as float32"):
        sums.importance("abs")
    assert sums.importance("freq").tolist() == [0.5, 0.25, 0.0]
