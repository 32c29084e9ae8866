"""Predictivity of single neurons: arrays in, arrays out."""

from modularity.neurons.best import BestNeurons, best_neurons, evaluation_interval, top_fraction_count
from modularity.neurons.predictivity import NeuronPredictivity, merge_blocks, neuron_predictivity
from modularity.stats import average_precision, top_neurons

__all__ = [
    "BestNeurons",
    "NeuronPredictivity",
    "average_precision",
    "best_neurons",
    "evaluation_interval",
    "merge_blocks",
    "neuron_predictivity",
    "top_fraction_count",
    "top_neurons",
]
