"""Experts of neurons that predict the same sub-functions: balanced k-means of predictivity profiles.

The profile of a neuron is its predictivity for every sub-function, each sub-function standardised over the neurons of
the layer, so that all count alike. No paper's method: a partition that is as functional as one can be, with which those
by weights and by co-activation compare.

Such experts gather the best neurons of a sub-function by construction. Tested on the examples that made them they are
functional whatever the labels mean. Therefore the partition is made from selection rows, remembers them, and
`functional_profile_experts` takes predictivity of other rows only. What it then shows is that the profiles hold on new
examples; that neurons of one function also share weights is another question, which `agreement` with the other
partitions answers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modularity.errors import DataError, InputError
from modularity.experts.balanced_kmeans import fit_balanced_kmeans
from modularity.experts.functional import FunctionalExperts, functional_experts
from modularity.stats import top_neurons

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ProfilePartition:
    """A balanced partition by predictivity, with the rows that it has seen."""

    labels_F: NDArray[np.int32]
    """Expert of every neuron."""
    centres_ES: Float64
    """Mean standardised profile of every expert: which sub-functions it is good at, in standard deviations."""
    explained: float
    """Share of the variance of the profiles that lies between experts."""
    selection_R: Bool
    """Rows from which the profiles were computed."""


def profile_partition(
    predictivity_SF: ArrayLike, n_experts: int, *, selection_R: ArrayLike, n_restarts: int = 1, seed: int = 0
) -> ProfilePartition:
    """Partition neurons into experts of equal size by what they predict.

    Parameters
    ----------
    predictivity_SF : array of shape (n_subfunctions, n_neurons), finite: any score, computed from selection rows alone
    n_experts : int, divides n_neurons
    selection_R : bool array of shape (n_rows,): those rows, and False for the rows that are left for tests. One entry
        for every row of all functions, in any fixed order
    n_restarts, seed : of balanced k-means

    Returns
    -------
    ProfilePartition

    Raises
    ------
    InputError
        All rows, or none, were used for selection, so that no test is possible; or `n_experts` does not divide the
        number of neurons.
    DataError
        Predictivity is not a matrix of finite numbers, or no sub-function tells the neurons apart.
    """
    selection = _check_rows(selection_R, "selection_R")
    if selection.all():
        raise InputError(
            f"selection_R takes all {len(selection)} rows: no row is left on which experts by predictivity can be "
            "tested (on the rows that made them they are functional by construction); give the selection half"
        )
    profiles_FS = standardised_profiles(predictivity_SF)
    fit = fit_balanced_kmeans(profiles_FS, n_experts, n_restarts=n_restarts, seed=seed)
    return ProfilePartition(
        labels_F=fit.labels_F,
        centres_ES=fit.centres_ED,
        explained=1 - fit.inertia / float((profiles_FS**2).sum()),
        selection_R=selection,
    )


def standardised_profiles(predictivity_SF: ArrayLike) -> Float64:
    """Profile of every neuron: float64 array of shape (n_neurons, n_subfunctions), mean 0 and s.d. 1 over neurons.

    A sub-function for which all neurons are equal is 0. DataError as for `profile_partition`.
    """
    predictivity = np.asarray(predictivity_SF, dtype=np.float64)
    if predictivity.ndim != 2 or 0 in predictivity.shape or not np.isfinite(predictivity).all():
        raise DataError(
            f"predictivity_SF of shape {predictivity.shape}: expected finite values, sub-functions x neurons"
        )
    centred = predictivity - predictivity.mean(axis=1, keepdims=True)
    sd_S1 = centred.std(axis=1, keepdims=True)
    varies_S1 = sd_S1 > 1e-12 * np.abs(predictivity).max(axis=1, keepdims=True)
    if not varies_S1.any():
        raise DataError(
            f"all {predictivity.shape[1]} neurons have the same predictivity for every sub-function: nothing to "
            "partition by"
        )
    return np.ascontiguousarray(np.where(varies_S1, centred / np.where(varies_S1, sd_S1, 1.0), 0.0).T)


def functional_profile_experts(
    partition: ProfilePartition, predictivity_SF: ArrayLike, *, evaluation_R: ArrayLike, k: int, alpha: float = 0.001
) -> tuple[FunctionalExperts, ...]:
    """Functional experts of a partition by predictivity, from rows that it has not seen.

    Parameters
    ----------
    partition : from `profile_partition`
    predictivity_SF : array of shape (n_subfunctions, n_neurons), computed from evaluation rows
    evaluation_R : bool array of shape (n_rows,), those rows, in the order of `partition.selection_R`
    k : best neurons of each list
    alpha : as in `functional_experts`

    Returns
    -------
    FunctionalExperts of every sub-function

    Raises
    ------
    InputError
        A row was used for both; the message counts them.
    DataError
        Lengths differ.
    """
    evaluation = _check_rows(evaluation_R, "evaluation_R")
    if len(evaluation) != len(partition.selection_R):
        raise DataError(
            f"evaluation_R has {len(evaluation)} rows, selection_R {len(partition.selection_R)}: expected one"
        )
    n_both = int((evaluation & partition.selection_R).sum())
    if n_both:
        raise InputError(
            f"{n_both} of the {int(evaluation.sum())} evaluation rows made the experts: the test would be circular; "
            "take the evaluation half"
        )
    scores = np.asarray(predictivity_SF)
    if scores.ndim != 2 or scores.shape[1] != len(partition.labels_F):
        raise DataError(
            f"predictivity_SF has shape {scores.shape}: expected sub-functions x {len(partition.labels_F)} neurons"
        )
    n_experts = len(partition.centres_ES)
    return tuple(
        functional_experts(top, partition.labels_F, alpha=alpha, n_experts=n_experts) for top in top_neurons(scores, k)
    )


def _check_rows(rows_R: ArrayLike, name: str) -> Bool:
    rows = np.asarray(rows_R)
    if rows.ndim != 1 or rows.dtype != np.bool_:
        raise DataError(f"{name} has shape {rows.shape} and dtype {rows.dtype}: expected one bool for every row")
    if not rows.any():
        raise InputError(f"{name} takes none of {len(rows)} rows: expected at least one")
    return rows
