"""Executors run work items through workers; every item ends as done or as a failure that the caller sees.

A worker is a plain object built once per process by a factory (that is where a model is loaded) and called once per
item. An executor never swallows an exception: after the last attempt of a failing item the others still run, then one
`WorkError` names all failures. What succeeded stays, because workers record their own results.
"""

import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from pydantic import Field

from modularity.config import Config
from modularity.errors import ModularityError, WorkError
from modularity.types import WorkItem

ItemInfo = Mapping[str, Any]
OnDone = Callable[[WorkItem, ItemInfo], None]

MAX_FAILURES_SHOWN = 10


class Worker(Protocol):
    """Computes work items in one process."""

    def __call__(self, item: WorkItem) -> ItemInfo:
        """Compute and record `item`; returns small counts for the progress display."""
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
    """Number of workers; None: as many as the cluster's resources and the number of items allow."""
    cpus_per_worker: float | None = Field(default=None, gt=0)
    """CPUs of each worker, and its compute threads; None: all CPUs of the machine for in-process and local Ray, 1 on a
    cluster. The last bits of the numbers depend on it: a run goes on with the number of threads that it began with."""
    gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs of each worker that runs a model (fractions share one); None: 1 where the cluster has GPUs, else 0."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts for an item whose worker dies or fails with an unexpected error; input errors are not retried."""


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
    ) -> None:
        """Run all items; returns when every one is done, raises WorkError when some are not.

        Parameters
        ----------
        items : work items, in the order in which they are started
        factory : builds the worker, once per process
        on_done : called in this process for every finished item
        uses_model : the worker runs a model, so it is given the GPUs of `RuntimeConfig.gpus_per_worker`

        A following call with an equal factory uses the same workers, so that a loaded model stays loaded.
        """
        ...


def is_deterministic(error: BaseException) -> bool:
    """Whether running the item again would fail in the same way: our own errors are findings, not accidents."""
    return isinstance(error, ModularityError)


def raise_failures(failures: Sequence[ItemFailure], n_items: int) -> None:
    """Raise one WorkError for all failures; nothing happens when there are none."""
    if not failures:
        return
    if n_items == len(failures) == 1 and isinstance(failures[0].error, ModularityError):
        raise failures[0].error
    shown = [failure.describe() for failure in failures[:MAX_FAILURES_SHOWN]]
    hidden = len(failures) - len(shown)
    if hidden:
        shown.append(f"and {hidden} more")
    summary = f"{len(failures)} of {n_items} work items failed, the others are recorded; mend the cause and rerun"
    first = failures[0].error
    details = "".join(traceback.format_exception(first)) if not isinstance(first, ModularityError) else ""
    raise WorkError("\n  ".join([summary, *shown]) + (f"\n{details}" if details else "")) from first


class InProcessExecutor:
    """Runs everything in this process, one item after the other; the last worker is kept for an equal factory."""

    def __init__(self, *, max_attempts: int = 3, n_threads: int | None = None) -> None:
        self.n_threads = n_threads or available_cpus()
        self._max_attempts = max_attempts
        self._kept: tuple[WorkerFactory, Worker] | None = None

    def run(
        self,
        items: Sequence[WorkItem],
        factory: WorkerFactory,
        *,
        on_done: OnDone | None = None,
        uses_model: bool = False,
    ) -> None:
        """See `Executor.run`."""
        if not items:
            return
        if self._kept is None or self._kept[0] != factory:
            self._kept = None  # frees the previous worker before the next one is built
            self._kept = (factory, factory())
        worker = self._kept[1]
        failures = [failure for item in items if (failure := self._run_one(worker, item, on_done)) is not None]
        raise_failures(failures, len(items))

    def _run_one(self, worker: Worker, item: WorkItem, on_done: OnDone | None) -> ItemFailure | None:
        for attempt in range(1, self._max_attempts + 1):
            try:
                info = worker(item)
            except Exception as error:
                if attempt == self._max_attempts or is_deterministic(error):
                    return ItemFailure(item, attempt, error)
                continue
            if on_done is not None:
                on_done(item, info)
            return None
        raise AssertionError("max_attempts is at least 1")


def available_cpus() -> int:
    """CPUs that this process may run on (affinity and container limits respected where the system tells them)."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def unfinished(items: Iterable[WorkItem], done: Callable[[WorkItem], bool]) -> list[WorkItem]:
    """Items that are not done, in their order; items of equal content are run once."""
    return [item for item in dict.fromkeys(items) if not done(item)]
