"""Predictivity of every neuron of a block for every sub-function, with its null, on disjoint halves.

Source: Zhang et al. 2023, arXiv 2305.18390 (average precision of the better polarity) and Wang et al. 2022, arXiv
2211.07349 (accuracy at the mean activation). Both papers choose and report on the same examples, and have no null. Here
polarity, direction and threshold are chosen on the selection rows and reported on the evaluation rows, and the null
comes from permuted labels, the polarity being chosen anew under each permutation. `selection_R=None` uses all rows for
both, as the papers and the released code do. Neurons are ranked, and tested, by their score (`score_SF`): how far the
average precision stands out from a random order; `rule="larger"` compares the polarities as the paper does.

A sub-function may own only some rows (labels of -1 elsewhere). Sub-functions with the same rows form a group; the
neurons are sorted once for each group and half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.stats import (
    PolarityRule,
    TopLists,
    accuracy_above,
    better_polarity,
    merge_lists,
    polarity_scales,
    predictivity_null,
    ranking_scores,
)

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class NeuronPredictivity:
    """Scores of a block of neurons; arrays have one row for each sub-function, float64 unless said."""

    ap_SF: Array
    """Average precision of the chosen polarity on the selection rows, in (0, 1]."""
    polarity_SF: Array
    """int8: 1 when high activation goes with label 1, -1 when with label 0; equal scores count as 1."""
    floor_SF: Array
    """Average precision on the selection rows that counts as 0; see `polarity.PolarityScale`."""
    normalised_SF: Array
    """(ap - floor) / (1 - floor) on the selection rows."""
    score_SF: Array
    """On the selection rows; ranks neurons and is tested; see `polarity.BetterPolarity`."""
    auroc_SF: Array
    """AUROC of label 1 on the selection rows, in [0, 1]; 0.5 for a constant neuron."""
    accuracy_SF: Array
    """Accuracy of activation > mean of the selection rows, on the evaluation rows, in the direction that is better on
    the selection rows; at least 0.5 only when both are the same rows."""
    p_value_SF: Array
    """Pooled standardised permutation p-value on the selection rows; see `predictivity_null`."""
    null_mean_SF: Array
    """Mean of `score_SF` under permuted labels."""
    null_sd_SF: Array
    """Standard deviation of it."""
    null_max_SN: Array
    """Maximum of it over the block for each permutation; maxima of blocks merge with `np.maximum`."""
    null_top_SNK: Array
    """int32: the best neurons of the block for each permutation, best first, -1 where it has no more."""
    null_top_value_SNK: Array
    """float32: their `score_SF` under that permutation, by which lists of blocks merge."""
    ap_evaluation_SF: Array
    """Average precision on the evaluation rows in the polarity chosen on the selection rows."""
    auroc_evaluation_SF: Array
    """AUROC of label 1 on the evaluation rows."""
    chance_evaluation_SF: Array
    """Average precision of a constant neuron on the evaluation rows in the chosen polarity: the share of its label."""


@dataclass(frozen=True)
class RowGroup:
    """Sub-functions that own the same rows."""

    subfunctions: Array
    """int64: their indices."""
    selection_rows: Array
    """int64: rows on which choices are made."""
    evaluation_rows: Array
    """int64: rows on which their values are reported."""


def neuron_predictivity(
    activations_RF: Array,
    labels_SR: Array,
    selection_R: Array | None,
    *,
    n_permutations: int,
    seed: int,
    rule: PolarityRule = "standardised",
    n_top: int = 0,
    clusters_R: Array | None = None,
    n_threads: int | None = None,
) -> NeuronPredictivity:
    """Predictivity, polarity, AUROC, accuracy and permutation null of every neuron of a block.

    Parameters
    ----------
    activations_RF : array of shape (n_rows, n_neurons), any float dtype, finite
    labels_SR : bool array of shape (n_subfunctions, n_rows), or integers 1, 0, and -1 where the row is not the
        sub-function's
    selection_R : bool array of shape (n_rows,), the selection half; None for all rows in both halves
    n_permutations, seed : size and random state of the null; one seed for all blocks of a layer, so that they merge
    rule : how the polarity is chosen
    n_top : best neurons that are listed for each permutation
    clusters_R : integer array of shape (n_rows,), equal for rows that are not independent; see `permute_labels`
    n_threads : threads that share the neurons; None for all cores of the process

    Returns
    -------
    NeuronPredictivity
        The p-values are not corrected for the number of neurons: apply `benjamini_hochberg` over neurons and layers.

    Raises
    ------
    DataError
        Shapes do not fit, labels have other values, a sub-function's half lacks a class, an activation is not finite.
    """
    groups = row_groups(labels_SR, selection_R, len(activations_RF))
    results: dict[str, Array] = {}
    for group in groups:
        part = _group_predictivity(
            activations_RF, labels_SR, group, n_permutations, seed, rule, n_top, clusters_R, n_threads
        )
        for field in fields(NeuronPredictivity):
            values = getattr(part, field.name)
            target = results.setdefault(field.name, np.empty((len(labels_SR), *values.shape[1:]), values.dtype))
            target[group.subfunctions] = values
    return NeuronPredictivity(**results)


def merge_blocks(blocks: Sequence[NeuronPredictivity]) -> NeuronPredictivity:
    """Join blocks of neurons of one layer, in their order, computed with the same labels, permutations and seed.

    The p-values stay those of the blocks: each was pooled over the neurons of its own block.
    """
    if not blocks:
        raise DataError("no blocks to merge: expected at least one")
    merged: dict[str, Array] = {}
    for field in fields(NeuronPredictivity):
        values = [getattr(block, field.name) for block in blocks]
        if field.name.endswith("_SNK"):
            continue
        if field.name == "null_max_SN":
            merged[field.name] = np.maximum.reduce(values)
        elif field.name.endswith("_SF"):
            merged[field.name] = np.concatenate(values, axis=1)
        else:
            merged[field.name] = values[0]
    top_SNK = merge_lists(
        [
            TopLists(np.where(block.null_top_SNK < 0, -1, block.null_top_SNK + first), block.null_top_value_SNK)
            for block, first in zip(blocks, np.cumsum([0, *(block.ap_SF.shape[1] for block in blocks)], dtype=np.int32))
        ],
        blocks[0].null_top_SNK.shape[-1],
    )
    return NeuronPredictivity(**merged, null_top_SNK=top_SNK.neuron, null_top_value_SNK=top_SNK.value)


def row_groups(labels_SR: Array, selection_R: Array | None, n_rows: int) -> list[RowGroup]:
    """Group the sub-functions by the rows they own, in order of first appearance; DataError for unusable labels."""
    _check_inputs(labels_SR, selection_R, n_rows)
    selected_R = np.ones(n_rows, np.bool_) if selection_R is None else selection_R
    evaluated_R = np.ones(n_rows, np.bool_) if selection_R is None else ~selection_R
    members: dict[bytes, list[int]] = {}
    for s, labels_R in enumerate(labels_SR):
        for half, half_R in (("selection", selected_R), ("evaluation", evaluated_R)):
            counts = [int((labels_R[half_R] == value).sum()) for value in (1, 0)]
            if min(counts) == 0:
                raise DataError(
                    f"sub-function {s} has {counts[0]} positive and {counts[1]} negative rows in its {half} half: "
                    "expected both classes, give it more examples or split them by label"
                )
        members.setdefault(_owned(labels_R).tobytes(), []).append(s)
    groups = []
    for subfunctions in members.values():
        owned_R = _owned(labels_SR[subfunctions[0]])
        halves = (np.flatnonzero(owned_R & half_R) for half_R in (selected_R, evaluated_R))
        groups.append(RowGroup(np.array(subfunctions, np.int64), *halves))
    return groups


def _owned(labels_R: Array) -> Array:
    owned: Array = np.ones(len(labels_R), np.bool_) if labels_R.dtype == np.bool_ else labels_R >= 0
    return owned


def _check_inputs(labels_SR: Array, selection_R: Array | None, n_rows: int) -> None:
    if labels_SR.ndim != 2 or labels_SR.shape[1] != n_rows or len(labels_SR) == 0:
        raise DataError(
            f"labels have shape {labels_SR.shape}: expected (sub-functions, {n_rows}), one label for each row"
        )
    if labels_SR.dtype.kind not in "bi" or (labels_SR.dtype.kind == "i" and not np.isin(labels_SR, (-1, 0, 1)).all()):
        raise DataError(
            f"labels have dtype {labels_SR.dtype} and values from {labels_SR.min()} to {labels_SR.max()}: "
            "expected bool, or integers 1, 0 and -1 for rows of other sub-functions"
        )
    if selection_R is not None and (selection_R.shape != (n_rows,) or selection_R.dtype != np.bool_):
        raise DataError(
            f"selection_R is {selection_R.dtype} of shape {selection_R.shape}: expected bool of shape ({n_rows},)"
        )


def _group_predictivity(
    activations_RF: Array,
    labels_SR: Array,
    group: RowGroup,
    n_permutations: int,
    seed: int,
    rule: PolarityRule,
    n_top: int,
    clusters_R: Array | None,
    n_threads: int | None,
) -> NeuronPredictivity:
    """Scores of the sub-functions of one group, in their order."""
    select_R, evaluate_R = group.selection_rows, group.evaluation_rows
    selection_SR = labels_SR[np.ix_(group.subfunctions, select_R)] == 1
    evaluation_SR = labels_SR[np.ix_(group.subfunctions, evaluate_R)] == 1
    chosen = ranking_scores(activations_RF, selection_SR, rows_R=select_R, n_threads=n_threads)
    same = np.array_equal(select_R, evaluate_R)
    reported = chosen if same else ranking_scores(activations_RF, evaluation_SR, rows_R=evaluate_R, n_threads=n_threads)
    better = better_polarity(chosen, polarity_scales(selection_SR, rule=rule))
    positive_SF = better.positive_SF
    null = predictivity_null(
        activations_RF, selection_SR, better.score_SF,
        rows_R=select_R, n_permutations=n_permutations, seed=seed, rule=rule, n_top=n_top, n_threads=n_threads,
        clusters_R=None if clusters_R is None else clusters_R[select_R],
    )  # fmt: skip
    share_S = evaluation_SR.mean(axis=1)[:, None]
    return NeuronPredictivity(
        ap_SF=better.ap_SF,
        polarity_SF=np.where(positive_SF, 1, -1).astype(np.int8),
        floor_SF=better.floor_SF,
        normalised_SF=better.normalised_SF,
        score_SF=better.score_SF,
        auroc_SF=chosen.auroc_SF,
        accuracy_SF=_accuracy(activations_RF, selection_SR, evaluation_SR, group),
        p_value_SF=null.p_value_SF,
        null_mean_SF=null.mean_SF,
        null_sd_SF=null.sd_SF,
        null_max_SN=null.max_SN,
        null_top_SNK=null.top_SNK.neuron,
        null_top_value_SNK=null.top_SNK.value,
        ap_evaluation_SF=np.where(positive_SF, reported.ap_positive_SF, reported.ap_negative_SF),
        auroc_evaluation_SF=reported.auroc_SF,
        chance_evaluation_SF=np.where(positive_SF, share_S, 1.0 - share_S),
    )


def _accuracy(activations_RF: Array, selection_SR: Array, evaluation_SR: Array, group: RowGroup) -> Array:
    """Accuracy on the evaluation rows at the mean of the selection rows, in the direction chosen on the latter."""
    thresholds_F = _mean(activations_RF, group.selection_rows)
    chosen_SF = accuracy_above(activations_RF, selection_SR, thresholds_F, rows_R=group.selection_rows)
    reported_SF = accuracy_above(activations_RF, evaluation_SR, thresholds_F, rows_R=group.evaluation_rows)
    return np.where(chosen_SF >= 0.5, reported_SF, 1.0 - reported_SF)


def _mean(activations_RF: Array, rows_R: Array) -> Array:
    """float64 mean of the neurons over some rows, without a copy of them all."""
    total_F = np.zeros(activations_RF.shape[1])
    step = max(1, BLOCK_BYTES // (8 * activations_RF.shape[1]))
    for first in range(0, len(rows_R), step):
        total_F += activations_RF[rows_R[first : first + step]].sum(axis=0, dtype=np.float64)
    mean_F: Array = total_F / len(rows_R)
    return mean_F
