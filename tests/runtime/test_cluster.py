"""Jobs on a Ray cluster of several nodes: nodes that join, leave and are shared, and a driver that is told to stop."""

import signal
import subprocess
import sys
import textwrap
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

from modularity.runtime import RuntimeConfig, open_executor
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
    with open_executor(config) as executor, ThreadPoolExecutor(1) as thread:
        work = thread.submit(executor.run, items(n), factory, uses_model=uses_model)
        try:
            yield
        finally:
            (Path(factory.folder) / "go").touch()
        work.result()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs and one node; tests add others and take them away. No other Ray of this process survives."""
    ray.shutdown()
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


DRIVER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_cluster import Squares, items
    from modularity.runtime import RuntimeConfig, open_executor, sigterm_interrupts, Terminated

    config = RuntimeConfig(address={address!r}, grace_s={grace_s})
    with open_executor(config) as executor, sigterm_interrupts():
        try:
            executor.run(items(6), Squares({folder!r}, waits={waits!r}))
        except Terminated:
            sys.exit(143)
"""


def start_driver(cluster: Cluster, folder: Path, *, waits: tuple[int, ...], grace_s: float) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(DRIVER).format(
        tests=str(Path(__file__).parent), address=cluster.address, grace_s=grace_s, folder=str(folder), waits=waits
    )
    with (folder / "said").open("wb") as said:
        return subprocess.Popen([sys.executable, "-c", code], stderr=said)


def test_sigterm_of_one_driver_finishes_what_runs_and_another_is_not_disturbed(
    cluster: Cluster, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    said = there / "said"
    driver = start_driver(cluster, there, waits=(1,), grace_s=60)
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
