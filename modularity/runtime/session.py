"""Opens the executor that a config asks for, and closes only what it opened itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from modularity.runtime.executor import Executor, InProcessExecutor, RuntimeConfig


@contextmanager
def open_executor(config: RuntimeConfig) -> Iterator[Executor]:
    """Executor for the time of a `with` block.

    A local Ray is started when no cluster is named, and stopped at the end; a Ray session or cluster that was there
    before is used and left running.
    """
    if config.executor == "inprocess":
        n_threads = None if config.cpus_per_worker is None else max(1, int(config.cpus_per_worker))
        yield InProcessExecutor(
            max_attempts=config.max_attempts,
            n_threads=n_threads,
            item_timeout_s=config.item_timeout_s,
            load_timeout_s=config.load_timeout_s,
        )
        return
    from modularity.runtime.ray_executor import ray_executor  # importing Ray takes a moment; in-process jobs skip it

    with ray_executor(config) as executor:
        yield executor
