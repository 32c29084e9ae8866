"""Experts: groups of neurons of one layer, how they are found, and which of them carry a function."""

from modularity.experts.assignment import balanced_assignment, require_divisible
from modularity.experts.balanced_kmeans import BalancedKmeans, balanced_kmeans, fit_balanced_kmeans
from modularity.experts.controls import UnbalancedPartition, kmeans_partition, shuffled_weight_partition
from modularity.experts.partitions import (
    adjusted_rand,
    expert_predictivity,
    inertia,
    normalise_rows,
    random_partition,
)

__all__ = [
    "BalancedKmeans",
    "UnbalancedPartition",
    "adjusted_rand",
    "balanced_assignment",
    "balanced_kmeans",
    "expert_predictivity",
    "fit_balanced_kmeans",
    "inertia",
    "kmeans_partition",
    "normalise_rows",
    "random_partition",
    "require_divisible",
    "shuffled_weight_partition",
]
