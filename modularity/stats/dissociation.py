"""Dissociation: does breaking the components of a function hurt that function more than it hurts the others?

Source: the index is that of card A6 of the project's methods, the mean drop of tasks under their own ranking minus the
mean drop under the rankings of other tasks; Zhang et al. 2023, arXiv 2305.18390, Fig. 2 shows the rows of such a matrix
averaged over tasks, from which no dissociation can be read. Double dissociation as in neuropsychology (Shallice 1988).

What is exchangeable. Under the null hypothesis nothing ties a ranking to its task, so every assignment of rankings to
tasks was as likely as the one observed, in all seeds at once: seeds repeat the noise, not the rankings. Strength of a
ranking (a row of the matrix) and sensitivity of a task (a column) are no signal: an assignment takes one entry of each
row and each column, so what is added to a row or a column adds the same to every assignment, and cancels in the index.
They can still multiply: when strong rankings happen to belong to sensitive tasks, the index is large by this alone.
`p_value_standardised` uses the drops of each task standardised over rankings, to which a_i * b_j + c_j is flat, and the
table of pairs compares within tasks only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice, permutations
from math import factorial
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import t as student

from modularity.errors import DataError
from modularity.stats.intervals import Interval, mean_interval

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

MAX_EXACT = 8
"""Most tasks for which all assignments are counted: 8! = 40,320."""
ROUNDING = 1e-9  # relative: equal sums in another order
BLOCK = 2**15


@dataclass(frozen=True)
class PairDissociation:
    """Two rankings on their two tasks: each must hurt its own task more than the other ranking does."""

    first: int
    """Index of one ranking and its task."""
    second: int
    """Index of the other, larger than `first`."""
    first_margin: float
    """Drop of task `first` under its own ranking minus its drop under ranking `second`, mean over seeds."""
    second_margin: float
    """The same for task `second`. A strong ranking raises one margin and lowers the other."""
    is_double: bool
    """Both margins are positive: a double dissociation in the means over seeds."""
    share_of_seeds: float
    """Share of the seeds in which both margins are positive."""
    p_value: float
    """The larger of the two one-sided paired t-tests over seeds; NaN with one seed."""


@dataclass(frozen=True)
class Dissociation:
    """The dissociation index of a task × ranking matrix, with its chance level and uncertainty."""

    index: float
    """Mean diagonal drop minus mean off-diagonal drop, mean over seeds; 0 in expectation under the null."""
    p_value: float
    """Share of the assignments of rankings to tasks, the observed one counted, whose index is at least `index`."""
    p_value_standardised: float
    """The same with the drops of each task standardised over rankings: no signal from strength times sensitivity."""
    smallest_p_value: float
    """What `p_value` can reach at best: 1 / number of assignments. With three tasks it is 1/6."""
    n_assignments: int
    """Assignments that were counted, the observed one included."""
    is_exact: bool
    """Whether these are all assignments; otherwise they are random draws."""
    diagonal: float
    """Mean drop of a task under its own ranking."""
    off_diagonal: float
    """Mean drop of a task under another task's ranking."""
    interval: Interval
    """Student interval of `index` over seeds; its bounds are NaN with one seed."""
    index_by_seed: Array
    """float64 array of shape (n_seeds,)."""
    pairs: tuple[PairDissociation, ...]
    """Every pair of tasks once, in ascending order."""

    @property
    def share_double(self) -> float:
        """Share of the pairs with a double dissociation in the means over seeds."""
        return sum(pair.is_double for pair in self.pairs) / len(self.pairs)


def dissociation_index(
    drop: Array, *, seed: int = 0, n_permutations: int = 9999, confidence: float = 0.95
) -> Dissociation:
    """Dissociation index of a matrix of drops, with a permutation p-value.

    All assignments are counted up to 8 tasks; beyond, `n_permutations` random ones and the observed one.

    Parameters
    ----------
    drop : float array of shape (n_seeds, n_rankings, n_tasks), finite, n_rankings == n_tasks >= 2: how much performance
        task t loses under ranking r (positive = worse); ranking i is that of task i
    seed, n_permutations : random state and number of the draws beyond 8 tasks
    confidence : nominal coverage of the interval over seeds, in (0, 1)

    Returns
    -------
    Dissociation

    Raises
    ------
    DataError
        Not such an array: rankings without a task of their own (average, random) have no place on the diagonal.
    """
    drops_STT = _checked(drop)
    n_tasks = drops_STT.shape[1]
    if not 0 < confidence < 1 or n_permutations < 1:
        raise DataError(
            f"confidence is {confidence} and n_permutations {n_permutations}: expected a number between 0 and 1, "
            "and at least one permutation"
        )
    mean_TT = drops_STT.mean(axis=0)
    is_exact = n_tasks <= MAX_EXACT
    sums = [
        _assignment_sums(matrix_TT, seed=seed, n_permutations=None if is_exact else n_permutations)
        for matrix_TT in (mean_TT, _standardised(mean_TT))
    ]
    index_S = _index(drops_STT)
    diagonal = float(np.trace(mean_TT)) / n_tasks
    return Dissociation(
        index=float(index_S.mean()),
        p_value=_share_reached(sums[0], mean_TT),
        p_value_standardised=_share_reached(sums[1], _standardised(mean_TT)),
        smallest_p_value=1.0 / max(len(sums[0]), 1),
        n_assignments=len(sums[0]),
        is_exact=is_exact,
        diagonal=diagonal,
        off_diagonal=float(mean_TT.sum() - np.trace(mean_TT)) / (n_tasks * (n_tasks - 1)),
        interval=mean_interval(index_S, confidence=confidence),
        index_by_seed=index_S,
        pairs=tuple(_pair(drops_STT, first, second) for first, second in combinations(range(n_tasks), 2)),
    )


def _checked(drop: Array) -> Array:
    drops = np.asarray(drop, dtype=np.float64)
    if drops.ndim != 3 or drops.shape[1] != drops.shape[2] or drops.shape[1] < 2 or not len(drops):
        raise DataError(
            f"drop has shape {drops.shape}: expected (seeds, rankings, tasks) with one ranking for each of at least "
            "two tasks, in the order of the tasks; leave out rankings without a task of their own"
        )
    if not np.isfinite(drops).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(drops))[0])
        raise DataError(f"drop at (seed, ranking, task) = {place} is {drops[place]}: expected a finite number")
    return drops


def _index(drops_STT: Array) -> Array:
    """Index of every seed."""
    n_tasks = drops_STT.shape[-1]
    trace_S = np.trace(drops_STT, axis1=-2, axis2=-1)
    others_S = drops_STT.sum(axis=(-2, -1)) - trace_S
    result: Array = trace_S / n_tasks - others_S / (n_tasks * (n_tasks - 1))
    return result


def _standardised(mean_TT: Array) -> Array:
    """Each column less its mean and divided by its standard deviation; a constant column becomes 0."""
    centred_TT = mean_TT - mean_TT.mean(axis=0)
    sd_T = centred_TT.std(axis=0)
    flat_T = sd_T <= ROUNDING * np.abs(mean_TT).max(axis=0, initial=0.0)
    return np.where(flat_T, 0.0, centred_TT / np.where(flat_T, 1.0, sd_T))


def _assignment_sums(matrix_TT: Array, *, seed: int, n_permutations: int | None) -> Array:
    """Sum of the entries (ranking, its assigned task), of every counted assignment; the observed one is first."""
    n_tasks = len(matrix_TT)
    rows_T = np.arange(n_tasks)
    return np.concatenate(
        [matrix_TT[rows_T, assigned_NT].sum(axis=1) for assigned_NT in _assignments(n_tasks, seed, n_permutations)]
    )


def _assignments(n_tasks: int, seed: int, n_permutations: int | None) -> Iterator[Array]:
    """Blocks of assignments, int64 of shape (n, n_tasks), the identity first."""
    if n_permutations is None:
        every = permutations(range(n_tasks))
        for _ in range(0, factorial(n_tasks), BLOCK):
            yield np.array(list(islice(every, BLOCK)), dtype=np.int64)
        return
    generator = np.random.default_rng(seed)
    yield np.arange(n_tasks)[None]
    for start in range(0, n_permutations, BLOCK):
        shape = (min(BLOCK, n_permutations - start), n_tasks)
        yield generator.permuted(np.broadcast_to(np.arange(n_tasks), shape), axis=1)


def _share_reached(sums_N: Array, matrix_TT: Array) -> float:
    """Share of the assignments at or above the observed one, the first; the index rises with the sum."""
    slack = ROUNDING * float(np.abs(matrix_TT).sum())
    return float((sums_N >= sums_N[0] - slack).mean())


def _pair(drops_STT: Array, first: int, second: int) -> PairDissociation:
    margins = [drops_STT[:, own, own] - drops_STT[:, other, own] for own, other in ((first, second), (second, first))]
    means = [float(margin_S.mean()) for margin_S in margins]
    return PairDissociation(
        first=first,
        second=second,
        first_margin=means[0],
        second_margin=means[1],
        is_double=min(means) > 0,
        share_of_seeds=float((np.minimum(*margins) > 0).mean()),
        p_value=max(_one_sided(margin_S) for margin_S in margins),
    )


def _one_sided(margin_S: Array) -> float:
    """P-value of the t-test that the mean is above 0; without spread 0 or 1, NaN with one seed."""
    if len(margin_S) < 2:
        return float("nan")
    mean, sd = float(margin_S.mean()), float(margin_S.std(ddof=1))
    if sd <= ROUNDING * abs(mean):
        return 0.0 if mean > 0 else 1.0
    return float(student.sf(mean / (sd / np.sqrt(len(margin_S))), len(margin_S) - 1))
