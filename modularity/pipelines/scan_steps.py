"""Work items that compare the checkpoints of a scan (card A8): one for each function and layer, then one for each
function.

Dense results of a function, along `step`: `consecutive`, `final` and `reliability` by level, sub-function and layer;
`best`, the evaluation value of the neuron that was best on selection examples. Tables: `stabilisation` (level × step ×
comparison, means with bootstrap bands over sub-functions), `function_curve`, `modularity_tests` and
`function_modularity` (those of the checkpoints, with their step), `function_steps` (one line for each step).

Similarities are of the score that ranks neurons. The other half is the evaluation half, in the polarity that the
selection half chose; variant `paper` ranks on all examples and has no halves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from modularity.experts.stabilisation import NEURON_LEVEL, RANDOM_LEVEL, stabilisation_levels
from modularity.pipelines.config import Variant
from modularity.pipelines.predictivity_step import polarity_rule, selection_half
from modularity.stats import benjamini_hochberg, polarity_scales
from modularity.store import ResultArray, Run, open_run, table_from_columns
from modularity.types import ALL_LAYERS, PARTITION, PERMUTED_LABELS, WorkItem

Row = dict[str, Any]

COMPARISONS = {
    "consecutive": "Spearman correlation of the scores with those of the next checkpoint",
    "final": "Spearman correlation of the scores with those of the last checkpoint",
    "reliability": "Spearman correlation of the scores on the two halves of the examples of one checkpoint",
}
COPIED = ("function_curve", "modularity_tests", "function_modularity")
"""Tables of the checkpoints that are put together as they are."""


@dataclass(frozen=True)
class ScanStep:
    """One finished checkpoint."""

    name: str
    step: int
    uri: str


@dataclass(frozen=True)
class ScanSummaryFactory:
    """Builds a `ScanSummaryWorker` in the process that runs it."""

    uri: str
    """Of the run with the tables."""
    steps: tuple[ScanStep, ...]
    partition_of: str | None
    variant: Variant
    n_experts: int
    n_random: int
    n_bootstrap: int
    seed: int
    n_threads: int

    def __call__(self) -> "ScanSummaryWorker":
        """Open all runs."""
        return ScanSummaryWorker(self)


class ScanSummaryWorker:
    """Runs `stabilisation` and `curves` items."""

    def __init__(self, spec: ScanSummaryFactory) -> None:
        self._spec = spec
        self._run = open_run(spec.uri)
        self._checkpoints = [open_run(step.uri) for step in spec.steps]

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        actions: dict[str, Callable[[WorkItem], Mapping[str, Any]]] = {
            "stabilisation": self._stabilisation,
            "curves": self._curves,
        }
        with threadpool_limits(self._spec.n_threads):
            return actions[item.kind](item)

    def _stabilisation(self, item: WorkItem) -> Mapping[str, Any]:
        """All levels of one layer."""
        function, index = item.text("function"), item.integer("index")
        width = int(self._checkpoints[0].results(function)["width"].values[index])
        score_TSF = np.stack([run.results(function)["score"][:, index, :width].values for run in self._checkpoints])
        levels = stabilisation_levels(
            score_TSF,
            self._partitions(index, width),
            n_experts=self._spec.n_experts,
            other_half_TSF=self._other_half(function, index, width),
            n_random=self._spec.n_random,
            seed=self._spec.seed + index,
        )
        values = {
            name: np.stack([getattr(level, f"{name}_TS") for level in levels.values()])[..., None]
            for name in COMPARISONS
        }
        self._run.commit(item, arrays=self._run.write_result(function, values, at={"layer": index}))
        return {}

    def _partitions(self, index: int, width: int) -> dict[str, np.ndarray]:
        """Labels of the experts of one layer by partition, from any run: all have the same."""
        run = self._checkpoints[0]
        if PARTITION not in run.result_names():
            return {}
        partition = run.results(PARTITION)
        return {
            str(method): partition["expert"][number, index, :width].values
            for number, method in enumerate(partition["partition"].values.tolist())
        }

    def _other_half(self, function: str, index: int, width: int) -> np.ndarray | None:
        """Scores on evaluation examples, in the polarity that the selection half chose; None without halves."""
        if self._spec.variant == "paper":
            return None
        coordinates = self._checkpoints[0].coordinates(function)
        selection_R = selection_half(coordinates, self._spec.variant)
        assert selection_R is not None
        found = []
        for s, labels_R in enumerate(coordinates["label"]):
            rows = (labels_R >= 0) & ~selection_R
            scales = polarity_scales(labels_R[None, rows] == 1, rule=polarity_rule(self._spec.variant))
            scores = []
            for run in self._checkpoints:
                results = run.results(function)
                ap_F = results["predictivity_evaluation"][s, index, :width].values[None]
                positive_F = results["polarity"][s, index, :width].values[None] > 0
                scores.append(np.where(positive_F, scales.positive.score(ap_F), scales.negative.score(ap_F))[0])
            found.append(np.stack(scores))
        return np.stack(found, axis=1)

    def _curves(self, item: WorkItem) -> Mapping[str, Any]:
        """Tables of one function over steps, from its dense results and from the tables of the checkpoints."""
        function = item.text("function")
        results = self._run.results(function, partial=True)
        tables = {name: self._copied(name, function) for name in COPIED}
        tables["stabilisation"] = [
            row
            for name in COMPARISONS
            for row in stabilisation_rows(
                function,
                name,
                self._spec.steps,
                results["level"].values.tolist(),
                results[name].values,
                n_bootstrap=self._spec.n_bootstrap,
                seed=self._spec.seed,
            )
        ]
        tables["function_steps"] = step_rows(function, self._spec.steps, tables)
        best_TSL = np.stack([_best(run, function) for run in self._checkpoints])
        written = [
            self._run.write_table(name, item, table_from_columns({key: [row[key] for row in rows] for key in rows[0]}))
            for name, rows in tables.items()
            if rows
        ]
        arrays = self._run.write_result(function, {"best": best_TSL})
        self._run.commit(item, arrays=arrays, tables=written)
        return {}

    def _copied(self, table: str, function: str) -> list[Row]:
        return [
            {"checkpoint": step.name, "step": step.step} | row
            for step, run in zip(self._spec.steps, self._checkpoints)
            if table in run.tables()
            for row in run.table(table).to_pylist()
            if row["function"] == function
        ]


def _best(run: Run, function: str) -> np.ndarray:
    """Evaluation value of the best neurons of a checkpoint, (sub-functions, layers)."""
    results = run.results(function)
    value_SL = np.full((results.sizes["subfunction"], results.sizes["layer"]), np.nan)
    subfunctions, layers = results["subfunction"].values.tolist(), results["layer"].values.tolist()
    for row in run.table("best_neurons").to_pylist():
        if row["function"] == function:
            place = subfunctions.index(row["subfunction"]), layers.index(row["layer"])
            value_SL[place] = row["normalised_evaluation"]
    return value_SL


def create_scan_result(run: Run, source: Run, function: str, steps: Sequence[ScanStep], levels: Sequence[str]) -> None:
    """Allocate `results/<function>` of the run with the tables; `source` is any of the checkpoints."""
    results = source.results(function)
    dims = ("level", "step", "subfunction", "layer")
    arrays = {
        name: ResultArray(dims, "float64", {"layer": 1}, {"long_name": text}) for name, text in COMPARISONS.items()
    }
    meaning = "normalised AP on evaluation examples of the neuron that was best on selection examples"
    arrays["best"] = ResultArray(("step", "subfunction", "layer"), "float64", {}, {"long_name": meaning})
    run.create_result(
        function,
        sizes={
            "level": len(levels),
            "step": len(steps),
            "subfunction": results.sizes["subfunction"],
            "layer": results.sizes["layer"],
        },
        arrays=arrays,
        coordinates={
            "level": (("level",), np.asarray(levels, dtype=str)),
            "step": (("step",), np.asarray([step.step for step in steps], dtype=np.int64)),
            "checkpoint": (("step",), np.asarray([step.name for step in steps], dtype=str)),
            "subfunction": (("subfunction",), results["subfunction"].values),
            "layer": (("layer",), results["layer"].values),
        },
        attributes={"function": function},
    )


def level_names(source: Run) -> list[str]:
    """Levels of stabilisation, in the order of the dense results."""
    has_experts = PARTITION in source.result_names()
    methods = source.results(PARTITION)["partition"].values.tolist() if has_experts else []
    return [NEURON_LEVEL, *map(str, methods), RANDOM_LEVEL]


def stabilisation_rows(
    function: str,
    comparison: str,
    steps: Sequence[ScanStep],
    levels: Sequence[str],
    rho_VTSL: np.ndarray,
    *,
    n_bootstrap: int,
    seed: int,
) -> list[Row]:
    """Mean over sub-functions, then layers, with a 95 % bootstrap band over sub-functions, for each level and step.

    Parameters
    ----------
    rho_VTSL : float array (n_levels, n_steps, n_subfunctions, n_layers); NaN where there is no correlation
    """
    n_subfunctions = rho_VTSL.shape[2]
    draws_NS = np.random.default_rng(seed).integers(0, n_subfunctions, (n_bootstrap, n_subfunctions))
    rows = []
    for level, rho_TSL in zip(levels, rho_VTSL):
        for index, (step, rho_SL) in enumerate(zip(steps, rho_TSL)):
            known_S = rho_SL[:, np.isfinite(rho_SL).all(axis=0)].mean(axis=1) if np.isfinite(rho_SL).any() else None
            if known_S is None or not known_S.size or not np.isfinite(known_S).all():
                continue
            low, high = np.nan, np.nan
            if n_subfunctions > 1:
                low, high = np.quantile(known_S[draws_NS].mean(axis=1), [0.025, 0.975])
            following = steps[index + 1] if comparison == "consecutive" else steps[-1]
            other = step if comparison == "reliability" else following
            rows.append(
                {
                    "function": function,
                    "level": level,
                    "comparison": comparison,
                    "checkpoint": step.name,
                    "step": step.step,
                    "step_to": other.step,
                    "rho": float(known_S.mean()),
                    "low": float(low),
                    "high": float(high),
                    "n_subfunctions": n_subfunctions,
                    "n_layers": int(np.isfinite(rho_SL).all(axis=0).sum()),
                }
            )
    return rows


def step_rows(function: str, steps: Sequence[ScanStep], tables: Mapping[str, list[Row]]) -> list[Row]:
    """One line for each step: the best layer, functional experts, similarities to the next and the last checkpoint.

    The best layer is the one whose best neurons have the highest score on selection examples; its value is of
    evaluation examples. `q_value` is Benjamini-Hochberg's over the steps of the function, of the p over all layers.
    """
    rows = [_step_row(function, step, tables) for step in steps]
    p_values = np.array([row["p_value"] for row in rows])
    known = np.isfinite(p_values)
    q_values = np.full(len(rows), np.nan)
    if known.any():
        q_values[known] = benjamini_hochberg(p_values[known])
    return [row | {"q_value": float(q_value)} for row, q_value in zip(rows, q_values)]


def _step_row(function: str, step: ScanStep, tables: Mapping[str, list[Row]]) -> Row:
    curve = [row for row in tables["function_curve"] if row["step"] == step.step]
    best = max(curve, key=lambda row: row["normalised_selection"])
    row = {"function": function, "checkpoint": step.name, "step": step.step, "best_layer": best["layer"]}
    row |= {name: best[name] for name in ("normalised_evaluation", "low", "high", "null_mean", "null_low", "null_high")}
    row["p_value"] = best["p_value_all_layers"]
    tests = [
        test
        for test in tables["modularity_tests"]
        if test["step"] == step.step and test["layer"] == ALL_LAYERS and test["null"] == PERMUTED_LABELS
    ]
    methods = list(dict.fromkeys(test["partition"] for test in tests))
    shown = "native" if "native" in methods else "balanced"
    for figure in ("proportion", "degree"):
        found = next((test for test in tests if test["partition"] == shown and test["figure"] == figure), None)
        for name in ("observed", "null_mean", "null_low", "null_high", "p_value"):
            row[figure if name == "observed" else f"{figure}_{name}"] = float("nan") if found is None else found[name]
    for comparison in ("consecutive", "final", "reliability"):
        for level, key in ((NEURON_LEVEL, "neuron"), (shown, "expert"), (RANDOM_LEVEL, "random")):
            value = next(
                (
                    entry["rho"]
                    for entry in tables["stabilisation"]
                    if (entry["step"], entry["level"], entry["comparison"]) == (step.step, level, comparison)
                ),
                float("nan"),
            )
            row[f"{comparison}_{key}"] = value
    return row
