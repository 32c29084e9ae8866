"""Jobs on a Ray cluster of several nodes: nodes that join, leave and are shared, and a driver that is told to stop."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from modularity.runtime import RuntimeConfig, Terminated, open_executor, sigterm_interrupts
from modularity.types import WorkItem


@dataclass(frozen=True)
class Squares:
    """Factory of a worker that writes squares to a folder, and on which node; items `waits` wait for a file `go`."""

    folder: str
    waits: tuple[int, ...] = ()
    hangs: tuple[int, ...] = ()

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        return self.run

    def run(self, item: WorkItem) -> dict[str, Any]:
        x, folder = item.integer("x"), Path(self.folder)
        (folder / f"begun-{x}-{time.monotonic_ns()}").touch()
        while x in self.hangs or (x in self.waits and not (folder / "go").exists()):
            time.sleep(0.02)
        node = ray.get_runtime_context().get_node_id()
        (folder / f"square-{x}").write_text(f"{x * x} {node}")
        return {}


def items(n: int) -> list[WorkItem]:
    return [WorkItem.of("square", x=x) for x in range(n)]


def squares(folder: Path) -> dict[int, int]:
    return {int(path.name.split("-")[1]): int(path.read_text().split()[0]) for path in folder.glob("square-*")}


def nodes_of(folder: Path) -> set[str]:
    return {path.read_text().split()[1] for path in folder.glob("square-*")}


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.05)


def n_begun(folder: Path) -> int:
    return len(list(folder.glob("begun-*")))


@contextmanager
def running(config: RuntimeConfig, n: int, factory: Squares, *, uses_model: bool = False) -> Iterator[None]:
    """Items run in another thread during the block, and are done after it; only this thread can change a cluster."""

    def work() -> None:
        with open_executor(config) as executor:
            executor.run(items(n), factory, uses_model=uses_model)

    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(work)
        try:
            yield
        finally:
            (Path(factory.folder) / "go").touch()
        done.result()


@pytest.fixture(scope="module")
def cluster(no_local_ray: None) -> Iterator[Cluster]:
    """A head without CPUs and one node; tests add others and take them away."""
    fast = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": fast}
    )
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="warning")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_node_that_joins_is_used_while_items_wait(cluster: Cluster, tmp_path: Path) -> None:
    with running(RuntimeConfig(), 3, Squares(str(tmp_path), waits=(0, 1, 2))):
        until(lambda: n_begun(tmp_path) == 1)
        joined = cluster.add_node(num_cpus=1)
        until(lambda: n_begun(tmp_path) == 2)
    cluster.remove_node(joined)
    assert squares(tmp_path) == {0: 0, 1: 1, 2: 4}
    assert len(nodes_of(tmp_path)) == 2


def test_a_node_that_is_lost_gives_its_item_back_to_the_one_that_comes(cluster: Cluster, tmp_path: Path) -> None:
    lost = cluster.add_node(num_cpus=1, num_gpus=1)
    with running(RuntimeConfig(gpus_per_worker=1), 2, Squares(str(tmp_path), waits=(0, 1)), uses_model=True):
        until(lambda: n_begun(tmp_path) == 1)
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1, num_gpus=1)
    assert squares(tmp_path) == {0: 0, 1: 1}
    assert n_begun(tmp_path) == 3


def test_sigterm_of_one_driver_finishes_what_runs_and_another_is_not_disturbed(
    cluster: Cluster, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    said = there / "said"
    with said.open("wb") as errors:
        driver = subprocess.Popen([sys.executable, __file__, cluster.address, str(there)], stderr=errors)
    with running(RuntimeConfig(), 6, Squares(str(here))):
        until(lambda: any(there.glob("begun-1-*")) or driver.poll() is not None)
        driver.send_signal(signal.SIGTERM)
        until(lambda: "running items have 60 s to finish" in said.read_text() or driver.poll() is not None)
        (there / "go").touch()
        assert driver.wait() == 143, said.read_text()
    assert squares(here) == {x: x * x for x in range(6)}
    done = squares(there)
    assert 1 in done
    assert len(done) < 6


def drive(address: str, folder: str) -> None:
    """A job in a process of its own: six items, of which item 1 waits."""
    with sigterm_interrupts(), open_executor(RuntimeConfig(address=address, grace_s=60)) as executor:
        try:
            executor.run(items(6), Squares(folder, waits=(1,)))
        except Terminated:
            sys.exit(143)


if __name__ == "__main__":
    drive(*sys.argv[1:])
