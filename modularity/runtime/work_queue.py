"""The work items of one call of an executor: which wait, how often each was tried, and which are given up.

Our own errors are findings: they would come again, so they are final. Everything else is an accident, and the item is
tried again; after a lack of memory with half the batch, where its worker works in batches. A store that does not
answer, or is full, fails every item: then no more are started.
"""

import traceback
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from modularity.errors import ModularityError, UnavailableError, WorkError
from modularity.types import WorkItem

MAX_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Assignment:
    """An item as it is given to a worker."""

    item: WorkItem
    attempt: int = 1
    """From 1."""
    halvings: int = 0
    """How often the batches of this item are halved."""


@dataclass(frozen=True)
class ItemFailure:
    """An item that failed after its last attempt."""

    item: WorkItem
    attempts: int
    error: BaseException

    def describe(self) -> str:
        """One line: the item, the attempts and the error."""
        plural = "attempt" if self.attempts == 1 else "attempts"
        return f"{self.item} failed after {self.attempts} {plural}: {type(self.error).__name__}: {self.error}"


class WorkQueue:
    """Items in the order in which they are started; those tried again come last.

    Parameters
    ----------
    items : all different
    max_attempts : attempts of an item before it is given up
    """

    def __init__(self, items: Iterable[WorkItem], max_attempts: int) -> None:
        self._waiting = deque(items)
        self._max_attempts = max_attempts
        self._again: dict[WorkItem, Assignment] = {}
        self.n_items = len(self._waiting)
        self.n_not_started = 0
        """Items that were given up without an attempt, since the store is at fault."""
        self.failures: list[ItemFailure] = []

    def __len__(self) -> int:
        """Items that wait."""
        return len(self._waiting)

    def take(self) -> Assignment:
        """The next item that waits."""
        item = self._waiting.popleft()
        return self._again.pop(item, None) or Assignment(item)

    def failed(self, given: Assignment, error: BaseException) -> str:
        """Put the item back, or give it up; returns what was done and why, in one line."""
        cause = brief(error)
        if isinstance(error, UnavailableError) and self._waiting:
            self.n_not_started += len(self._waiting)
            self._waiting.clear()
            cause = f"{cause}; none of the others is started"
        if is_deterministic(error) or self.n_not_started or given.attempt >= self._max_attempts:
            self.failures.append(ItemFailure(given.item, given.attempt, error))
            return f"{given.item} failed for good: {cause}"
        halvings = given.halvings + isinstance(error, MemoryError)
        self._again[given.item] = Assignment(given.item, given.attempt + 1, halvings)
        self._waiting.append(given.item)
        smaller = f", next with 1/{2**halvings} of the batch where it has one" if halvings else ""
        return f"{given.item} goes back, attempt {given.attempt} of {self._max_attempts} failed{smaller}: {cause}"


def is_deterministic(error: BaseException) -> bool:
    """Whether running the item again would fail in the same way: our own errors are findings, not accidents."""
    return isinstance(error, ModularityError)


def brief(error: BaseException) -> str:
    """An error in one line: its kind, what it says first, and last where it goes on for a page, as those of Ray do."""
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    lines = [line.strip() for line in str(told).splitlines() if line.strip()] or ["no message"]
    more = f" … {lines[-1]}" if len(lines) > 1 else ""
    return f"{type(told).__name__}: {lines[0]}{more}"


def raise_failures(queue: WorkQueue) -> None:
    """Raise one error for all failures, with a table of them; nothing happens when there are none.

    Raises
    ------
    UnavailableError
        The store was at fault, and items were left.
    WorkError
        Items failed for other reasons.
    """
    failures = queue.failures
    if not failures:
        return
    if queue.n_items == len(failures) == 1 and isinstance(failures[0].error, ModularityError):
        raise failures[0].error
    shown = [failure.describe() for failure in failures[:MAX_FAILURES_SHOWN]]
    hidden = len(failures) - len(shown)
    if hidden:
        shown.append(f"and {hidden} more")
    summary = f"{len(failures)} of {queue.n_items} work items failed"
    if queue.n_not_started:
        summary += f" and {queue.n_not_started} were not started, since the store is at fault"
    summary += ", the others are recorded; mend the cause and rerun"
    first = failures[0].error
    details = "".join(traceback.format_exception(first)) if not isinstance(first, ModularityError) else ""
    kind = UnavailableError if any(isinstance(each.error, UnavailableError) for each in failures) else WorkError
    raise kind("\n  ".join([summary, *shown]) + (f"\n{details}" if details else "")) from first
