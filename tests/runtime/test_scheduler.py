"""Decisions of the scheduler on a simulated cluster: growth, deaths, hung items, memory, the end, interruption."""

import runpy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modularity.errors import ModelError, WorkError
from modularity.runtime import RuntimeConfig, Terminated
from modularity.runtime.scheduler import MAX_PENDING, Event, NotStarted, Scheduler
from modularity.runtime.work_queue import Assignment, WorkQueue
from modularity.types import WorkItem

benchmark = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "scheduler.py")))


def items(n: int) -> list[WorkItem]:
    return [WorkItem.of("item", index=index) for index in range(n)]


class Run:
    """One run of the scheduler on a simulated cluster, where items take 10 s unless `outcome` says otherwise."""

    def __init__(
        self, outcome: Any = None, capacity: Callable[[float], int] = lambda now: 4, limit: int | None = None
    ) -> None:
        self.given: list[Assignment] = []
        self.done: Counter[WorkItem] = Counter()
        self.said: list[str] = []

        def told(worker: int, given: Assignment) -> Any:
            self.given.append(given)
            return (outcome and outcome(worker, given)) or (10.0, None, False)

        self.pool = benchmark.SimulatedPool(told, capacity, limit=limit)

    def __call__(self, n: int, on_done: Any = None, n_next: int = 0, **limits: Any) -> WorkQueue:
        queue = WorkQueue(items(n), max_attempts=3)
        config = RuntimeConfig(**limits)
        self.scheduler = Scheduler(self.pool, config, clock=self.pool.clock, say=self.said.append, n_next=n_next)
        self.scheduler.run(queue, on_done or (lambda item, info: self.done.update([item])))
        return queue


def test_every_item_is_done_once_by_as_many_workers_as_fit() -> None:
    run = Run()
    queue = run(10)
    assert (set(run.done.values()), len(run.done), queue.failures) == ({1}, 10, [])
    assert (run.pool.now, run.pool.most_alive, run.pool.n_pending) == (30.0, 4, 0)


def test_no_more_workers_than_items_or_than_asked_for() -> None:
    few, bounded = Run(), Run()
    few(2)
    bounded(10, workers=2)
    assert (few.pool.started, bounded.pool.started) == (2, 2)


def test_requests_wait_for_a_cluster_that_grows_and_are_withdrawn_when_no_item_waits() -> None:
    run = Run(capacity=lambda now: 1 if now < 15 else 3, limit=10**9)
    pending: list[int] = []
    run(200, on_done=lambda item, info: pending.append(run.pool.n_pending))
    assert max(pending) == MAX_PENDING
    assert run.pool.most_alive == 3
    assert run.pool.n_pending == 0


def test_workers_without_an_item_go_before_the_last_item_is_done() -> None:
    slow = Run(lambda worker, given: (100.0, None, False) if given.item.integer("index") == 0 else None)
    slow(4, idle_s=5)
    assert (len(slow.pool.stopped), slow.pool.now) == (3, 100.0)
    kept = Run(lambda worker, given: (12.0, None, False) if given.item.integer("index") == 0 else None)
    kept(4, idle_s=5)
    assert (kept.pool.stopped, len(kept.scheduler.idle)) == ([], 4)


def test_workers_of_the_next_run_are_started_and_stay() -> None:
    run = Run()
    run(1, n_next=9, idle_s=5)
    assert (run.pool.started, run.pool.stopped, len(run.scheduler.idle)) == (4, [], 4)
    bounded = Run()
    bounded(1, n_next=9, workers=2)
    assert (bounded.pool.started, len(bounded.scheduler.idle)) == (2, 2)


def test_a_dead_worker_is_replaced_and_its_item_run_again() -> None:
    run = Run(lambda worker, given: (3.0, ConnectionError("lost"), True) if given.attempt == 1 else None)
    queue = run(6)
    assert (len(run.done), queue.failures, run.pool.started >= 7) == (6, [], True)
    assert run.said[0] == "item(index=0) goes back, attempt 1 of 3 failed: ConnectionError: lost"


def test_an_item_that_hangs_is_taken_from_its_worker_and_given_up_in_the_end() -> None:
    run = Run(lambda worker, given: (1e9, None, False) if given.item.integer("index") == 1 else None)
    queue = run(4, item_timeout_s=25, idle_s=1000)
    ((failure,), hung) = queue.failures, [each for each in run.given if each.item.integer("index") == 1]
    assert [each.attempt for each in hung] == [1, 2, 3]
    assert "no result after 25 s (runtime.item_timeout_s), its worker was killed" in failure.describe()
    assert (len(run.done), len(run.pool.stopped), run.pool.now) == (3, 3, 75.0)


def test_an_item_that_lacked_memory_runs_with_less() -> None:
    run = Run(lambda worker, given: (1.0, MemoryError("node out of memory"), True) if given.halvings < 2 else None)
    assert run(1).failures == []
    assert run.given[-1] == Assignment(items(1)[0], attempt=3, halvings=2)


def test_a_worker_that_fails_twice_in_a_row_is_replaced() -> None:
    run = Run(lambda worker, given: (1.0, RuntimeError("CUDA error"), False) if worker == 1 else None, lambda now: 1)
    assert run(3).failures == []
    assert (run.pool.stopped, run.pool.started) == ([1], 2)


class Broken(benchmark.SimulatedPool):  # type: ignore[misc]
    """Workers die while they start, the first `n_good` excepted."""

    error: BaseException = ConnectionError("no model")
    n_good = 0

    def wait(self, timeout_s: float) -> list[Event]:
        events = super().wait(timeout_s)
        for index, event in enumerate(events):
            if type(event).__name__ == "Ready" and event.worker > self.n_good:
                self.stop(event.worker)
                events[index] = NotStarted(self.error)
        return events


def broken(n_good: int, error: BaseException) -> tuple[Any, Scheduler]:
    pool = Broken(lambda worker, given: (10.0, None, False), lambda now: 2)
    pool.n_good, pool.error = n_good, error
    return pool, Scheduler(pool, RuntimeConfig(), clock=pool.clock, say=lambda line: None)


def test_workers_that_never_start_end_the_run() -> None:
    pool, scheduler = broken(0, ConnectionError("no model"))
    with pytest.raises(WorkError, match="workers die while they start, 4 in a row; the last: no model"):
        scheduler.run(WorkQueue(items(9), 3), None)
    assert pool.started <= 5


def test_a_worker_that_cannot_be_built_ends_the_run_with_its_error() -> None:
    _, scheduler = broken(0, ModelError("'nowhere' is not there"))
    with pytest.raises(ModelError, match="nowhere"):
        scheduler.run(WorkQueue(items(9), 3), None)


def test_a_node_on_which_no_worker_starts_does_not_stop_the_others() -> None:
    pool, scheduler = broken(1, ModelError("no such folder here"))
    queue = WorkQueue(items(9), 3)
    scheduler.run(queue, None)
    assert (queue.failures, pool.now, pool.started) == ([], 90.0, 5)


@pytest.mark.parametrize(("grace_s", "n_done"), [(0, 4), (7, 4), (30, 8)])
def test_sigterm_gives_running_items_some_time(grace_s: float, n_done: int) -> None:
    run = Run()
    done: list[WorkItem] = []

    def on_done(item: WorkItem, info: Any) -> None:
        done.append(item)
        if len(done) == 4:
            raise_at_next_wait(run)

    def raise_at_next_wait(run: Run) -> None:
        wait = run.pool.wait

        def interrupted(timeout_s: float) -> list[Event]:
            run.pool.wait = wait
            raise Terminated("by SIGTERM")

        run.pool.wait = interrupted

    with pytest.raises(Terminated):
        run(20, on_done=on_done, grace_s=grace_s)
    run.scheduler.stop()
    assert (len(done), run.pool.n_alive) == (n_done, 0)
    assert run.pool.now == 10 + min(grace_s, 10)


def test_the_simulation_of_the_benchmark_finishes() -> None:
    found = benchmark.simulated(300, 20)
    assert found["workers"] == 20
    assert 0 <= found["share of time without an item"] < 0.3
