"""Pace by hand: rate over the latest items, time left by kind, pauses left out."""

import pytest

from modularity.pipelines.pace import RECENT, pace_of


def test_time_left_goes_by_the_rate_of_each_kind() -> None:
    recorded = [
        (-900.0, "functions"),
        (0.0, "capture"),
        (10.0, "capture"),
        (20.0, "capture"),
        (22.0, "rank"),
        (24.0, "rank"),
    ]
    pace = pace_of(recorded, {"capture": (3, 4), "rank": (2, 12), "overlap": (0, 2)})
    assert pace is not None
    assert pace.items_per_minute == pytest.approx(60 / 6)
    assert pace.n_items == 4
    assert pace.seconds_left == pytest.approx(1 * 10 + 10 * 2 + 2 * 6)
    assert pace.last_recorded == 24


def test_only_the_latest_items_count() -> None:
    slow = [(100.0 * n, "a") for n in range(10)]
    fast = [(1000.0 + n, "a") for n in range(RECENT)]
    pace = pace_of([*fast, *slow], {"a": (10 + RECENT, 10 + RECENT)})
    assert pace is not None
    assert pace.items_per_minute == pytest.approx(60 * RECENT / (100 + RECENT - 1))
    assert pace.seconds_left == 0


def test_a_night_between_two_starts_is_no_work() -> None:
    recorded = [(float(n), "a") for n in range(5)] + [(40_000.0 + n, "a") for n in range(5)]
    pace = pace_of(recorded, {"a": (10, 20)})
    assert pace is not None
    assert (pace.items_per_minute, pace.seconds_left) == (60, 10)
    hours = pace_of([(3600.0 * n, "a") for n in range(4)], {"a": (4, 5)})
    assert hours is not None
    assert hours.seconds_left == 3600  # items of an hour are no pauses


@pytest.mark.parametrize("times", [[], [7.0], [7.0, 7.0]])
def test_nothing_is_said_where_nothing_is_known(times: list[float]) -> None:
    assert pace_of([(time, "a") for time in times], {"a": (len(times), 9)}) is None
