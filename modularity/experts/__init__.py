"""Experts: groups of neurons of one layer, how they are found, and which of them carry a function."""

from modularity.experts.agreement import Agreement, ExpertMatching, match_experts, partition_agreement
from modularity.experts.assignment import balanced_assignment, require_divisible
from modularity.experts.balanced_kmeans import BalancedKmeans, balanced_kmeans, fit_balanced_kmeans
from modularity.experts.coactivation import CoactivationPartition, coactivation_partition, coactivation_threshold
from modularity.experts.controls import UnbalancedPartition, kmeans_partition, shuffled_weight_partition
from modularity.experts.family import (
    FamilyNull,
    FunctionalFamily,
    Rule,
    family_null,
    functional_family,
    label_null,
    list_counts,
    null_of_counts,
)
from modularity.experts.function_level import FunctionLevel, function_level
from modularity.experts.functional import (
    FunctionalExperts,
    binomial_critical_count,
    concentration_index,
    functional_experts,
    functional_experts_pooled,
    hypergeometric_critical_count,
    modularisation,
)
from modularity.experts.partitions import (
    adjusted_rand,
    expert_predictivity,
    inertia,
    normalise_rows,
    random_partition,
)
from modularity.experts.profiles import (
    ProfilePartition,
    functional_profile_experts,
    profile_partition,
    standardised_profiles,
)
from modularity.experts.random_baseline import RandomPartitionBaseline, random_partition_baseline
from modularity.experts.selection import (
    MassKept,
    expert_centres,
    mass_kept,
    mlp_scores,
    oracle_scores,
    parameter_scores,
    select_top,
    selected_count,
)

__all__ = [
    "Agreement",
    "BalancedKmeans",
    "CoactivationPartition",
    "ExpertMatching",
    "FamilyNull",
    "FunctionLevel",
    "FunctionalExperts",
    "FunctionalFamily",
    "MassKept",
    "ProfilePartition",
    "RandomPartitionBaseline",
    "Rule",
    "UnbalancedPartition",
    "adjusted_rand",
    "balanced_assignment",
    "balanced_kmeans",
    "binomial_critical_count",
    "coactivation_partition",
    "coactivation_threshold",
    "concentration_index",
    "expert_centres",
    "expert_predictivity",
    "family_null",
    "fit_balanced_kmeans",
    "function_level",
    "functional_experts",
    "functional_experts_pooled",
    "functional_family",
    "functional_profile_experts",
    "hypergeometric_critical_count",
    "inertia",
    "kmeans_partition",
    "label_null",
    "list_counts",
    "mass_kept",
    "match_experts",
    "mlp_scores",
    "modularisation",
    "normalise_rows",
    "null_of_counts",
    "oracle_scores",
    "parameter_scores",
    "partition_agreement",
    "profile_partition",
    "random_partition",
    "random_partition_baseline",
    "require_divisible",
    "select_top",
    "selected_count",
    "shuffled_weight_partition",
    "standardised_profiles",
]
