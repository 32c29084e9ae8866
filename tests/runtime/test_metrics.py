"""Metrics: by hand with a clock of our own, and as a real Ray exports them."""

import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from modularity.runtime import RuntimeConfig, open_executor
from modularity.runtime.metrics import COUNTERS, GAUGES, StepMetrics, labelled
from modularity.types import WorkItem


class Recorder:
    """Keeps what is recorded, counters as sums and gauges as lists, and lets the test set the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sums: dict[str, float] = {}
        self.values: dict[str, list[float]] = {}
        self.labels: set[tuple[tuple[str, str], ...]] = set()

    def record(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        self.labels.add(tuple(sorted(labels.items())))
        if name in COUNTERS:
            self.sums[name] = self.sums.get(name, 0.0) + value
        else:
            assert name in GAUGES
            self.values.setdefault(name, []).append(value)

    def metrics(self, *, on_gpu: bool) -> StepMetrics:
        return StepMetrics(on_gpu=on_gpu, record=self.record, clock=lambda: self.now)


def test_shares_and_counts_by_hand() -> None:
    """Two workers for ten seconds; one has an item all the time, the other for five; the model computes for six."""
    recorder = Recorder()
    with labelled(run="r", step="s"):
        metrics = recorder.metrics(on_gpu=True)
    metrics.queue(waiting=1, running=2, workers=2)
    recorder.now = 5.0
    metrics.done({"tokens": 70, "bytes": 900, "seconds_forward": 2.0})
    metrics.queue(waiting=0, running=1, workers=2)
    recorder.now = 10.0
    metrics.done({"tokens": 30, "seconds_forward": 1.0})
    metrics.retried()
    metrics.failed()
    metrics.close()
    assert recorder.labels == {(("run", "r"), ("step", "s"))}
    assert recorder.sums == {
        "modularity_items_done_total": 2, "modularity_items_failed_total": 1, "modularity_item_retries_total": 1,
        "modularity_tokens_total": 100, "modularity_written_bytes_total": 900,
    }  # fmt: skip
    assert recorder.values["modularity_worker_waiting_ratio"] == [0.0, 0.5]
    assert recorder.values["modularity_gpu_busy_ratio"] == pytest.approx([0.2, 0.1])
    assert recorder.values["modularity_items_waiting"] == [1, 0, 0]
    assert recorder.values["modularity_items_running"] == [2, 1, 0]


def test_without_a_gpu_and_without_labels_less_is_told() -> None:
    recorder = Recorder()
    with labelled(run="r", step="s"):
        metrics = recorder.metrics(on_gpu=False)
    unlabelled = recorder.metrics(on_gpu=True)
    for each in (metrics, unlabelled):
        each.queue(waiting=0, running=1, workers=1)
        recorder.now += 10.0
        each.done({"seconds_forward": 5.0})
        each.close()
    assert "modularity_gpu_busy_ratio" not in recorder.values
    assert recorder.sums["modularity_items_done_total"] == 1


@dataclass(frozen=True)
class Counting:
    """Factory of a worker that says what a capture says."""

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        return lambda item: {"tokens": 100, "bytes": 1000}


def exported(port: int) -> dict[str, float]:
    """Our metrics of the run `digest0`, as Prometheus would read them; those of the step must be labelled."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    ours = [line for line in lines if line.startswith("ray_modularity_") and 'run="digest0"' in line]
    assert all('step="square"' in line for line in ours)
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in ours}


@pytest.mark.usefixtures("local_ray")
def test_ray_exports_what_the_executor_counts() -> None:
    import ray

    [node] = ray.nodes()
    expected = {
        "ray_modularity_items_done_total": 5, "ray_modularity_tokens_total": 500,
        "ray_modularity_written_bytes_total": 5000, "ray_modularity_items_waiting": 0,
        "ray_modularity_items_running": 0,
    }  # fmt: skip
    with (
        open_executor(RuntimeConfig(executor="ray", cpus_per_worker=1, workers=1)) as executor,
        labelled(run="digest0", step="square"),
    ):
        executor.run([WorkItem.of("square", x=x) for x in range(5)], Counting())
        found: dict[str, float] = {}
        for _ in range(300):
            found = exported(node["MetricsExportPort"])
            if expected.items() <= found.items():
                break
            time.sleep(0.1)
    assert expected.items() <= found.items()
    assert 0 <= found["ray_modularity_worker_waiting_ratio"] <= 1
    assert "ray_modularity_gpu_busy_ratio" not in found
