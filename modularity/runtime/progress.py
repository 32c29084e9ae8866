"""Progress of long work: a live bar in a terminal; in a job log plain lines, the rarer the longer a step takes."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from modularity.types import WorkItem

LINE_INTERVAL_S = 10.0
LONGEST_INTERVAL_S = 300.0
LINE_SHARE = 0.05
"""Lines of a log are apart by this share of the time that the step has taken, within the two bounds."""


class Progress:
    """Counts finished items of one step and shows them; use as a context manager.

    Items report `tokens` and `bytes` in their info; both are summed and shown as rates.
    """

    def __init__(
        self, label: str, n_items: int, *, n_done: int = 0, stream: TextIO | None = None, quiet: bool = False
    ) -> None:
        self._label = label
        self._n_items = n_items
        self._n_done = n_done
        self._n_new = 0
        self._tokens = 0
        self._bytes = 0
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._started = self._last_line = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            columns = (
                TextColumn("{task.description:<22}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeRemainingColumn(),
            )
            self._bar = RichProgress(*columns, console=Console(file=self._stream), transient=False)
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._n_items, completed=self._n_done, rates="")
        elif not self._quiet:
            self._print("begins")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self._quiet:
            self._print("done" if kind is None else "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def done(self, item: WorkItem, info: Mapping[str, Any]) -> None:
        """Count one finished item."""
        self._n_done += 1
        self._n_new += 1
        self._tokens += int(info.get("tokens", 0))
        self._bytes += int(info.get("bytes", 0))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._n_done, rates=self._rates())
        elif not self._quiet and self._line_is_due():
            self._last_line = time.monotonic()
            self._print("running")

    def _line_is_due(self) -> bool:
        now = time.monotonic()
        interval = min(LONGEST_INTERVAL_S, max(LINE_INTERVAL_S, LINE_SHARE * (now - self._started)))
        return now - self._last_line >= interval

    def _rates(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        parts = []
        if self._tokens:
            parts.append(f"{self._tokens / elapsed:,.0f} tokens/s")
        if self._bytes:
            parts.append(f"{format_bytes(self._bytes)} written")
        return ", ".join(parts)

    def _print(self, state: str) -> None:
        elapsed = time.monotonic() - self._started
        left = elapsed / self._n_new * (self._n_items - self._n_done) if self._n_new else None
        parts = [f"{self._n_done}/{self._n_items} items"]
        parts += [] if state == "begins" else [format_duration(elapsed) if elapsed >= 60 else f"{elapsed:.1f} s"]
        rates = self._rates()
        if rates:
            parts.append(rates)
        if state == "running" and left is not None:
            parts.append(f"{format_duration(left)} left")
        print(f"{self._label}: {state}, {', '.join(parts)}", file=self._stream, flush=True)


def format_bytes(n_bytes: float) -> str:
    """Bytes in decimal units, as people read them: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(n_bytes) < 1000 or unit == "TB":
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    raise AssertionError("the last unit always returns")


def format_duration(seconds: float) -> str:
    """Seconds as people read them: `42 s`, `3 min 10 s`, `5 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{max(whole, 1)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
