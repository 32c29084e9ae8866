"""Null distributions from permuted labels, and the p-values read from them.

The same permuted labels serve every neuron, which keeps the correlations between neurons, and with one seed they are
the same in every block and layer, so that maxima over neurons merge elementwise. Permuted labels are label vectors like
others: the sort of each neuron is shared by all of them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.stats.ordering import OrderedTile, check_activations, order_tile, over_tiles
from modularity.stats.polarity import PolarityRule, PolarityScales, polarity_scales
from modularity.stats.ranking import check_labels, check_rows
from modularity.stats.ranking_kernels import PackedLabels, pack_labels, score_tile
from modularity.stats.top_lists import TopHeaps, TopLists

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LABEL_BYTES = 64 * 2**20
ROUNDING = 1e-10
N_BINS = 2**14
N_STRATA = 33  # bit lengths of the number of non-zero rows


@dataclass(frozen=True)
class PredictivityNull:
    """What permuted labels do to the score of `polarity` (the polarity chosen anew under each permutation)."""

    mean_SF: Array
    """float64: mean over permutations."""
    sd_SF: Array
    """float64: standard deviation over permutations (divided by their number); 0 for a constant neuron."""
    max_SN: Array
    """float64 array of shape (n_subfunctions, n_permutations): maximum over neurons for each permutation."""
    p_value_SF: Array
    """float64: pooled standardised permutation p-value, in (0, 1]; 1 for a constant neuron."""
    top_SNK: TopLists
    """The best neurons of every permutation, arrays of shape (n_subfunctions, n_permutations, n_top)."""


def permute_labels(labels_R: Array, *, n_permutations: int, seed: int, clusters_R: Array | None = None) -> Array:
    """Random permutations of a label vector, array of shape (n_permutations, n_rows).

    With one seed (and equal clusters) the same rows are exchanged for every label vector of one length.

    Rows of one cluster (a minimal pair, the fillings of one template) are not independent of each other. So clusters
    are exchanged as wholes, with clusters of their own size, and rows within their cluster: labels that are constant in
    a cluster stay so, a pair of opposite labels stays one. Free permutation would take rows of a cluster for separate
    evidence. A cluster of a size that no other has keeps its labels, up to their order, which makes p-values larger.

    Parameters
    ----------
    labels_R : label vector
    n_permutations, seed : draws and random state
    clusters_R : integer array, equal numbers for rows of one cluster; None when every row stands for itself
    """
    if n_permutations < 1:
        raise DataError(f"n_permutations is {n_permutations}: expected at least 1")
    n_rows = len(labels_R)
    clusters_R = np.arange(n_rows) if clusters_R is None else clusters_R
    if clusters_R.shape != (n_rows,):
        raise DataError(f"clusters have shape {clusters_R.shape}: expected ({n_rows},), one number for each row")
    generator = np.random.default_rng(seed)
    rows_NR = np.empty((n_permutations, n_rows), np.int32)
    for block_CZ in _clusters_by_size(clusters_R):
        n_clusters, size = block_CZ.shape
        order_NC = np.tile(np.arange(n_clusters, dtype=np.int32), (n_permutations, 1))
        taken_NCZ = block_CZ[generator.permuted(order_NC, axis=1)]
        if size > 1:
            taken_NCZ = generator.permuted(taken_NCZ, axis=2)
        rows_NR[:, block_CZ.ravel()] = taken_NCZ.reshape(n_permutations, -1)
    labels_NR: Array = labels_R[rows_NR]
    return labels_NR


def _clusters_by_size(clusters_R: Array) -> list[Array]:
    """For each size of cluster the rows of all clusters of that size, (n_clusters, size), int32."""
    order = np.argsort(clusters_R, kind="stable").astype(np.int32)
    _, starts, sizes = np.unique(clusters_R[order], return_index=True, return_counts=True)
    return [order[starts[sizes == size][:, None] + np.arange(size)] for size in np.unique(sizes)]


def p_values(observed: Array, null_N: Array) -> Array:
    """(1 + b) / (1 + N) with b the draws of the null at or above the observed value.

    A draw that is lower by rounding alone (1e-10) counts as reached: a permutation that exchanges the two labels gives
    the same predictivity, summed in another order.

    Parameters
    ----------
    observed : array of any shape
    null_N : array of shape (n_draws, *observed.shape) for a null of each entry, or (n_draws,) for one shared by all
    """
    observed = np.asarray(observed, np.float64) - ROUNDING
    if null_N.ndim == 1:
        sorted_N = np.sort(null_N)
        n_above = len(sorted_N) - np.searchsorted(sorted_N, observed, side="left")
    elif null_N.shape[1:] == observed.shape:
        n_above = (null_N >= observed).sum(axis=0)
    else:
        raise DataError(f"null has shape {null_N.shape}: expected (draws, *{observed.shape}) or (draws,)")
    shares: Array = (1.0 + n_above) / (1.0 + len(null_N))
    return shares


def max_statistic_p_values(observed_SF: Array, null_max_SN: Array) -> Array:
    """p-value of each value against the null of the maximum: corrected for looking at all neurons (family-wise).

    Parameters
    ----------
    observed_SF : array of shape (n_subfunctions, n_values)
    null_max_SN : array of shape (n_subfunctions, n_draws), maxima over all the neurons that were looked at
    """
    if len(observed_SF) != len(null_max_SN):
        raise DataError(f"{len(observed_SF)} sub-functions observed, {len(null_max_SN)} in the null: expected as many")
    return np.stack([p_values(observed, null) for observed, null in zip(observed_SF, null_max_SN)])


def predictivity_null(
    activations_RF: Array,
    labels_SR: Array,
    observed_SF: Array,
    *,
    rows_R: Array | None = None,
    n_permutations: int,
    seed: int,
    rule: PolarityRule = "standardised",
    n_top: int = 0,
    clusters_R: Array | None = None,
    n_threads: int | None = None,
) -> PredictivityNull:
    """Permutation null of the predictivity of every neuron, in its better polarity, without holding it whole.

    The p-value has a finer resolution than 1 / (1 + n_permutations). Observed value and permutations of a neuron are
    standardised together, by the mean and standard deviation of all n_permutations + 1 values, so that under the null
    each of them is equally likely to stand out. The standardised permutations of all neurons with a similar number of
    non-zero rows (same power of two: sparse neurons have other tails) are then pooled:
    p = (1 + pooled values at or above the observed) / (1 + pooled values). They are counted in bins of
    2·√n_permutations / 16384, values in the bin of the observed one count as above.

    Parameters
    ----------
    activations_RF, labels_SR, rows_R, n_threads : as for `ranking_scores`
    observed_SF : float64, the scores of `better_polarity` that belong to `labels_SR`
    n_permutations, seed, clusters_R : as for `permute_labels`; one seed for all blocks of a layer
    rule : how polarities are compared, as for `observed_SF`
    n_top : best neurons to list for each permutation; 8 bytes each, for all sub-functions at once

    Raises
    ------
    DataError
        As `ranking_scores`.
    """
    check_activations(activations_RF)
    rows = check_rows(rows_R, len(activations_RF))
    check_labels(labels_SR, len(rows))
    if observed_SF.shape != (len(labels_SR), activations_RF.shape[1]):
        raise DataError(
            f"observed_SF has shape {observed_SF.shape}: expected {(len(labels_SR), activations_RF.shape[1])}"
        )
    if n_permutations < 2:
        raise DataError(f"n_permutations is {n_permutations}: expected at least 2 for a standard deviation")
    scales = polarity_scales(labels_SR, rule=rule)
    at_once = max(1, LABEL_BYTES // (4 * len(rows) * n_permutations))
    parts = []
    for first in range(0, len(labels_SR), at_once):
        part = slice(first, first + at_once)
        pooled = _PooledNull(observed_SF[part], scales.part(part), n_permutations, n_top)
        packed = [
            pack_labels(permute_labels(labels, n_permutations=n_permutations, seed=seed, clusters_R=clusters_R))
            for labels in labels_SR[part]
        ]

        def work(start: int, stop: int, pooled: _PooledNull = pooled, packed: list[PackedLabels] = packed) -> None:
            pooled.add(order_tile(activations_RF, rows, start, stop), packed)

        over_tiles(work, len(rows), activations_RF.shape[1], n_threads)
        parts.append(pooled.result())
    return PredictivityNull(
        np.concatenate([part.mean_SF for part in parts]),
        np.concatenate([part.sd_SF for part in parts]),
        np.concatenate([part.max_SN for part in parts]),
        np.concatenate([part.p_value_SF for part in parts]),
        TopLists(
            np.concatenate([part.top_SNK.neuron for part in parts]),
            np.concatenate([part.top_SNK.value for part in parts]),
        ),
    )


class _PooledNull:
    """Accumulates tiles: moments of each neuron, maxima of each permutation, counts of standardised values."""

    def __init__(self, observed_SF: Array, scales: PolarityScales, n_permutations: int, n_top: int) -> None:
        n_subfunctions, n_neurons = observed_SF.shape
        self.observed_SF, self.scales = observed_SF, scales
        self.n_permutations = n_permutations
        self.mean_SF, self.sd_SF = np.zeros(observed_SF.shape), np.zeros(observed_SF.shape)
        self.max_SN = np.full((n_subfunctions, n_permutations), -np.inf)
        self.bins_SF = np.full(observed_SF.shape, -1, np.int32)
        self.stratum_F = np.zeros(n_neurons, np.int64)
        self.pool = np.zeros(
            (n_subfunctions, N_STRATA, N_BINS), np.int32 if n_permutations * n_neurons < 2**31 else np.int64
        )
        self.heaps = [TopHeaps(n_permutations, n_top) for _ in range(n_subfunctions)]
        self.lock = threading.Lock()

    def add(self, tile: OrderedTile, packed: list[PackedLabels]) -> None:
        """Score one tile under every permutation of every sub-function."""
        n_neurons = len(tile.counts)
        here = slice(tile.first_neuron, tile.first_neuron + n_neurons)
        self.stratum_F[here] = stratum_F = np.frexp(tile.counts)[1]
        ap_NF, other_NF, auroc_NF = (np.empty((self.n_permutations, n_neurons)) for _ in range(3))
        for s, labels in enumerate(packed):
            score_tile(tile, labels, ap_NF, other_NF, auroc_NF)
            null_NF = self.scales.part(s).score(ap_NF, other_NF)
            self.mean_SF[s, here], self.sd_SF[s, here] = null_NF.mean(axis=0), null_NF.std(axis=0)
            self.sd_SF[s, here][np.ptp(null_NF, axis=0) == 0] = 0.0
            observed_bin_F, null_bin_NF, live_F = self._standardise(self.observed_SF[s, here], null_NF)
            self.bins_SF[s, here] = observed_bin_F
            cells = (stratum_F * N_BINS + null_bin_NF)[:, live_F].ravel()
            cell, count = np.unique(cells, return_counts=True)
            rounded_NF = null_NF.astype(np.float32)
            with self.lock:
                self.heaps[s].add(rounded_NF, tile.first_neuron)
                np.maximum(self.max_SN[s], null_NF.max(axis=1), out=self.max_SN[s])
                self.pool[s].reshape(-1)[cell] += count.astype(self.pool.dtype)

    def _standardise(self, observed_F: Array, null_NF: Array) -> tuple[Array, Array, Array]:
        """Bins of the observed and permuted values (-1: the neuron is constant), and which neurons are not constant."""
        n_values = self.n_permutations + 1
        mean_F = (null_NF.sum(axis=0) + observed_F) / n_values
        sd_F = np.sqrt((((null_NF - mean_F) ** 2).sum(axis=0) + (observed_F - mean_F) ** 2) / n_values)
        live_F = sd_F > 1e-12
        scale_F = np.where(live_F, N_BINS / (2 * np.sqrt(n_values)) / np.where(live_F, sd_F, 1.0), 0.0)
        observed_bin_F = np.clip((observed_F - mean_F) * scale_F + N_BINS / 2 + 1e-6, 0, N_BINS - 1).astype(np.int32)
        null_bin_NF = np.clip((null_NF - mean_F) * scale_F + N_BINS / 2 + 1e-6, 0, N_BINS - 1).astype(np.int32)
        return np.where(live_F, observed_bin_F, -1), null_bin_NF, live_F

    def result(self) -> PredictivityNull:
        """Moments, maxima, lists and pooled p-values."""
        p_value_SF = np.ones(self.observed_SF.shape)
        for s in range(len(p_value_SF)):
            bins_F: Array = self.bins_SF[s]
            above = np.cumsum(self.pool[s, :, ::-1], axis=1, dtype=np.int64)[:, ::-1]
            live_F = bins_F >= 0
            stratum_F = self.stratum_F[live_F]
            p_value_SF[s, live_F] = (1.0 + above[stratum_F, bins_F[live_F]]) / (1.0 + above[stratum_F, 0])
        lists = [heaps.result() for heaps in self.heaps]
        top_SNK = TopLists(np.stack([each.neuron for each in lists]), np.stack([each.value for each in lists]))
        return PredictivityNull(self.mean_SF, self.sd_SF, self.max_SN, p_value_SF, top_SNK)
