"""One function's top neurons against every partition: which experts are functional, and how much chance would give.

Tables: `functional_experts` (sub-function × layer × partition × top fraction), `expert_counts` (the same × expert, at
the fraction of the config), `modularity_tests` (proportion, degree and concentration, with the exact expectation for
random partitions), and those of `function_experts.py`.

The tests have two nulls. Under *permuted labels* the lists are those of labels that mean nothing: it asks whether the
experts carry the function. Under *shuffled experts* the lists stay and the partition is random: it asks whether these
lists gather in these experts, which lists of correlated neurons do for any labels. Other top fractions than that of the
config have the second one alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.experts import (
    FamilyNull,
    FunctionalFamily,
    Rule,
    family_null,
    functional_family,
    null_of_counts,
    random_partition_baseline,
)
from modularity.neurons import top_neurons
from modularity.pipelines.config import ExpertsConfig, Variant
from modularity.pipelines.function_experts import function_level_rows
from modularity.pipelines.permuted_lists import permuted_counts
from modularity.stats import benjamini_hochberg, p_values
from modularity.store import Run, table_from_columns
from modularity.types import ALL_LAYERS, PARTITION, PERMUTED_LABELS, SHUFFLED_EXPERTS, WorkItem

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Inputs:
    function: str
    subfunctions: list[str]
    layers: list[int]
    widths: list[int]
    score_SLF: np.ndarray
    expert_MLF: np.ndarray
    config: ExpertsConfig
    rule: Rule

    def top(self, fraction: float) -> list[np.ndarray]:
        """Top neurons of every sub-function, one array (S, k) for each layer."""
        return [
            top_neurons(self.score_SLF[:, index, :width], max(1, int(fraction * width)))
            for index, width in enumerate(self.widths)
        ]

    def labels(self, method_index: int) -> list[np.ndarray]:
        """Expert of every neuron, one array for each layer."""
        return [self.expert_MLF[method_index, index, :width] for index, width in enumerate(self.widths)]


def bring_experts_together(run: Run, item: WorkItem, config: ExpertsConfig, *, variant: Variant) -> Mapping[str, Any]:
    """Write the five tables of one function."""
    function = item.text("function")
    results, partition = run.results(function, partial=True), run.results(PARTITION)
    inputs = _Inputs(
        function,
        results["subfunction"].values.tolist(),
        results["layer"].values.tolist(),
        results["width"].values.tolist(),
        results["score"].values,
        partition["expert"].values,
        config,
        Rule(alpha=config.alpha) if variant == "paper" else Rule(fdr=config.fdr),
    )
    tables: dict[str, list[Row]] = {
        "functional_experts": [], "expert_counts": [], "function_experts": [], "function_modularity": [],
        "modularity_tests": [],
    }  # fmt: skip
    top = inputs.top(config.top_fraction)
    labels_MLF = [inputs.labels(method_index) for method_index in range(len(config.methods))]
    counts_M = permuted_counts(results, labels_MLF, [lists.shape[1] for lists in top], config.n_experts)
    for method, labels, counts_NLSE in zip(config.methods, labels_MLF, counts_M):
        for fraction in sorted({config.top_fraction, *config.sensitivity}):
            if fraction != config.top_fraction:
                _add_fraction(tables, inputs, method, labels, fraction)
            else:
                _add_main_fraction(tables, inputs, method, labels, counts_NLSE)
        level = function_level_rows(
            function, method, inputs.layers, top, labels, counts_NLSE, config=config, rule=inputs.rule
        )
        _add_label_p_values(level["function_experts"], counts_NLSE)
        for name, rows in level.items():
            tables[name] += rows
    written = [
        run.write_table(name, item, table_from_columns({key: [row[key] for row in rows] for key in rows[0]}))
        for name, rows in tables.items()
    ]
    run.commit(item, tables=written)
    return {}


def _add_fraction(
    tables: dict[str, list[Row]], inputs: _Inputs, method: str, labels: list[np.ndarray], fraction: float
) -> FunctionalFamily:
    """Rows of one top fraction, tested against shuffled experts."""
    config, top = inputs.config, inputs.top(fraction)
    family = functional_family(top, labels, rule=inputs.rule, n_experts=config.n_experts)
    null = family_null(
        top,
        labels,
        rule=inputs.rule,
        n_experts=config.n_experts,
        n_permutations=config.n_permutations,
        seed=config.seed,
    )
    head = {"function": inputs.function, "partition": method, "top_fraction": fraction}
    tables["functional_experts"] += _family_rows(inputs, family, top, head)
    tables["modularity_tests"] += _test_rows(inputs, family, null, top, head | {"null": SHUFFLED_EXPERTS})
    return family


def _add_main_fraction(
    tables: dict[str, list[Row]], inputs: _Inputs, method: str, labels: list[np.ndarray], counts_NLSE: np.ndarray
) -> None:
    """Rows of the top fraction of the config: also each expert, and the tests under permuted labels."""
    config, top = inputs.config, inputs.top(inputs.config.top_fraction)
    family = _add_fraction(tables, inputs, method, labels, config.top_fraction)
    sizes_LE = np.stack([np.bincount(label, minlength=config.n_experts) for label in labels])
    null = null_of_counts(counts_NLSE, sizes_LE, rule=inputs.rule)
    head = {"function": inputs.function, "partition": method, "top_fraction": config.top_fraction}
    tables["modularity_tests"] += _test_rows(inputs, family, null, top, head | {"null": PERMUTED_LABELS})
    tables["expert_counts"] += _count_rows(inputs, family, labels, p_values(family.counts_LSE, counts_NLSE), head)


def _add_label_p_values(rows: list[Row], counts_NLSE: np.ndarray) -> None:
    """Add `p_labels` to rows of all layers and experts in order: all lists of the function together."""
    observed = np.array([row["count"] for row in rows])
    null_NX = counts_NLSE.sum(axis=2).reshape(len(counts_NLSE), -1)
    for row, p_value in zip(rows, p_values(observed, null_NX).tolist(), strict=True):
        row["p_labels"] = p_value


def _family_rows(inputs: _Inputs, family: FunctionalFamily, top: list[np.ndarray], head: Row) -> list[Row]:
    return [
        head
        | {
            "subfunction": subfunction,
            "layer": layer,
            "k": top[index].shape[1],
            "n_experts": inputs.config.n_experts,
            "n_functional": int(family.functional_LSE[index, s].sum()),
            "proportion": float(family.proportion_LS[index, s]),
            "degree": float(family.degree_LS[index, s]),
            "concentration": float(family.concentration_LS[index, s]),
        }
        for index, layer in enumerate(inputs.layers)
        for s, subfunction in enumerate(inputs.subfunctions)
    ]


def _test_rows(
    inputs: _Inputs, family: FunctionalFamily, null: FamilyNull, top: list[np.ndarray], head: Row
) -> list[Row]:
    """Each figure, by layer and over all layers, against one null."""
    figures = {
        "proportion": (family.proportion_LS, null.proportion_NL),
        "degree": (family.degree_LS, null.degree_NL),
        "concentration": (family.concentration_LS, null.concentration_NL),
    }
    expected = _exact_expectation(inputs, top)
    rows = []
    for name, (observed_LS, null_NL) in figures.items():
        places = [(ALL_LAYERS, float(observed_LS.mean()), null_NL.mean(axis=1))]
        places += [
            (layer, float(observed_LS[index].mean()), null_NL[:, index]) for index, layer in enumerate(inputs.layers)
        ]
        for layer, observed, null_N in places:
            rows.append(
                head
                | {
                    "layer": layer,
                    "figure": name,
                    "n_cells": family.functional_LSE[0].size * (len(inputs.layers) if layer == ALL_LAYERS else 1),
                    "observed": observed,
                    "null_mean": float(null_N.mean()),
                    "null_low": float(np.quantile(null_N, 0.05)),
                    "null_high": float(np.quantile(null_N, 0.95)),
                    "p_value": float(p_values(np.array([observed]), null_N)[0]),
                    "expected_at_alpha": expected.get(name, float("nan")),
                    "n_subfunctions": len(inputs.subfunctions),
                }
            )
    return rows


def _exact_expectation(inputs: _Inputs, top: list[np.ndarray]) -> dict[str, float]:
    """Expected proportion and degree of a random balanced partition under the threshold `alpha`, mean over layers."""
    config = inputs.config
    baselines = {
        (width, top[index].shape[1]): random_partition_baseline(
            width, config.n_experts, top[index].shape[1], alpha=config.alpha
        )
        for index, width in enumerate(inputs.widths)
    }
    each = [baselines[width, top[index].shape[1]] for index, width in enumerate(inputs.widths)]
    return {
        "proportion": float(np.mean([baseline.proportion for baseline in each])),
        "degree": float(np.mean([baseline.degree for baseline in each])),
        "concentration": 0.0,
    }


def _count_rows(
    inputs: _Inputs, family: FunctionalFamily, labels: list[np.ndarray], p_labels_LSE: np.ndarray, head: Row
) -> list[Row]:
    q_value_LSE = benjamini_hochberg(family.p_value_LSE)
    rows = []
    for index, layer in enumerate(inputs.layers):
        sizes_E = np.bincount(labels[index], minlength=inputs.config.n_experts)
        k = int(family.counts_LSE[index, 0].sum())
        for s, subfunction in enumerate(inputs.subfunctions):
            for expert in range(inputs.config.n_experts):
                place = (index, s, expert)
                rows.append(
                    head
                    | {
                        "subfunction": subfunction,
                        "layer": layer,
                        "expert": expert,
                        "size": int(sizes_E[expert]),
                        "k": k,
                        "count": int(family.counts_LSE[place]),
                        "expected": float(k * sizes_E[expert] / sizes_E.sum()),
                        "p_value": float(family.p_value_LSE[place]),
                        "q_value": float(q_value_LSE[place]),
                        "p_labels": float(p_labels_LSE[place]),
                        "functional": bool(family.functional_LSE[place]),
                    }
                )
    return rows
