"""Ray executor: workers are actors, the driver owns the queue of items (`scheduler.py`, `ray_pool.py`)."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray
from ray.exceptions import RayError

from modularity.errors import InputError
from modularity.runtime.cluster_view import Needs, read_cluster
from modularity.runtime.executor import OnDone, RuntimeConfig, WorkerFactory, available_cpus, say
from modularity.runtime.metrics import StepMetrics
from modularity.runtime.ray_pool import RayPool
from modularity.runtime.scheduler import Scheduler, Worker
from modularity.runtime.work_queue import WorkQueue, raise_failures
from modularity.types import WorkItem


class RayExecutor:
    """Runs items on the Ray session of this process; made by `ray_executor`.

    Actors live on between calls of `run`: with an equal factory a loaded model is used again, with another one that
    needs equal resources the process is.
    """

    def __init__(self, config: RuntimeConfig, *, started_here: bool) -> None:
        self._config = config
        default_cpus = float(available_cpus()) if started_here else 1.0
        self._cpus = config.cpus_per_worker or default_cpus
        self.n_threads = max(1, int(self._cpus))
        self._pool: RayPool | None = None
        self._made_by: WorkerFactory | None = None
        self._idle: tuple[Worker, ...] = ()

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
        needs = self._needs(uses_model)
        pool = self._pool_for(factory, needs, len(items))
        metrics = StepMetrics(on_gpu=needs.gpus > 0)
        scheduler = Scheduler(pool, self._config, self._idle, metrics=metrics, n_next=n_next)
        queue = WorkQueue(items, self._config.max_attempts)
        try:
            scheduler.run(queue, on_done)
        except BaseException:
            scheduler.stop()
            raise
        finally:
            self._idle = scheduler.idle
            metrics.close()
        raise_failures(queue.failures, len(items))

    def _pool_for(self, factory: WorkerFactory, needs: Needs, n_items: int) -> RayPool:
        """The pool that is there, its idle workers built anew where the factory is another one; or a new pool."""
        if self._pool is None or self._pool.needs != needs:
            self.release()
            read_cluster().check(needs)
            self._pool = RayPool(factory, needs, self._config)
        elif self._made_by != factory:
            kept, others = self._idle[:n_items], self._idle[n_items:]
            for worker in others:
                self._pool.stop(worker)
            self._pool.rebuild(factory, kept)
            self._idle = ()
        self._made_by = factory
        return self._pool

    def release(self) -> None:
        """Stop the actors that were kept, which frees their CPUs, GPUs and memory."""
        if self._pool is not None:
            self._pool.close()
            for worker in self._idle:
                self._pool.stop(worker)
        self._pool, self._made_by, self._idle = None, None, ()

    def _needs(self, uses_model: bool) -> Needs:
        gpus = self._config.gpus_per_worker
        if gpus is None:
            view = read_cluster()
            has_gpus = any(has.get("GPU", 0.0) >= 1 for has in (*view.nodes, *(t.resources for t in view.node_types)))
            gpus = 1.0 if has_gpus else 0.0
            if uses_model and view.autoscales and not has_gpus:
                say("no node has a GPU, so that models run on CPUs; runtime.gpus_per_worker=1 asks for one")
        return Needs(self._cpus, gpus if uses_model else 0.0)


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
            ray.init(  # without "local" it joins any cluster that runs on this machine
                "local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                num_cpus=available_cpus(),
            )
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
