"""The dissociation index: golden numbers, planted dissociation, and what must not pass for one."""

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest, ttest_1samp

from modularity.errors import DataError
from modularity.stats import dissociation_index


def planted(n_seeds: int = 5, n_tasks: int = 4, *, own: float = 0.3, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return own * np.eye(n_tasks) + noise * rng.standard_normal((n_seeds, n_tasks, n_tasks))


def test_golden_numbers_by_hand() -> None:
    drop = np.array([[[0.4, 0.1], [0.2, 0.5]], [[0.6, 0.3], [0.0, 0.3]]])
    found = dissociation_index(drop)
    assert found.index == pytest.approx(0.45 - 0.15)
    assert (found.diagonal, found.off_diagonal) == (pytest.approx(0.45), pytest.approx(0.15))
    assert found.index_by_seed == pytest.approx([0.3, 0.3])
    assert found.p_value == found.smallest_p_value == 0.5
    (pair,) = found.pairs
    assert (pair.first_margin, pair.second_margin) == (pytest.approx(0.4), pytest.approx(0.2))
    assert pair.is_double
    assert pair.share_of_seeds == 0.5
    assert found.share_double == 1.0


def test_exact_p_value_equals_a_count_of_all_assignments() -> None:
    drop = np.random.default_rng(3).standard_normal((3, 5, 5))
    mean = drop.mean(axis=0)
    sums = [sum(mean[row, column] for row, column in enumerate(order)) for order in permutations(range(5))]
    expected = np.mean(np.array(sums) >= sums[0] - 1e-9)
    found = dissociation_index(drop)
    assert found.p_value == pytest.approx(expected)
    assert (found.n_assignments, found.is_exact) == (120, True)


def test_planted_dissociation_is_found() -> None:
    found = dissociation_index(planted())
    assert found.index == pytest.approx(0.3, abs=0.02)
    assert found.p_value == found.p_value_standardised == pytest.approx(1 / 24)
    assert found.interval.low > 0.25
    assert found.share_double == 1.0
    assert all(pair.p_value < 0.01 for pair in found.pairs)


def test_many_tasks_are_drawn_and_the_seed_decides() -> None:
    drop = planted(n_tasks=10)
    found = dissociation_index(drop, seed=1, n_permutations=999)
    assert (found.is_exact, found.n_assignments, found.p_value) == (False, 1000, 0.001)
    null = np.random.default_rng(0).standard_normal((2, 10, 10))
    assert dissociation_index(null, seed=4).p_value == dissociation_index(null, seed=4).p_value
    assert dissociation_index(null, seed=4).p_value != dissociation_index(null, seed=5).p_value


def test_drawn_and_counted_p_values_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = np.random.default_rng(8).standard_normal((3, 6, 6))
    exact = dissociation_index(drop).p_value
    monkeypatch.setattr("modularity.stats.dissociation.MAX_EXACT", 5)
    assert dissociation_index(drop, n_permutations=20_000).p_value == pytest.approx(exact, abs=0.02)


def test_strength_and_sensitivity_that_add_do_not_move_index_or_p_value() -> None:
    drop = np.random.default_rng(5).standard_normal((4, 5, 5))
    strength, sensitivity = np.array([9.0, 0, 0, 0, 2]), np.array([0.0, 5, 1, 0, 7])
    shifted = dissociation_index(drop + strength[:, None] + sensitivity)
    plain = dissociation_index(drop)
    assert shifted.index == pytest.approx(plain.index)
    assert shifted.p_value == plain.p_value


def test_one_ranking_that_hurts_every_task_is_no_dissociation() -> None:
    p_values = []
    for seed in range(60):
        drop = planted(own=0.0, seed=seed)
        drop[:, 2] += 0.5
        found = dissociation_index(drop)
        assert abs(found.index) < 0.05
        assert not any(pair.is_double for pair in found.pairs if 2 in (pair.first, pair.second))
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_strength_times_sensitivity_raises_the_index_but_not_the_standardised_test_or_the_pairs() -> None:
    drop = np.outer([0.4, 0.3, 0.2, 0.1], [4.0, 3.0, 2.0, 1.0])[None] + np.array([0.0, 0.1, 0.5, 0.0])
    found = dissociation_index(drop)
    assert found.p_value == pytest.approx(1 / 24)
    assert found.p_value_standardised == 1.0
    assert found.share_double == 0.0


def test_p_values_are_uniform_under_the_null() -> None:
    """Rankings and tasks interact, but not by ownership: strength, sensitivity and interaction are drawn anew."""
    found = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        interaction = rng.exponential(size=(5, 5)) + np.outer(rng.exponential(size=5), rng.exponential(size=5))
        result = dissociation_index(interaction + 0.1 * rng.standard_normal((4, 5, 5)))
        found.append((result.p_value, result.p_value_standardised))
    for p_values in np.array(found).T:
        assert kstest(p_values, "uniform").pvalue > 0.01
        assert np.mean(p_values <= 0.05) < 0.09


def test_interval_covers_the_true_index() -> None:
    covered = []
    for seed in range(300):
        interval = dissociation_index(planted(own=0.3, noise=0.1, seed=seed)).interval
        covered.append(interval.low <= 0.3 <= interval.high)
    assert 0.91 < np.mean(covered) < 0.985


def test_pair_p_value_is_the_larger_t_test() -> None:
    drop = planted(n_seeds=6, n_tasks=2, own=0.05, noise=0.05, seed=2)
    tests = [ttest_1samp(drop[:, own, own] - drop[:, 1 - own, own], 0, alternative="greater").pvalue for own in (0, 1)]
    assert dissociation_index(drop).pairs[0].p_value == pytest.approx(max(tests))


def test_one_seed_has_an_index_and_no_interval() -> None:
    found = dissociation_index(planted(n_seeds=1))
    assert found.p_value == pytest.approx(1 / 24)
    assert np.isnan([found.interval.low, found.interval.high, found.pairs[0].p_value]).all()


def test_equal_drops_everywhere_give_a_p_value_of_one() -> None:
    found = dissociation_index(np.full((3, 4, 4), 0.1))
    assert (found.p_value, found.p_value_standardised) == (1.0, 1.0)
    assert found.index == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\).*leave out rankings without a task"),
        (np.zeros((3, 3)), r"shape \(3, 3\)"),
        (np.zeros((2, 1, 1)), "at least two tasks"),
        (np.where(np.eye(3)[None] > 0, np.nan, 0.0), r"\(seed, ranking, task\) = \(0, 0, 0\) is nan"),
    ],
)
def test_what_is_no_matrix_of_drops_is_refused(drop: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dissociation_index(drop)


def test_confidence_is_checked() -> None:
    with pytest.raises(DataError, match=r"confidence is 1\.5"):
        dissociation_index(planted(), confidence=1.5)
