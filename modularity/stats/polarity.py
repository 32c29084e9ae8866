"""In which polarity a neuron predicts a label, and how well: the statistic that ranks neurons and that the null is of.

Zhang et al. 2023, arXiv 2305.18390, take the larger average precision of the label and of the inverted label, with the
activation as score both times. A constant neuron scores the share of the class that it is scored for, so where labels
are unbalanced the more frequent class has the higher floor and wins for almost every neuron. Each polarity is therefore
brought to the scale on which 0 is a constant and 1 a perfect neuron before the two are compared; `larger` keeps the
paper's choice. For balanced labels both choose alike.

This makes levels equal, not spreads. Under permuted labels the statistic of the frequent label's polarity varies more
(400 rows, 10 % of label 1: standard deviation .144 against .023; 30 %: .074 against .034). So where labels are
unbalanced the best of many neurons without any relation is still of that polarity, and a neuron of the rare label is
judged against a maximum that comes from the other one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from modularity.stats.ranking import RankingScores, check_labels

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

PolarityRule = Literal["above_floor", "larger"]
"""`above_floor`: the polarity that stands higher above its own floor; `larger`: the larger average precision."""


@dataclass(frozen=True)
class Floors:
    """Average precision that the statistic counts as 0; float64 arrays of shape (n_subfunctions,)."""

    positive_S: Array
    """For polarity +1: the share of label 1 (`larger`: that of the more frequent label)."""
    negative_S: Array
    """For polarity -1: the share of label 0 (`larger`: that of the more frequent label)."""


@dataclass(frozen=True)
class BetterPolarity:
    """The chosen polarity of every neuron; arrays of shape (n_subfunctions, n_neurons)."""

    statistic_SF: Array
    """float64: (ap - floor) / (1 - floor), 0 for a constant neuron and 1 for a perfect one."""
    positive_SF: Array
    """bool: high activation goes with label 1; equal statistics count as this."""
    ap_SF: Array
    """float64: average precision in the chosen polarity; floor + (1 - floor) · statistic."""
    floor_SF: Array
    """float64: the floor of the chosen polarity."""


def polarity_floors(labels_SR: Array, *, rule: PolarityRule = "above_floor") -> Floors:
    """Floors of both polarities for bool labels (n_subfunctions, n_rows); permuted labels have the same."""
    check_labels(labels_SR, labels_SR.shape[-1])
    n_rows = labels_SR.shape[1]
    n_true_S = labels_SR.sum(axis=1, dtype=np.int64)
    positive_S, negative_S = n_true_S / n_rows, (n_rows - n_true_S) / n_rows
    if rule == "larger":
        positive_S = negative_S = np.maximum(positive_S, negative_S)
    return Floors(positive_S, negative_S)


def above_floor(ap: Array, floor: Array) -> Array:
    """(ap - floor) / (1 - floor), element by element."""
    scaled: Array = (ap - floor) / (1.0 - floor)
    return scaled


def better_polarity(scores: RankingScores, floors: Floors) -> BetterPolarity:
    """Polarity, statistic and average precision of every neuron.

    Parameters
    ----------
    scores : both average precisions of every neuron
    floors : of the labels that `scores` belongs to, by the wanted rule
    """
    positive_S1, negative_S1 = floors.positive_S[:, None], floors.negative_S[:, None]
    plus_SF = above_floor(scores.ap_positive_SF, positive_S1)
    minus_SF = above_floor(scores.ap_negative_SF, negative_S1)
    positive_SF = plus_SF >= minus_SF
    return BetterPolarity(
        np.maximum(plus_SF, minus_SF),
        positive_SF,
        np.where(positive_SF, scores.ap_positive_SF, scores.ap_negative_SF),
        np.where(positive_SF, positive_S1, negative_S1),
    )
