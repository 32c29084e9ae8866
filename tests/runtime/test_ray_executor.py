"""What only the Ray executor has to deal with: dead workers, needs that no node meets, sessions of somebody else."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from modularity.errors import InputError, WorkError
from modularity.runtime import RuntimeConfig, open_executor, ray_pool
from modularity.runtime.cluster_view import UNLIMITED, ClusterView, Needs
from modularity.runtime.scheduler import NotStarted
from modularity.types import WorkItem

pytestmark = pytest.mark.usefixtures("local_ray")
ITEMS = [WorkItem.of("square", x=x) for x in range(7)]


@dataclass(frozen=True)
class Squares:
    """Factory of a worker that writes squares; with `dies` the process ends at the first try of some,
    with `hangs` item 1 never ends."""

    folder: str
    dies: bool = False
    hangs: bool = False

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        return self.run

    def run(self, item: WorkItem) -> dict[str, Any]:
        x = item.integer("x")
        marker = Path(self.folder) / f"tried-{x}"
        if self.dies and x % 3 == 2 and not marker.exists():
            marker.touch()
            os._exit(1)
        while self.hangs and x == 1:
            time.sleep(1)
        (Path(self.folder) / f"square-{x}").write_text(str(x * x))
        return {}


@dataclass(frozen=True)
class ProcessNames:
    """Factory of a worker that tells its process, and how many others were built before it there; with `folder`, all
    but the first take a second to build, and items named `next` wait until there are two processes."""

    name: str
    folder: str | None = None

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        if self.folder is not None:
            try:
                (Path(self.folder) / f"first-{self.name}").touch(exist_ok=False)
            except FileExistsError:
                time.sleep(1)
        ProcessNames.n_built = getattr(ProcessNames, "n_built", 0) + 1  # type: ignore[attr-defined]
        return self.run

    def run(self, item: WorkItem) -> dict[str, Any]:
        if self.folder is not None:
            (Path(self.folder) / f"process-{self.name}-{os.getpid()}").touch()
            end = time.monotonic() + 60
            while self.name == "next" and time.monotonic() < end:
                if len(list(Path(self.folder).glob("process-next-*"))) > 1:
                    break
                time.sleep(0.05)
        return {"name": self.name, "pid": os.getpid(), "n_built": ProcessNames.n_built}  # type: ignore[attr-defined]


def squares(folder: Path) -> dict[int, int]:
    return {int(path.name.split("-")[1]): int(path.read_text()) for path in folder.glob("square-*")}


def test_a_dead_worker_is_replaced_and_its_item_run_again(tmp_path: Path) -> None:
    with open_executor(RuntimeConfig(executor="ray", cpus_per_worker=1)) as executor:
        executor.run(ITEMS, Squares(str(tmp_path), dies=True))
    assert squares(tmp_path) == {x: x * x for x in range(7)}


def test_an_item_that_hangs_is_killed_and_told_and_the_others_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RuntimeConfig(executor="ray", cpus_per_worker=1, item_timeout_s=0.5, max_attempts=2)
    with (
        open_executor(config) as executor,
        pytest.raises(WorkError, match=r"1 of 4 work items failed.*\n  square\(x=1\) failed after 2 attempts: Timeout"),
    ):
        executor.run(ITEMS[:4], Squares(str(tmp_path), hangs=True))
    assert sorted(squares(tmp_path)) == [0, 2, 3]
    assert "square(x=1) goes back, attempt 1 of 2 failed: TimeoutError: no result after 0.5" in capsys.readouterr().err


def test_workers_of_another_factory_are_built_in_the_processes_that_are_there() -> None:
    told: list[dict[str, Any]] = []
    with open_executor(RuntimeConfig(executor="ray", cpus_per_worker=1, workers=1)) as executor:
        for name in ("first", "first", "second"):
            executor.run(ITEMS[:2], ProcessNames(name), on_done=lambda _, info: told.append(dict(info)))
    assert [each["name"] for each in told] == ["first"] * 4 + ["second"] * 2
    assert len({each["pid"] for each in told}) == 1
    assert [each["n_built"] for each in told] == [1] * 4 + [2] * 2


def test_workers_of_the_next_call_are_started_early_and_built_by_its_factory(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    with open_executor(RuntimeConfig(executor="ray", cpus_per_worker=1, workers=2)) as executor:
        executor.run(ITEMS[:1], ProcessNames("one", str(tmp_path)), n_next=7)
        executor.run(ITEMS, ProcessNames("next", str(tmp_path)), on_done=lambda _, info: told.append(dict(info)))
    assert [each["name"] for each in told] == ["next"] * 7
    assert len({each["pid"] for each in told}) == 2


def test_a_worker_that_loads_for_too_long_is_killed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    now = [0.0]
    actor = SimpleNamespace(build=SimpleNamespace(remote=lambda factory: "being built"))
    monkeypatch.setattr(ray_pool, "ray", SimpleNamespace(
        put=lambda factory: factory, kill=killed.append, wait=lambda refs, **options: ([], refs)
    ))  # fmt: skip
    monkeypatch.setattr(ray_pool, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = ray_pool.RayPool(lambda: lambda item: {}, Needs(1, 0), RuntimeConfig(load_timeout_s=60))
    pool.rebuild(lambda: lambda item: {}, [actor])
    now[0] = 59.0
    assert (pool.wait(5), pool.n_building) == ([], 1)
    now[0] = 61.0
    (event,) = pool.wait(5)
    assert isinstance(event, NotStarted)
    assert str(event.error) == "nothing was loaded within 60 s (runtime.load_timeout_s)"
    assert (killed, pool.n_building) == ([actor], 0)


def test_a_worker_that_ray_kills_for_its_memory_is_a_lack_of_memory() -> None:
    assert isinstance(ray_pool._cause(OutOfMemoryError("node ran out of memory")), MemoryError)


def test_needs_that_no_node_meets_are_refused_at_once() -> None:
    with (
        open_executor(RuntimeConfig(executor="ray", cpus_per_worker=64)) as executor,
        pytest.raises(InputError, match=r"a worker needs 64 CPUs and 0 GPUs, but no node has them \(nodes: 2 CPUs"),
    ):
        executor.run(ITEMS, Squares("unused"))


def test_nodes_that_an_autoscaler_does_not_bring_are_waited_for_so_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ClusterView(({"CPU": 2.0},), autoscales=True)
    monkeypatch.setattr(ray_pool, "read_cluster", lambda: view)
    monkeypatch.setattr(ray_pool, "WAITING_LINE_S", 0.0)
    pool = ray_pool.RayPool(Squares("unused"), Needs(64, 0), RuntimeConfig(node_wait_s=0.3))
    pool.start()
    assert pool.limit() == UNLIMITED
    assert "waiting for a worker with 64 CPUs and 0 GPUs: the autoscaler has to start a node" in capsys.readouterr().err
    time.sleep(0.3)
    with pytest.raises(InputError, match=r"no node for a worker with 64 CPUs and 0 GPUs came within 0.3 s .*nodes: 2"):
        pool.limit()
    pool.close()


def test_a_worker_that_gets_no_cpu_holds_no_item(tmp_path: Path) -> None:
    @ray.remote(num_cpus=1)
    class Squatter:
        def here(self) -> None:
            pass

    squatter = Squatter.remote()
    ray.get(squatter.here.remote())
    with open_executor(RuntimeConfig(executor="ray", cpus_per_worker=1, workers=2)) as executor:
        executor.run(ITEMS, Squares(str(tmp_path)))
    ray.kill(squatter)
    assert squares(tmp_path) == {x: x * x for x in range(7)}


def test_a_local_ray_is_started_whatever_else_runs_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def init(address: str, **options: Any) -> None:
        asked.append(address)
        raise ConnectionError("no room")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(InputError, match=r"cannot reach a local Ray: no room; .*runtime\.executor=inprocess"),
        open_executor(RuntimeConfig(executor="ray")),
    ):
        pass
    assert asked == ["local"]


def test_a_session_that_was_there_is_left_running() -> None:
    with open_executor(RuntimeConfig(executor="ray")):
        pass
    assert ray.is_initialized()
