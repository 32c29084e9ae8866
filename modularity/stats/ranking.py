"""How well each neuron ranks the rows of one label before the rest: average precision, AUROC, accuracy at a threshold.

Source: predictivity of Zhang et al. 2023, arXiv 2305.18390 (average precision of both polarities, the score being the
activation both times); threshold accuracy of Wang et al. 2022, arXiv 2211.07349. Definitions are scikit-learn's
(`average_precision_score`, `roc_auc_score`): equal scores form one threshold. A neuron is sorted once for any number
of label vectors; `ordering` and `ranking_kernels` hold the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.stats.ordering import check_activations, order_tile, over_tiles
from modularity.stats.ranking_kernels import pack_labels, score_tile

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LABEL_BYTES = 32 * 2**20  # packed labels held at a time; more label vectors than fit are scored in several passes
BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class RankingScores:
    """Scores of every neuron for every sub-function; float64 arrays of shape (n_subfunctions, n_neurons)."""

    ap_positive_SF: Array
    """Average precision of the label, in (0, 1]."""
    ap_negative_SF: Array
    """Average precision of the inverted label with the same scores, in (0, 1]."""
    auroc_SF: Array
    """Area under the ROC curve of the label, in [0, 1]; ties count one half."""

    @property
    def predictivity_SF(self) -> Array:
        """The better of both polarities."""
        return predictivity(self.ap_positive_SF, self.ap_negative_SF)


def ranking_scores(
    activations_RF: Array, labels_SR: Array, *, rows_R: Array | None = None, n_threads: int | None = None
) -> RankingScores:
    """Average precision of both polarities and AUROC of every neuron for every sub-function, exact under ties.

    Source: Zhang et al. 2023, arXiv 2305.18390; equal to scikit-learn's definitions to 1e-12.

    Parameters
    ----------
    activations_RF : array of shape (n_rows, n_neurons), any float dtype, finite; -0.0 ties with 0.0
    labels_SR : bool array of shape (n_subfunctions, n_rows), or (n_subfunctions, len(rows_R))
    rows_R : integer array, the rows of `activations_RF` to rank, in the order of the labels; None for all
    n_threads : threads that share the neurons; None for all cores of the process. The result does not depend on it.

    Raises
    ------
    DataError
        Shapes or dtypes do not fit, an activation is not finite, or a sub-function has only one class.

    Notes
    -----
    Extra memory beside the result: 32 MiB for labels, and for each thread 16 MiB while there are at most a million rows
    (about four times as much for float64, which is ranked first).
    """
    check_activations(activations_RF)
    rows = check_rows(rows_R, len(activations_RF))
    check_labels(labels_SR, len(rows))
    n_subfunctions, n_neurons = len(labels_SR), activations_RF.shape[1]
    ap_positive_SF, ap_negative_SF, auroc_SF = (np.empty((n_subfunctions, n_neurons)) for _ in range(3))
    at_once = max(8, LABEL_BYTES // (4 * len(rows)) // 8 * 8)
    for first in range(0, n_subfunctions, at_once):
        part = slice(first, first + at_once)
        packed = pack_labels(labels_SR[part])

        def work(start: int, stop: int, packed: Any = packed, part: slice = part) -> None:
            tile = order_tile(activations_RF, rows, start, stop)
            score_tile(tile, packed, *(a[part, start:stop] for a in (ap_positive_SF, ap_negative_SF, auroc_SF)))

        over_tiles(work, len(rows), n_neurons, n_threads)
    return RankingScores(ap_positive_SF, ap_negative_SF, auroc_SF)


def average_precision(activations_RF: Array, labels_SR: Array, *, n_threads: int | None = None) -> Array:
    """Average precision of every neuron for every sub-function, exact under ties.

    Source: Zhang et al. 2023, arXiv 2305.18390; definition as scikit-learn's average_precision_score.

    Parameters
    ----------
    activations_RF : array of shape (n_rows, n_neurons), any float dtype, finite
    labels_SR : bool array of shape (n_subfunctions, n_rows)
    n_threads : threads that share the neurons; None for all cores of the process

    Returns
    -------
    ap_SF : float64 array of shape (n_subfunctions, n_neurons), in (0, 1]

    Raises
    ------
    DataError
        A sub-function has only one class (the message names it and the counts), or an activation is not finite.
    """
    return ranking_scores(activations_RF, labels_SR, n_threads=n_threads).ap_positive_SF


def predictivity(ap_positive: Array, ap_negative: Array) -> Array:
    """The better of both polarities, element by element."""
    better: Array = np.maximum(ap_positive, ap_negative)
    return better


def floor(labels_SR: Array) -> Array:
    """Predictivity of a constant neuron, max(π, 1 - π) with π the share of label 1; float64 array (n_subfunctions,)."""
    check_labels(labels_SR, labels_SR.shape[-1])
    n_rows = labels_SR.shape[1]
    n_true_S = labels_SR.sum(axis=1, dtype=np.int64)
    floor_S: Array = np.maximum(n_true_S, n_rows - n_true_S) / n_rows
    return floor_S


def normalised(predictivity_SF: Array, floor_S: Array) -> Array:
    """(P - floor) / (1 - floor): 0 for a constant neuron, 1 for a perfect one, negative below the floor."""
    scaled: Array = (predictivity_SF - floor_S[:, None]) / (1.0 - floor_S[:, None])
    return scaled


def threshold_accuracy(activations_RF: Array, labels_SR: Array, thresholds: Array) -> Array:
    """Accuracy of "activation strictly above the threshold" as prediction of the label, the better direction.

    Source: Wang et al. 2022, arXiv 2211.07349, section 3.1.

    Parameters
    ----------
    activations_RF : float array of shape (n_rows, n_neurons), finite
    labels_SR : bool array of shape (n_subfunctions, n_rows)
    thresholds : array of shape (n_neurons,) or (n_subfunctions, n_neurons)

    Returns
    -------
    accuracy_SF : float64 array in [0.5, 1]
    """
    accuracy_SF = accuracy_above(activations_RF, labels_SR, thresholds)
    better: Array = np.maximum(accuracy_SF, 1.0 - accuracy_SF)
    return better


def threshold_accuracy_chance(n_looks: int, n_rows: int) -> float:
    """Upper bound on the expected best `threshold_accuracy` of neurons that predict nothing, for balanced labels.

    1/2 + sqrt(ln(2·M) / (2·n)) for the maximum over M looks (neurons times positions) at n rows, by Hoeffding's lemma.
    """
    if n_looks < 1 or n_rows < 1:
        raise DataError(f"{n_looks} looks at {n_rows} rows: expected at least one of each")
    return min(1.0, 0.5 + float(np.sqrt(np.log(2 * n_looks) / (2 * n_rows))))


def accuracy_above(activations_RF: Array, labels_SR: Array, thresholds: Array, *, rows_R: Array | None = None) -> Array:
    """Share of rows with (activation > threshold) == label; as `threshold_accuracy`, without choosing a direction."""
    check_activations(activations_RF)
    rows = check_rows(rows_R, len(activations_RF))
    check_labels(labels_SR, len(rows))
    n_neurons = activations_RF.shape[1]
    if thresholds.shape not in {(n_neurons,), (len(labels_SR), n_neurons)}:
        raise DataError(
            f"thresholds have shape {thresholds.shape}: expected ({n_neurons},) or ({len(labels_SR)}, {n_neurons})"
        )
    agreed_SF = np.zeros((len(labels_SR), n_neurons))
    step = max(1, BLOCK_BYTES // (4 * n_neurons))
    for first in range(0, len(rows), step):
        block_RF = activations_RF[rows[first : first + step]]
        signs_SR = np.where(labels_SR[:, first : first + step], np.float32(1), np.float32(-1))
        n_false_S = (signs_SR < 0).sum(axis=1)
        if thresholds.ndim == 1:
            agreed_SF += signs_SR @ (block_RF > thresholds).astype(np.float32)
        else:
            for s, threshold_F in enumerate(thresholds):
                agreed_SF[s] += signs_SR[s] @ (block_RF > threshold_F).astype(np.float32)
        agreed_SF += n_false_S[:, None]
    accuracy_SF: Array = agreed_SF / len(rows)
    return accuracy_SF


def weighted_average_precision(scores_R: Array, labels_R: Array, weights_NR: Array) -> Array:
    """Average precision of one neuron under several weightings of the rows, such as the counts of bootstrap resamples.

    Parameters
    ----------
    scores_R : float array of shape (n_rows,), finite
    labels_R : bool array of shape (n_rows,)
    weights_NR : non-negative array of shape (n_weightings, n_rows)

    Returns
    -------
    ap_N : float64 array; NaN where no positive row has weight
    """
    order = np.argsort(-scores_R, kind="stable")
    sorted_R = scores_R[order]
    ends = np.flatnonzero(np.append(sorted_R[1:] != sorted_R[:-1], True))
    weights = np.asarray(weights_NR, np.float64)[:, order]
    total_NG = np.cumsum(weights, axis=1)[:, ends]
    found_NG = np.cumsum(weights * labels_R[order], axis=1)[:, ends]
    gained_NG = np.diff(found_NG, axis=1, prepend=0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision_NG = np.where(total_NG > 0, found_NG / total_NG, 0.0)
        ap_N: Array = (gained_NG * precision_NG).sum(axis=1) / found_NG[:, -1]
    return ap_N


def check_labels(labels_SR: Array, n_rows: int) -> None:
    """Refuse labels that are not bool, do not fit the rows, or have one class only; DataError says which and where."""
    if labels_SR.ndim != 2 or labels_SR.shape[1] != n_rows:
        raise DataError(
            f"labels have shape {labels_SR.shape}: expected (sub-functions, {n_rows}), one label for each row"
        )
    if labels_SR.dtype != np.bool_:
        raise DataError(f"labels have dtype {labels_SR.dtype}: expected bool, use `labels == 1`")
    n_true_S = labels_SR.sum(axis=1, dtype=np.int64)
    single = np.flatnonzero((n_true_S == 0) | (n_true_S == n_rows))
    if len(single):
        counts = ", ".join(
            f"sub-function {s} has {n_true_S[s]} true and {n_rows - n_true_S[s]} false" for s in single[:5]
        )
        more = f" and {len(single) - 5} more" if len(single) > 5 else ""
        raise DataError(f"{counts}{more}: expected rows of both classes, leave the sub-function out or give more rows")


def check_rows(rows_R: Array | None, n_rows: int) -> Array:
    """Rows as int64 indices, all of them for None; DataError when one is out of range or there is none."""
    if rows_R is None:
        return np.arange(n_rows, dtype=np.int64)
    rows = np.ascontiguousarray(rows_R, dtype=np.int64)
    if rows.ndim != 1 or len(rows) == 0 or rows.min() < 0 or rows.max() >= n_rows:
        raise DataError(f"rows_R has shape {rows.shape}: expected indices of the {n_rows} rows, at least one")
    return rows
