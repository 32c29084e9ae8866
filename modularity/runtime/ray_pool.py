"""A pool of workers that are Ray actors.

Ray's own retries are off (`max_restarts=0`, `max_task_retries=0`): its ActorPool loses the item of a dead actor and its
retry counts are used up while a node is being declared dead. Here every death is an event, and the scheduler decides.
Only work items and small counts travel; workers write their results.
"""

import gc
import time
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from modularity.errors import InputError, ModularityError
from modularity.runtime.cluster_view import ClusterView, Needs, read_cluster
from modularity.runtime.executor import ItemInfo, RuntimeConfig, WorkerFactory, compute, say
from modularity.runtime.scheduler import Done, Event, Failed, NotStarted, Ready
from modularity.runtime.termination import terminated_kept
from modularity.runtime.work_queue import Assignment

VIEW_S = 5.0
"""Seconds for which what is known of the cluster is believed."""
WAITING_LINE_S = 30.0


class _ItemActor:
    """Holds one worker in an actor process."""

    def __init__(self) -> None:
        self._worker: Any = None

    def ready(self) -> None:
        """Returns when the actor has its resources and its process runs."""

    def build(self, factory: WorkerFactory) -> None:
        """Build the worker, such as by loading a model; the memory of an earlier one is free before."""
        self._worker = None
        gc.collect()
        self._worker = factory()

    def run(self, given: Assignment) -> ItemInfo:
        """Compute one item."""
        return compute(self._worker, given)


class RayPool:
    """See `scheduler.Pool`. All workers of a pool are built by one factory at a time.

    Parameters
    ----------
    factory : builds the worker in each actor
    needs : resources of one actor
    config : `node_wait_s`
    """

    def __init__(self, factory: WorkerFactory, needs: Needs, config: RuntimeConfig) -> None:
        self.needs, self._config = needs, config
        self._factory = ray.put(factory)
        self._pending: dict[Any, Any] = {}
        self._building: dict[Any, Any] = {}
        self._running: dict[Any, Any] = {}
        self._view: ClusterView | None = None
        self._read_at = self._asked_at = self._told_at = time.monotonic()

    def rebuild(self, factory: WorkerFactory, workers: Sequence[Any]) -> None:
        """Build workers by another factory from now on, first these and those whose worker is still being built.

        Their processes are kept: a new one would have to import torch.
        """
        self._factory = ray.put(factory)
        actors = [*workers, *self._building.values()]
        self._building = {actor.build.remote(self._factory): actor for actor in actors}

    @property
    def n_pending(self) -> int:
        """Actors that have no resources yet."""
        return len(self._pending)

    @property
    def n_building(self) -> int:
        """Actors whose worker is being built."""
        return len(self._building)

    def limit(self) -> int:
        """See `scheduler.Pool`."""
        now = time.monotonic()
        if self._view is None or now - self._read_at >= VIEW_S:
            self._view, self._read_at = read_cluster(), now
        if self._view.autoscales:
            self._view.check(self.needs)
        self._tell(now, self._view)
        return max(1, self._view.capacity(self.needs))

    def _tell(self, now: float, view: ClusterView) -> None:
        """Say what is waited for, and end the wait for nodes that do not come."""
        if not self._pending or self._building or self._running:
            self._asked_at = self._told_at = now
            return
        if not view.fits_present(self.needs) and now - self._asked_at >= self._config.node_wait_s:
            raise InputError(
                f"no node for a worker with {self.needs} came within {self._config.node_wait_s:g} s "
                f"(runtime.node_wait_s; {view.describe()}); see what the autoscaler says (`ray status`), "
                "or lower runtime.cpus_per_worker or runtime.gpus_per_worker"
            )
        if now - self._told_at >= WAITING_LINE_S:
            self._told_at = now
            why = "the cluster is busy" if view.fits_present(self.needs) else "the autoscaler has to start a node"
            say(f"waiting for a worker with {self.needs}: {why}")

    def start(self) -> None:
        """See `scheduler.Pool`."""
        needs = self.needs
        options = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "max_restarts": 0,
            "max_task_retries": 0,
            "runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}} if needs.gpus == 0 else {},
        }
        actor = ray.remote(_ItemActor).options(**options).remote()
        self._pending[actor.ready.remote()] = actor

    def withdraw(self, n: int) -> None:
        """See `scheduler.Pool`."""
        for _ in range(n):
            _, actor = self._pending.popitem()
            ray.kill(actor)

    def submit(self, worker: Any, given: Assignment) -> None:
        """See `scheduler.Pool`."""
        self._running[worker.run.remote(given)] = worker

    def wait(self, timeout_s: float) -> list[Event]:
        """See `scheduler.Pool`."""
        refs = [*self._running, *self._building, *self._pending]
        if not refs:
            time.sleep(timeout_s)
            return []
        with terminated_kept():
            finished, _ = ray.wait(refs, num_returns=1, timeout=timeout_s)
            if finished:
                finished, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            return [event for ref in finished if (event := self._event(ref)) is not None]

    def _event(self, ref: Any) -> Event | None:
        is_item, is_new = ref in self._running, ref in self._pending
        calls = self._running if is_item else self._pending if is_new else self._building
        actor = calls.pop(ref)
        try:
            info = ray.get(ref)
        except RayError as error:
            if is_item:
                return Failed(actor, _cause(error), is_dead=not isinstance(error, RayTaskError))
            ray.kill(actor)
            return NotStarted(_cause(error))
        if is_item:
            return Done(actor, info)
        if is_new:
            self._building[actor.build.remote(self._factory)] = actor
            return None
        return Ready(actor)

    def stop(self, worker: Any) -> None:
        """See `scheduler.Pool`."""
        for ref in [ref for ref, actor in self._running.items() if actor is worker]:
            del self._running[ref]
        ray.kill(worker)

    def close(self) -> None:
        """See `scheduler.Pool`."""
        for calls in (self._pending, self._building, self._running):
            for actor in calls.values():
                ray.kill(actor)
            calls.clear()


def _cause(error: RayError) -> BaseException:
    """What went wrong in the words of whoever raised it; MemoryError where Ray killed a worker for its memory."""
    if isinstance(error, OutOfMemoryError):
        return MemoryError(str(error))
    if isinstance(error, RayTaskError) and isinstance(error.cause, ModularityError | MemoryError):
        return error.cause
    return error
