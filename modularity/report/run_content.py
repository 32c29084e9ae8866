"""The tables and dense results of a run, brought into the form that the report page shows."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modularity.errors import StoreError
from modularity.report.activity import Activity
from modularity.report.content import (
    ANALYSES,
    ExampleValue,
    FunctionCurve,
    FunctionSummary,
    Heatmap,
    OverlapMatrix,
    Provenance,
    ReportContent,
    RunSummary,
    SubFunction,
    TopNeuron,
)
from modularity.report.provenance import run_provenance, status_command
from modularity.report.run_activity import activities
from modularity.report.run_experts import agreement_matrix, expert_curves, expert_maps, sensitivity_curves
from modularity.report.run_function_experts import function_expert_curves
from modularity.report.run_graph_modularity import JOB as GRAPH_MODULARITY
from modularity.report.run_graph_modularity import graph_modularity_content
from modularity.report.run_moefication import JOB as MOEFICATION
from modularity.report.run_moefication import moefication_content
from modularity.report.run_notes import run_notes
from modularity.report.run_perturbation import JOB as PERTURBATION
from modularity.report.run_perturbation import perturbation_content
from modularity.report.run_pruning import JOB as PRUNING
from modularity.report.run_pruning import pruning_content
from modularity.report.run_restricted_routing import JOB as ROUTING
from modularity.report.run_restricted_routing import restricted_routing_content
from modularity.report.run_tables import Row, RunTables
from modularity.stats import benjamini_hochberg
from modularity.store import Run
from modularity.types import PARTITION

FDR = 0.05


def report_content(run: Run) -> ReportContent:
    """Everything that the page shows; parts that the run has not computed stay empty."""
    if run.manifest.job == PERTURBATION:
        return perturbation_content(run, model_name(run))
    if run.manifest.job == ROUTING:
        return restricted_routing_content(run, model_name(run))
    if run.manifest.job == MOEFICATION:
        return moefication_content(run, model_name(run))
    if run.manifest.job == GRAPH_MODULARITY:
        return graph_modularity_content(run, model_name(run))
    if run.manifest.job == PRUNING:
        return pruning_content(run, model_name(run))
    tables = RunTables(run)
    functions = tables.functions
    curves = tuple(curve for name in functions for curve in _curves(tables, name))
    active = tuple(activities(run))
    return ReportContent(
        title=f"Emergent modularity in {model_name(run)}",
        run=_summary(run, tables, active),
        functions=tuple(_function(run, tables, config) for config in run.manifest.config["functions"]),
        provenance=_provenance(run),
        curves=curves,
        heatmaps=tuple(_heatmaps(tables, functions)),
        overlaps=tuple(_overlaps(tables)),
        expert_curves=tuple(curve for name in functions for curve in expert_curves(run, tables, name)),
        function_expert_curves=tuple(c for name in functions for c in function_expert_curves(run, tables, name)),
        expert_maps=tuple(expert_maps(run, tables)),
        agreement=agreement_matrix(tables),
        sensitivity=tuple(curve for name in functions for curve in sensitivity_curves(tables, name)),
        neurons=tuple(_neurons(run, tables)),
        held_out=run.manifest.config["variant"] == "corrected",
        notes=tuple(run_notes(run, tables)),
        activities=active,
        sections=(*(ANALYSES if functions else ()), *(("activity",) if active or not functions else ())),
    )


def model_name(run: Run) -> str:
    """Name to print: the hub id, or the last folders of a local path."""
    name = str(run.manifest.identity["model"]["name"])
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return "/".join(parts[-2:]) if len(parts) > 2 else name


def _summary(run: Run, tables: RunTables, active: tuple[Activity, ...]) -> RunSummary:
    manifest = run.manifest
    rows = tables.rows("function_curve")
    widths = {row["layer"]: row["n_neurons"] for row in rows}
    for each in active:
        if each.rate_LF is not None:
            widths |= dict(zip(each.layers, np.isfinite(each.rate_LF).sum(axis=1).tolist()))
    return RunSummary(
        model=model_name(run),
        site=str(manifest.notes.get("analysed")),
        layers=tuple(sorted(widths)),
        n_neurons=sum(widths.values()),
        n_permutations=manifest.config["predictivity"]["n_permutations"] if rows else 0,
        n_experts=manifest.config["experts"]["n_experts"] if tables.rows("functional_experts") else None,
        fdr=FDR,
        created=manifest.created,
    )


def _function(run: Run, tables: RunTables, config: Mapping[str, Any]) -> FunctionSummary:
    name = config["name"]
    halves = {(row["subfunction"], row["half"]): row for row in tables.rows("subfunctions", function=name)}
    names = dict.fromkeys(subfunction for subfunction, _ in halves)
    subfunctions = []
    for subfunction in names:
        selection, evaluation = halves[subfunction, "selection"], halves[subfunction, "evaluation"]
        n_examples = selection["n_examples"] + evaluation["n_examples"]
        n_positive = selection["n_positive"] + evaluation["n_positive"]
        subfunctions.append(
            SubFunction(subfunction, selection["n_examples"], evaluation["n_examples"], n_positive / n_examples)
        )
    source = config["source"] or {part: each["source"] for part, each in config.get("parts", {}).items()}
    return FunctionSummary(
        name=name,
        kind=config["kind"],
        source=source if isinstance(source, str) else json.dumps(source, ensure_ascii=False),
        pooling=config["pooling"]["kind"],
        subfunctions=tuple(subfunctions),
        n_examples=len(np.unique(run.coordinates(name)["example"])) if name in run.functions() else 0,
        n_tokens=int(run.manifest.notes["tokens"][name]),
        n_truncated=int(run.manifest.notes["truncated"][name]),
        n_significant=_n_significant(run, name),
    )


def _n_significant(run: Run, function: str) -> int | None:
    """Neurons that predict at least one sub-function, at false discovery rate `FDR` over neurons and sub-functions."""
    try:
        p_value_SLF = run.results(function)["p_value"].values
    except StoreError:
        return None
    found_SLF = np.zeros(p_value_SLF.shape, dtype=bool)
    real_SLF = ~np.isnan(p_value_SLF)
    found_SLF[real_SLF] = benjamini_hochberg(p_value_SLF[real_SLF]) <= FDR
    return int(found_SLF.any(axis=0).sum())


def _curves(tables: RunTables, function: str) -> Iterator[FunctionCurve]:
    rows = sorted(tables.rows("function_curve", function=function), key=lambda row: row["layer"])
    if not rows:
        return

    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=np.float64)

    random = sorted(tables.rows("random_init_predictivity", function=function), key=lambda row: row["layer"])

    def of_random(name: str) -> np.ndarray | None:
        return np.array([row[name] for row in random], dtype=np.float64) if random else None

    yield FunctionCurve(
        random_L=of_random("normalised_evaluation"),
        random_low_L=of_random("low"),
        random_high_L=of_random("high"),
        random_p_value_L=of_random("p_value"),
        function=function,
        layers=tuple(row["layer"] for row in rows),
        best_L=column("normalised_evaluation"),
        low_L=column("low"),
        high_L=column("high"),
        null_L=column("null_mean"),
        null_high_L=column("null_high"),
        null_low_L=column("null_low"),
        selection_L=column("normalised_selection"),
        p_value_L=column("p_value"),
        p_value=min(row["p_value_all_layers"] for row in rows),
        n_subfunctions=rows[0]["n_subfunctions"],
        n_neurons=rows[0]["n_neurons"],
    )


def _heatmaps(tables: RunTables, functions: tuple[str, ...]) -> Iterator[Heatmap]:
    curves = [
        (name, sorted(tables.rows("function_curve", function=name), key=lambda r: r["layer"])) for name in functions
    ]
    if curves and all(rows for _, rows in curves):
        yield _heatmap(
            "functions", "Best neuron by function and layer", [(name, name, rows) for name, rows in curves], "p_value"
        )
    best: dict[tuple[str, str], list[Row]] = {}
    for row in tables.rows("best_neurons"):
        best.setdefault((row["function"], row["subfunction"]), []).append(row)
    if best:
        named = [
            (f"{name}", function, sorted(rows, key=lambda r: r["layer"])) for (function, name), rows in best.items()
        ]
        yield _heatmap("subfunctions", "Best neuron by sub-function and layer", named, "p_value_max")


def _heatmap(name: str, title: str, named: list[tuple[str, str, list[Row]]], p_column: str) -> Heatmap:
    low, high = ("low", "high") if name == "functions" else ("normalised_low", "normalised_high")

    def values(column: str) -> np.ndarray:
        return np.array([[row[column] for row in rows] for _, _, rows in named], dtype=np.float64)

    return Heatmap(
        name=name,
        title=title,
        row_names=tuple(row_name for row_name, _, _ in named),
        row_groups=tuple(group for _, group, _ in named),
        layers=tuple(row["layer"] for row in named[0][2]),
        value_YL=values("normalised_evaluation"),
        low_YL=values(low),
        high_YL=values(high),
        p_value_YL=benjamini_hochberg(values(p_column)),
        p_name="q of the best neuron of the layer over all cells",
    )


def _overlaps(tables: RunTables) -> Iterator[OverlapMatrix]:
    pairs, blocks = tables.rows("overlap_subfunctions"), tables.rows("overlap_functions")
    curves = tables.rows("function_curve")
    if not blocks or not curves:
        return
    widths = {row["layer"]: row["n_neurons"] for row in curves}
    k_total = pairs[0]["n_top"] if pairs else 0
    common = {
        "chance": blocks[0]["chance"],
        "k": round(k_total / len(widths)) if pairs else 0,
        "n_neurons": next(iter(widths.values())),
        "n_layers": len(widths),
    }
    named = {row["function_a"] for row in blocks}
    names = [name for name in tables.functions if name in named]
    value, p_above = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for row in blocks:
        a, b = names.index(row["function_a"]), names.index(row["function_b"])
        value[a, b] = value[b, a] = row["top_overlap"]
        p_above[a, b] = p_above[b, a] = row["p_above"] if a == b else row["p_below"]
    upper = np.triu_indices(len(names))
    known = tuple(index[np.isfinite(p_above[upper])] for index in upper)
    q_value = np.full_like(p_above, np.nan)
    if known[0].size:
        q_value[known] = q_value[known[::-1]] = benjamini_hochberg(p_above[known])
    yield OverlapMatrix(
        name="functions",
        title="Shared top neurons of functions",
        names=tuple(names),
        groups=tuple(names),
        value_SS=value,
        p_value_SS=q_value,
        p_name="permutation q (diagonal: this high; elsewhere: this low)",
        self_pairs=False,
        **common,
    )
    if pairs:
        yield _pair_matrix(tables, pairs, common | {"block_p_value": _finite(blocks[0]["p_within_above_between"])})


def _pair_matrix(tables: RunTables, pairs: list[Row], common: Mapping[str, Any]) -> OverlapMatrix:
    names = tables.in_order((row[f"function_{end}"], row[f"subfunction_{end}"]) for end in "ab" for row in pairs)
    value = np.ones((len(names), len(names)))
    q_value, label_value, label_p = (np.full_like(value, np.nan) for _ in range(3))
    for row in pairs:
        a = names.index((row["function_a"], row["subfunction_a"]))
        b = names.index((row["function_b"], row["subfunction_b"]))
        value[a, b] = value[b, a] = row["top_overlap"]
        q_value[a, b] = q_value[b, a] = row["q_value"]
        label_value[a, b] = label_value[b, a] = row["overlap_labels"]
        label_p[a, b] = label_p[b, a] = row["p_labels"]
    has_null = bool(np.isfinite(label_p).any())
    return OverlapMatrix(
        name="subfunctions",
        title="Shared top neurons of sub-functions",
        names=tuple(name for _, name in names),
        groups=tuple(function for function, _ in names),
        value_SS=value,
        p_value_SS=q_value,
        p_name="q (hypergeometric over all layers)",
        label_value_SS=label_value if has_null else None,
        label_p_SS=label_p if has_null else None,
        **common,
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def _neurons(run: Run, tables: RunTables) -> Iterator[TopNeuron]:
    """Top neurons, the best of each sub-function first."""
    experts = _expert_of(run, tables.partition_shown)
    functional = {
        (row["function"], row["subfunction"], row["layer"], row["expert"]): row["functional"]
        for row in tables.rows("expert_counts", partition=tables.partition_shown)
    }
    examples: dict[tuple[Any, ...], list[Row]] = {}
    for row in tables.rows("top_examples"):
        key = (row["function"], row["subfunction"], row["layer"], row["neuron"], row["side"])
        examples.setdefault(key, []).append(row)
    for row in sorted(tables.rows("top_neurons"), key=lambda row: row["rank"]):
        place = (row["function"], row["subfunction"], row["layer"])
        neuron = (*place, row["neuron"])
        expert = experts.get((row["layer"], row["neuron"]))
        yield TopNeuron(
            layer=row["layer"],
            neuron=row["neuron"],
            function=row["function"],
            subfunction=row["subfunction"],
            polarity=row["polarity"],
            ap_selection=row["ap_selection"],
            ap_evaluation=row["ap_evaluation"],
            floor=row["chance_evaluation"],
            normalised=row["normalised_evaluation"],
            n_evaluation=row["n_evaluation"],
            auroc=row["auroc_evaluation"],
            q_value=row["q_value"],
            low=row["normalised_low"],
            high=row["normalised_high"],
            expert=expert,
            functional=functional.get((*place, expert)),
            highest=_example_values(tables, examples.get((*neuron, "highest"), [])),
            lowest=_example_values(tables, examples.get((*neuron, "lowest"), [])),
        )


def _expert_of(run: Run, shown: str) -> dict[tuple[int, int], int]:
    if PARTITION not in run.result_names():
        return {}
    partition = run.results(PARTITION, partial=True)
    if shown not in partition["partition"].values:
        return {}
    expert_LF = partition["expert"].values[partition["partition"].values.tolist().index(shown)]
    layers = partition["layer"].values.tolist()
    return {
        (layers[i], f): int(expert) for i, row in enumerate(expert_LF) for f, expert in enumerate(row) if expert >= 0
    }


def _example_values(tables: RunTables, rows: list[Row]) -> tuple[ExampleValue, ...]:
    values = []
    for row in sorted(rows, key=lambda row: row["rank"]):
        example = tables.texts.get((row["function"], row["example_id"]))
        text = "(texts are not kept in this run)" if example is None else example["text"]
        pair = example["text_pair"] if example else ""
        span = (example["target_start"], example["target_end"]) if example and example["target_start"] >= 0 else None
        values.append(
            ExampleValue(
                text=f"{text} ‖ {pair}" if pair else text,
                value=row["value"],
                positive=bool(row["label"]),
                example=row["example_id"],
                target=span,
            )
        )
    return tuple(values)


def _provenance(run: Run) -> Provenance:
    matmul = run.manifest.notes.get("matmul")
    errors = "" if matmul is None else f"error {matmul['chosen_error']:.1e}, default {matmul['default_error']:.1e}"
    products = "model's own precision" if matmul is None else f"{matmul['name']} ({errors})"
    return run_provenance(
        run,
        details=[("float32 products", products)],
        commands=[
            ("check every byte, and recompute rows from the model", f"modularity verify {run.uri}"),
            status_command(run),
            ("the tables", f'modularity sql {run.uri} "show tables"'),
        ],
    )
