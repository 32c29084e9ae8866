"""Where work runs: in this process or on a Ray cluster, with the same plain workers; progress; resources.

The only room that imports Ray. It knows work items and workers, and nothing of what they compute.
"""

from modularity.runtime.executor import Executor, InProcessExecutor, RuntimeConfig, Worker, WorkerFactory
from modularity.runtime.progress import Progress
from modularity.runtime.session import open_executor
from modularity.runtime.termination import Terminated, sigterm_interrupts
from modularity.runtime.work_queue import ItemFailure

__all__ = [
    "Executor",
    "InProcessExecutor",
    "ItemFailure",
    "Progress",
    "RuntimeConfig",
    "Terminated",
    "Worker",
    "WorkerFactory",
    "open_executor",
    "sigterm_interrupts",
]
