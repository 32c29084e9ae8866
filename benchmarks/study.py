"""A study of several checkpoints, nulls included, beside the pattern of the released code: time, and where it goes.

    python benchmarks/study.py                     # 3 of the 13 shipped checkpoints, some minutes on 2 cores
    python benchmarks/study.py --scaling           # also the cost of a scan by checkpoints and by workers
    python benchmarks/study.py --only-scaling      # only that, some eight minutes
    python benchmarks/study.py --json > result.json

Model: the trained series that ships with the package (OPT, 3 layers of 256 neurons), with its planted functions. Ours
is a whole scan, from the files to the tables: capture, predictivity with both polarities, permutations and intervals,
partitions and their controls, functional experts, overlap, stabilisation.

The other side restates how the released code of arXiv 2305.18390 goes about it, in one process: for every checkpoint
and layer the model is loaded again and all texts are run in batches of eight in file order, padded, with a hook that
keeps the masked maximum over tokens; then a Python loop over neurons calls scikit-learn's `average_precision_score` for
both polarities, for the labels and for as many permutations of them; the neurons are partitioned by
`k-means-constrained` with 10 restarts where it is installed; experts are tested with SciPy. The loop is timed on a
sample of neurons and one permutation and scaled; everything else is run whole. It leaves out intervals, controls,
overlap and stabilisation.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from sklearn.metrics import average_precision_score
from transformers import AutoModel, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from modularity.config import validate_config
from modularity.data import FunctionData, load_functions, planted_functions, series_path
from modularity.pipelines import ScanConfig, run_scan
from modularity.runtime import executor
from modularity.runtime.work_queue import Assignment

N_EXPERTS = 16


def scan_config(revisions: str, *, n_permutations: int, runtime: dict[str, Any], parallel: int = 1) -> ScanConfig:
    """The scan of some of the shipped checkpoints."""
    return validate_config(
        ScanConfig,
        {
            "job": "scan_checkpoints",
            "model": {"name": str(series_path())},
            "functions": [function.as_json() for function in planted_functions()],
            "predictivity": {"n_permutations": n_permutations},
            "experts": {"n_experts": N_EXPERTS, "top_fraction": 0.05, "sensitivity": [0.05]},
            "scan": {"revisions": revisions, "parallel": parallel},
            "runtime": runtime,
        },
    )


def timed_scan(config: ScanConfig) -> float:
    """Wall-clock seconds of one scan into a fresh folder."""
    with tempfile.TemporaryDirectory(prefix="study-benchmark-") as folder:
        start = time.perf_counter()
        run_scan(config, f"{folder}/scan", quiet=True)
        return time.perf_counter() - start


@contextmanager
def seconds_by_kind() -> Iterator[dict[str, float]]:
    """Seconds of the work items of each kind that run in this process; a checkpoint holds the others."""
    total: dict[str, float] = defaultdict(float)
    original = executor.compute

    def measured(worker: Any, given: Assignment) -> Any:
        start = time.perf_counter()
        try:
            return original(worker, given)
        finally:
            total[given.item.kind] += time.perf_counter() - start

    executor.compute = measured
    try:
        yield total
    finally:
        executor.compute = original


def released_pattern(
    checkpoints: list[Path], functions: tuple[FunctionData, ...], *, n_permutations: int, n_sampled: int
) -> dict[str, float]:
    """Seconds by part of the released pattern, the loop over neurons scaled from a sample."""
    seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(name: str, times: float = 1.0) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] += (time.perf_counter() - start) * times

    rng = np.random.default_rng(0)
    n_layers = len(AutoModel.from_pretrained(checkpoints[0]).decoder.layers)
    labels_of_layer: dict[int, np.ndarray] = {}
    for checkpoint in reversed(checkpoints):
        for layer in range(n_layers):
            with part("load the model"):
                model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
                tokenizer = AutoTokenizer.from_pretrained(checkpoint)
            block = model.decoder.layers[layer]
            n_neurons = block.fc1.out_features
            if layer not in labels_of_layer:
                with part("partition"):
                    labels_of_layer[layer] = partition(block.fc1.weight.detach().numpy())
            for function in functions:
                with part("forward"):
                    activations_EN = masked_maxima(model, tokenizer, layer, [e.text for e in function.examples])
                for labels_E in function.labels_SE:
                    own = labels_E >= 0
                    y, columns = labels_E[own], np.ascontiguousarray(activations_EN[own].T)
                    sampled = rng.choice(n_neurons, n_sampled, replace=False)
                    with part("average precision", n_neurons / n_sampled):
                        for neuron in sampled:
                            both_polarities(y, columns[neuron])
                    with part("permutations", n_neurons / n_sampled * n_permutations):
                        permuted = rng.permutation(y)
                        for neuron in sampled:
                            both_polarities(permuted, columns[neuron])
                    with part("experts"):
                        top = rng.choice(n_neurons, n_neurons // 20, replace=False)
                        counts_E = np.bincount(labels_of_layer[layer][top], minlength=N_EXPERTS)
                        hypergeom.sf(counts_E - 1, n_neurons, n_neurons // N_EXPERTS, len(top))
    return dict(seconds)


def both_polarities(labels: np.ndarray, scores: np.ndarray) -> float:
    """The larger average precision of the labels and of their opposite."""
    return max(average_precision_score(labels, scores), average_precision_score(1 - labels, scores))


def partition(rows_FD: np.ndarray) -> np.ndarray:
    """Balanced clusters with ten restarts, as MoEfication makes them; evenly cut where the package is missing."""
    if importlib.util.find_spec("k_means_constrained") is None:
        return np.arange(len(rows_FD)) * N_EXPERTS // len(rows_FD)
    from k_means_constrained import KMeansConstrained

    size = len(rows_FD) // N_EXPERTS
    normalised = rows_FD / np.linalg.norm(rows_FD, axis=1, keepdims=True)
    found = KMeansConstrained(N_EXPERTS, size_min=size, size_max=size, random_state=0).fit(normalised)
    return np.asarray(found.labels_)


@torch.inference_mode()
def masked_maxima(model: Any, tokenizer: Any, layer: int, texts: list[str]) -> np.ndarray:
    """Maximum over tokens after the ReLU, batches of eight in file order, padded."""
    rows: list[torch.Tensor] = []

    def hook(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
        values = torch.relu(output.reshape(*mask.shape, -1))
        rows.append(values.masked_fill(mask[..., None] == 0, -1e12).max(1).values.cpu())

    handle = model.decoder.layers[layer].fc1.register_forward_hook(hook)
    for start in range(0, len(texts), 8):
        batch = tokenizer(texts[start : start + 8], padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        model(input_ids=batch["input_ids"], attention_mask=mask)
    handle.remove()
    return torch.cat(rows).numpy()


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides, one after the other in each repeat."""
    checkpoints = chosen(arguments.checkpoints)
    functions = load_functions(planted_functions())
    revisions = ",".join(path.name for path in checkpoints)
    config = scan_config(revisions, n_permutations=arguments.permutations, runtime={"executor": "inprocess"})
    two = ",".join(path.name for path in checkpoints[-2:])
    timed_scan(scan_config(two, n_permutations=20, runtime={"executor": "inprocess"}))  # compiles the kernels
    pairs = []
    for _ in range(arguments.repeats):
        with seconds_by_kind() as kinds:
            ours = timed_scan(config)
        theirs = released_pattern(
            checkpoints, functions, n_permutations=arguments.permutations, n_sampled=arguments.neurons
        )
        pairs.append((sum(theirs.values()) / ours, ours, dict(kinds), theirs))
    ratio, ours, kinds, theirs = sorted(pairs, key=lambda pair: pair[0])[len(pairs) // 2]
    return {
        "checkpoints": len(checkpoints),
        "permutations": arguments.permutations,
        "subfunctions": sum(len(function.subfunctions) for function in functions),
        "examples": sum(function.n_examples for function in functions),
        "ratio": ratio,
        "ratio_without_permutations": (sum(theirs.values()) - theirs["permutations"]) / ours,
        "ours_seconds": ours,
        "ours_by_kind": kinds,
        "theirs_seconds": sum(theirs.values()),
        "theirs_by_part": theirs,
        "k_means_constrained": importlib.util.find_spec("k_means_constrained") is not None,
    }


def chosen(n: int) -> list[Path]:
    """The last `n` checkpoints of the shipped series."""
    return sorted(Path(series_path()).glob("step*"))[-n:]


def scaling(n_permutations: int) -> dict[str, Any]:
    """Cost of a scan by checkpoints, in one process, and by workers of one CPU each, on Ray."""

    def run(n: int, runtime: dict[str, Any], parallel: int = 1) -> float:
        names = ",".join(path.name for path in chosen(n))
        return timed_scan(scan_config(names, n_permutations=n_permutations, runtime=runtime, parallel=parallel))

    local = {"executor": "inprocess"}
    by_checkpoints = {n: run(n, local) for n in (3, 6, 12)}
    ray = {"executor": "ray", "cpus_per_worker": 1}
    by_workers = {workers: {n: run(n, ray, parallel=workers) for n in (4, 12)} for workers in (1, 2)}
    alone, beside = (side_by_side(n, n_permutations) for n in (1, 2))
    each = {workers: (seconds[12] - seconds[4]) / 8 for workers, seconds in by_workers.items()}
    return {
        "seconds_by_checkpoints": by_checkpoints,
        "per_added_checkpoint": {
            "3 to 6": (by_checkpoints[6] - by_checkpoints[3]) / 3,
            "6 to 12": (by_checkpoints[12] - by_checkpoints[6]) / 6,
        },
        "seconds_by_workers_and_checkpoints": by_workers,
        "speed_of_two_workers": by_workers[1][12] / by_workers[2][12],
        "per_added_checkpoint_by_workers": each,
        "speed_of_two_workers_per_added_checkpoint": each[1] / each[2],
        "speed_of_two_separate_processes": 2 * alone / beside,
    }


def side_by_side(n_processes: int, n_permutations: int) -> float:
    """Seconds of the slowest of so many scans of four checkpoints, each in a process of its own on one CPU.

    What two of them lose against one is what the machine has to share, such as its memory: no scheduler can gain it.
    """
    command = [sys.executable, __file__, "--one-scan", "4", "--permutations", str(n_permutations), "--json"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_processes)]
    return max(float(process.communicate()[0].splitlines()[-1]) for process in processes)


def one_scan(n: int, n_permutations: int) -> float:
    """Seconds of a scan in this process, on one thread."""
    names = ",".join(path.name for path in chosen(n))
    runtime = {"executor": "inprocess", "cpus_per_worker": 1}
    return timed_scan(scan_config(names, n_permutations=n_permutations, runtime=runtime, parallel=1))


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The result as text."""
    if "ratio" in result:
        yield from _comparison(result)
    for name, value in result.get("scaling", {}).items():
        yield f"{name}: {value}"


def _comparison(result: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{result['checkpoints']} checkpoints, {result['subfunctions']} sub-functions, {result['examples']} examples, "
        f"{result['permutations']} permutations"
    )
    yield f"released pattern {result['theirs_seconds']:.0f} s (scaled), ours {result['ours_seconds']:.1f} s"
    yield f"ratio {result['ratio']:.0f}"
    yield f"ratio {result['ratio_without_permutations']:.1f} when its permutations cost nothing and ours are kept"
    for title, parts in (("released pattern", "theirs_by_part"), ("ours, by work item", "ours_by_kind")):
        yield title
        for name, seconds in sorted(result[parts].items(), key=lambda entry: -entry[1]):
            yield f"  {name:24s}{seconds:10.2f} s"
    if not result["k_means_constrained"]:
        yield "k-means-constrained is not installed: the released pattern was given its partition for nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=int, default=3, help="last checkpoints of the series (default 3)")
    parser.add_argument("--permutations", type=int, default=200, help="label permutations (default 200)")
    parser.add_argument("--neurons", type=int, default=4, help="neurons on which the other loop is timed (default 4)")
    parser.add_argument("--repeats", type=int, default=3, help="pairs; the median is printed (default 3)")
    parser.add_argument("--scaling", action="store_true", help="also the cost by checkpoints and by workers")
    parser.add_argument("--only-scaling", action="store_true", help="only that cost")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one-scan", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    if arguments.one_scan:
        print(one_scan(arguments.one_scan, arguments.permutations))
        return
    result = {} if arguments.only_scaling else compare(arguments)
    if arguments.scaling or arguments.only_scaling:
        result["scaling"] = scaling(arguments.permutations)
    print(json.dumps(result) if arguments.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
