"""SIGTERM as an interruption: a job that a scheduler stops ends like one that was stopped by Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: a scheduler, a preemption or `ray job stop` wants this job to end."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM for the time of a `with` block; the former handler is put back after it.

    Enter it after `ray.init`, which sets a handler that exits at once. Only the main thread can set handlers; in other
    threads nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Terminated("by SIGTERM")

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former if former is not None else signal.SIG_DFL)
