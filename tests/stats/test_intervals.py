import numpy as np
import pytest

from modularity.errors import DataError
from modularity.stats import bootstrap_interval, intervals, ratio_intervals, wilson_interval


def mean_of(values_R):
    return lambda weights_NR: weights_NR @ values_R / weights_NR.sum(axis=1)


def test_interval_of_a_mean_has_the_normal_width():
    values_R = np.random.default_rng(0).standard_normal(400)
    interval = bootstrap_interval(mean_of(values_R), 400, n_resamples=4000, seed=1)
    assert interval.estimate == pytest.approx(values_R.mean())
    half = 1.96 * values_R.std() / 20
    assert interval.low == pytest.approx(values_R.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values_R.mean() + half, abs=0.1 * half)
    assert interval.confidence == 0.95


def test_coverage():
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = bootstrap_interval(mean_of(rng.random(60)), 60, n_resamples=300, confidence=0.9, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert covered / 200 == pytest.approx(0.9, abs=0.05)


def test_seed_decides_and_chunks_do_not(monkeypatch):
    values_R = np.random.default_rng(0).random(30)
    first = bootstrap_interval(mean_of(values_R), 30, n_resamples=100, seed=5)
    assert bootstrap_interval(mean_of(values_R), 30, n_resamples=100, seed=5) == first
    assert bootstrap_interval(mean_of(values_R), 30, n_resamples=100, seed=6) != first
    monkeypatch.setattr(intervals, "CHUNK_VALUES", 30 * 7)
    assert bootstrap_interval(mean_of(values_R), 30, n_resamples=100, seed=5) == first


def test_rows_of_one_group_are_drawn_together():
    values_R = np.repeat(np.random.default_rng(0).standard_normal(40), 10)
    plain = bootstrap_interval(mean_of(values_R), 400, seed=1)
    grouped = bootstrap_interval(mean_of(values_R), 400, seed=1, groups_R=np.repeat(np.arange(40), 10))
    assert (grouped.high - grouped.low) / (plain.high - plain.low) == pytest.approx(np.sqrt(10), rel=0.15)


def test_strata_keep_their_sizes():
    strata_R = np.arange(50) < 3
    interval = bootstrap_interval(lambda weights: weights @ strata_R / weights.sum(axis=1), 50, strata_R=strata_R)
    assert interval.low == interval.high == interval.estimate == pytest.approx(0.06)


def test_groups_within_strata():
    groups_R, strata_R = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 1, 1])
    draw = intervals._Resampler(6, groups_R, strata_R)
    weights = draw.weights(50, np.random.default_rng(0))
    assert (weights[:, :2] == 1).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert (weights.sum(axis=1) == 6).all()
    with pytest.raises(
        DataError, match=r"row \d shares a group with a row of another stratum: expected each group within one"
    ):
        intervals._Resampler(6, groups_R, np.array([0, 1, 1, 1, 1, 1]))


def test_lost_class_is_refused_with_the_remedy():
    with pytest.raises(
        DataError, match=r"not finite on \d+ of 200 resamples of 4 rows: .* pass the labels as strata_R"
    ):
        bootstrap_interval(lambda weights: np.where(weights[:, 0] > 0, 1.0, np.nan), 4, n_resamples=200)


def test_bad_options():
    with pytest.raises(DataError, match=r"confidence is 95: expected a number between 0 and 1"):
        bootstrap_interval(mean_of(np.ones(3)), 3, confidence=95)
    with pytest.raises(DataError, match=r"groups_R has shape \(2,\): expected \(3,\)"):
        bootstrap_interval(mean_of(np.ones(3)), 3, groups_R=np.zeros(2))
    with pytest.raises(DataError, match="0 rows: expected at least one"):
        intervals._Resampler(0, None, None)


def test_wilson_golden():
    # 7 of 10 at 95 %: centre (0.7 + z²/20) / (1 + z²/10) with z = 1.959964
    interval = wilson_interval(7, 10)
    np.testing.assert_allclose([interval.low, interval.high], [0.3967781, 0.8922087], atol=1e-7)
    assert wilson_interval(0, 10).low == 0
    assert wilson_interval(10, 10).high == 1
    assert wilson_interval(0, 10).high == pytest.approx(1 - wilson_interval(10, 10).low)
    with pytest.raises(DataError, match="3 of 2: expected 0 <= successes <= trials"):
        wilson_interval(3, 2)
    with pytest.raises(DataError, match="confidence is 0"):
        wilson_interval(1, 2, confidence=0)


def test_intervals_of_many_ratios_cover_and_are_those_of_one_line() -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 6, 60)
    sums = np.stack([generator.normal(mean, 1, 60) * sizes for mean in (0.0, 2.0)])
    estimate, low, high = ratio_intervals(sums, sizes, n_resamples=400)
    np.testing.assert_allclose(estimate, sums.sum(axis=1) / sizes.sum())
    assert ((low < estimate) & (estimate < high)).all()
    one = bootstrap_interval(lambda w: (w @ sums[1]) / (w @ sizes), 60, n_resamples=4000)
    assert [low[1], high[1]] == [pytest.approx(one.low, abs=0.08), pytest.approx(one.high, abs=0.08)]
    alone = ratio_intervals(sums[1:], sizes, n_resamples=400)
    assert [a[0] for a in alone] == [estimate[1], low[1], high[1]]


def test_ratio_intervals_of_a_single_unit_and_bad_input() -> None:
    estimate, low, high = ratio_intervals(np.array([[3.0]]), np.array([2.0]))
    assert (estimate[0], np.isnan(low[0]), np.isnan(high[0])) == (1.5, True, True)
    with pytest.raises(DataError, match="at least one value in every line"):
        ratio_intervals(np.ones((1, 3)), np.zeros(3))
