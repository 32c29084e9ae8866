"""Average precision of every neuron beside scikit-learn's per-neuron loop: time and error on the same arrays.

    python benchmarks/average_precision.py                 # 36,864 neurons, 2,000 examples
    python benchmarks/average_precision.py --quick         # 2,048 neurons, 500 examples: seconds
    python benchmarks/average_precision.py --json > result.json

The loop calls `average_precision_score` for both polarities, as the released code of arXiv 2305.18390 does, on a sample
of neurons (copied to contiguous columns beforehand); its time is scaled to all neurons and sub-functions. Ours reads
the array as stored, rows × neurons, and also computes the AUROC. Both run one after the other in each repeat; figures
are medians over the repeats, the ratio is the median of the ratios of the pairs. The line `null` adds a permutation
null: its time is that of the permutations alone, over the time of the observed statistic of one sub-function.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.metrics import average_precision_score

from modularity.stats import better_polarity, polarity_scales, predictivity_null, ranking_scores


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    activations: str
    n_subfunctions: int
    n_threads: int
    seconds: float
    """Median wall-clock seconds for all neurons and sub-functions."""
    loop_seconds: float
    """The same for scikit-learn's loop, scaled from the sample."""
    ratio: float
    """Loop over ours."""
    max_error: float
    """Largest difference from scikit-learn over the sample, both polarities."""
    extra_mib: float | None
    """Peak memory over that before the call, result arrays included; None where the system does not tell."""


@dataclass(frozen=True)
class NullResult:
    """Cost of a permutation null of one sub-function."""

    activations: str
    n_permutations: int
    seconds: float
    per_observed: float
    """Seconds of the null over seconds of the observed statistic of one sub-function."""


def make_activations(kind: str, n_rows: int, n_neurons: int, zeros: float, seed: int = 0) -> np.ndarray:
    """Gaussian (`dense`, `float16`), or shifted so that this share is cut to zero (`relu`); rows × neurons."""
    rng = np.random.default_rng(seed)
    activations_RF = rng.standard_normal((n_rows, n_neurons), dtype=np.float32)
    if kind == "relu":
        shift = np.float32(np.quantile(activations_RF[:, :64], zeros))
        np.maximum(activations_RF - shift, 0, out=activations_RF)
    return activations_RF.astype(np.float16) if kind == "float16" else activations_RF


def loop(columns: list[np.ndarray], labels_SR: np.ndarray) -> np.ndarray:
    """scikit-learn for both polarities of each neuron; array of shape (2, sub-functions, neurons)."""
    return np.array(
        [[[average_precision_score(y, column) for column in columns] for y in side] for side in (labels_SR, ~labels_SR)]
    )


def reset_peak() -> bool:
    """Forget the peak of resident memory so far (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def memory_mib(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def timed(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def compare(kind: str, n_subfunctions: int, options: argparse.Namespace) -> Result:
    """One line: both sides, one after the other in each repeat."""
    activations_RF = make_activations(kind, options.rows, options.neurons, options.zeros)
    labels_SR = np.random.default_rng(1).random((n_subfunctions, options.rows)) < 0.5
    sample = np.linspace(0, options.neurons - 1, options.sample).astype(int)
    columns = [np.ascontiguousarray(activations_RF[:, f]).astype(np.float32) for f in sample]
    looped = slice(0, min(n_subfunctions, options.loop_subfunctions))
    scale = options.neurons / len(sample) * n_subfunctions / (looped.stop - looped.start)
    ranking_scores(activations_RF[:, :64], labels_SR, n_threads=1)  # compile
    known, before = reset_peak(), memory_mib("VmRSS") if sys.platform == "linux" else 0.0
    scores = ranking_scores(activations_RF, labels_SR, n_threads=options.threads)
    extra_mib = round(memory_mib("VmHWM") - before, 1) if known else None
    wanted = loop(columns, labels_SR[looped])
    found = np.stack([scores.ap_positive_SF, scores.ap_negative_SF])[:, looped][:, :, sample]
    ours, theirs = [], []
    for _ in range(options.repeats):
        ours.append(timed(lambda: ranking_scores(activations_RF, labels_SR, n_threads=options.threads)))
        theirs.append(timed(lambda: loop(columns, labels_SR[looped])) * scale)
    ratio = median(slow / fast for slow, fast in zip(theirs, ours))
    error = float(np.abs(wanted - found).max())
    return Result(kind, n_subfunctions, options.threads, median(ours), median(theirs), ratio, error, extra_mib)


def compare_null(kind: str, options: argparse.Namespace) -> NullResult:
    """Time of a null beside that of the observed statistic."""
    activations_RF = make_activations(kind, options.rows, options.neurons, options.zeros)
    labels_SR = np.random.default_rng(1).random((1, options.rows)) < 0.5
    observed_SF = better_polarity(ranking_scores(activations_RF, labels_SR), polarity_scales(labels_SR)).score_SF

    def null(n_neurons: int = options.neurons) -> None:
        predictivity_null(
            activations_RF[:, :n_neurons], labels_SR, observed_SF[:, :n_neurons],
            n_permutations=options.permutations, seed=0, n_threads=options.threads,
        )  # fmt: skip

    null(64)
    nulls, observed = [], []
    for _ in range(options.repeats):
        nulls.append(timed(null))
        observed.append(timed(lambda: ranking_scores(activations_RF, labels_SR, n_threads=options.threads)))
    ratio = median(slow / fast for slow, fast in zip(nulls, observed))
    return NullResult(kind, options.permutations, median(nulls), ratio)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n", 1)[0],
        epilog="example: python benchmarks/average_precision.py --activations relu --subfunctions 1 100 --threads 2",
    )
    parser.add_argument("--rows", type=int, default=2000, help="examples (2000)")
    parser.add_argument("--neurons", type=int, default=36864, help="neurons (36864: 12 layers of 3072)")
    parser.add_argument("--subfunctions", type=int, nargs="+", default=[1, 8, 100], help="label vectors (1 8 100)")
    parser.add_argument("--activations", nargs="+", choices=["dense", "relu", "float16"], default=["dense", "relu"])
    parser.add_argument("--zeros", type=float, default=0.95, help="share of zeros of `relu` (0.95)")
    parser.add_argument("--permutations", type=int, default=100, help="permutations of the null (100)")
    parser.add_argument("--sample", type=int, default=100, help="neurons given to scikit-learn (100)")
    parser.add_argument("--loop-subfunctions", type=int, default=4, help="label vectors given to scikit-learn (4)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (5)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="our threads (2)")
    parser.add_argument("--quick", action="store_true", help="2,048 neurons, 500 examples, 2 repeats")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rows, options.neurons, options.sample, options.repeats = 500, 2048, 10, 2
    return options


def print_table(results: list[Result], nulls: list[NullResult]) -> None:
    """One line for each result."""
    print(
        f"{'activations':12}{'sub-functions':>14}{'ours s':>9}{'loop s':>10}{'ratio':>8}{'error':>10}{'extra MiB':>11}"
    )
    for r in results:
        extra = "-" if r.extra_mib is None else f"{r.extra_mib:.0f}"
        times = f"{r.seconds:>9.3f}{r.loop_seconds:>10.1f}{r.ratio:>8.0f}"
        print(f"{r.activations:12}{r.n_subfunctions:>14}{times}{r.max_error:>10.1e}{extra:>11}")
    for n in nulls:
        times = f"{n.seconds:.3f} s, {n.per_observed:.1f} × the observed statistic of one sub-function"
        print(f"null, {n.activations}: {n.n_permutations} permutations in {times}")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    results = [compare(kind, n, options) for kind in options.activations for n in options.subfunctions]
    nulls = [compare_null(kind, options) for kind in options.activations]
    if options.json:
        settings = {"rows": options.rows, "neurons": options.neurons, "zeros": options.zeros}
        lines = {"results": [asdict(r) for r in results], "nulls": [asdict(r) for r in nulls]}
        print(json.dumps({**settings, **lines}, indent=2))
        return 0
    print(f"{options.neurons} neurons, {options.rows} examples, {options.threads} threads, {options.repeats} repeats")
    print_table(results, nulls)
    return 0


if __name__ == "__main__":
    sys.exit(main())
