"""Balanced k-means beside PyPI `k-means-constrained`: objective and time of both in one process, interleaved.

    python benchmarks/balanced_kmeans.py                    # both problems, Gaussian and planted rows
    python benchmarks/balanced_kmeans.py --small --repeats 3   # a few seconds
    python benchmarks/balanced_kmeans.py --json > result.json

Ratios below 1 are in our favour: `objective` is our inertia over theirs, `time` our wall-clock seconds over theirs.
At 3,072 x 768 into 96 experts their run has 10 restarts (the default of MoEfication), at 10,240 x 2,560 into 320 it
has one. With `faiss-cpu` installed, its k-means without balance is a third line: the limit to approach, not a
competitor.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np

from modularity.experts import balanced_kmeans, inertia, normalise_rows


@dataclass(frozen=True)
class Problem:
    """One shape of rows and the number of experts."""

    n_neurons: int
    n_dims: int
    n_experts: int
    peer_restarts: int

    def rows(self, planted: float, seed: int = 0) -> np.ndarray:
        """Normalised Gaussian rows, with expert means of relative length `planted` added (0: none)."""
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((self.n_neurons, self.n_dims), dtype=np.float32)
        if planted:
            means = planted * rng.standard_normal((self.n_experts, self.n_dims), dtype=np.float32)
            rows += means[rng.permutation(self.n_neurons) % self.n_experts]
        return normalise_rows(rows)


@dataclass(frozen=True)
class Result:
    """One line of the table: medians over the repeats."""

    problem: str
    data: str
    method: str
    inertia: float
    seconds: float
    objective: float
    """Our inertia over this method's."""
    time: float
    """Median over the repeats of our seconds over this method's, each pair run one after the other."""


FULL = (Problem(3072, 768, 96, 10), Problem(10240, 2560, 320, 1))
SMALL = (Problem(768, 96, 24, 2),)
DATA = {"gaussian": 0.0, "planted": 0.35}


def ours(rows: np.ndarray, problem: Problem, seed: int) -> np.ndarray:
    return balanced_kmeans(rows, problem.n_experts, seed=seed)


def constrained(rows: np.ndarray, problem: Problem, seed: int) -> np.ndarray:
    from k_means_constrained import KMeansConstrained

    size = problem.n_neurons // problem.n_experts
    model = KMeansConstrained(problem.n_experts, size, size, n_init=problem.peer_restarts, random_state=seed)
    return model.fit_predict(rows)


def unbalanced_faiss(rows: np.ndarray, problem: Problem, seed: int) -> np.ndarray:
    import faiss

    model = faiss.Kmeans(problem.n_dims, problem.n_experts, niter=25, seed=seed, min_points_per_centroid=1)
    model.train(rows)
    return model.index.search(rows, 1)[1][:, 0]


def peers(problem: Problem) -> dict[str, Callable]:
    found: dict[str, Callable] = {f"k-means-constrained x{problem.peer_restarts}": constrained}
    try:
        import faiss  # noqa: F401
    except ImportError:
        return found
    return found | {"faiss, not balanced": unbalanced_faiss}


def timed(method: Callable, rows: np.ndarray, problem: Problem, seed: int) -> tuple[float, float]:
    start = time.perf_counter()
    labels = method(rows, problem, seed)
    seconds = time.perf_counter() - start
    return inertia(rows, labels), seconds


def compare(problem: Problem, data: str, repeats: int) -> Iterator[Result]:
    rows = problem.rows(DATA[data])
    methods = {"modularity": ours} | peers(problem)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for repeat in range(repeats):
        for name, method in methods.items():
            runs[name].append(timed(method, rows, problem, repeat))
    mine = runs["modularity"]
    shape = f"{problem.n_neurons} x {problem.n_dims} -> {problem.n_experts}"
    for name, run in runs.items():
        value, seconds = median(r[0] for r in run), median(r[1] for r in run)
        ratio = median(m[1] / r[1] for m, r in zip(mine, run, strict=True))
        yield Result(shape, data, name, value, seconds, median(m[0] for m in mine) / value, ratio)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one small problem instead of the two large ones")
    parser.add_argument("--repeats", type=int, default=1, help="interleaved runs of every method (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of the table")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}: expected at least 1")
    balanced_kmeans(np.random.default_rng(0).standard_normal((64, 8), dtype=np.float32), 4)  # compiles the kernels
    results = []
    if not options.json:
        print(f"{'problem':26} {'data':9} {'method':24} {'inertia':>11} {'seconds':>9} {'objective':>10} {'time':>7}")
    for problem in SMALL if options.small else FULL:
        for data in DATA:
            for result in compare(problem, data, options.repeats):
                results.append(asdict(result))
                if not options.json:
                    print(
                        f"{result.problem:26} {result.data:9} {result.method:24} {result.inertia:11.3f} "
                        f"{result.seconds:9.2f} {result.objective:10.4f} {result.time:7.3f}",
                        flush=True,
                    )
    if options.json:
        json.dump(results, sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
