"""One suite over both executors: every item done or named, nothing swallowed, dead workers replaced."""

import os
import runpy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modularity.errors import DataError, InputError, WorkError
from modularity.runtime import Executor, RuntimeConfig, open_executor
from modularity.runtime.executor import unfinished
from modularity.types import WorkItem

pytestmark = pytest.mark.usefixtures("local_ray")
ITEMS = [WorkItem.of("square", x=x) for x in range(7)]


@dataclass(frozen=True)
class Squares:
    """Factory of a worker that writes squares to a folder, with planted faults."""

    folder: str
    fault: str = ""

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        (Path(self.folder) / f"built-{os.getpid()}-{time.monotonic_ns()}").touch()
        if self.fault == "factory":
            raise InputError("model 'nowhere' is not there")
        return self.run

    def run(self, item: WorkItem) -> dict[str, Any]:
        x = item.integer("x")
        marker = Path(self.folder) / f"tried-{x}"
        first_try = not marker.exists()
        marker.touch()
        if x % 3 == 2 and first_try and self.fault == "every third call":
            raise ConnectionError(f"lost {x}")
        if self.fault == "always" and x == 4:
            raise ConnectionError("never there")
        if self.fault == "finding" and x == 4:
            (marker.parent / f"finding-{time.monotonic_ns()}").touch()
            raise DataError("x=4 is not a number we like")
        (Path(self.folder) / f"square-{x}").write_text(str(x * x))
        return {"tokens": x, "bytes": 1}


@pytest.fixture(params=["inprocess", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    config = RuntimeConfig(executor=request.param, cpus_per_worker=1, max_attempts=3)
    with open_executor(config) as opened:
        yield opened


def squares(folder: Path) -> dict[int, int]:
    return {int(path.name.split("-")[1]): int(path.read_text()) for path in folder.glob("square-*")}


def test_every_item_is_done_once(executor: Executor, tmp_path: Path) -> None:
    seen: list[WorkItem] = []
    executor.run(ITEMS, Squares(str(tmp_path)), on_done=lambda item, info: seen.append(item))
    assert sorted(item.integer("x") for item in seen) == list(range(7))
    assert squares(tmp_path) == {x: x * x for x in range(7)}


def test_an_equal_factory_finds_its_worker_again(executor: Executor, tmp_path: Path) -> None:
    for _ in range(2):
        executor.run(ITEMS[:1], Squares(str(tmp_path)))
    assert len(list(tmp_path.glob("built-*"))) == 1
    executor.run(ITEMS[:1], Squares(str(tmp_path), fault="other"))
    assert len(list(tmp_path.glob("built-*"))) == 2


def test_no_items_is_no_work(executor: Executor, tmp_path: Path) -> None:
    executor.run([], Squares(str(tmp_path), fault="factory"))


def test_accidents_are_tried_again(executor: Executor, tmp_path: Path) -> None:
    executor.run(ITEMS, Squares(str(tmp_path), fault="every third call"))
    assert squares(tmp_path) == {x: x * x for x in range(7)}


def test_a_failing_item_is_named_and_the_rest_is_done(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(
        WorkError, match=r"1 of 7 work items failed.*\n  square\(x=4\) failed after 3 attempts"
    ) as caught:
        executor.run(ITEMS, Squares(str(tmp_path), fault="always"))
    assert "never there" in str(caught.value)
    assert sorted(squares(tmp_path)) == [0, 1, 2, 3, 5, 6]


def test_findings_are_not_retried(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(
        WorkError, match="square\\(x=4\\) failed after 1 attempt: DataError: x=4 is not a number we like"
    ):
        executor.run(ITEMS, Squares(str(tmp_path), fault="finding"))
    assert len(list(tmp_path.glob("finding-*"))) == 1
    assert len(squares(tmp_path)) == 6


def test_an_error_in_the_factory_reaches_the_caller(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model 'nowhere' is not there"):
        executor.run(ITEMS[:1], Squares(str(tmp_path), fault="factory"))


def test_unfinished_keeps_order_and_drops_repeats() -> None:
    done = {ITEMS[1]}
    assert unfinished([*ITEMS[:3], ITEMS[0]], done.__contains__) == [ITEMS[0], ITEMS[2]]


def test_the_benchmark_of_studies_sees_what_items_take() -> None:
    measured = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "study.py"))["seconds_by_kind"]
    with measured() as seconds, open_executor(RuntimeConfig(executor="inprocess")) as executor:
        executor.run([WorkItem.of("nap", index=index) for index in range(3)], lambda: lambda item: time.sleep(0.01))
    assert list(seconds) == ["nap"]
    assert seconds["nap"] >= 0.03
