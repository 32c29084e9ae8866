"""A job in process whose item hangs ends, and says with which; one that is fast does not."""

import subprocess
import sys
import textwrap
import threading

import pytest

from modularity.runtime import InProcessExecutor, Worker
from modularity.types import WorkItem

HANGS = """
    import time
    from modularity.runtime import RuntimeConfig, open_executor
    from modularity.types import WorkItem

    def worker(item):
        print("at", item, flush=True)
        time.sleep(60 * item.integer("x"))
        return {}

    with open_executor(RuntimeConfig(executor="inprocess", item_timeout_s=0.3)) as executor:
        executor.run([WorkItem.of("sleep", x=x) for x in (0, 1, 0)], lambda: worker)
"""


def test_a_hung_item_ends_the_process_with_its_name() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HANGS)], capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == ["at sleep(x=0)", "at sleep(x=1)"]
    assert "error: sleep(x=1) took longer than 0.3 s (runtime.item_timeout_s)" in ended.stderr
    assert "line 8 in worker" in ended.stderr


def test_loading_that_hangs_ends_the_process(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    has_ended = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        has_ended.set()

    monkeypatch.setattr("modularity.runtime.watchdog.os._exit", end)

    def load() -> Worker:
        has_ended.wait(50)
        return lambda item: {}

    InProcessExecutor(load_timeout_s=0.05).run([WorkItem.of("item")], load)
    assert ended == [1]
    assert "error: loading took longer than 0.05 s (runtime.load_timeout_s)" in capfd.readouterr().err


def test_a_fast_item_leaves_nothing_behind() -> None:
    InProcessExecutor(item_timeout_s=3600).run([WorkItem.of("fast")], lambda: lambda item: {})
