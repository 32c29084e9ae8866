"""What a job tells Ray while it runs: the counters and gauges of docs/metrics.md, kept by the driver of the job.

Ray puts `ray_` before the names and exports them on the metrics port of the driver's node. Nothing is recorded without
labels, so an executor that runs no step of a run, and one without Ray, has no metrics.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

COUNTERS = {
    "modularity_items_done_total": "work items that are recorded in the run",
    "modularity_items_failed_total": "work items given up after their last attempt",
    "modularity_item_retries_total": "attempts repeated because a worker died, failed or ran out of memory",
    "modularity_tokens_total": "real tokens through the model, padding left out",
    "modularity_written_bytes_total": "bytes written to the run, after compression",
}
GAUGES = {
    "modularity_items_waiting": "work items that no worker has taken yet",
    "modularity_items_running": "work items that a worker is at",
    "modularity_gpu_busy_ratio": "share of the time in which the model of a worker computes on its GPU",
    "modularity_worker_waiting_ratio": "share of the time in which a worker has no item",
}
SHARES_S = 5.0
"""Shares are taken over times of at least this length."""

Labels = Mapping[str, str]
Record = Callable[[str, float, Labels], None]

_labels: ContextVar[Labels | None] = ContextVar("modularity_metric_labels", default=None)


@contextmanager
def labelled(*, run: str, step: str) -> Iterator[None]:
    """Labels of what is recorded in a `with` block: the digest that names the run, and the step."""
    token = _labels.set({"run": run, "step": step})
    try:
        yield
    finally:
        _labels.reset(token)


@cache
def _metric(name: str) -> Any:
    from ray.util import metrics

    kind = metrics.Counter if name in COUNTERS else metrics.Gauge
    return kind(name, description=(COUNTERS | GAUGES)[name], tag_keys=("run", "step"))


def record_by_ray(name: str, value: float, labels: Labels) -> None:
    """Add to a counter, or set a gauge."""
    if name in GAUGES:
        _metric(name).set(value, tags=dict(labels))
    elif value > 0:
        _metric(name).inc(value, tags=dict(labels))


class StepMetrics:
    """Metrics of the step that runs now, under the labels of `labelled`; does nothing without them.

    Parameters
    ----------
    on_gpu : workers have a GPU each or share one
    record : takes name, value and labels
    clock : seconds, for differences
    """

    def __init__(
        self, *, on_gpu: bool, record: Record = record_by_ray, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._labels = _labels.get()
        self._on_gpu = on_gpu
        self._record = record
        self._clock = clock
        self._at = self._shares_since = clock()
        self._running = self._workers = self._n_done = 0
        self._busy_s = self._worker_s = self._forward_s = 0.0

    def queue(self, *, waiting: int, running: int, workers: int) -> None:
        """Take in how many items wait and run now, and on how many workers."""
        if self._labels is None:
            return
        now = self._clock()
        self._busy_s += self._running * (now - self._at)
        self._worker_s += self._workers * (now - self._at)
        self._at, self._running, self._workers = now, running, workers
        self._tell("modularity_items_waiting", waiting)
        self._tell("modularity_items_running", running)
        if self._n_done and now - self._shares_since >= SHARES_S:
            self._tell_shares(now)

    def done(self, info: Mapping[str, Any]) -> None:
        """Count a recorded item with what its worker says of it."""
        self._n_done += 1
        self._forward_s += float(info.get("seconds_forward", 0.0))
        self._tell("modularity_items_done_total", 1)
        self._tell("modularity_tokens_total", float(info.get("tokens", 0)))
        self._tell("modularity_written_bytes_total", float(info.get("bytes", 0)))

    def retried(self) -> None:
        """Count an attempt that is repeated."""
        self._tell("modularity_item_retries_total", 1)

    def failed(self) -> None:
        """Count an item that is given up."""
        self._tell("modularity_items_failed_total", 1)

    def close(self) -> None:
        """The step is over, however it ended: nothing waits or runs any more."""
        if self._labels is not None:
            self.queue(waiting=0, running=0, workers=0)
            self._tell_shares(self._clock())

    def _tell_shares(self, now: float) -> None:
        if self._worker_s > 0:
            self._tell("modularity_worker_waiting_ratio", 1 - min(1.0, self._busy_s / self._worker_s))
            if self._on_gpu and self._n_done:
                self._tell("modularity_gpu_busy_ratio", min(1.0, self._forward_s / self._worker_s))
        self._shares_since, self._n_done = now, 0
        self._busy_s = self._worker_s = self._forward_s = 0.0

    def _tell(self, name: str, value: float) -> None:
        if self._labels is not None:
            self._record(name, value, self._labels)
