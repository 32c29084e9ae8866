"""Balanced k-means: experts of exactly equal size with small inertia.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786) clusters the L2-normalised input weights of the neurons into
experts of equal size. Here every Lloyd step has the exact balanced assignment (`assignment`), and when the steps
stall, exchanges of pairs (`exchange`) go on to a partition that no swap improves. Starts are random balanced
partitions: k-means++ seeding would take most of the time at hundreds of experts and ends higher. The centres returned
are those of the labels returned.

Memory, beyond the rows and one float32 copy: 4 F^2 bytes for the Gram matrix, at most `max_gram_bytes`, else
exchanges work on random blocks of neurons, new ones in every round; and 12 F E bytes for costs and projections of
every start that runs.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modularity.errors import DataError, InputError
from modularity.experts.assignment import assign_with_prices, require_divisible
from modularity.experts.exchange import Float32, Float64, Gram, Labels, refine, refine_blockwise
from modularity.experts.partitions import check_labels, check_rows, expert_sums, inertia, random_partition

_LLOYD_TOLERANCE = 1e-3
"""Lloyd steps end when one lowers the inertia by less than this share; exchanges do the rest at less cost."""
_FINAL_TOLERANCE = 1e-6
_MAX_CYCLES = 10
"""Most alternations of Lloyd steps and exchanges."""


@dataclass(frozen=True)
class BalancedKmeans:
    """A balanced partition with how it was reached."""

    labels_F: Labels
    """Expert of every neuron."""
    centres_ED: Float64
    """Mean row of every expert, computed from `labels_F`."""
    inertia: float
    """Sum of squared distances of the rows to their centre."""
    inertia_N: Float64
    """Inertia of every start; the first is the given one, when there is one."""
    start: Literal["warm", "scratch"]
    """Which start was kept: the given labels, also when another ended at the same inertia, or a random one."""
    n_iterations: int
    """Lloyd steps of the start that was kept."""
    n_swaps: int
    """Exchanged pairs of the start that was kept."""
    converged: bool
    """Neither a Lloyd step nor, as far as was looked, an exchange lowers the inertia."""
    exchange: Literal["full", "blockwise"]
    """Whether all pairs of neurons were compared, or, with too many for one Gram matrix, those in random blocks."""


def balanced_kmeans(
    rows_FD: ArrayLike,
    n_experts: int,
    *,
    n_restarts: int = 1,
    seed: int = 0,
    initial_labels: ArrayLike | None = None,
) -> Labels:
    """Partition neurons into experts of equal size by their weights.

    Deterministic for a seed, on one machine with one number of BLAS threads.

    Parameters
    ----------
    rows_FD : array of shape (n_neurons, n_dims), finite; usually from `normalise_rows`
    n_experts : int, divides n_neurons
    n_restarts : random starts, of which the one of least inertia is kept (the earliest among equals)
    seed : int
    initial_labels : int array of shape (n_neurons,), a balanced partition that is one more start: that of the last
        checkpoint, whose names of experts last as long as it is kept. `fit_balanced_kmeans` says which start was
        kept; with it alone, `n_restarts` may be 0

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,), each of 0 … n_experts - 1 exactly n_neurons / n_experts times

    Raises
    ------
    InputError
        `n_experts` does not divide the number of neurons (the message names the nearest divisors), or `n_restarts` < 1.
    DataError
        The rows are not a matrix of finite numbers, or the initial labels are not a balanced partition of them.
    """
    fit = fit_balanced_kmeans(rows_FD, n_experts, n_restarts=n_restarts, seed=seed, initial_labels=initial_labels)
    return fit.labels_F


def fit_balanced_kmeans(
    rows_FD: ArrayLike,
    n_experts: int,
    *,
    n_restarts: int = 1,
    seed: int = 0,
    initial_labels: ArrayLike | None = None,
    max_iterations: int = 100,
    max_gram_bytes: int = 2**30,
    n_threads: int = 2,
) -> BalancedKmeans:
    """As `balanced_kmeans`, with centres, inertia and diagnostics.

    Parameters
    ----------
    rows_FD, n_experts, n_restarts, seed, initial_labels : as in `balanced_kmeans`
    max_iterations : most Lloyd steps of one start
    max_gram_bytes : largest Gram matrix; 2**30 (16,384 neurons) by default. The result depends on it only when
        the matrix of all neurons is larger
    n_threads : starts that run side by side; the result does not depend on it

    Returns
    -------
    BalancedKmeans

    Raises
    ------
    InputError, DataError
        As `balanced_kmeans`.
    """
    rows = check_rows(rows_FD)
    require_divisible(len(rows), n_experts)
    if n_restarts < (initial_labels is None):
        raise InputError(f"n_restarts is {n_restarts}: expected at least 1 (0 only with initial_labels)")
    seeds = np.random.SeedSequence(seed).spawn(n_restarts + 1)
    starts = [random_partition(len(rows), n_experts, seed=np.random.default_rng(s)) for s in seeds[1:]]
    if initial_labels is not None:
        starts.insert(0, _check_balanced(initial_labels, len(rows), n_experts))
        seeds.insert(1, seeds[0])
    problem = _Problem.of(rows, n_experts, max_iterations, max_gram_bytes)
    with ThreadPoolExecutor(max(1, min(n_threads, len(starts)))) as pool:
        ends = list(pool.map(problem.descend, starts, seeds[1:]))
    inertia_N = np.array([inertia(rows, end.labels_F) for end in ends])
    best = int(inertia_N.argmin())
    kept = ends[best]
    centres_ED = expert_sums(rows, kept.labels_F, n_experts) / (len(rows) // n_experts)
    return BalancedKmeans(
        kept.labels_F,
        centres_ED,
        float(inertia_N[best]),
        inertia_N,
        "warm" if best == 0 and initial_labels is not None else "scratch",
        kept.n_iterations,
        kept.n_swaps,
        kept.converged,
        "full" if problem.gram is not None else "blockwise",
    )


def _check_balanced(labels_F: ArrayLike, n_neurons: int, n_experts: int) -> Labels:
    labels = check_labels(labels_F, n_neurons)
    count_E = np.bincount(labels, minlength=n_experts)
    if len(count_E) != n_experts or count_E.min() != count_E.max():
        raise DataError(
            f"initial_labels has experts of {count_E.min()} to {count_E.max()} neurons, {len(count_E)} of them: "
            f"expected {n_experts} experts of {n_neurons // n_experts}"
        )
    return labels.astype(np.int32)


@dataclass(frozen=True)
class _End:
    """Where one start came to."""

    labels_F: Labels
    n_iterations: int
    n_swaps: int
    converged: bool


@dataclass(frozen=True)
class _Problem:
    """Rows made ready for the float32 kernels, and what all starts share."""

    rows_FD: Float32
    """Centred and scaled to unit mean square length: neither changes which partition is best."""
    n_experts: int
    max_iterations: int
    gram: Gram | None
    block_rows: int

    @classmethod
    def of(cls, rows_FD: NDArray, n_experts: int, max_iterations: int, max_gram_bytes: int) -> "_Problem":
        centred = rows_FD - rows_FD.mean(axis=0, dtype=np.float64).astype(rows_FD.dtype)
        scale = max(float(np.abs(centred).max()), np.finfo(rows_FD.dtype).tiny)
        rows = np.ascontiguousarray(centred / scale, dtype=np.float32)
        mean_square = float(np.einsum("fd,fd->", rows, rows, dtype=np.float64)) / len(rows)
        rows /= np.float32(np.sqrt(mean_square) if mean_square > 0 else 1.0)
        block_rows = max(2, isqrt(max_gram_bytes // 4))
        gram = Gram.of(rows) if len(rows) <= block_rows else None
        return cls(rows, n_experts, max_iterations, gram, block_rows)

    def descend(self, start_F: Labels, seed: np.random.SeedSequence) -> _End:
        """Lloyd steps and exchanges in turn, until neither lowers the inertia."""
        rng = np.random.default_rng(seed)
        labels, steps = self._lloyd(start_F, self.max_iterations, _LLOYD_TOLERANCE)
        n_iterations, n_swaps, stable = steps, 0, False
        for _ in range(_MAX_CYCLES):
            labels, swaps, stable = self._exchange(labels, rng)
            n_swaps += swaps
            before = labels
            labels, steps = self._lloyd(labels, self.max_iterations - n_iterations, _FINAL_TOLERANCE)
            n_iterations += steps
            if labels is before:
                return _End(labels, n_iterations, n_swaps, stable and steps > 0)
        return _End(labels, n_iterations, n_swaps, False)

    def _exchange(self, labels_F: Labels, rng: np.random.Generator) -> tuple[Labels, int, bool]:
        if self.gram is not None:
            return refine(self.rows_FD, labels_F, self.n_experts, self.gram, rng=rng)
        return refine_blockwise(self.rows_FD, labels_F, self.n_experts, block_rows=self.block_rows, rng=rng)

    def _lloyd(self, labels_F: Labels, max_iterations: int, tolerance: float) -> tuple[Labels, int]:
        """Lloyd steps until one gains less than the tolerance; `labels_F` itself when the first does not gain."""
        size = len(labels_F) // self.n_experts
        centres_ED = expert_sums(self.rows_FD, labels_F, self.n_experts) / size
        norm_E = np.einsum("ed,ed->e", centres_ED, centres_ED)
        price_E = None
        for step in range(max_iterations):
            cost_FE = (self.rows_FD @ (-2 * centres_ED.T).astype(np.float32)).astype(np.float64)
            cost_FE += norm_E
            trial_F, price_E = assign_with_prices(cost_FE, price_E)
            centres_ED = expert_sums(self.rows_FD, trial_F, self.n_experts) / size
            norm_before, norm_E = norm_E.sum(), np.einsum("ed,ed->e", centres_ED, centres_ED)
            # The sum of squares is F in these units; the inertia is that less the squares of the centres.
            gain = size * (norm_E.sum() - norm_before) / len(labels_F)
            if gain <= 1e-7:
                return labels_F, step + 1
            labels_F = trial_F
            if gain <= tolerance:
                return labels_F, step + 1
        return labels_F, max_iterations
