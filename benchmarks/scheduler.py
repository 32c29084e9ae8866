"""The scheduler alone with very many items and workers, and what running on Ray costs beside running in process.

    python benchmarks/scheduler.py                                     # all of it, some four minutes
    python benchmarks/scheduler.py --only simulated                    # 100,000 items, 1,000 workers
    python benchmarks/scheduler.py --items 2000 --workers 50 --item-s 0.2 --n-real 6
    python benchmarks/scheduler.py --json > result.json

`simulated`: the queue and the decisions of the driver as in a job, over a cluster that exists only as a list of times:
items of about a minute, one in a hundred kills its worker at the first attempt, a tenth of the workers joins late.
Printed are items per second of real time (the driver must decide faster than workers finish), the largest memory of the
process above what it began with, and the share of simulated time that workers waited for an item.

`real`: items that compute for about `--item-s` seconds on one core, in process, on a local Ray with one worker and with
two, in turns of which the medians are printed. Overhead is the time on Ray with one worker over that in process, both
after the worker is built; two workers can be twice as fast as this process only where two cores are free.
"""

import argparse
import heapq
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.runtime import Executor, RuntimeConfig, open_executor
from modularity.runtime.scheduler import Done, Event, Failed, Ready, Scheduler
from modularity.runtime.work_queue import Assignment, WorkQueue
from modularity.types import WorkItem

TARGET_OVERHEAD = 1.05
N_TURNS = 6
Outcome = tuple[float, BaseException | None, bool]
"""Seconds that an item takes, what goes wrong at its end, and whether its worker dies of it."""


class SimulatedPool:
    """Workers that exist only as times: what a scheduler sees of a cluster.

    Parameters
    ----------
    outcome : of an item on a worker
    capacity : workers that the cluster holds at a time in seconds
    start_s : seconds from getting resources to being ready
    limit : workers that the cluster says it can hold; None: its capacity
    """

    def __init__(
        self,
        outcome: Callable[[int, Assignment], Outcome],
        capacity: Callable[[float], int],
        *,
        start_s: float = 0.0,
        limit: int | None = None,
    ) -> None:
        self.now = 0.0
        self.n_pending = 0
        self.n_building = 0
        self.n_alive = 0
        self.most_alive = 0
        self.busy_s = 0.0
        self.alive_s = 0.0
        self.started = 0
        self.stopped: list[int] = []
        self._outcome, self._capacity, self._start_s = outcome, capacity, start_s
        self._limit = limit
        self._coming: list[tuple[float, int, int, Event | None]] = []
        self._born: dict[int, float] = {}
        self._n_events = 0

    def clock(self) -> float:
        """Simulated seconds."""
        return self.now

    def limit(self) -> int:
        """See `scheduler.Pool`."""
        return self._capacity(self.now) if self._limit is None else self._limit

    def start(self) -> None:
        """See `scheduler.Pool`."""
        self.n_pending += 1

    def withdraw(self, n: int) -> None:
        """See `scheduler.Pool`."""
        self.n_pending -= n

    def submit(self, worker: int, given: Assignment) -> None:
        """See `scheduler.Pool`."""
        seconds, error, dies = self._outcome(worker, given)
        event = Done(worker, {}) if error is None else Failed(worker, error, is_dead=dies)
        self.busy_s += seconds
        self._push(self.now + seconds, worker, event)

    def wait(self, timeout_s: float) -> list[Event]:
        """See `scheduler.Pool`; time jumps to what happens next."""
        self._grant()
        until = self.now + timeout_s
        if not self._coming or self._coming[0][0] > until:
            self.now = until
            return []
        self.now = max(self.now, self._coming[0][0])
        events: list[Event] = []
        while self._coming and self._coming[0][0] <= self.now:
            _, _, worker, event = heapq.heappop(self._coming)
            if worker in self._born and event is not None:
                self.n_building -= isinstance(event, Ready)
                events.append(event)
        return events

    def stop(self, worker: int) -> None:
        """See `scheduler.Pool`."""
        if worker in self._born:
            self.stopped.append(worker)
            self.alive_s += self.now - self._born.pop(worker)
            self.n_alive -= 1

    def close(self) -> None:
        """See `scheduler.Pool`."""
        self.n_pending = self.n_building = 0
        for worker in list(self._born):
            self.stop(worker)

    def _grant(self) -> None:
        """Give resources to workers that are asked for, as far as the cluster has them."""
        for _ in range(min(self.n_pending, self._capacity(self.now) - self.n_alive)):
            self.n_pending -= 1
            self.n_building += 1
            self.n_alive += 1
            self.most_alive = max(self.most_alive, self.n_alive)
            self.started += 1
            self._born[self.started] = self.now
            self._push(self.now + self._start_s, self.started, Ready(self.started))

    def _push(self, at: float, worker: int, event: Event) -> None:
        self._n_events += 1
        heapq.heappush(self._coming, (at, self._n_events, worker, event))


def simulated(n_items: int, n_workers: int) -> dict[str, float]:
    """Speed and memory of the scheduler on a simulated cluster."""
    rng = np.random.default_rng(0)
    seconds = rng.lognormal(np.log(60.0), 0.3, n_items)
    deaths = rng.random(n_items) < 0.01

    def outcome(worker: int, given: Assignment) -> Outcome:
        index = given.item.integer("index")
        dies = bool(deaths[index]) and given.attempt == 1
        return float(seconds[index]), ConnectionError("lost") if dies else None, dies

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    items = [WorkItem.of("simulated", index=index) for index in range(n_items)]
    n_late = n_workers // 10
    pool = SimulatedPool(outcome, lambda now: n_workers - n_late * (now < 600), start_s=30.0, limit=n_workers)
    queue = WorkQueue(items, max_attempts=3)
    scheduler = Scheduler(pool, RuntimeConfig(), clock=pool.clock, say=lambda line: None)
    n_done = 0

    def on_done(item: WorkItem, info: Any) -> None:
        nonlocal n_done
        n_done += 1

    start = time.perf_counter()
    scheduler.run(queue, on_done)
    took = time.perf_counter() - start
    assert (n_done, queue.failures) == (n_items, [])
    pool.close()
    return {
        "items": n_items,
        "workers": pool.most_alive,
        "items per second": n_done / took,
        "needed per second": n_workers / 60.0,
        "memory MB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "simulated hours": pool.now / 3600,
        "share of time without an item": 1 - pool.busy_s / pool.alive_s,
    }


@dataclass(frozen=True)
class Burner:
    """Factory of a worker that computes for a number of rounds, on one core and in little memory."""

    rounds: int

    def __call__(self) -> Callable[[WorkItem], dict[str, Any]]:
        """The worker."""
        return self.run

    def run(self, item: WorkItem) -> dict[str, Any]:
        """Compute; how long it took is told."""
        start = time.perf_counter()
        burn(self.rounds)
        return {"seconds": time.perf_counter() - start}


def burn(rounds: int) -> int:
    """Work that takes its time in the interpreter alone, so that cores do not share anything but memory."""
    total = 0
    for number in range(rounds):
        total += number * number
    return total


def rounds_of(seconds: float) -> int:
    """Rounds of `burn` that take so long here."""
    start = time.perf_counter()
    burn(1_000_000)
    return int(1_000_000 * seconds / (time.perf_counter() - start))


def timed(executor: Executor, factory: Burner, n_items: int) -> tuple[float, float]:
    """Seconds of all items, and seconds within items; workers that are there already are used."""
    inside = 0.0

    def on_done(item: WorkItem, info: Any) -> None:
        nonlocal inside
        inside += info["seconds"]

    start = time.perf_counter()
    executor.run([WorkItem.of("burn", index=index) for index in range(n_items)], factory, on_done=on_done)
    return time.perf_counter() - start, inside


def real(item_s: float, n_items: int) -> dict[str, float]:
    """Overhead of Ray, and what a second worker brings; the two sides take turns, since machines change their speed."""
    factory, n_each = Burner(rounds_of(item_s)), max(2, n_items // N_TURNS)
    overhead, waited, gained, near_s = [], [], [], []
    with open_executor(RuntimeConfig(executor="inprocess", cpus_per_worker=1)) as near:
        with open_executor(RuntimeConfig(workers=1, cpus_per_worker=1)) as far:
            timed(near, factory, 1), timed(far, factory, 1)
            for turn in range(N_TURNS):
                first, second = (near, far) if turn % 2 else (far, near)
                seconds = {each: timed(each, factory, n_each) for each in (first, second)}
                overhead.append(seconds[far][0] / seconds[near][0])
                waited.append(1 - seconds[far][1] / seconds[far][0])
                near_s.append(seconds[near][0] / n_each)
        with open_executor(RuntimeConfig(workers=2, cpus_per_worker=1)) as both:
            timed(both, factory, 4)
            for _ in range(N_TURNS):
                alone, _ = timed(near, factory, n_each)
                gained.append(2 * alone / timed(both, factory, 2 * n_each)[0])
    return {
        "items in each turn": n_each,
        "seconds per item in process": statistics.median(near_s),
        "time on Ray over in process": statistics.median(overhead),
        "share of time that the worker waited": statistics.median(waited),
        "speed of two workers over in process": statistics.median(gained),
        "speed of two workers over one": statistics.median(gained) * statistics.median(overhead),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--item-s", type=float, default=1.0)
    parser.add_argument("--n-real", type=int, default=30)
    parser.add_argument("--only", choices=["simulated", "real"])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    if asked.only != "real":
        found["simulated"] = simulated(asked.items, asked.workers)
    if asked.only != "simulated":
        found["real"] = real(asked.item_s, asked.n_real)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    for part, figures in found.items():
        print(part)
        for name, value in figures.items():
            print(f"  {name:<38}{value:>12,.3g}" if isinstance(value, float) else f"  {name:<38}{value:>12,}")
    if "real" in found and found["real"]["time on Ray over in process"] > TARGET_OVERHEAD:
        print(f"above the target of {TARGET_OVERHEAD} for the time on Ray over in process", file=sys.stderr)


if __name__ == "__main__":
    main()
