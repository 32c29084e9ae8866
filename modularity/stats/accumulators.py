"""Statistics of neurons that grow row by row and merge: moments and firing rate, and what all accumulators share.

An accumulator holds, for every neuron, as much as its statistic needs of any number of rows. Cutting the rows in any
way, over batches or over workers, and merging the parts gives what one pass gives: counts and extremes exactly, sums to
the rounding of float64. Merging in a fixed order gives the same bits.

Source of the merge of moments: Chan, Golub and LeVeque 1983, The American Statistician 37, 242-247.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeAlias, TypeVar

import numpy as np

from modularity.errors import DataError
from modularity.stats.accumulator_kernels import column_moments

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Merging = TypeVar("Merging", bound="Accumulator")


class Accumulator(ABC):
    """State of one statistic of F neurons. `update` and `merge` change it in place."""

    DIMS: ClassVar[Mapping[str, tuple[str, ...]]]
    """Names and dimensions of the arrays of the state; `neuron` is the one of length F."""

    def arrays(self) -> dict[str, Array]:
        """The state, by name; not copies."""
        return {name: getattr(self, name) for name in self.DIMS}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """Another of the same settings, with this state."""
        other = copy(self)
        for name in self.DIMS:
            setattr(other, name, arrays[name])
        return other

    @property
    def nbytes(self) -> int:
        """Memory of the state."""
        return sum(array.nbytes for array in self.arrays().values())

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add what another accumulator of the same neurons and settings has seen.

        Raises
        ------
        DataError
            Neurons or settings differ.
        """

    def _check_same(self, other: Accumulator) -> None:
        """DataError where arrays of the state differ in shape, which is so where neurons or settings differ."""
        for name, own in self.arrays().items():
            shape = getattr(other, name).shape if type(other) is type(self) else None
            if shape != own.shape:
                raise DataError(
                    f"{type(self).__name__}: {name} has shape {own.shape}, that of the {type(other).__name__} to merge "
                    f"has {shape}; merge accumulators of the same neurons and settings only"
                )


def merge_in_order(parts: Iterable[Merging]) -> Merging:
    """Merge accumulators pairwise, neighbours first: the same parts in the same order give the same bits.

    At most 1 + log2(number of parts) of them are alive at a time. The parts are changed.

    Raises
    ------
    DataError
        There is no part, or two do not belong together.
    """
    waiting: list[tuple[int, Merging]] = []
    for part in parts:
        level = 0
        while waiting and waiting[-1][0] == level:
            _, left = waiting.pop()
            left.merge(part)
            part, level = left, level + 1
        waiting.append((level, part))
    if not waiting:
        raise DataError("no accumulator to merge; expected at least one")
    _, merged = waiting.pop()
    while waiting:
        _, left = waiting.pop()
        left.merge(merged)
        merged = left
    return merged


def finite_rows(values_RF: Array, n_neurons: int, *, kind: str) -> Array:
    """`values_RF`, checked; half precision as float32.

    Raises
    ------
    DataError
        The array does not have `n_neurons` columns, or a value is not finite.
    """
    values_RF = np.asarray(values_RF)
    if values_RF.ndim != 2 or values_RF.shape[1] != n_neurons:
        raise DataError(f"{kind}: values have shape {values_RF.shape}, expected (rows, {n_neurons})")
    if not np.isfinite(values_RF).all():
        row, neuron = (int(index) for index in np.argwhere(~np.isfinite(values_RF))[0])
        raise DataError(
            f"{kind}: value {values_RF[row, neuron]} of row {row}, neuron {neuron}; expected finite values: mend or "
            "leave out what made it"
        )
    return values_RF if values_RF.dtype in (np.float32, np.float64) else values_RF.astype(np.float32)


@dataclass(frozen=True, eq=False)
class MomentsResult:
    """Moments of every neuron; arrays of shape (F,), NaN where no row was seen."""

    count_F: Array
    """int64: rows."""
    mean_F: Array
    """float64."""
    variance_F: Array
    """float64: mean squared distance from the mean (divided by the number of rows)."""
    min_F: Array
    """float64."""
    max_F: Array
    """float64."""


@dataclass(eq=False)
class Moments(Accumulator):
    """Count, mean, variance and extremes; make an empty one with `Moments.empty(n_neurons)`."""

    count: Array
    mean: Array
    squares: Array
    """Sum of squared distances from the mean."""
    low: Array
    high: Array

    DIMS: ClassVar = dict.fromkeys(("count", "mean", "squares", "low", "high"), ("neuron",))

    @classmethod
    def empty(cls, n_neurons: int) -> Moments:
        """Of no rows."""
        count = np.zeros(n_neurons, np.int64)
        return cls(
            count, np.zeros(n_neurons), np.zeros(n_neurons), np.full(n_neurons, np.inf), -np.full(n_neurons, np.inf)
        )

    def update(self, values_RF: Array) -> None:
        """Add rows of any float dtype; DataError where they are not finite or not of F neurons."""
        rows = finite_rows(values_RF, len(self.mean), kind="moments")
        if not len(rows):
            return
        mean, squares = column_moments(rows)
        count = np.full(len(mean), len(rows), np.int64)
        low, high = (extremes.astype(np.float64) for extremes in (rows.min(0), rows.max(0)))
        self.merge(Moments(count, mean, squares, low, high))

    def merge(self, other: Moments) -> None:
        """Add the rows of another."""
        self._check_same(other)
        self.mean, self.squares = merge_moments(
            (self.count, self.mean, self.squares), (other.count, other.mean, other.squares)
        )
        self.count = self.count + other.count
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def result(self) -> MomentsResult:
        """The moments so far."""
        seen = self.count > 0
        variance = self.squares / np.maximum(self.count, 1)
        each = (np.where(seen, values, np.nan) for values in (self.mean, variance, self.low, self.high))
        return MomentsResult(self.count, *each)


def merge_moments(one: tuple[Array, Array, Array], other: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """Mean and sum of squared distances of two samples together, from (count, mean, squares) of each, by Chan.

    Counts are broadcast to the means; two empty samples give mean 0.
    """
    (count_a, mean_a, squares_a), (count_b, mean_b, squares_b) = one, other
    share_b = count_b / np.maximum(count_a + count_b, 1)
    difference = mean_b - mean_a
    return mean_a + difference * share_b, squares_a + squares_b + difference**2 * (count_a * share_b)


@dataclass(frozen=True, eq=False)
class FiringRateResult:
    """How often neurons fire; arrays of shape (F,)."""

    count_F: Array
    """int64: rows."""
    rate_F: Array
    """float64: share of rows above the threshold; NaN where no row was seen."""


@dataclass(eq=False)
class FiringRate(Accumulator):
    """Share of rows with a value above a threshold (strictly); start with `FiringRate.empty(n_neurons, 0.0)`."""

    count: Array
    above: Array
    """int64: rows above the threshold."""
    threshold: float

    DIMS: ClassVar = dict.fromkeys(("count", "above"), ("neuron",))

    @classmethod
    def empty(cls, n_neurons: int, threshold: float = 0.0) -> FiringRate:
        """Of no rows."""
        return cls(np.zeros(n_neurons, np.int64), np.zeros(n_neurons, np.int64), threshold)

    def update(self, values_RF: Array) -> None:
        """Add rows of any float dtype; DataError where they are not finite or not of F neurons."""
        rows = finite_rows(values_RF, len(self.count), kind="firing rate")
        self.count = self.count + len(rows)
        self.above = self.above + (rows > self.threshold).sum(0)

    def merge(self, other: FiringRate) -> None:
        """Add the rows of another of the same threshold."""
        self._check_same(other)
        if other.threshold != self.threshold:
            raise DataError(f"firing rates above {self.threshold} and above {other.threshold} do not merge")
        self.count, self.above = self.count + other.count, self.above + other.above

    def result(self) -> FiringRateResult:
        """The rates so far."""
        rate = np.where(self.count > 0, self.above / np.maximum(self.count, 1), np.nan)
        return FiringRateResult(self.count, rate)
