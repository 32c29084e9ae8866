"""SIGTERM raises KeyboardInterrupt inside the block, and nowhere else."""

import contextlib
import signal
import sys
import threading

import pytest

from modularity.runtime.termination import Terminated, handler_kept, sigterm_interrupts, terminated_kept


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


def interrupted_like_by_ray() -> None:
    """What Ray's core does with an exception that a handler raises while it waits."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None


def test_terminated_is_kept_where_other_code_makes_an_interrupt_of_it() -> None:
    with sigterm_interrupts(), pytest.raises(Terminated), terminated_kept():
        interrupted_like_by_ray()
    with pytest.raises(Terminated), sigterm_interrupts():
        interrupted_like_by_ray()


def test_ctrl_c_is_not_taken_for_sigterm() -> None:
    with sigterm_interrupts(), pytest.raises(KeyboardInterrupt) as caught, terminated_kept():
        raise KeyboardInterrupt
    assert not isinstance(caught.value, Terminated)
    with pytest.raises(KeyboardInterrupt) as caught, terminated_kept():
        raise KeyboardInterrupt
    assert not isinstance(caught.value, Terminated)


def exit_like_ray(number: int, frame: object) -> None:
    """The handler that `ray.init` sets."""
    sys.exit(number)


def test_the_handler_that_ray_sets_is_taken_back() -> None:
    with sigterm_interrupts():
        with handler_kept():
            signal.signal(signal.SIGTERM, exit_like_ray)
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated), handler_kept():
            signal.signal(signal.SIGTERM, exit_like_ray)
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Terminated), handler_kept():
            signal.signal(signal.SIGTERM, exit_like_ray)
            with contextlib.suppress(SystemExit):  # as where it is raised in a callback
                signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit), handler_kept():
            sys.exit(3)


def test_without_interruption_ray_has_the_handler_that_it_sets() -> None:
    former = signal.getsignal(signal.SIGTERM)
    try:
        with handler_kept():
            signal.signal(signal.SIGTERM, exit_like_ray)
        assert signal.getsignal(signal.SIGTERM) is exit_like_ray
    finally:
        signal.signal(signal.SIGTERM, former)
