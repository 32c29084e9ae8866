"""Pure array statistics: ranking scores of neurons, permutation nulls, false discovery rate, intervals, overlap."""

from modularity.stats.fdr import benjamini_hochberg
from modularity.stats.intervals import Interval, bootstrap_interval, wilson_interval
from modularity.stats.permutation import (
    PredictivityNull,
    max_statistic_p_values,
    p_values,
    permute_labels,
    predictivity_null,
)
from modularity.stats.ranking import (
    RankingScores,
    accuracy_above,
    average_precision,
    floor,
    normalised,
    predictivity,
    ranking_scores,
    threshold_accuracy,
    weighted_average_precision,
)

__all__ = [
    "Interval",
    "PredictivityNull",
    "RankingScores",
    "accuracy_above",
    "average_precision",
    "benjamini_hochberg",
    "bootstrap_interval",
    "floor",
    "max_statistic_p_values",
    "normalised",
    "p_values",
    "permute_labels",
    "predictivity",
    "predictivity_null",
    "ranking_scores",
    "threshold_accuracy",
    "weighted_average_precision",
    "wilson_interval",
]
