"""Predictivity of single neurons: arrays in, arrays out."""

from modularity.neurons.best import BestNeurons, best_neurons, evaluation_interval, top_fraction_count
from modularity.neurons.predictivity import NeuronPredictivity, merge_blocks, neuron_predictivity
from modularity.neurons.rankings import (
    Balance,
    MatchedMask,
    average_scores,
    matched_random_mask,
    random_mask,
    select_experts,
    select_neurons,
)
from modularity.stats import average_precision, top_neurons

__all__ = [
    "Balance",
    "BestNeurons",
    "MatchedMask",
    "NeuronPredictivity",
    "average_precision",
    "average_scores",
    "best_neurons",
    "evaluation_interval",
    "matched_random_mask",
    "merge_blocks",
    "neuron_predictivity",
    "random_mask",
    "select_experts",
    "select_neurons",
    "top_fraction_count",
    "top_neurons",
]
