"""Co-activation: definitions by brute force, any split at the ends of groups, tiles that do not show."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.errors import DataError, InputError
from modularity.stats import CoActivation, merge_in_order
from modularity.stats.co_activation import TILE_NEURONS, tiles


def of(values: np.ndarray, rule: str, groups: np.ndarray | None = None) -> CoActivation:
    accumulator = CoActivation.empty(values.shape[1], rule)  # type: ignore[arg-type]
    accumulator.update(values, groups)
    return accumulator


def test_counts_by_hand() -> None:
    values = np.array([[1.0, 2.0, 0.0], [0.5, -1.0, 3.0], [0.0, 1.0, 1.0]])
    counts = of(values, "positive")
    assert counts.sums.tolist() == [[2, 1, 1], [1, 2, 1], [1, 1, 2]]
    assert counts.count.tolist() == [3]


def test_groups_by_hand_are_clamped_and_end_with_their_text() -> None:
    values = np.array([[0.5, 0.5], [0.5, 0.5], [3.0, 0.1], [2.0, -9.0]])
    groups = of(values, "groups", np.array([0, 0, 1, 2]))
    # Group 0: 0.5 everywhere; group 1: 9 -> 1, 0.3, 0.01; group 2: 4 -> 1, 0, 0.
    np.testing.assert_allclose(groups.sums, [[2.5, 0.8], [0.8, 0.51]])
    assert groups.count.tolist() == [3]


@given(st.lists(st.integers(1, 8), max_size=12), st.integers(0, 999), st.lists(st.integers(0, 12), max_size=3))
@settings(deadline=None)
def test_any_split_between_groups_gives_one_pass(sizes: list[int], seed: int, cuts: list[int]) -> None:
    group_R = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(seed).standard_normal((len(group_R), 5)).astype(np.float32)
    bounds = [0, *sorted(min(cut, len(sizes)) for cut in cuts), len(sizes)]
    expected = np.zeros((5, 5))
    for group in range(len(sizes)):
        active = np.maximum(values[group_R == group].astype(np.float64), 0)
        expected += np.minimum(active.T @ active, 1)
    for rule in ("positive", "groups"):
        chosen = [(group_R >= a) & (group_R < b) for a, b in pairwise(bounds)]
        merged = merge_in_order(of(values[rows], rule, group_R[rows]) for rows in chosen)
        whole = of(values, rule, group_R)
        np.testing.assert_allclose(merged.sums, whole.sums, rtol=1e-12, atol=1e-14)
        assert merged.count == whole.count
        np.testing.assert_array_equal(whole.sums, whole.sums.T)
        if rule == "groups":
            np.testing.assert_allclose(whole.sums, expected, rtol=1e-12, atol=1e-14)
    assert of(values, "positive").sums.tolist() == ((values > 0).T.astype(int) @ (values > 0)).tolist()


def test_tiles_cover_every_pair_once_and_do_not_show() -> None:
    seen = np.zeros((600, 600), int)
    for i, j in tiles(600):
        seen[i, j] += 1
        if i != j:
            seen[j, i] += 1
    assert (seen == 1).all()
    values = np.random.default_rng(0).standard_normal((30, TILE_NEURONS + 9))
    counts = of(values, "positive")
    counts.update(values)
    np.testing.assert_array_equal(counts.sums, 2.0 * ((values > 0).T.astype(int) @ (values > 0)))
    groups = of(values, "groups").sums
    np.testing.assert_allclose(groups[:, -9:][-9:], of(values[:, -9:], "groups").sums)


def test_wrong_groups_and_rules_are_refused() -> None:
    with pytest.raises(DataError, match="2 group numbers for 3 rows"):
        of(np.ones((3, 2)), "groups", np.array([0, 0]))
    with pytest.raises(DataError, match="largest group 9"):
        of(np.ones((9, 2)), "groups", np.zeros(9, int))
    with pytest.raises(InputError, match="rule='pairs': expected one of positive, groups"):
        CoActivation.empty(2, "pairs")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="rules 'positive' and 'groups'"):
        CoActivation.empty(2, "positive").merge(CoActivation.empty(2, "groups"))
