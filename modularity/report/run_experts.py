"""Tables of functional experts, brought into the form that the page shows."""

from collections.abc import Iterator

import numpy as np

from modularity.report.content import (
    AgreementMatrix,
    ExpertControl,
    ExpertCurve,
    ExpertMap,
    ExpertTest,
    SensitivityCurve,
)
from modularity.report.run_tables import Row, RunTables
from modularity.store import Run
from modularity.types import ALL_LAYERS, PERMUTED_LABELS, SHUFFLED_EXPERTS

CONTROLS = {
    "shuffled": "shuffled weights",
    "unbalanced": "unbalanced k-means",
    "coactivation": "co-activation",
    "profile": "predictivity profile",
}
"""Further partitions that are drawn beside the shown one, by method."""


def expert_curves(run: Run, tables: RunTables, function: str) -> Iterator[ExpertCurve]:
    """The curve of one function; nothing when it was not computed."""
    config = run.manifest.config["experts"]
    every = tables.rows("modularity_tests", function=function, top_fraction=config["top_fraction"])
    tests = [row for row in every if row["null"] == SHUFFLED_EXPERTS]
    shown = [row for row in tests if row["partition"] == tables.partition_shown]
    by_labels = [row for row in every if row["null"] == PERMUTED_LABELS and row["partition"] == tables.partition_shown]
    if not shown:
        return
    layers = sorted({row["layer"] for row in shown} - {ALL_LAYERS})

    def column(rows: list[Row], figure: str, name: str) -> np.ndarray:
        found = {row["layer"]: row[name] for row in rows if row["figure"] == figure}
        return np.array([found[layer] for layer in layers], dtype=np.float64)

    controls = [
        ExpertControl(name, column(rows, "proportion", "null_mean"), column(rows, "degree", "null_mean"))
        for name, rows in ((PERMUTED_LABELS, by_labels), ("random partitions", shown))
    ]
    for method, name in CONTROLS.items():
        rows = [row for row in tests if row["partition"] == method]
        if rows:
            controls.append(
                ExpertControl(name, column(rows, "proportion", "observed"), column(rows, "degree", "observed"))
            )
    example = tables.rows("functional_experts", function=function, partition=tables.partition_shown,
                          top_fraction=config["top_fraction"])[0]  # fmt: skip
    yield ExpertCurve(
        function=function,
        layers=tuple(layers),
        proportion_L=column(shown, "proportion", "observed"),
        degree_L=column(shown, "degree", "observed"),
        controls=tuple(controls),
        n_subfunctions=shown[0]["n_subfunctions"],
        n_experts=config["n_experts"],
        k=example["k"],
        alpha=_level(run),
        criterion=_criterion(run),
        test=_test(by_labels, shown),
    )


def _test(by_labels: list[Row], by_partitions: list[Row]) -> ExpertTest:
    """Number of functional cells over all layers against both nulls."""
    labels, partitions = (
        next(row for row in rows if row["layer"] == ALL_LAYERS and row["figure"] == "proportion")
        for rows in (by_labels, by_partitions)
    )
    n_cells = labels["n_cells"]
    return ExpertTest(
        n_functional=round(labels["observed"] * n_cells),
        n_cells=n_cells,
        mean_labels=labels["null_mean"] * n_cells,
        p_labels=labels["p_value"],
        mean_partitions=partitions["null_mean"] * n_cells,
        p_partitions=partitions["p_value"],
    )


def expert_maps(run: Run, tables: RunTables) -> Iterator[ExpertMap]:
    """One map for each layer, over the sub-functions of all functions."""
    config = run.manifest.config["experts"]
    counts = tables.rows("expert_counts", partition=tables.partition_shown)
    for layer in sorted({row["layer"] for row in counts}):
        rows = [row for row in counts if row["layer"] == layer]
        names = list(dict.fromkeys((row["function"], row["subfunction"]) for row in rows))
        shape = (len(names), config["n_experts"])
        count, expected, p_value = np.zeros(shape), np.zeros(shape), np.ones(shape)
        functional = np.zeros(shape, dtype=bool)
        for row in rows:
            place = (names.index((row["function"], row["subfunction"])), row["expert"])
            count[place], expected[place] = row["count"], row["expected"]
            p_value[place], functional[place] = row["p_value"], row["functional"]
        yield ExpertMap(
            layer=layer,
            row_names=tuple(name for _, name in names),
            row_groups=tuple(function for function, _ in names),
            count_SE=count,
            expected_SE=expected,
            functional_SE=functional,
            k=rows[0]["k"],
            alpha=_level(run),
            criterion=_criterion(run),
            p_value_SE=p_value,
        )


def agreement_matrix(tables: RunTables) -> AgreementMatrix | None:
    """Agreement of every two partitions; None when it was not computed."""
    rows = tables.rows("partition_agreement")
    if not rows:
        return None
    layers = sorted({row["layer"] for row in rows})
    pairs = list(dict.fromkeys((row["partition_a"], row["partition_b"]) for row in rows))
    value_YL, q_value_YL = np.full((2, len(pairs), len(layers)), np.nan)
    for row in rows:
        place = pairs.index((row["partition_a"], row["partition_b"])), layers.index(row["layer"])
        value_YL[place], q_value_YL[place] = row["adjusted_rand"], row["q_value"]
    return AgreementMatrix(
        pairs=tuple(f"{a} · {b}" for a, b in pairs),
        layers=tuple(layers),
        value_YL=value_YL,
        q_value_YL=q_value_YL,
        null_sd=max(row["null_sd"] for row in rows),
        n_permutations=rows[0]["n_permutations"],
    )


def sensitivity_curves(tables: RunTables, function: str) -> Iterator[SensitivityCurve]:
    """Proportion and degree of one function over the top fractions; nothing when they were not computed."""
    rows = tables.rows(
        "modularity_tests",
        function=function,
        partition=tables.partition_shown,
        layer=ALL_LAYERS,
        null=SHUFFLED_EXPERTS,
    )
    fractions = sorted({row["top_fraction"] for row in rows})
    if not fractions:
        return

    def column(figure: str, name: str) -> np.ndarray:
        found = {row["top_fraction"]: row[name] for row in rows if row["figure"] == figure}
        return np.array([found[fraction] for fraction in fractions])

    layers = {row["layer"]: row["n_neurons"] for row in tables.rows("function_curve", function=function)}
    lists = tables.rows("functional_experts", function=function, partition=tables.partition_shown)
    width = min(layers.values(), default=None)
    yield SensitivityCurve(
        function=function,
        fractions_Q=np.array(fractions),
        proportion_Q=column("proportion", "observed"),
        degree_Q=column("degree", "observed"),
        random_proportion_Q=column("proportion", "null_mean"),
        random_degree_Q=column("degree", "null_mean"),
        n_layers=len(layers),
        k_Q=np.array([min(row["k"] for row in lists if row["top_fraction"] == fraction) for fraction in fractions]),
        asked_Q=None if width is None else np.array(fractions) * width,
    )


def _level(run: Run) -> float:
    """Level at which an expert is called functional: of each test (paper) or false discovery rate (corrected)."""
    config = run.manifest.config
    return float(config["experts"]["alpha" if config["variant"] == "paper" else "fdr"])


def _criterion(run: Run) -> str:
    """The rule in words; empty for the paper's, a level of each test."""
    if run.manifest.config["variant"] == "paper":
        return ""
    return f"exact test, false discovery rate {_level(run):.0%} over experts, layers and sub-functions of the function"
