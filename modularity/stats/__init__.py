"""Pure array statistics: ranking scores of neurons, permutation nulls, false discovery rate, intervals, overlap."""

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
    "RankingScores",
    "accuracy_above",
    "average_precision",
    "floor",
    "normalised",
    "predictivity",
    "ranking_scores",
    "threshold_accuracy",
    "weighted_average_precision",
]
