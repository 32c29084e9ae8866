"""Tables of the experts of whole functions, brought into the form that the page shows."""

from collections.abc import Iterator, Sequence

import numpy as np

from modularity.report.content import ExpertControl, ExpertCurve, FloatArray
from modularity.report.run_experts import CONTROLS
from modularity.report.run_tables import Row, RunTables
from modularity.store import Run
from modularity.types import ALL_LAYERS, PERMUTED_LABELS, SHUFFLED_EXPERTS


def function_expert_curves(run: Run, tables: RunTables, function: str) -> Iterator[ExpertCurve]:
    """The curve of one function as a whole; nothing when it was not computed."""
    rows = tables.rows("function_modularity", function=function, null=SHUFFLED_EXPERTS)
    shown = [row for row in rows if row["partition"] == tables.partition_shown]
    by_labels = tables.rows(
        "function_modularity", function=function, null=PERMUTED_LABELS, partition=tables.partition_shown
    )
    if not shown:
        return
    layers = sorted({row["layer"] for row in shown} - {ALL_LAYERS})
    controls = [
        ExpertControl(name, *_measures(rows_of, layers, "null_mean"))
        for name, rows_of in ((PERMUTED_LABELS, by_labels), ("random partitions", shown))
    ]
    for method, name in CONTROLS.items():
        others = [row for row in rows if row["partition"] == method]
        if others:
            controls.append(ExpertControl(name, *_measures(others, layers, "observed")))
    config = run.manifest.config
    paper = config["variant"] == "paper"
    level = float(config["experts"]["alpha" if paper else "fdr"])
    n_subfunctions = len({row["subfunction"] for row in tables.rows("expert_counts", function=function)})
    by_label, by_partition = (
        next(row["p_value"] for row in each if row["layer"] == ALL_LAYERS and row["figure"] == "degree")
        for each in (by_labels, shown)
    )
    yield ExpertCurve(
        function,
        tuple(layers),
        *_measures(shown, layers, "observed"),
        controls=tuple(controls),
        n_subfunctions=n_subfunctions,
        n_experts=config["experts"]["n_experts"],
        k=max(row["n_top"] for row in shown if row["layer"] != ALL_LAYERS) // max(n_subfunctions, 1),
        alpha=level,
        criterion="" if paper else f"permutation test, false discovery rate {level:.0%} over experts and layers",
        p_value=by_label,
        p_partitions=by_partition,
    )


def _measures(rows: Sequence[Row], layers: Sequence[int], column: str) -> tuple[FloatArray, FloatArray]:
    """Proportion and degree of these layers."""
    found = {(row["figure"], row["layer"]): row[column] for row in rows}
    proportion, degree = (np.array([found[name, layer] for layer in layers]) for name in ("proportion", "degree"))
    return proportion, degree
