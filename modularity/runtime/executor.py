"""Executors run work items through workers; every item ends as done or as a failure that the caller sees.

A worker is a plain object built once per process by a factory (that is where a model is loaded) and called once per
item. An executor never swallows an exception: after the last attempt of a failing item the others still run, then one
`WorkError` names all failures. What succeeded stays, because workers record their own results.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from pydantic import Field

from modularity.config import Config
from modularity.runtime.watchdog import ends_after
from modularity.runtime.work_queue import Assignment, WorkQueue, raise_failures
from modularity.types import WorkItem

ItemInfo = Mapping[str, Any]
OnDone = Callable[[WorkItem, ItemInfo], None]


class Worker(Protocol):
    """Computes work items in one process."""

    def __call__(self, item: WorkItem) -> ItemInfo:
        """Compute and record `item`; returns small counts for the progress display."""
        ...


@runtime_checkable
class BatchWorker(Worker, Protocol):
    """A worker that can compute an item in smaller batches, when memory did not suffice."""

    def in_smaller_batches(self, item: WorkItem, halvings: int) -> ItemInfo:
        """Compute and record `item` with batches of 1 / 2**halvings of the usual size."""
        ...


WorkerFactory = Callable[[], Worker]
"""Builds the worker inside its process; must be picklable, so a frozen dataclass with `__call__`."""


class RuntimeConfig(Config):
    """Where and how wide the work runs."""

    executor: Literal["ray", "inprocess"] = "ray"
    """`ray`: workers are Ray actors, on the cluster of `address` or on one started for this job; `inprocess`: one
    worker in this process."""
    address: str | None = None
    """Ray cluster to join (`auto`, `host:6379`, `ray://…`); None: RAY_ADDRESS if set, else a local Ray is started."""
    workers: int | None = Field(default=None, ge=1)
    """Most workers at a time, so that others have room on a shared cluster; None: as many as there are items, and as
    nodes hold or an autoscaler brings."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs of each worker, and its compute threads; None: all CPUs of the machine for in-process and local Ray, 1 on a
    cluster. The last bits of the numbers depend on it: a run goes on with the number of threads that it began with."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs of each worker that runs a model (fractions share one); None: 1 where the cluster has GPUs, else 0. Where an
    autoscaler is to start the first node with GPUs, say how many."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts for an item whose worker dies or fails with an unexpected error; input errors are not retried."""
    item_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds that one item may take; then its worker is killed and the item tried again. Loading the model is not
    counted. In process, where nobody can kill the worker and go on, the whole job ends with a message and exit code 1.
    None: no limit."""
    grace_s: float = Field(default=30.0, ge=0)
    """Seconds that running items are given to finish when SIGTERM stops the job; then they are given back. In process
    and after Ctrl-C they are given back at once."""
    idle_s: float = Field(default=30.0, ge=0)
    """Seconds that a worker without an item keeps its model for the next step, while others still run; then its CPUs
    and GPUs go to others on a shared cluster."""
    node_wait_s: float = Field(default=900.0, gt=0)
    """Seconds to wait for an autoscaler to bring the first node that can hold a worker, where none is there."""


class Executor(Protocol):
    """Runs items through workers built by a factory."""

    n_threads: int
    """CPU threads that one worker may use."""

    def run(
        self,
        items: Sequence[WorkItem],
        factory: WorkerFactory,
        *,
        on_done: OnDone | None = None,
        uses_model: bool = False,
        n_next: int = 0,
    ) -> None:
        """Run all items; returns when every one is done, raises WorkError when some are not.

        Parameters
        ----------
        items : work items, in the order in which they are started
        factory : builds the worker, once per process
        on_done : called in this process for every finished item
        uses_model : the worker runs a model, so it is given the GPUs of `RuntimeConfig.gpus_per_worker`
        n_next : items of the next call, whose workers are started meanwhile where there are processes to start

        A following call with an equal factory uses the same workers, so that a loaded model stays loaded.
        """
        ...


def compute(worker: Worker, given: Assignment) -> ItemInfo:
    """Have a worker compute an item, in smaller batches if it lacked memory before and works in batches."""
    if given.halvings and isinstance(worker, BatchWorker):
        return worker.in_smaller_batches(given.item, given.halvings)
    return worker(given.item)


def say(text: str) -> None:
    """One line for whoever watches the job."""
    print(text, file=sys.stderr, flush=True)


class InProcessExecutor:
    """Runs everything in this process, one item after the other; the last worker is kept for an equal factory."""

    def __init__(
        self, *, max_attempts: int = 3, n_threads: int | None = None, item_timeout_s: float | None = None
    ) -> None:
        self.n_threads = n_threads or available_cpus()
        self._max_attempts = max_attempts
        self._item_timeout_s = item_timeout_s
        self._kept: tuple[WorkerFactory, Worker] | None = None

    def run(
        self,
        items: Sequence[WorkItem],
        factory: WorkerFactory,
        *,
        on_done: OnDone | None = None,
        uses_model: bool = False,
        n_next: int = 0,
    ) -> None:
        """See `Executor.run`."""
        if not items:
            return
        if self._kept is None or self._kept[0] != factory:
            self._kept = None  # frees the previous worker before the next one is built
            self._kept = (factory, factory())
        queue = WorkQueue(items, self._max_attempts)
        while queue:
            self._run_next(self._kept[1], queue, on_done)
        raise_failures(queue.failures, len(items))

    def _run_next(self, worker: Worker, queue: WorkQueue, on_done: OnDone | None) -> None:
        given = queue.take()
        try:
            with ends_after(self._item_timeout_s, given.item):
                info = compute(worker, given)
        except Exception as error:
            say(queue.failed(given, error))
            return
        if on_done is not None:
            on_done(given.item, info)


def available_cpus() -> int:
    """CPUs that this process may run on (affinity and container limits respected where the system tells them)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def unfinished(items: Iterable[WorkItem], done: Callable[[WorkItem], bool]) -> list[WorkItem]:
    """Items that are not done, in their order; items of equal content are run once."""
    return [item for item in dict.fromkeys(items) if not done(item)]
