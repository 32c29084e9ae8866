"""Pure array statistics: ranking scores, permutation nulls, false discovery rate, intervals, overlap, accumulators."""

from modularity.stats.accumulators import (
    Accumulator,
    FiringRate,
    FiringRateResult,
    Moments,
    MomentsResult,
    merge_in_order,
)
from modularity.stats.co_activation import CoActivation, CoActivationRule
from modularity.stats.dissociation import Dissociation, PairDissociation, dissociation_index
from modularity.stats.fdr import benjamini_hochberg
from modularity.stats.histograms import Histogram, Quantile, log_edges
from modularity.stats.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    ratio_intervals,
    wilson_interval,
)
from modularity.stats.label_sums import LabelEffects, LabelSums
from modularity.stats.overlap import (
    FunctionOverlap,
    boundary_ties,
    chance_jaccard,
    chance_overlap,
    function_overlap,
    jaccard,
    n_common,
    overlap_p_values,
    rank_correlation,
    top_k_overlap,
    top_neurons,
)
from modularity.stats.permutation import (
    PredictivityNull,
    max_statistic_p_values,
    p_values,
    permute_labels,
    predictivity_null,
)
from modularity.stats.polarity import (
    BetterPolarity,
    PolarityRule,
    PolarityScale,
    PolarityScales,
    better_polarity,
    polarity_scales,
)
from modularity.stats.random_order import RandomOrder, random_order
from modularity.stats.ranking import (
    RankingScores,
    accuracy_above,
    average_precision,
    floor,
    normalised,
    predictivity,
    ranking_scores,
    threshold_accuracy,
    threshold_accuracy_chance,
    weighted_average_precision,
)
from modularity.stats.sign_flip import SignFlip, sign_flip_p_values, sign_flip_test
from modularity.stats.stabilisation import stabilisation
from modularity.stats.top_examples import TopExamples
from modularity.stats.top_lists import TopLists, merge_lists

__all__ = [
    "Accumulator",
    "BetterPolarity",
    "CoActivation",
    "CoActivationRule",
    "Dissociation",
    "FiringRate",
    "FiringRateResult",
    "FunctionOverlap",
    "Histogram",
    "Interval",
    "LabelEffects",
    "LabelSums",
    "Moments",
    "MomentsResult",
    "PairDissociation",
    "PolarityRule",
    "PolarityScale",
    "PolarityScales",
    "PredictivityNull",
    "Quantile",
    "RandomOrder",
    "RankingScores",
    "SignFlip",
    "TopExamples",
    "TopLists",
    "accuracy_above",
    "average_precision",
    "benjamini_hochberg",
    "better_polarity",
    "bootstrap_interval",
    "boundary_ties",
    "chance_jaccard",
    "chance_overlap",
    "dissociation_index",
    "floor",
    "function_overlap",
    "jaccard",
    "log_edges",
    "max_statistic_p_values",
    "mean_interval",
    "merge_in_order",
    "merge_lists",
    "n_common",
    "normalised",
    "overlap_p_values",
    "p_values",
    "permute_labels",
    "polarity_scales",
    "predictivity",
    "predictivity_null",
    "random_order",
    "rank_correlation",
    "ranking_scores",
    "ratio_intervals",
    "sign_flip_p_values",
    "sign_flip_test",
    "stabilisation",
    "threshold_accuracy",
    "threshold_accuracy_chance",
    "top_k_overlap",
    "top_neurons",
    "weighted_average_precision",
    "wilson_interval",
]
