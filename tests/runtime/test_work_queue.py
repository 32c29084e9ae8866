"""The queue: order, attempts, halvings, and the table of what failed."""

import pytest

from modularity.errors import DataError, UnavailableError, WorkError
from modularity.runtime.work_queue import Assignment, WorkQueue, raise_failures
from modularity.types import WorkItem

ITEMS = [WorkItem.of("square", x=x) for x in range(3)]


def test_items_come_in_order_and_those_tried_again_come_last() -> None:
    queue = WorkQueue(ITEMS, max_attempts=2)
    first = queue.take()
    said = queue.failed(first, ConnectionError("lost\nat a\nlong place\n"))
    assert said == "square(x=0) goes back, attempt 1 of 2 failed: ConnectionError: lost … long place"
    assert [queue.take() for _ in range(len(queue))] == [*map(Assignment, ITEMS[1:]), Assignment(ITEMS[0], attempt=2)]


def test_the_last_attempt_and_findings_are_failures() -> None:
    queue = WorkQueue(ITEMS[:2], max_attempts=2)
    assert "failed for good: DataError: no" in queue.failed(queue.take(), DataError("no"))
    queue.failed(queue.take(), ConnectionError("lost"))
    queue.failed(queue.take(), ConnectionError(""))
    assert not queue
    assert [(failure.item, failure.attempts) for failure in queue.failures] == [(ITEMS[0], 1), (ITEMS[1], 2)]
    with pytest.raises(WorkError, match=r"2 of 2 work items failed, the others are recorded.*\n  square\(x=0\) failed"):
        raise_failures(queue)


def test_a_lack_of_memory_halves_the_batch() -> None:
    queue = WorkQueue(ITEMS[:1], max_attempts=4)
    assert "next with 1/2 of the batch where it has one" in queue.failed(queue.take(), MemoryError("killed"))
    assert queue.take() == Assignment(ITEMS[0], attempt=2, halvings=1)
    queue.failed(Assignment(ITEMS[0], 2, 1), ConnectionError("lost"))
    assert queue.take() == Assignment(ITEMS[0], attempt=3, halvings=1)


def test_no_item_is_started_when_the_store_is_at_fault() -> None:
    queue = WorkQueue([WorkItem.of("square", x=x) for x in range(9)], max_attempts=3)
    running = [queue.take() for _ in range(3)]
    said = queue.failed(running[0], UnavailableError("no answer"))
    assert said == "square(x=0) failed for good: UnavailableError: no answer; none of the others is started"
    assert "failed for good" in queue.failed(running[1], ConnectionError("lost"))  # it would find the same store
    assert not queue
    with pytest.raises(UnavailableError) as caught:
        raise_failures(queue)
    first, *table = str(caught.value).splitlines()
    assert first == (
        "2 of 9 work items failed and 6 were not started, since the store is at fault, the others are recorded; "
        "mend the cause and rerun"
    )
    assert table == [
        "  square(x=0) failed after 1 attempt: UnavailableError: no answer",
        "  square(x=1) failed after 1 attempt: ConnectionError: lost",
    ]
