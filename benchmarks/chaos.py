"""Workers, nodes, the driver and the head of a real Ray cluster are killed at random; nothing may be lost or differ.

    python benchmarks/chaos.py                          # ten minutes on 2 cores
    python benchmarks/chaos.py --minutes 2 --seed 7
    python benchmarks/chaos.py --light --rounds 1       # without a model: half a minute
    python benchmarks/chaos.py --light --rounds 1 --kill node driver

A Ray cluster of several nodes runs in processes of this machine (`ray.cluster_utils`), each node with one CPU. Round
after round a job is started on it and killed by SIGKILL, a part at a time, at random moments: a worker, a node
(another one joins), the driver (the same command is given again), the head with all nodes (the driver has to end by
itself, with a message and an exit code; the same command is given again on a new cluster). When the kills of the round
are used up, the job is left alone until it is finished. Then its content hash is compared with that of an undisturbed
run in one process, and every stored byte with its record.

The job is an analysis of the last checkpoint of the trained series that ships with the package. Redone are items that
were begun again, because their worker died before it recorded them. Exit code 1 if anything differs, is lost or is
redone although it was recorded, 0 otherwise.
"""

import argparse
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from modularity.runtime import RuntimeConfig, WorkerFactory, open_executor, sigterm_interrupts
from modularity.store import Manifest, ResultArray, Run, create_run, find_run, open_run, verify_store
from modularity.types import WorkItem

KINDS = ("worker", "node", "driver", "head")
MAX_STARTS = 20
PATIENCE_S = 1200
GOODBYE_S = 120
"""Time in which a driver has to notice that the head is dead; Ray itself waits for a minute, here for 5 seconds."""
N_LIGHT, LIGHT_ITEM_S = 40, 0.1


@dataclass(frozen=True)
class Counted:
    """Factory whose workers note the beginning of every item in a folder."""

    factory: WorkerFactory
    folder: str

    def __call__(self) -> Callable[[WorkItem], Mapping[str, Any]]:
        """The worker."""
        worker = self.factory()

        def work(item: WorkItem) -> Mapping[str, Any]:
            Path(self.folder, f"{item.id}.{time.time_ns()}.{os.getpid()}").touch()
            return worker(item)

        return work


@dataclass(frozen=True)
class LightFactory:
    """Worker that needs no model: writes one block of an array for each item."""

    uri: str

    def __call__(self) -> Callable[[WorkItem], Mapping[str, Any]]:
        """The worker."""
        run = open_run(self.uri)

        def work(item: WorkItem) -> Mapping[str, Any]:
            block = item.integer("block")
            time.sleep(LIGHT_ITEM_S)
            values = np.random.default_rng(block).standard_normal((1, 1000))
            run.commit(item, arrays=run.write_result("values", {"value": values}, at={"block": block}))
            return {}

        return work


def run_light(runtime: RuntimeConfig, out: str) -> None:
    """A job of items that only write."""
    from modularity.pipelines.steps import Step, run_steps

    items = [WorkItem.of("light", block=block) for block in range(N_LIGHT)]
    run = create_run(out, Manifest.of("light", items_planned={"light": N_LIGHT}))
    array = ResultArray(("block", "value"), "float64", {"block": 1})

    def allocate() -> None:
        run.create_result("values", sizes={"block": N_LIGHT, "value": 1000}, arrays={"value": array})

    with sigterm_interrupts(), open_executor(runtime) as executor:
        run_steps(run, executor, [Step("light", items, LightFactory(out))], allocate=allocate, quiet=True)


def run_analysis(runtime: RuntimeConfig, out: str) -> None:
    """A small analysis of a checkpoint that ships with the package."""
    from modularity.config import validate_config
    from modularity.data import planted_functions, series_path
    from modularity.pipelines import EmergentModularityConfig, run_job

    steps = [path for path in series_path().iterdir() if path.name.startswith("step")]
    checkpoint = max(steps, key=lambda path: int(path.name.removeprefix("step")))
    functions = [each.as_json() for each in planted_functions() if each.name == "planted_relations"]
    values = {
        "model": {"name": str(checkpoint), "device": "cpu", "matmul": "highest"},
        "functions": functions,
        "capture": {"rows_per_item": 128},
        "predictivity": {"n_permutations": 20, "n_bootstrap": 100, "neurons_per_item": 64},
        "experts": {"n_experts": 16, "top_fraction": 0.05, "sensitivity": [0.05], "n_permutations": 100},
        "overlap": {"n_permutations": 100},
        "runtime": runtime.as_json(),
    }
    run_job(validate_config(EmergentModularityConfig, values), out, quiet=True)


def drive(light: bool, address: str, out: str, begun: str) -> None:
    """The driver: the job on the cluster at `address`, or in this process where that is empty."""
    if address:
        from modularity.runtime.ray_executor import RayExecutor

        original = RayExecutor.run

        def counted(self: Any, items: Any, factory: Any, **options: Any) -> None:
            original(self, items, Counted(factory, begun), **options)

        RayExecutor.run = counted  # type: ignore[method-assign]
        runtime = RuntimeConfig(address=address, cpus_per_worker=1, max_attempts=20)
    else:
        runtime = RuntimeConfig(executor="inprocess", cpus_per_worker=1)
    (run_light if light else run_analysis)(runtime, out)


@dataclass
class Round:
    """What happened to one run."""

    kills: list[tuple[str, int]] = field(default_factory=list)
    """What was killed, and how many items were recorded then."""
    n_starts: int = 0
    n_items: int = 0
    n_redone: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def row(self, number: int) -> str:
        """Line of the table."""
        killed = ", ".join(f"{kind} at {n_done}" for kind, n_done in self.kills) or "nothing"
        verdict = "; ".join(self.problems) or "same content"
        cells = (number, killed, self.n_starts, self.n_items, self.n_redone, f"{self.seconds:.0f}", verdict)
        return "| " + " | ".join(map(str, cells)) + " |"


class Nodes:
    """A Ray cluster on this machine: a head without CPUs, and nodes with one each."""

    def __init__(self, n_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        self.n_nodes = n_nodes
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(n_nodes):
            self.cluster.add_node(num_cpus=1)

    def kill_node(self, draw: random.Random) -> None:
        """One node; another one joins."""
        node = draw.choice(sorted(self.cluster.worker_nodes, key=lambda each: each.unique_id))
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(num_cpus=1)

    def kill_worker(self, draw: random.Random) -> bool:
        """One worker process of a node; False where there is none."""
        raylets = {
            info.process.pid for node in self.cluster.worker_nodes for info in node.all_processes.get("raylet", ())
        }
        workers = sorted(pid for pid, parent, title in processes() if parent in raylets and "_ItemActor" in title)
        if not workers:
            return False
        try:
            os.kill(draw.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """Kill all nodes and the head."""
        for node in (*self.cluster.worker_nodes, self.cluster.head_node):
            self.cluster.remove_node(node, allow_graceful=False)


def processes() -> Iterator[tuple[int, int, str]]:
    """Id, parent's id and title of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            yield int(folder.name), parent, (folder / "cmdline").read_text(errors="replace")
        except (OSError, ValueError):
            continue


class Chaos:
    """Rounds of one job on one cluster."""

    def __init__(self, folder: Path, *, light: bool, n_nodes: int, seed: int) -> None:
        self.folder, self.light, self.draw = folder, light, random.Random(seed)
        self.log = folder / "drivers.log"
        start = time.monotonic()
        if self._start("", folder / "undisturbed", folder).wait() != 0:
            raise SystemExit(f"the undisturbed run failed:\n{self.messages()}")
        undisturbed = open_run(folder / "undisturbed")
        self.content, self.n_items = undisturbed.content_hash(), len(undisturbed.committed_ids())
        self.undisturbed_s = time.monotonic() - start
        self.nodes = Nodes(n_nodes)

    def round(self, number: int, kinds: tuple[str, ...]) -> Round:
        """One run from its first start to the comparison; `kinds` are killed in this order."""
        out, begun = self.folder / f"run-{number}", self.folder / f"begun-{number}"
        begun.mkdir()
        outcome, start = Round(n_items=self.n_items), time.monotonic()
        waiting = list(kinds)
        driver = self._start(self.nodes.cluster.address, out, begun)
        outcome.n_starts = 1
        due = self._moment(out)
        while True:
            code = driver.poll()
            if code == 0:
                break
            if code is not None:
                if outcome.n_starts == MAX_STARTS:
                    outcome.problems.append(f"not finished after {MAX_STARTS} starts, last exit code {code}")
                    break
                driver = self._start(self.nodes.cluster.address, out, begun)
                outcome.n_starts += 1
            if time.monotonic() - start > PATIENCE_S:
                driver.kill()
                driver.wait()
                outcome.problems.append(f"not finished after {PATIENCE_S} s")
                break
            n_done = n_recorded(out)
            if waiting and due(n_done) and n_done < self.n_items and self._kill(waiting[0], driver, outcome):
                outcome.kills.append((waiting.pop(0), n_done))
                due = self._moment(out)
            time.sleep(0.02)
        outcome.seconds = time.monotonic() - start
        self._judge(out, begun, outcome)
        return outcome

    def _moment(self, out: Path) -> Callable[[int], bool]:
        """Whether the next part is to be killed: at a number of recorded items, sometimes at a time, both random."""
        n_now, now = n_recorded(out), time.monotonic()
        n_then = n_now + self.draw.randint(1, max(1, (self.n_items - n_now) // 2))
        then = now + self.draw.uniform(0.0, self.undisturbed_s)
        return (lambda n_done: n_done >= n_then) if self.draw.random() < 0.7 else lambda _: time.monotonic() >= then

    def _kill(self, kind: str, driver: subprocess.Popen[bytes], outcome: Round) -> bool:
        if kind == "worker":
            return self.nodes.kill_worker(self.draw)
        if kind == "node":
            self.nodes.kill_node(self.draw)
        elif kind == "head":
            outcome.problems += self._kill_head(driver)
        else:
            driver.kill()
            driver.wait()
        return True

    def _kill_head(self, driver: subprocess.Popen[bytes]) -> list[str]:
        """The whole cluster; another one takes its place when the driver has ended. What is wrong with its end."""
        n_said = self.log.stat().st_size
        self.nodes.stop()
        try:
            code = driver.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            driver.kill()
            driver.wait()
            return [f"the driver was still there {GOODBYE_S} s after the head died"]
        finally:
            self.nodes = Nodes(self.nodes.n_nodes)
        problems = ["the driver ended with 0 when the head died"] if code == 0 else []
        return problems + (["the driver said nothing of its end"] if self.log.stat().st_size == n_said else [])

    def _judge(self, out: Path, begun: Path, outcome: Round) -> None:
        starts = Counter(path.name.split(".")[0] for path in begun.iterdir())
        run = find_run(out)
        if run is None:
            outcome.problems.append("there is no run")
            return
        outcome.problems += problems_of(run, self.content)
        recorded = run.committed_ids()
        outcome.n_redone = sum(n - 1 for item, n in starts.items() if item in recorded)
        outcome.problems += redone_though_recorded(run, begun)

    def _start(self, address: str, out: Path, begun: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, "--drive", address, str(out), str(begun)]
        with self.log.open("ab") as log:
            return subprocess.Popen([*command, "--light"] if self.light else command, stdout=log, stderr=log)

    def messages(self) -> str:
        """The last messages of the drivers."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


def problems_of(run: Run, content: str) -> list[str]:
    """What is wrong with a run that was disturbed."""
    problems = [problem.message for problem in verify_store(run).problems]
    if run.manifest.state != "finished":
        problems.append(f"the run is {run.manifest.state}")
    if run.content_hash() != content:
        problems.append(f"content hash {run.content_hash()[:12]}, undisturbed {content[:12]}")
    return problems


def redone_though_recorded(run: Run, begun: Path) -> list[str]:
    """Items that a worker began after their record had been there for a second."""
    recorded = {path.stem: path.stat().st_mtime_ns for path in Path(run.uri, "commits").glob("*.json")}
    late = []
    for path in begun.iterdir():
        item, moment, _ = path.name.split(".")
        if item in recorded and int(moment) > recorded[item] + 10**9:
            late.append(f"{item} was redone although it was recorded")
    return late


def n_recorded(out: Path) -> int:
    """Commit records in a run's folder."""
    folder = out / "commits"
    return sum(name.endswith(".json") for name in os.listdir(folder)) if folder.is_dir() else 0


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for everything, with settings that keep Ray's files and token in it."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    settings = {
        "HOME": str(folder),
        "RAY_TMPDIR": str(folder / "r"),
        "RAY_AUTH_MODE": "token",
        "RAY_raylet_start_wait_time_s": "120",  # of a busy machine
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    os.environ.update(settings)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def report(rounds: list[Round], chaos: Chaos, command: str) -> str:
    """The table, with totals."""
    killed = Counter(kind for each in rounds for kind, _ in each.kills)
    total = ", ".join(f"{killed[kind]} {kind}s" for kind in KINDS if killed[kind]) or "nothing"
    n_bad = sum(bool(each.problems) for each in rounds)
    verdict = f"{n_bad} of {len(rounds)} rounds went wrong" if n_bad else "the same content in every round"
    n_done = sum(each.n_items for each in rounds)
    n_redone = sum(each.n_redone for each in rounds)
    head = "| round | killed, at recorded items | starts | items | redone | seconds | verdict |"
    return "\n".join(
        [
            f"    {command}",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {chaos.nodes.n_nodes} nodes, {chaos.n_items} items "
            f"(undisturbed, in one process: {chaos.undisturbed_s:.0f} s). Killed: {total}. Items redone: {n_redone} of "
            f"{n_done}. Verdict: {verdict}.",
            "",
            head,
            "|---" * 7 + "|",
            *(each.row(number) for number, each in enumerate(rounds, 1)),
        ]
    )


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no round after this time")
    parser.add_argument("--rounds", type=int, help="at most so many rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--light", action="store_true", help="a job without a model")
    parser.add_argument("--kill", nargs="+", choices=KINDS, help="what every round kills; default: 1 to 4 at random")
    parser.add_argument("--drive", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.nodes < 1:
        parser.error(f"--nodes {arguments.nodes}: expected at least 1")
    if arguments.drive:
        drive(arguments.light, *arguments.drive)
        return
    command = " ".join(["python benchmarks/chaos.py", *sys.argv[1:]])
    end = time.monotonic() + 60 * arguments.minutes
    rounds: list[Round] = []
    with own_folder() as folder:
        chaos = Chaos(folder, light=arguments.light, n_nodes=arguments.nodes, seed=arguments.seed)
        try:
            while time.monotonic() < end and len(rounds) != arguments.rounds:
                some = chaos.draw.choices(KINDS, weights=(4, 3, 3, 1), k=chaos.draw.randint(1, 4))
                kinds = chaos.draw.sample(arguments.kill, k=len(arguments.kill)) if arguments.kill else some
                rounds.append(chaos.round(len(rounds) + 1, tuple(kinds)))
                print(rounds[-1].row(len(rounds)), file=sys.stderr, flush=True)
                if rounds[-1].problems:
                    print(chaos.messages(), file=sys.stderr, flush=True)
            print(report(rounds, chaos, command))
        finally:
            chaos.nodes.stop()
    if not rounds or any(each.problems for each in rounds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
