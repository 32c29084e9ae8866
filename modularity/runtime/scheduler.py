"""Which worker computes which item, and how many workers there are: decisions alone, without Ray.

Workers are asked for while items wait for them, at most `MAX_PENDING` at a time: requests that wait are what an
autoscaler grows a cluster by, and nodes that join later are used. When no items wait, requests are withdrawn and
workers without an item are stopped, before the last items are done. Every item is with one worker at a time: a second
copy of a slow one could write other last bits over what is recorded, on a GPU of another kind.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from modularity.errors import ModularityError, WorkError
from modularity.runtime.executor import ItemInfo, OnDone, RuntimeConfig, say
from modularity.runtime.metrics import StepMetrics
from modularity.runtime.termination import Terminated
from modularity.runtime.work_queue import Assignment, WorkQueue, brief

MAX_PENDING = 64
"""Workers asked for that do not run yet; the next are asked for when these come."""
POLL_S = 5.0
"""Seconds after which the cluster is looked at again when nothing happens."""
MAX_FAILURES_IN_ROW = 2
"""A worker that failed so often in a row is replaced: an error of a GPU stays in its process."""

Worker = Any
"""A worker of a pool; hashable."""


@dataclass(frozen=True)
class Ready:
    """A worker runs and can be given items."""

    worker: Worker


@dataclass(frozen=True)
class NotStarted:
    """A worker that was asked for died, or could not be built."""

    error: BaseException


@dataclass(frozen=True)
class Done:
    """A worker finished its item."""

    worker: Worker
    info: ItemInfo


@dataclass(frozen=True)
class Failed:
    """A worker failed at its item."""

    worker: Worker
    error: BaseException
    is_dead: bool


Event = Ready | NotStarted | Done | Failed


class Pool(Protocol):
    """The processes that hold workers."""

    @property
    def n_pending(self) -> int:
        """Workers asked for that have no resources yet."""
        ...

    @property
    def n_building(self) -> int:
        """Workers that have resources and load what they need."""
        ...

    def limit(self) -> int:
        """Workers that can run at the same time, now or when the cluster has grown; InputError when there are none."""
        ...

    def start(self) -> None:
        """Ask for one more worker."""
        ...

    def withdraw(self, n: int) -> None:
        """Give up `n` of the workers that have no resources yet."""
        ...

    def submit(self, worker: Worker, given: Assignment) -> None:
        """Have a worker compute an item."""
        ...

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened since the last call; waits for something to happen."""
        ...

    def stop(self, worker: Worker) -> None:
        """Kill a worker; nothing is heard of it again."""
        ...

    def close(self) -> None:
        """Kill every worker that is pending, being built or at an item."""
        ...


@dataclass
class _Running:
    given: Assignment
    since: float


class Scheduler:
    """Brings items to the workers of a pool.

    Parameters
    ----------
    pool : workers
    config : limits
    idle : workers that are there already
    clock : seconds, never going back
    say : told what goes wrong, line by line
    metrics : told how many items wait and run, and what becomes of them
    n_next : items of a run that follows, for whose workers it asks already
    """

    def __init__(
        self,
        pool: Pool,
        config: RuntimeConfig,
        idle: Iterable[Worker] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = say,
        metrics: StepMetrics | None = None,
        n_next: int = 0,
    ) -> None:
        self._n_next = n_next
        self._pool, self._config, self._clock, self._say = pool, config, clock, say
        self._idle: dict[Worker, float] = dict.fromkeys(idle, clock())
        self._running: dict[Worker, _Running] = {}
        self._events: deque[Event] = deque()
        self._failures_in_row: dict[Worker, int] = {}
        self._failed_starts = 0
        self._has_started = bool(self._idle)
        self._metrics = metrics or StepMetrics(on_gpu=False)

    @property
    def idle(self) -> tuple[Worker, ...]:
        """Workers without an item; after `run` these are all that are left."""
        return tuple(self._idle)

    def run(self, queue: WorkQueue, on_done: OnDone | None) -> None:
        """Return when every item of `queue` is done or given up.

        Raises
        ------
        InputError
            No node, and none that can be started, holds a worker.
        ModularityError
            The first workers cannot be built.
        WorkError
            Workers die while they start, again and again.
        KeyboardInterrupt
            Ctrl-C, or SIGTERM, after which running items had some time to finish.
        """
        try:
            while queue or self._running:
                self._assign(queue)
                n_running = len(self._running)
                self._metrics.queue(waiting=len(queue), running=n_running, workers=n_running + len(self._idle))
                self._ask(queue)
                self._receive(queue, on_done)
                self._stop_overdue(queue)
                self._stop_idle(queue)
        except Terminated:
            self._finish_running(on_done)
            raise
        if not self._n_next:
            self._pool.withdraw(self._pool.n_pending)

    def stop(self) -> None:
        """Kill all workers."""
        self._pool.close()
        for worker in self._idle:
            self._pool.stop(worker)
        self._idle, self._running = {}, {}

    def _assign(self, queue: WorkQueue) -> None:
        while queue and self._idle:
            worker, _ = self._idle.popitem()
            given = queue.take()
            self._running[worker] = _Running(given, self._clock())
            self._pool.submit(worker, given)

    def _ask(self, queue: WorkQueue) -> None:
        """Ask for workers that would have items, or withdraw requests that would not."""
        pool = self._pool
        here = len(self._running) + len(self._idle) + pool.n_building
        wanted = max(len(queue) + len(self._running), self._n_next)
        if self._config.workers is not None:
            wanted = min(wanted, self._config.workers)
        if wanted > here:
            wanted = min(wanted, pool.limit())
        if wanted < here + pool.n_pending:
            pool.withdraw(min(pool.n_pending, here + pool.n_pending - wanted))
        if self._failed_starts > self._config.max_attempts:
            return
        n_more = min(wanted - here - pool.n_pending, MAX_PENDING - pool.n_pending - pool.n_building)
        for _ in range(n_more):
            pool.start()

    def _receive(self, queue: WorkQueue, on_done: OnDone | None) -> None:
        self._events.extend(self._pool.wait(self._seconds_to_wait(queue)))
        while self._events:
            event = self._events.popleft()
            if isinstance(event, Ready):
                self._has_started, self._failed_starts = True, 0
                self._idle[event.worker] = self._clock()
            elif isinstance(event, NotStarted):
                self._not_started(event.error)
            elif isinstance(event, Done):
                self._done(event, on_done)
            else:
                self._failed(event, queue)

    def _seconds_to_wait(self, queue: WorkQueue) -> float:
        seconds, now = POLL_S, self._clock()
        if self._config.item_timeout_s is not None and self._running:
            oldest = min(running.since for running in self._running.values())
            seconds = min(seconds, oldest + self._config.item_timeout_s - now)
        if self._idle and not queue and not self._n_next:
            seconds = min(seconds, min(self._idle.values()) + self._config.idle_s - now)
        return max(0.0, seconds)

    def _not_started(self, error: BaseException) -> None:
        self._failed_starts += 1
        if isinstance(error, ModularityError) and not self._has_started:
            raise error
        if self._failed_starts <= self._config.max_attempts:
            self._say(f"a worker did not start: {brief(error)}")
        elif self._running or self._idle:
            self._say("workers die while they start; going on with those that run")
        else:
            raise WorkError(
                f"workers die while they start, {self._failed_starts} in a row; the last: {error}"
            ) from error

    def _done(self, event: Done, on_done: OnDone | None) -> None:
        item = self._running.pop(event.worker).given.item
        self._failures_in_row.pop(event.worker, None)
        self._idle[event.worker] = self._clock()
        self._metrics.done(event.info)
        if on_done is not None:
            on_done(item, event.info)

    def _failed(self, event: Failed, queue: WorkQueue) -> None:
        given = self._running.pop(event.worker).given
        self._put_back(queue, given, event.error)
        n_in_row = self._failures_in_row.pop(event.worker, 0) + (not isinstance(event.error, ModularityError))
        if event.is_dead or n_in_row >= MAX_FAILURES_IN_ROW:
            self._pool.stop(event.worker)
            return
        self._failures_in_row[event.worker] = n_in_row
        self._idle[event.worker] = self._clock()

    def _put_back(self, queue: WorkQueue, given: Assignment, error: BaseException) -> None:
        """Have an item tried again, or give it up."""
        n_failures = len(queue.failures)
        self._say(queue.failed(given, error))
        (self._metrics.failed if len(queue.failures) > n_failures else self._metrics.retried)()

    def _stop_overdue(self, queue: WorkQueue) -> None:
        limit = self._config.item_timeout_s
        if limit is None:
            return
        now = self._clock()
        for worker in [each for each, running in self._running.items() if running.since + limit <= now]:
            self._pool.stop(worker)
            given = self._running.pop(worker).given
            error = TimeoutError(f"no result after {limit:g} s (runtime.item_timeout_s), its worker was killed")
            self._put_back(queue, given, error)

    def _stop_idle(self, queue: WorkQueue) -> None:
        if queue or not self._running or self._n_next:
            return
        now = self._clock()
        for worker in [each for each, since in self._idle.items() if since + self._config.idle_s <= now]:
            del self._idle[worker]
            self._pool.stop(worker)

    def _finish_running(self, on_done: OnDone | None) -> None:
        """Give running items some time to finish; another signal ends it."""
        self._pool.withdraw(self._pool.n_pending)
        end = self._clock() + self._config.grace_s
        if self._running and self._config.grace_s:
            self._say(f"stopping: {len(self._running)} running items have {self._config.grace_s:g} s to finish")
        while self._running and (left := end - self._clock()) > 0:
            self._events.extend(self._pool.wait(min(left, POLL_S)))
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Done):
                    self._done(event, on_done)
                elif isinstance(event, Failed):
                    del self._running[event.worker]
                    self._pool.stop(event.worker)
                elif isinstance(event, Ready):
                    self._pool.stop(event.worker)
