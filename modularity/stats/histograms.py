"""Histograms of neurons with fixed edges, and quantiles from them with their error bound.

A bin holds the values from its lower edge up to, but not including, its upper edge. Values below the first edge and
from the last edge on are counted, too; the extremes are kept, so that every quantile has finite bounds. Edges are
rounded to float32: a model's values are compared with them exactly, whatever their dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modularity.errors import DataError, InputError
from modularity.stats.accumulator_kernels import count_bins
from modularity.stats.accumulators import Accumulator, Array, finite_rows


def log_edges(smallest: float, largest: float, n_bins: int) -> Array:
    """Edges -largest … -smallest, 0, smallest … largest, with magnitudes in equal ratios.

    Zero has an edge of its own, so that values of ReLU that are 0 stand in the bin from 0 to `smallest`.

    Parameters
    ----------
    smallest, largest : magnitudes, 0 < smallest < largest
    n_bins : bins between them, on each side of zero

    Returns
    -------
    edges : float64 array of shape (2 * n_bins + 3,), exact in float32
    """
    if not 0 < smallest < largest or n_bins < 1:
        raise InputError(
            f"log_edges({smallest=}, {largest=}, {n_bins=}): expected 0 < smallest < largest, a bin or more"
        )
    magnitudes = np.geomspace(smallest, largest, n_bins + 1)
    return checked_edges(np.concatenate([-magnitudes[::-1], [0.0], magnitudes]))


def checked_edges(edges: Array) -> Array:
    """Edges of shape (n_edges,) or (F, n_edges), rounded to float32, as float64.

    Raises
    ------
    InputError
        There are fewer than two, or they do not ascend.
    """
    rounded = np.asarray(edges, np.float32).astype(np.float64)
    if rounded.ndim not in (1, 2) or rounded.shape[-1] < 2 or not (np.diff(rounded) > 0).all():
        raise InputError(
            f"edges of shape {rounded.shape} from {rounded.min(initial=np.inf)} to {rounded.max(initial=-np.inf)}: "
            "expected two or more, ascending, and different in float32"
        )
    return rounded


@dataclass(frozen=True, eq=False)
class Quantile:
    """One quantile of every neuron, arrays of shape (F,), NaN where no row was seen."""

    value_F: Array
    """Middle of the bounds."""
    low_F: Array
    high_F: Array
    """The quantile (the smallest value with at least a share q of the rows at or below it) lies in [low, high]."""

    @property
    def error_F(self) -> Array:
        """Bound on the distance of `value_F` from the quantile."""
        return (self.high_F - self.low_F) / 2


@dataclass(eq=False)
class Histogram(Accumulator):
    """Counts by bin; start with `Histogram.empty(n_neurons, edges)`. B = number of edges + 1."""

    counts: Array
    """int64 (F, B): values below the first edge, those of each bin, and those from the last edge on."""
    low: Array
    high: Array
    """float64 (F,): extremes; +inf and -inf without rows."""
    edges: Array
    """float64 (n_edges,), or (F, n_edges) where neurons have their own."""

    DIMS: ClassVar = {"counts": ("neuron", "bin"), "low": ("neuron",), "high": ("neuron",)}

    @classmethod
    def empty(cls, n_neurons: int, edges: Array) -> Histogram:
        """Of no rows; InputError where edges do not ascend or are of another number of neurons."""
        edges = checked_edges(edges)
        if edges.ndim == 2 and len(edges) != n_neurons:
            raise InputError(f"edges of {len(edges)} neurons, expected one row for each of {n_neurons}")
        counts = np.zeros((n_neurons, edges.shape[-1] + 1), np.int64)
        return cls(counts, np.full(n_neurons, np.inf), np.full(n_neurons, -np.inf), edges)

    def update(self, values_RF: Array) -> None:
        """Add rows of any float dtype; DataError where they are not finite or not of F neurons."""
        rows = finite_rows(values_RF, len(self.counts), kind="histogram")
        if not len(rows):
            return
        count_bins(rows, self.edges, self.counts)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))

    def merge(self, other: Histogram) -> None:
        """Add the rows of another with the same edges."""
        self._check_same(other)
        if not np.array_equal(other.edges, self.edges):
            raise DataError("histograms with different edges do not merge")
        self.counts += other.counts
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def quantile(self, q: float) -> Quantile:
        """Quantile of every neuron with its bounds.

        Parameters
        ----------
        q : share of the rows, in [0, 1]; the quantile is the value of rank max(1, ceil(q * rows))
        """
        if not 0 <= q <= 1:
            raise InputError(f"{q=}: expected a share from 0 to 1")
        total_F = self.counts.sum(1)
        rank_F = np.maximum(np.ceil(q * total_F), 1)
        bin_F = (np.cumsum(self.counts, axis=1) < rank_F[:, None]).sum(1)
        bin_F = np.minimum(bin_F, self.counts.shape[1] - 1)
        own = np.broadcast_to(self.edges, (len(total_F), self.edges.shape[-1]))
        bounds = np.column_stack([self.low, own, self.high])
        neurons = np.arange(len(total_F))
        low_F = np.maximum(bounds[neurons, bin_F], self.low)
        high_F = np.minimum(bounds[neurons, bin_F + 1], self.high)
        seen = total_F > 0
        low_F, high_F = np.where(seen, low_F, np.nan), np.where(seen, high_F, np.nan)
        return Quantile((low_F + high_F) / 2, low_F, high_F)

    def result(self) -> Array:
        """`counts`."""
        return self.counts
