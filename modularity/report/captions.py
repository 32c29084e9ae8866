"""Captions under the figures: what is drawn, on which examples, over how many things, and what chance is."""

from collections.abc import Sequence

import numpy as np

from modularity.report.content import (
    AgreementMatrix,
    ExpertCurve,
    ExpertMap,
    FunctionCurve,
    Heatmap,
    OverlapMatrix,
    SensitivityCurve,
)
from modularity.report.wording import capital, count, number, p_value, plural, significant

INDEPENDENT = (
    "Intervals take the sampling errors of the sub-functions for independent: where sub-functions share examples they "
    "are too narrow. "
)


def curve_caption(curves: Sequence[FunctionCurve], metric: str, scored_on: str = "held-out examples") -> str:
    """Caption of the best predictivity per layer."""
    sizes = ", ".join(f"{curve.function} {curve.n_subfunctions}" for curve in curves)
    candidates = sorted({curve.n_neurons for curve in curves})
    best_of = " to ".join(map(count, dict.fromkeys((candidates[0], candidates[-1]))))
    text = (
        f"{capital(metric)} (0 is a constant neuron, 1 perfect separation) of the best neuron of each layer. "
        f"Neurons are chosen on selection examples and scored on {scored_on}. "
    )
    if any(curve.random_L is not None for curve in curves):
        text += (
            "Random weights: the best neurons of an untrained model of this architecture, chosen and scored on the "
            "same examples, with the same kind of interval; their own permuted labels are in the table "
            "random_init_predictivity. "
        )
    if scored_on.startswith("held-out") and any(curve.selection_L is not None for curve in curves):
        text += (
            "The null is that of the maximum on selection examples and is to be compared with the open circles; "
            "values on other examples have no such upward bias. "
        )
    if any(curve.n_subfunctions > 1 for curve in curves):
        text += INDEPENDENT
    return f"{text}Means over sub-functions (n: {sizes}); each best is the best of {best_of} neurons."


def heatmap_caption(
    heatmap: Heatmap, metric: str, scored_on: str = "held-out examples", interval: str = "95 % bootstrap interval"
) -> str:
    """Caption of a heat map over layers."""
    held_out = scored_on.startswith("held-out")
    text = (
        f"{capital(metric)}, on {scored_on}, of the neuron that was best on selection examples. "
        "Zero is a constant neuron."
    )
    if heatmap.chance is not None:
        text += f" The triangle on the scale is the mean best value under permuted labels, {number(heatmap.chance)}."
    if heatmap.p_value_YL is not None:
        where = "on selection examples, where it was chosen," if held_out else "there"
        text += (
            f" A dot marks cells in which that neuron {where} exceeds the best neuron under permuted labels "
            f"({heatmap.p_name} ≤ 0.05)."
        )
    if held_out and heatmap.low_YL is not None:
        text += f" On held-out examples chance is zero; the {interval} of each cell is in its hover text."
        averaged = heatmap.row_names == heatmap.row_groups
        text += f" {INDEPENDENT.strip()}" if averaged else ""
    return text


def agreement_caption(matrix: AgreementMatrix) -> str:
    """Caption of the agreement of partitions."""
    return (
        "Adjusted Rand index of every two partitions of a layer's neurons: 1 when equal up to names of experts, "
        f"0 on average when one is permuted over the neurons (s.d. at most {significant(matrix.null_sd)}, "
        f"{matrix.n_permutations:,} permutations). A dot marks agreement beyond chance (q ≤ 0.05 over all cells); "
        "with experts of this size an index may be small and yet beyond chance."
    )


def overlap_caption(matrix: OverlapMatrix) -> str:
    """Caption of an overlap matrix."""
    layers = f"averaged over {matrix.n_layers} layers" if matrix.n_layers > 1 else "in one layer"
    diagonal = (
        "Self-pairs are left out."
        if matrix.self_pairs
        else "The diagonal is the mean over pairs of different sub-functions of one function."
    )
    dots = "" if matrix.p_value_SS is None else f" A dot marks pairs with {matrix.p_name} ≤ 0.05."
    if matrix.label_p_SS is not None:
        dots += (
            " That test takes lists for independent; the hover text also compares with lists of permuted labels, which "
            "share the neurons that rank high for any labels."
        )
    return (
        f"{capital(matrix.statistic)}: top {count(matrix.k)} of {count(matrix.n_neurons)} neurons, {layers}. "
        f"Chance, {significant(matrix.chance)}, is the triangle on the scale. {diagonal}{dots}"
    )


def expert_caption(curves: Sequence[ExpertCurve]) -> str:
    """Caption of proportion and degree per layer."""
    first = curves[0]
    rule = first.criterion or f"exact test, α = {first.alpha:g}"
    names = {control.name for curve in curves for control in curve.controls}
    null = (
        " Permuted labels: the mean over top neurons of labels that mean nothing, the chance level of a function."
        if "permuted labels" in names
        else ""
    )
    controls = f"{null} Other controls: the same top neurons under other partitions." if names else ""
    return (
        f"An expert is functional for a sub-function when it holds more of its top {count(first.k)} neurons than "
        f"chance allows ({rule}). Proportion: share of the {count(first.n_experts)} experts "
        "that are functional. Degree: the mean over functional experts of that count divided by the count expected "
        f"by chance (0 when no expert is functional). Means over sub-functions.{controls}"
    )


def function_expert_caption(curves: Sequence[ExpertCurve]) -> str:
    """Caption of proportion and degree per layer, of functions as wholes."""
    first = curves[0]
    sizes = ", ".join(f"{curve.function} {curve.n_subfunctions} × {curve.k}" for curve in curves)
    tests = "; ".join(
        f"{curve.function} {p_value(curve.p_value)} (random partitions {p_value(curve.p_partitions)})"
        for curve in curves
    )
    return (
        "As above, for each function as a whole: the top neurons of all its sub-functions in one list, repeats kept "
        f"({sizes} entries in each layer). An expert is functional when it holds more entries than chance allows "
        f"({first.criterion or f'binomial test, α = {first.alpha:g}'}). Permuted labels: the mean over lists of labels "
        "that mean nothing, in the same experts, the chance level of a function; random partitions: the mean over "
        "shuffled partitions of the same lists; both under the same rule, those without a functional expert counted "
        f"as 0. Degree over all layers against permuted labels, not corrected over functions: {tests}."
    )


def expert_map_caption(each: ExpertMap) -> str:
    """Caption of the counts of one layer, with the functional experts of each function in words."""
    rule = each.criterion or f"exact test at α = {each.alpha:g}"
    share = f"{count(int(each.functional_SE.sum()))} of {count(each.functional_SE.size)}"
    return (
        f"How many of the top {count(each.k)} neurons of each sub-function lie in each expert, over the number "
        f"expected by chance. A dot marks a functional expert ({rule}; {share} cells). "
        f"Functional experts: {_serves(each)}. Experts are sorted for reading; their order "
        "carries no information."
    )


def _serves(each: ExpertMap, most: int = 12) -> str:
    """Which experts are functional for each function."""
    parts = []
    for group in dict.fromkeys(each.row_groups):
        rows = np.array([name == group for name in each.row_groups])
        experts = [str(expert) for expert in np.flatnonzero(each.functional_SE[rows].any(axis=0))]
        rest = f" and {len(experts) - most} more" if len(experts) > most else ""
        parts.append(f"{group} {', '.join(experts[:most]) or 'none'}{rest}")
    return "; ".join(parts)


def sensitivity_caption(curves: Sequence[SensitivityCurve]) -> str:
    """Caption of the two measures by top fraction."""
    raised = any(curve.asked_Q is not None and (curve.asked_Q < 1).any() for curve in curves)
    note = " A fraction that is less than one neuron of a layer is raised to one neuron." if raised else ""
    return (
        "How the two measures depend on how many neurons count as top neurons (logarithmic axis). Means over "
        f"sub-functions and over {plural(curves[0].n_layers, 'layer')}. The dashed line is the mean over random "
        f"partitions.{note}"
    )
