"""Headline sentences computed from the numbers of a report, with their uncertainty and their chance level.

A sentence says that something was found only where its p-value is at most 0.05 after Holm's (1979) correction over the
functions of the same family of sentences; otherwise it says that chance was not excluded, or that nothing was tested.
"""

import math
from collections.abc import Sequence

import numpy as np

from modularity.report.activity import activity_finding
from modularity.report.content import (
    ExpertCurve,
    Finding,
    FloatArray,
    FunctionCurve,
    OverlapMatrix,
    ReportContent,
    SensitivityCurve,
    Strength,
)
from modularity.report.wording import count, joined, number, p_value, percent, plural, significant, with_interval

LEVEL = 0.05
NULL_NAMES = ("permuted labels", "random partitions")
"""Controls whose numbers stand in the test."""


def headline_findings(content: ReportContent) -> tuple[Finding, ...]:
    """The findings of a report: predictivity, overlap, experts, sensitivity, then those that the content brings along.

    Parameters
    ----------
    content : the report; parts that are empty give no sentence

    Returns
    -------
    findings : one sentence group each, with what its test says (`supported`, `unsupported`, `descriptive`)
    """
    found: list[Finding] = []
    adjusted = holm([curve.p_value for curve in content.curves])
    found += [_curve_finding(content, curve, p) for curve, p in zip(content.curves, adjusted)]
    found += [f for f in map(_training_finding, content.curves) if f]
    found += [f for f in (_significant_neurons(content),) if f]
    found += [f for f in map(_overlap_finding, content.overlaps) if f][:1]
    tests = [curve.test for curve in content.expert_curves]
    adjusted = holm([None if test is None else test.p_labels for test in tests])
    family = sum(test is not None for test in tests)
    found += [_expert_finding(curve, p, family) for curve, p in zip(content.expert_curves, adjusted)]
    found += [f for f in (_sensitivity_finding(content.sensitivity),) if f]
    found += [f for f in map(activity_finding, content.activities) if f]
    return (*found, *content.findings)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p-values; missing ones stay None and do not count in the family."""
    known = sorted((value, index) for index, value in enumerate(p_values) if value is not None and math.isfinite(value))
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for rank, (value, index) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * value))
        adjusted[index] = running
    return adjusted


def best_layer(curve: FunctionCurve) -> int | None:
    """Position in `layers` of the best layer, chosen on selection examples where known; None when all are missing."""
    chosen = curve.best_L if curve.selection_L is None else curve.selection_L
    usable = np.where(np.isfinite(chosen) & np.isfinite(curve.best_L), chosen, -np.inf)
    return int(usable.argmax()) if np.isfinite(usable).any() else None


def _strength(adjusted: float | None) -> Strength:
    return "descriptive" if adjusted is None else "supported" if adjusted <= LEVEL else "unsupported"


def _p_text(raw: float | None, adjusted: float | None, family: int) -> str:
    """P and, in a family of several, its corrected value: `p = 0.005, corrected 0.015`."""
    if raw is None or adjusted is None or family < 2:
        return p_value(raw)
    return f"{p_value(raw)}, corrected {p_value(adjusted).removeprefix('p = ').removeprefix('p ')}"


def _mean(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _curve_finding(content: ReportContent, curve: FunctionCurve, adjusted: float | None) -> Finding:
    at = best_layer(curve)
    if at is None:
        text = f"{curve.function}: no {content.metric} could be computed in any layer."
        return Finding(text, "descriptive", curve.function, "predictivity")
    family = sum(each.p_value is not None for each in content.curves)
    value = with_interval(curve.best_L[at], curve.low_L[at], curve.high_L[at])
    layer = f"layer {curve.layers[at]}"
    place = f"the only layer captured ({layer})" if len(curve.layers) == 1 else f"the best layer ({layer})"
    several = curve.n_subfunctions > 1
    where = (
        f"the best neurons of {place}, one for each of {curve.n_subfunctions} sub-functions,"
        if several
        else (f"the best neuron of {place}")
    )
    separate = "separate their labels with mean" if several else "separates the labels of its sub-function with"
    reach = "reach mean" if several else "reaches"
    chance = _chance_clause(content, curve, at)
    p = f" ({_p_text(curve.p_value, adjusted, family)})" if curve.p_value is not None else ""
    strength = _strength(adjusted)
    value = f"{content.metric} {value} on {content.scored_on}; {chance}"
    text = {
        "supported": f"{where} {separate} {value}{p}",
        "unsupported": f"chance is not excluded; {where} {reach} {value}{p}",
        "descriptive": f"{where} {reach} {value}; no test was run",
    }[strength]
    return Finding(f"{curve.function}: {text}.", strength, curve.function, "predictivity")


def _chance_clause(content: ReportContent, curve: FunctionCurve, at: int) -> str:
    null = float(curve.null_L[at])
    if not math.isfinite(null):
        return "no chance level was computed"
    best_of = f"chance for the best of {count(curve.n_neurons)} neurons is {number(null)}"
    if curve.selection_L is None or not content.held_out:
        return best_of
    return f"where the neurons were chosen they reach {number(float(curve.selection_L[at]))}, and {best_of}"


def _significant_neurons(content: ReportContent) -> Finding | None:
    known = [(each.name, each.n_significant)
             for each in content.functions if each.n_significant is not None]  # fmt: skip
    if not known:
        return None
    total = content.run.n_neurons
    parts = [f"{count(n)} ({percent(n / total)}) for {name}" for name, n in known]
    text = (
        f"Of {count(total)} neurons, those that predict at least one sub-function beyond chance at a false discovery "
        f"rate of {percent(content.run.fdr, 0)} number {joined(parts)}."
    )
    return Finding(text, "descriptive", section="predictivity")


def within_between(matrix: OverlapMatrix) -> tuple[float, float]:
    """Mean overlap of pairs within one function and of pairs of different functions, self-pairs left out."""
    groups = np.array(matrix.groups)
    same = groups[:, None] == groups[None, :]
    within = same & ~np.eye(len(groups), dtype=bool) if matrix.self_pairs else same
    return _mean(matrix.value_SS[within]), _mean(matrix.value_SS[~same])


def _training_finding(curve: FunctionCurve) -> Finding | None:
    """What training adds: the layers whose whole interval is above or below that of random weights."""
    if curve.random_L is None or curve.random_low_L is None or curve.random_high_L is None:
        return None
    usable = np.isfinite(curve.best_L + curve.random_L)
    above = int((curve.low_L > curve.random_high_L)[usable].sum())
    below = int((curve.high_L < curve.random_low_L)[usable].sum())
    n_layers = int(usable.sum())
    if n_layers == 0:
        return None
    lead = number(_mean((curve.best_L - curve.random_L)[usable]))
    text = (
        f"{curve.function}: the best neuron is above that of random weights, interval above interval, in {above} of "
        f"{plural(n_layers, 'layer')} and below it in {below}; mean difference {lead}."
    )
    return Finding(text, "descriptive", curve.function, "predictivity")


def _overlap_finding(matrix: OverlapMatrix) -> Finding | None:
    within, between = within_between(matrix)
    if matrix.block_p_value is None or not (math.isfinite(within) and math.isfinite(between)):
        return None
    strength = _strength(matrix.block_p_value)
    means = f"{significant(within, 2)} within a function and {significant(between, 2)} between functions"
    test = f"{p_value(matrix.block_p_value)} for the difference"
    chance = f"unrelated lists would share {significant(matrix.chance, 2)}"
    if strength == "supported":
        lead = "Sub-functions of one function use more of the same neurons than sub-functions of different functions"
    else:
        lead = (
            "Sub-functions of one function do not share clearly more neurons than sub-functions of different functions"
        )
    return Finding(f"{lead}: mean {matrix.statistic} {means} ({test}); {chance}.", strength, section="overlap")


def _expert_finding(curve: ExpertCurve, adjusted: float | None, family: int) -> Finding:
    """Verdict by permuted labels; what random partitions of the same lists give stands beside it."""
    test = curve.test
    if test is None or not np.isfinite(curve.proportion_L).any():
        text = f"{curve.function}: functional experts were not tested over all layers."
        return Finding(text, "descriptive", curve.function, "experts")
    lead = {
        "supported": "experts carry the function, more than they carry permuted labels",
        "unsupported": "it was not shown that experts carry the function",
        "descriptive": "no p-value was computed",
    }[strength := _strength(adjusted)]
    by_labels = f"{_mean_count(test.mean_labels)} on average, {_p_text(test.p_labels, adjusted, family)}"
    by_partitions = f"{_mean_count(test.mean_partitions)} on average, {p_value(test.p_partitions)}"
    others = [f"{count(round(_mean(c.proportion_L) * test.n_cells))} under {c.name}"
              for c in curve.controls if c.name not in NULL_NAMES]  # fmt: skip
    text = (
        f"{curve.function}: {lead}; functional experts: {count(test.n_functional)} of {count(test.n_cells)} cells "
        f"({_cells(curve)}); under permuted labels {by_labels}. The same lists of top neurons in random partitions: "
        f"{by_partitions}{f'; {joined(others)}' if others else ''}."
    )
    return Finding(text, strength, curve.function, "experts")


def _cells(curve: ExpertCurve) -> str:
    parts = [(curve.n_subfunctions, "sub-function"), (len(curve.layers), "layer"), (curve.n_experts, "expert")]
    return " × ".join(plural(n, word) for n, word in parts)


def _mean_count(value: float) -> str:
    """`0.3`, `12`, and `0` only where it is none at all."""
    return significant(value, 2) if value < 10 else number(value, 0)


def _sensitivity_finding(curves: tuple[SensitivityCurve, ...]) -> Finding | None:
    usable = [
        c
        for c in curves
        if len(c.fractions_Q) > 1 and np.isfinite(c.degree_Q).all() and np.isfinite(c.random_degree_Q).all()
    ]
    if not usable:
        return None
    robust = [c.function for c in usable if (c.degree_Q > c.random_degree_Q).all()]
    mixed = [c.function for c in usable if c.function not in robust]
    ends = [percent(float(usable[0].fractions_Q[index])) for index in (0, -1)]
    claim = f"stay above that of a random partition at every top fraction from {ends[0]} to {ends[1]}"
    if not robust:
        text = f"the modularisation degree does not {claim} for {joined(mixed)}"
    else:
        text = f"the modularisation degree {claim.replace('stay', 'stays', 1)} for {joined(robust)}"
        text += f", but not for {joined(mixed)}" if mixed else ""
    return Finding(f"Sensitivity: {text}.", "descriptive", section="sensitivity")
