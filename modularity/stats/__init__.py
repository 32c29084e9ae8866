"""Pure array statistics: ranking scores of neurons, permutation nulls, false discovery rate, intervals, overlap."""

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
    "PredictivityNull",
    "RankingScores",
    "accuracy_above",
    "average_precision",
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
]
