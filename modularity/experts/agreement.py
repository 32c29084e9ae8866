"""Agreement of two partitions of the same neurons: indices corrected for chance, a permutation test, a matching.

Adjusted Rand index: Hubert and Arabie 1985; adjusted mutual information: Vinh, Epps and Bailey 2010; both by
scikit-learn. Null: the labels of one partition are permuted over the neurons, so that the sizes of all experts stay.
Only the table of shared neurons matters, and such tables are drawn directly (Patefield 1981, in SciPy). An adjusted
index is 0 on average under this null, but at small experts it spreads, so a p-value goes with it.

The matching names the experts of one partition after those of the other, for display: it says nothing that the indices
do not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import random_table
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from modularity.errors import InputError
from modularity.experts.partitions import check_labels
from modularity.stats import p_values

Int64 = NDArray[np.int64]

_DRAWS_AT_ONCE = 50
"""Tables drawn at a time. Part of the result: SciPy goes on from the last table of a call."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far two partitions agree beyond chance."""

    adjusted_rand: float
    """1 when equal up to names of experts, 0 on average at chance."""
    adjusted_mutual_information: float
    """As above, of the information that one has about the other; small experts weigh more than in the Rand index."""
    p_value: float
    """(1 + b) / (1 + N), b the permutations whose Rand index is at least as large; one-sided."""
    null_mean: float
    """Mean of the adjusted Rand index over the permutations."""
    null_sd: float
    """Its standard deviation: the scale on which to read a small index."""
    n_permutations: int


@dataclass(frozen=True, eq=False)
class ExpertMatching:
    """Each expert of one partition with its counterpart in another."""

    other_E: Int64
    """Counterpart of every expert, each used once; -1 for experts that are left over."""
    shared_E: Int64
    """Neurons that both have; 0 without a counterpart."""
    share: float
    """Share of all neurons that lie in matched experts of both: at least 1 / n_experts, so not 0 at chance."""

    def renamed(self, other_F: ArrayLike) -> NDArray[np.int32]:
        """The other partition, its experts named as their counterparts; those left over get the next numbers."""
        other = check_labels(other_F)
        n_experts, n_others = len(self.other_E), int(max(other.max(), self.other_E.max())) + 1
        names = np.full(n_others, -1)
        matched = np.flatnonzero(self.other_E >= 0)
        names[self.other_E[matched]] = matched
        left = np.flatnonzero(names < 0)
        names[left] = n_experts + np.arange(len(left))
        renamed_F: NDArray[np.int32] = names[other].astype(np.int32)
        return renamed_F


def partition_agreement(
    labels_F: ArrayLike, other_F: ArrayLike, *, n_permutations: int = 1000, seed: int = 0
) -> Agreement:
    """Agreement of two partitions with its permutation null.

    Parameters
    ----------
    labels_F, other_F : int arrays of shape (n_neurons,); experts may differ in number and size
    n_permutations : draws of the null
    seed : of the draws

    Returns
    -------
    Agreement

    Raises
    ------
    DataError
        Not partitions of the same neurons.
    InputError
        `n_permutations` < 1.
    """
    labels = check_labels(labels_F)
    other = check_labels(other_F, len(labels))
    if n_permutations < 1:
        raise InputError(f"n_permutations is {n_permutations}: expected at least 1")
    table_EE = contingency_matrix(labels, other)
    observed = int((table_EE.astype(np.int64) ** 2).sum())
    null_N = _null_squares(table_EE.sum(axis=1), table_EE.sum(axis=0), n_permutations, seed)
    null_rand_N = _adjusted(null_N, table_EE)
    return Agreement(
        adjusted_rand=float(adjusted_rand_score(labels, other)),
        adjusted_mutual_information=float(adjusted_mutual_info_score(labels, other)),
        p_value=float(p_values(np.array(observed), null_N)),
        null_mean=float(null_rand_N.mean()),
        null_sd=float(null_rand_N.std()),
        n_permutations=n_permutations,
    )


def match_experts(labels_F: ArrayLike, other_F: ArrayLike) -> ExpertMatching:
    """Pair the experts of two partitions so that the pairs share the most neurons (Hungarian method).

    Parameters
    ----------
    labels_F, other_F : int arrays of shape (n_neurons,); experts may differ in number and size

    Returns
    -------
    ExpertMatching

    Raises
    ------
    DataError
        Not partitions of the same neurons.
    """
    labels = check_labels(labels_F)
    other = check_labels(other_F, len(labels))
    shared_EE = np.zeros((int(labels.max()) + 1, int(other.max()) + 1), np.int64)
    np.add.at(shared_EE, (labels, other), 1)
    experts, others = linear_sum_assignment(shared_EE, maximize=True)
    other_E, shared_E = np.full(len(shared_EE), -1), np.zeros(len(shared_EE), np.int64)
    other_E[experts] = others
    shared_E[experts] = shared_EE[experts, others]
    return ExpertMatching(other_E, shared_E, float(shared_E.sum() / len(labels)))


def _null_squares(row_E: Int64, column_E: Int64, n_permutations: int, seed: int) -> Int64:
    """Sum of squares of random tables with these margins: it orders them as the adjusted Rand index does."""
    rng = np.random.default_rng(seed)
    tables = random_table(row_E, column_E)
    found = []
    for start in range(0, n_permutations, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, n_permutations - start)
        drawn = tables.rvs(size=size, random_state=rng).astype(np.int64)
        found.append((drawn**2).sum(axis=(1, 2)))
    return np.concatenate(found)


def _adjusted(squares_N: Int64, table_EE: Int64) -> NDArray[np.float64]:
    """Adjusted Rand index of tables with the margins of `table_EE` and these sums of squares."""
    n_neurons = int(table_EE.sum())
    pairs = n_neurons * (n_neurons - 1) / 2
    both_N = (squares_N - n_neurons) / 2
    row, column = (((table_EE.sum(axis=axis) ** 2).sum() - n_neurons) / 2 for axis in (1, 0))
    expected = row * column / max(pairs, 1)
    most = (row + column) / 2
    return (both_N - expected) / (most - expected) if most > expected else np.ones(len(squares_N))
