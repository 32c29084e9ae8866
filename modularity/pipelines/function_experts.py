"""Experts of a function as a whole: the lists of its sub-functions together (card A5, level of a function).

Tables: `function_experts` (layer × partition × expert) and `function_modularity` (proportion, degree and concentration
by layer and over layers, against permuted labels, which is the test of the function, and against shuffled experts, as
in `experts_step.py`). Variant `paper` calls an expert functional by the binomial
threshold, `corrected` by a permutation p with the false discovery rate over the experts of all layers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modularity.experts import FamilyNull, FunctionLevel, Rule, function_level
from modularity.pipelines.config import ExpertsConfig
from modularity.stats import p_values
from modularity.types import ALL_LAYERS, PERMUTED_LABELS, SHUFFLED_EXPERTS

Row = dict[str, Any]


def function_level_rows(
    function: str,
    method: str,
    layers: Sequence[int],
    top_LSK: Sequence[np.ndarray],
    labels_LF: Sequence[np.ndarray],
    counts_NLSE: np.ndarray,
    *,
    config: ExpertsConfig,
    rule: Rule,
) -> dict[str, list[Row]]:
    """Rows of the two tables for one function under one partition.

    Parameters
    ----------
    function, method : names, as they stand in the tables
    layers : their numbers
    top_LSK : for every layer an int array (n_subfunctions, k) of top neurons
    labels_LF : for every layer an int array (n_neurons,) of experts
    counts_NLSE : best neurons in every expert under each permutation of the labels
    config : number of experts, permutations, seed, top fraction
    rule : when an expert is functional
    """
    found = function_level(
        top_LSK,
        labels_LF,
        rule=rule,
        n_experts=config.n_experts,
        n_permutations=config.n_permutations,
        seed=config.seed,
        label_counts_NLE=counts_NLSE.sum(axis=2),
    )
    head = {"function": function, "partition": method}
    return {
        "function_experts": _expert_rows(found, layers, config.alpha, head),
        "function_modularity": _figure_rows(found, layers, head | {"top_fraction": config.top_fraction}),
    }


def _expert_rows(found: FunctionLevel, layers: Sequence[int], alpha: float, head: Row) -> list[Row]:
    expected_LE = found.expected_LE
    return [
        head
        | {
            "layer": layer,
            "expert": expert,
            "size": int(found.sizes_LE[index, expert]),
            "n_top": int(found.n_top_L[index]),
            "count": int(found.counts_LE[index, expert]),
            "expected": float(expected_LE[index, expert]),
            "p_binomial": float(found.p_binomial_LE[index, expert]),
            "p_permutation": float(found.p_permutation_LE[index, expert]),
            "q_permutation": float(found.q_permutation_LE[index, expert]),
            "functional_at_alpha": bool(found.p_binomial_LE[index, expert] <= alpha),
            "functional": bool(found.functional_LE[index, expert]),
        }
        for index, layer in enumerate(layers)
        for expert in range(found.counts_LE.shape[1])
    ]


def _figure_rows(found: FunctionLevel, layers: Sequence[int], head: Row) -> list[Row]:
    """Each figure against both nulls, over all layers and then by layer."""
    assert found.label_null is not None
    shuffled = FamilyNull(found.null_proportion_NL, found.null_degree_NL, found.null_concentration_NL)
    return [
        row
        for name, null in ((PERMUTED_LABELS, found.label_null), (SHUFFLED_EXPERTS, shuffled))
        for row in _null_rows(found, null, layers, head | {"null": name})
    ]


def _null_rows(found: FunctionLevel, null: FamilyNull, layers: Sequence[int], head: Row) -> list[Row]:
    figures = {
        "proportion": (found.proportion_L, null.proportion_NL),
        "degree": (found.degree_L, null.degree_NL),
        "concentration": (found.concentration_L, null.concentration_NL),
    }
    n_functional_L, n_experts = found.functional_LE.sum(axis=1), found.functional_LE.shape[1]
    rows = []
    for name, (observed_L, null_NL) in figures.items():
        places = [(ALL_LAYERS, slice(None)), *((layer, slice(i, i + 1)) for i, layer in enumerate(layers))]
        for layer, at in places:
            observed, null_N = float(observed_L[at].mean()), null_NL[:, at].mean(axis=1)
            rows.append(
                head
                | {
                    "layer": layer,
                    "figure": name,
                    "n_top": int(found.n_top_L[at].sum()),
                    "n_experts": n_experts * len(n_functional_L[at]),
                    "n_functional": int(n_functional_L[at].sum()),
                    "observed": observed,
                    "null_mean": float(null_N.mean()),
                    "null_low": float(np.quantile(null_N, 0.05)),
                    "null_high": float(np.quantile(null_N, 0.95)),
                    "p_value": float(p_values(np.array([observed]), null_N)[0]),
                }
            )
    return rows
