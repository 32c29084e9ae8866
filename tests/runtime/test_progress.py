"""Progress lines in a log: counts, rates and the state."""

import io
from itertools import pairwise

import pytest

from modularity.runtime import Progress
from modularity.runtime import progress as progress_module
from modularity.runtime.progress import format_bytes
from modularity.types import WorkItem


def test_lines_have_counts_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "LINE_INTERVAL_S", 0.0)
    stream = io.StringIO()
    with Progress("capture", 3, n_done=1, stream=stream) as progress:
        progress.done(WorkItem.of("capture", x=1), {"tokens": 1000, "bytes": 2_500_000})
        progress.done(WorkItem.of("capture", x=2), {"tokens": 1000, "bytes": 2_500_000})
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "capture: begins, 1/3 items"
    assert lines[1].startswith("capture: running, 2/3 items")
    assert "tokens/s" in lines[1]
    assert "2.5 MB written" in lines[1]
    assert lines[1].endswith("s left")
    assert lines[3].startswith("capture: done, 3/3 items")


def test_lines_become_rarer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hours with an item in every second: lines are at least 10 s apart, the last ones 5 min."""
    now, size, stamps = 0.0, 0, []
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    stream = io.StringIO()
    with Progress("capture", 10_800, stream=stream) as progress:
        for second in range(1, 10_800):
            now = float(second)
            progress.done(WorkItem.of("capture", x=1), {})
            stamps += [now] if stream.tell() > size > 0 else []
            size = stream.tell()
    apart = [later - earlier for earlier, later in pairwise(stamps)]
    assert (min(apart), max(apart)) == (10, 300)
    assert apart == sorted(apart)
    assert "capture: running, 10/10800 items, 10.0 s, 2 h 59 min left" in stream.getvalue()
    assert len(stamps) < 120


def test_a_terminal_has_a_bar_and_no_lines() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("capture", 2, stream=stream) as progress:
        progress.done(WorkItem.of("capture", x=1), {"tokens": 10})
    assert "1/2" in stream.getvalue()
    assert "running" not in stream.getvalue()


def test_failure_and_silence() -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("capture", 2, stream=stream):
        raise RuntimeError
    assert "capture: failed, 0/2 items" in stream.getvalue()
    quiet = io.StringIO()
    with Progress("capture", 2, stream=quiet, quiet=True) as progress:
        progress.done(WorkItem.of("capture", x=1), {})
    assert quiet.getvalue() == ""


@pytest.mark.parametrize(
    ("n_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (3.2e15, "3200.0 TB")]
)
def test_bytes_are_readable(n_bytes: float, text: str) -> None:
    assert format_bytes(n_bytes) == text
