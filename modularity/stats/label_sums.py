"""What a label does to a neuron, from sums alone: difference of means, effect size, Welch's t; mergeable.

For every sub-function and label the accumulator keeps count, mean and the sum of squared distances from the mean, which
say the same as count, sum and sum of squares, but lose no digits where the mean is far from 0. Rows should be
independent: hand over one row for each example, not one for each token.

Sources: Welch 1947, Biometrika 34, 28-35; Hedges 1981, J. Educ. Stat. 6, 107-128 (effect size with small-sample
correction).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import stdtr

from modularity.errors import DataError
from modularity.stats.accumulators import Accumulator, Array, finite_rows, merge_moments


@dataclass(frozen=True, eq=False)
class LabelEffects:
    """Label 1 against label 0; arrays of shape (S, F) in float64."""

    count_S2: Array
    """int64: rows of label 0 and of label 1."""
    mean_S2F: Array
    """Mean for label 0 and for label 1; NaN without rows."""
    variance_S2F: Array
    """Variance for each, divided by count - 1; NaN with fewer than two rows."""
    difference_SF: Array
    """Mean for label 1 minus mean for label 0."""
    effect_SF: Array
    """Hedges' g: the difference in pooled standard deviations, corrected for small samples. 0 means no effect."""
    t_SF: Array
    """Welch's t; 0 for a neuron that is constant over both labels."""
    degrees_SF: Array
    """Its degrees of freedom (Welch and Satterthwaite); NaN where both variances are 0."""
    p_value_SF: Array
    """Two-sided p of t, not corrected; NaN where a label has fewer than two rows."""


@dataclass(eq=False)
class LabelSums(Accumulator):
    """Moments by sub-function and label; start with `LabelSums.empty(n_subfunctions, n_neurons)`."""

    count: Array
    """int64 (S, 2): rows of label 0 and of label 1."""
    mean: Array
    """float64 (S, 2, F); 0 without rows."""
    squares: Array
    """float64 (S, 2, F): sum of squared distances from the mean."""

    DIMS: ClassVar = {
        "count": ("subfunction", "label"),
        "mean": ("subfunction", "label", "neuron"),
        "squares": ("subfunction", "label", "neuron"),
    }

    @classmethod
    def empty(cls, n_subfunctions: int, n_neurons: int) -> LabelSums:
        """Of no rows."""
        shape = (n_subfunctions, 2, n_neurons)
        return cls(np.zeros(shape[:2], np.int64), np.zeros(shape), np.zeros(shape))

    def update(self, values_RF: Array, labels_SR: Array) -> None:
        """Add rows.

        Parameters
        ----------
        values_RF : finite, any float dtype
        labels_SR : 1, 0, or another number where a row takes no part in a sub-function

        Raises
        ------
        DataError
            Shapes do not belong together, or a value is not finite.
        """
        rows = finite_rows(values_RF, self.mean.shape[2], kind="label sums").astype(np.float64)
        labels_SR = np.asarray(labels_SR)
        if labels_SR.shape != (len(self.count), len(rows)):
            raise DataError(f"labels have shape {labels_SR.shape}, expected ({len(self.count)}, {len(rows)})")
        if not len(rows):
            return
        members_S2R = np.stack([labels_SR == 0, labels_SR == 1], axis=1)
        # Sums about the mean of all rows: squares of large numbers are never subtracted from each other.
        centre_F = rows.mean(0)
        rows = rows - centre_F
        weights = members_S2R.astype(np.float64)
        count_S2 = members_S2R.sum(2)
        divisor = np.maximum(count_S2, 1)[..., None]
        shift = weights @ rows / divisor
        squares = np.maximum(weights @ rows**2 - divisor * shift**2, 0.0)
        present = count_S2[..., None] > 0
        self.merge(LabelSums(count_S2, np.where(present, centre_F + shift, 0.0), np.where(present, squares, 0.0)))

    def merge(self, other: LabelSums) -> None:
        """Add the rows of another."""
        self._check_same(other)
        self.mean, self.squares = merge_moments(
            (self.count[..., None], self.mean, self.squares), (other.count[..., None], other.mean, other.squares)
        )
        self.count = self.count + other.count

    def part(self, subfunctions: slice) -> LabelSums:
        """Those of some sub-functions, as views."""
        return LabelSums(self.count[subfunctions], self.mean[subfunctions], self.squares[subfunctions])

    def result(self) -> LabelEffects:
        """Effect of every label on every neuron."""
        count = self.count[..., None].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(count > 0, self.mean, np.nan)
            variance = np.where(count > 1, self.squares / (count - 1), np.nan)
            difference = mean[:, 1] - mean[:, 0]
            constant, equal = _degenerate(mean, variance, difference)
            share = variance / count
            t = difference / np.sqrt(share.sum(1))
            degrees = share.sum(1) ** 2 / (share**2 / (count - 1)).sum(1)
            freedom = count.sum(1) - 2
            pooled = np.sqrt(self.squares.sum(1) / freedom)
            effect = difference / pooled * (1 - 3 / (4 * freedom - 1))
            t, effect = (_where_constant(values, difference, constant, equal) for values in (t, effect))
            p_value = np.where(constant, np.where(equal, 1.0, 0.0), 2 * stdtr(degrees, -np.abs(t)))
        unknown_S = np.any(self.count < 2, axis=1)
        p_value[unknown_S] = np.nan
        return LabelEffects(
            self.count, mean, variance, difference, effect, t, np.where(constant, np.nan, degrees), p_value
        )


def _degenerate(mean_S2F: Array, variance_S2F: Array, difference_SF: Array) -> tuple[Array, Array]:
    """Where both labels have variances of 0 but for rounding, and where their means then agree but for rounding."""
    unit = 8 * np.finfo(np.float64).eps * np.abs(mean_S2F).max(1)
    constant_SF = (np.sqrt(variance_S2F) <= unit[:, None]).all(1)
    return constant_SF, constant_SF & (np.abs(difference_SF) <= unit)


def _where_constant(values: Array, difference: Array, constant: Array, equal: Array) -> Array:
    """0 for neurons with one value, infinite with the sign of the difference for those with one value per label."""
    return np.where(equal, 0.0, np.where(constant, np.copysign(np.inf, difference), values))
