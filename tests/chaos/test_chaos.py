"""A job on a cluster of several nodes, of which a worker, a node and the driver are killed."""

import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from modularity.store import Manifest, ResultArray, create_run
from modularity.types import WorkItem

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.slow
def test_a_worker_a_node_and_the_driver_are_killed() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--light", "--rounds", "1", "--kill", "worker", "node", "driver"],
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Killed: 1 workers, 1 nodes, 1 drivers." in ended.stdout
    assert "Verdict: the same content in every round." in ended.stdout


def test_what_is_lost_differs_or_is_redone_is_told(tmp_path: Path) -> None:
    chaos = runpy.run_path(str(SCRIPT))
    run = create_run(tmp_path / "run", Manifest.of("light"))
    run.create_result(
        "values", sizes={"block": 2, "value": 3}, arrays={"value": ResultArray(("block", "value"), block={"block": 1})}
    )
    for block in range(2):
        writes = run.write_result("values", {"value": np.full((1, 3), block * 1.0)}, at={"block": block})
        run.commit(WorkItem.of("light", block=block), arrays=writes)
    run.update(state="finished")
    content, item = run.content_hash(), WorkItem.of("light", block=1)
    begun = tmp_path / "begun"
    begun.mkdir()
    assert chaos["problems_of"](run, content) == []
    assert chaos["redone_though_recorded"](run, begun) == []
    (begun / f"{item.id}.{time.time_ns() + 5 * 10**9}.7").touch()
    assert chaos["redone_though_recorded"](run, begun) == [f"{item.id} was redone although it was recorded"]
    run.space.write("results/values/value/c/1/0", b"damaged")
    assert "does not match its recorded hash" in chaos["problems_of"](run, content)[0]
    run.discard(item.id)
    run.update(state="running")
    assert [problem.split()[0] for problem in chaos["problems_of"](run, content)] == ["the", "content"]


def test_a_number_of_nodes_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(SCRIPT))["main"]
    with pytest.raises(SystemExit):
        main(["--nodes", "0"])
    assert "--nodes 0: expected at least 1" in capsys.readouterr().err
