"""Ray executor: workers are actors that pull items; the driver owns the queue.

Ray's own retries are off (`max_restarts=0`, `max_task_retries=0`): its ActorPool loses the item of a dead actor and its
retry counts are used up while a node is being declared dead. Here the driver puts the item of a dead actor back, starts
another actor, and counts attempts per item. Only work items and small counts travel; workers write their results.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from modularity.errors import InputError, ModularityError, WorkError
from modularity.runtime.executor import (
    ItemFailure,
    ItemInfo,
    OnDone,
    RuntimeConfig,
    WorkerFactory,
    available_cpus,
    is_deterministic,
    raise_failures,
)
from modularity.runtime.metrics import StepMetrics
from modularity.types import WorkItem

WAITING_LINE_S = 30.0


@dataclass(frozen=True)
class _Needs:
    """Resources of one actor."""

    cpus: float
    gpus: float

    def fits(self, resources: dict[str, float]) -> bool:
        return resources.get("CPU", 0.0) >= self.cpus and resources.get("GPU", 0.0) >= self.gpus

    def count(self, resources: dict[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0.0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0.0) // self.gpus)) if self.gpus else by_cpu

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs and {self.gpus:g} GPUs"


class _ItemActor:
    """Holds one worker in an actor process; the worker is built by the first call, so that its errors come back."""

    def __init__(self, factory: WorkerFactory) -> None:
        self._factory = factory
        self._worker: Any = None

    def ready(self) -> None:
        """Returns when the actor has its resources and its process runs."""

    def run(self, item: WorkItem) -> ItemInfo:
        if self._worker is None:
            self._worker = self._factory()
        return self._worker(item)


@dataclass
class _Queue:
    """Items that wait, run or failed; attempts are counted per item."""

    waiting: deque[WorkItem]
    max_attempts: int
    metrics: StepMetrics
    attempts: dict[WorkItem, int] = field(default_factory=dict)
    failures: list[ItemFailure] = field(default_factory=list)

    def take(self) -> WorkItem:
        item = self.waiting.popleft()
        self.attempts[item] = self.attempts.get(item, 0) + 1
        return item

    def failed(self, item: WorkItem, error: BaseException) -> None:
        if is_deterministic(error) or self.attempts[item] >= self.max_attempts:
            self.failures.append(ItemFailure(item, self.attempts[item], error))
            self.metrics.failed()
        else:
            self.waiting.append(item)
            self.metrics.retried()


@dataclass
class _Calls:
    """Calls under way: of actors that start, and of items. An item is given only to an actor that runs."""

    under_way: dict[Any, tuple[WorkItem | None, Any]] = field(default_factory=dict)
    failed_starts: int = 0

    @property
    def n_items(self) -> int:
        return sum(item is not None for item, _ in self.under_way.values())

    @property
    def has_items(self) -> bool:
        return self.n_items > 0

    def start(self, actor: Any) -> None:
        self.under_way[actor.ready.remote()] = (None, actor)

    def submit(self, actor: Any, item: WorkItem) -> None:
        self.under_way[actor.run.remote(item)] = (item, actor)

    def next_finished(self, needs: _Needs) -> tuple[Any, WorkItem | None, Any]:
        """The next call that is over; says so when no worker gets its resources for a while."""
        while True:
            finished, _ = ray.wait(list(self.under_way), num_returns=1, timeout=WAITING_LINE_S)
            if finished:
                item, actor = self.under_way.pop(finished[0])
                return finished[0], item, actor
            if not self.has_items:
                print(f"waiting for a worker with {needs}: the cluster is busy", file=sys.stderr, flush=True)

    def actors(self) -> list[Any]:
        return [actor for _, actor in self.under_way.values()]


class RayExecutor:
    """Runs items on the Ray session of this process; made by `ray_executor`.

    Actors live on between calls of `run` with an equal factory, so that a loaded model is used again.
    """

    def __init__(self, config: RuntimeConfig, *, started_here: bool) -> None:
        self._config = config
        default_cpus = float(available_cpus()) if started_here else 1.0
        self._cpus = config.cpus_per_worker or default_cpus
        self.n_threads = max(1, int(self._cpus))
        self._kept: list[Any] = []
        self._kept_for: tuple[WorkerFactory, _Needs] | None = None

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
        needs = self._needs(uses_model)
        if self._kept_for != (factory, needs):
            self.release()
        n_workers = min(self._n_workers(needs), len(items))
        metrics = StepMetrics(on_gpu=needs.gpus > 0)
        queue = _Queue(deque(items), self._config.max_attempts, metrics)
        factory_ref = ray.put(factory)
        idle, self._kept = self._kept, []
        calls = _Calls()
        for _ in range(n_workers - len(idle)):
            calls.start(self._start(needs, factory_ref))
        try:
            while queue.waiting or calls.has_items:
                while idle and queue.waiting:
                    calls.submit(idle.pop(), queue.take())
                metrics.queue(waiting=len(queue.waiting), running=calls.n_items, workers=calls.n_items + len(idle))
                ref, item, actor = calls.next_finished(needs)
                if item is None:
                    idle += self._started(ref, actor, calls, needs, factory_ref)
                else:
                    idle += self._settle(ref, item, actor, queue, on_done, calls, needs, factory_ref)
        except BaseException:
            self._kill([*idle, *calls.actors()])
            raise
        finally:
            metrics.close()
        self._kill(calls.actors())  # asked for, but never given their resources
        self._kept, self._kept_for = idle, (factory, needs)
        raise_failures(queue.failures, len(items))

    def _started(self, ref: Any, actor: Any, calls: "_Calls", needs: _Needs, factory_ref: Any) -> list[Any]:
        """The actor if it runs; another one is started if it died on the way, a few times."""
        try:
            ray.get(ref)
        except RayError as error:
            calls.failed_starts += 1
            if calls.failed_starts > self._config.max_attempts:
                raise WorkError(
                    f"workers die while they start, {calls.failed_starts} so far; the last: {error}"
                ) from error
            calls.start(self._start(needs, factory_ref))
            return []
        return [actor]

    def release(self) -> None:
        """Stop the actors that were kept, which frees their CPUs, GPUs and memory."""
        self._kill(self._kept)
        self._kept, self._kept_for = [], None

    @staticmethod
    def _kill(actors: Sequence[Any]) -> None:
        for actor in actors:
            ray.kill(actor)

    def _settle(
        self,
        ref: Any,
        item: WorkItem,
        actor: Any,
        queue: _Queue,
        on_done: OnDone | None,
        calls: "_Calls",
        needs: _Needs,
        factory_ref: Any,
    ) -> list[Any]:
        """Take in the outcome of one call; returns the actor if it is idle now, and starts another if it died."""
        try:
            info = ray.get(ref)
        except RayTaskError as error:
            queue.failed(item, error.cause if isinstance(error.cause, ModularityError) else error)
            return [actor]
        except RayError as error:
            queue.failed(item, error)
            ray.kill(actor)
            calls.start(self._start(needs, factory_ref))
            return []
        queue.metrics.done(info)
        if on_done is not None:
            on_done(item, info)
        return [actor]

    def _needs(self, uses_model: bool) -> _Needs:
        gpus = self._config.gpus_per_worker
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU", 0.0) >= 1 else 0.0
        return _Needs(self._cpus, gpus if uses_model else 0.0)

    def _n_workers(self, needs: _Needs) -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        possible = sum(needs.count(resources) for resources in nodes)
        if not any(needs.fits(resources) for resources in nodes):
            have = "; ".join(f"{r.get('CPU', 0):g} CPUs and {r.get('GPU', 0):g} GPUs" for r in nodes)
            raise InputError(
                f"a worker needs {needs}, but no node has them (nodes: {have}); "
                "lower runtime.cpus_per_worker or runtime.gpus_per_worker, or add such a node"
            )
        return min(self._config.workers or possible, possible)

    def _start(self, needs: _Needs, factory_ref: Any) -> Any:
        environment = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if needs.gpus == 0 else {}
        options = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": environment,
        }
        return ray.remote(_ItemActor).options(**options).remote(factory_ref)


@contextmanager
def ray_executor(config: RuntimeConfig) -> Iterator[RayExecutor]:
    """Executor on the running Ray session, on the cluster of `config.address`, or on a local Ray started here."""
    if ray.is_initialized():
        executor = RayExecutor(config, started_here=False)
        try:
            yield executor
        finally:
            executor.release()
        return
    address = config.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else each worker start prints a FutureWarning
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        else:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", num_cpus=available_cpus())
    except (ConnectionError, RayError, ValueError) as error:
        where = f"the Ray cluster at {address!r}" if address else "a local Ray"
        raise InputError(
            f"cannot reach {where}: {error}; check runtime.address (or RAY_ADDRESS), "
            "or set runtime.executor=inprocess to run without Ray"
        ) from error
    executor = RayExecutor(config, started_here=not address)
    try:
        yield executor
    finally:
        executor.release()
        ray.shutdown()
