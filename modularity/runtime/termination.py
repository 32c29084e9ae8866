"""SIGTERM as an interruption: a job that a scheduler stops ends like one that was stopped by Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: a scheduler, a preemption or `ray job stop` wants this job to end."""


class _Handler:
    """Raises `Terminated` and remembers it, for code that catches the exception and raises another in its place."""

    def __init__(self) -> None:
        self.has_come = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.has_come = True
        raise Terminated("by SIGTERM")


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM for the time of a `with` block; the former handler is put back after it.

    Only the main thread can set handlers; in other threads nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, _Handler())
    try:
        with terminated_kept():
            yield
    finally:
        signal.signal(signal.SIGTERM, former if former is not None else signal.SIG_DFL)


@contextmanager
def handler_kept() -> Iterator[None]:
    """Put the handler of `sigterm_interrupts` back after a block that sets another; `Terminated` where SIGTERM came.

    `ray.init` sets one that exits with code 15 and no word, and where that exception ends in a callback, SIGTERM is
    lost. What arrives is read from the file descriptor that Python writes signals to, whatever handler there is.
    """
    former = signal.getsignal(signal.SIGTERM)
    if not isinstance(former, _Handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    other = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
        signal.set_wakeup_fd(other)
        os.close(writer)
        with open(reader, "rb") as arrived:
            has_come = signal.SIGTERM in arrived.read()
        if has_come:
            raise Terminated("by SIGTERM") from None


@contextmanager
def terminated_kept() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM came and the code of the block made a plain KeyboardInterrupt of it.

    Ray does so: while `ray.wait` and `ray.get` block, its core runs the handlers of signals and keeps of what they
    raise only that it was an interruption.
    """
    try:
        yield
    except Terminated:
        raise
    except KeyboardInterrupt as interrupt:
        handler = signal.getsignal(signal.SIGTERM)
        if isinstance(handler, _Handler) and handler.has_come:
            raise Terminated("by SIGTERM") from interrupt
        raise
