"""SIGTERM raises KeyboardInterrupt inside the block, and nowhere else."""

import signal
import threading

import pytest

from modularity.runtime.termination import sigterm_interrupts


def test_sigterm_is_an_interrupt_and_the_former_handler_comes_back() -> None:
    seen: list[int] = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with pytest.raises(KeyboardInterrupt, match="by SIGTERM"), sigterm_interrupts():
            signal.raise_signal(signal.SIGTERM)
        assert seen == []
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_another_thread_changes_no_handler() -> None:
    found = []

    def enter() -> None:
        with sigterm_interrupts():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]
