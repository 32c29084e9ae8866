"""The best neuron of a layer for each sub-function, without the optimism of having looked at all of them.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 1 (left): max over neurons of the predictivity. A maximum over N
neurons is biased upwards and grows with N. Here the neuron is chosen on the selection rows, its p-value is that of the
maximum under permuted labels, and its value is reported on the evaluation rows with a bootstrap interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.neurons.predictivity import NeuronPredictivity, row_groups
from modularity.stats import (
    Interval,
    PolarityRule,
    bootstrap_interval,
    max_statistic_p_values,
    polarity_scales,
    top_neurons,
    weighted_average_precision,
)

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class BestNeurons:
    """One neuron for each sub-function; arrays of shape (n_subfunctions,), float64 unless said."""

    neuron_S: Array
    """int64: the neuron with the highest score on the selection rows; ties by lowest index."""
    polarity_S: Array
    """int8: its polarity there."""
    ap_S: Array
    """Its average precision on the selection rows: the best of many, hence optimistic."""
    p_value_S: Array
    """Permutation p-value of this maximum, corrected for the number of neurons."""
    null_max_mean_S: Array
    """Mean of the maximum over neurons under permuted labels, as the average precision in this neuron's polarity that
    has the same score: the chance level of `ap_S`."""
    ap_evaluation_S: Array
    """Its average precision on the evaluation rows in that polarity."""
    low_S: Array
    """Lower bound of the bootstrap interval of `ap_evaluation_S`."""
    high_S: Array
    """Upper bound of it."""
    chance_evaluation_S: Array
    """Average precision of a constant neuron on the evaluation rows in that polarity."""


def best_neurons(
    predictivity: NeuronPredictivity,
    activation_RS: Array,
    labels_SR: Array,
    selection_R: Array | None,
    *,
    rule: PolarityRule = "standardised",
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups_R: Array | None = None,
) -> BestNeurons:
    """Best neuron of a layer for each sub-function, with max-statistic p-value and interval on the evaluation rows.

    Parameters
    ----------
    predictivity : the whole layer, joined by `merge_blocks` where it was computed in blocks
    activation_RS : array of shape (n_rows, n_subfunctions), for each sub-function the activations of its best neuron:
        `activations_RF[:, top_neurons(predictivity.score_SF, 1)[:, 0]]`
    labels_SR, selection_R, rule : as for `neuron_predictivity`
    n_resamples, confidence, seed, groups_R : as for `bootstrap_interval`; resamples keep the number of each label
        unless rows are drawn in groups

    Raises
    ------
    DataError
        Shapes do not fit, or a resample by groups has only one class.
    """
    neuron_S = top_neurons(predictivity.score_SF, 1)[:, 0]
    every_S = np.arange(len(neuron_S))
    if activation_RS.shape != labels_SR.shape[::-1] or len(labels_SR) != len(neuron_S):
        raise DataError(
            f"activations have shape {activation_RS.shape} and labels {labels_SR.shape} "
            f"for {len(neuron_S)} sub-functions: expected one column of activations and one row of labels for each"
        )
    polarity_S = predictivity.polarity_SF[every_S, neuron_S]
    intervals: list[Interval | None] = [None] * len(neuron_S)
    null_ap_SN = np.empty_like(predictivity.null_max_SN)
    for group in row_groups(labels_SR, selection_R, len(activation_RS)):
        rows, select_R = group.evaluation_rows, group.selection_rows
        scales = polarity_scales(labels_SR[np.ix_(group.subfunctions, select_R)] == 1, rule=rule)
        for index, s in enumerate(group.subfunctions):
            scale = scales.of(int(polarity_S[s])).part(index)
            null_ap_SN[s] = scale.average_precision(predictivity.null_max_SN[s])
            intervals[s] = evaluation_interval(
                activation_RS[rows, s], labels_SR[s, rows] == 1, int(polarity_S[s]),
                n_resamples=n_resamples, confidence=confidence, seed=seed,
                groups_R=None if groups_R is None else groups_R[rows],
            )  # fmt: skip
    score_S = predictivity.score_SF[every_S, neuron_S]
    return BestNeurons(
        neuron_S=neuron_S,
        polarity_S=polarity_S,
        ap_S=predictivity.ap_SF[every_S, neuron_S],
        p_value_S=max_statistic_p_values(score_S[:, None], predictivity.null_max_SN)[:, 0],
        null_max_mean_S=null_ap_SN.mean(axis=1),
        ap_evaluation_S=predictivity.ap_evaluation_SF[every_S, neuron_S],
        low_S=np.array([interval.low for interval in intervals if interval]),
        high_S=np.array([interval.high for interval in intervals if interval]),
        chance_evaluation_S=predictivity.chance_evaluation_SF[every_S, neuron_S],
    )


def evaluation_interval(
    activation_R: Array,
    labels_R: Array,
    polarity: int,
    *,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    groups_R: Array | None = None,
) -> Interval:
    """Average precision of one neuron in a given polarity (1 or -1) with its bootstrap interval over rows or groups."""
    if polarity not in {1, -1}:
        raise DataError(f"polarity is {polarity}: expected 1 or -1")
    wanted_R = labels_R if polarity == 1 else ~labels_R
    by_label = groups_R is None or _is_constant_in(groups_R, wanted_R)
    return bootstrap_interval(
        partial(weighted_average_precision, activation_R, wanted_R), len(activation_R),
        n_resamples=n_resamples, confidence=confidence, seed=seed,
        groups_R=groups_R, strata_R=wanted_R if by_label else None,
    )  # fmt: skip


def _is_constant_in(groups_R: Array, labels_R: Array) -> bool:
    """Whether every group has one label: groups can then be drawn apart by label, so that no resample lacks a class."""
    _, group_R = np.unique(groups_R, return_inverse=True)
    n_positive_G, n_rows_G = np.bincount(group_R, weights=labels_R), np.bincount(group_R)
    return bool(((n_positive_G == 0) | (n_positive_G == n_rows_G)).all())


def top_fraction_count(n_neurons: int, fraction: float) -> int:
    """How many neurons the top `fraction` of a layer has: int(fraction · N), as the papers' code counts them.

    Raises
    ------
    DataError
        The fraction is outside (0, 1] or too small to hold one neuron.
    """
    count = int(fraction * n_neurons) if 0 < fraction <= 1 else 0
    if count < 1:
        raise DataError(
            f"top fraction {fraction} of {n_neurons} neurons: expected a fraction in (0, 1] with at least one neuron"
        )
    return count
