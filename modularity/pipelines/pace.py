"""How fast a run goes and how much time is left, from the times at which its items were recorded, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median

RECENT = 50
"""Items whose times count."""
PAUSE_S, PAUSE_FACTOR = 600.0, 20.0
"""A gap longer than both, the second in units of the median gap, is a pause between two starts of the run."""


@dataclass(frozen=True)
class Pace:
    """Rate of a run over its latest items."""

    items_per_minute: float
    n_items: int
    """So many latest items were counted."""
    seconds_left: float
    """Until all planned items are recorded, at this rate; 0 for a finished run."""
    last_recorded: float
    """Time of the latest record, seconds since 1970."""


def pace_of(recorded: Sequence[tuple[float, str]], items: Mapping[str, tuple[int, int]]) -> Pace | None:
    """Pace of a run; None where fewer than two times are known, or all are the same.

    Parameters
    ----------
    recorded : time (seconds since 1970) and kind of every recorded item
    items : items done and planned, by kind; other kinds, which are recorded before the work begins, do not count

    Time left goes by the rate of each kind, for a kind without records by the rate of all.
    """
    ordered = sorted((stamp, kind) for stamp, kind in recorded if kind in items)
    gaps = [(later - earlier, kind) for (earlier, _), (later, kind) in pairwise(ordered)]
    if not gaps:
        return None
    longest = max(PAUSE_S, PAUSE_FACTOR * median(gap for gap, _ in gaps))
    worked = [(gap, kind) for gap, kind in gaps if gap <= longest]
    recent = [gap for gap, _ in worked][-RECENT:]
    if not sum(recent):
        return None
    left = 0.0
    for kind, (done, planned) in items.items():
        own = [gap for gap, each in worked if each == kind][-RECENT:]
        left += max(0, planned - done) * fmean(own or recent)
    return Pace(60 / fmean(recent), len(recent), left, ordered[-1][0])
