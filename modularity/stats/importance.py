"""How much a unit does on a set of texts: sums over all tokens that merge, and the scores made of two sets.

Source: Pochinkov and Schoots 2024, arXiv 2403.01267, section 3: abs = E|a|, rms = sqrt(E a^2), std, freq = P(a > 0),
sqrt = E sqrt|a|; a unit's score is its importance on the texts whose capability is to go over that on the texts to
keep. Here std is the standard deviation over tokens, by the merge of moments of Chan et al. (`accumulators.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from modularity.errors import DataError
from modularity.stats.accumulators import Accumulator, merge_moments

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
ImportanceKind = Literal["abs", "rms", "std", "freq", "sqrt", "mean_difference"]


@dataclass(eq=False)
class ImportanceSums(Accumulator):
    """Sums over tokens behind every importance of F units; make an empty one with `ImportanceSums.empty(n_units)`.

    All are float64 of shape (F,), counts int64.
    """

    count: Array
    mean: Array
    squares: Array
    """Sum of squared distances from the mean."""
    absolute: Array
    """Sum of |a|."""
    roots: Array
    """Sum of sqrt|a|."""
    positive: Array
    """Tokens with a > 0."""

    DIMS: ClassVar = dict.fromkeys(("count", "mean", "squares", "absolute", "roots", "positive"), ("neuron",))

    @classmethod
    def empty(cls, n_units: int) -> ImportanceSums:
        """Of no tokens."""
        count, positive = np.zeros(n_units, np.int64), np.zeros(n_units, np.int64)
        mean, squares, absolute, roots = (np.zeros(n_units) for _ in range(4))
        return cls(count, mean, squares, absolute, roots, positive)

    @classmethod
    def of(cls, values_RF: Array) -> ImportanceSums:
        """Of the rows of an array of any float dtype, summed in float64.

        Raises
        ------
        DataError
            Not two-dimensional, or a value is not finite.
        """
        rows = np.asarray(values_RF, dtype=np.float64)
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise DataError(f"values of shape {rows.shape}: expected finite ones of shape (tokens, units)")
        if not len(rows):
            return cls.empty(rows.shape[1])
        mean, size = rows.mean(0), np.abs(rows)
        squares = ((rows - mean) ** 2).sum(0)
        count = np.full(rows.shape[1], len(rows), np.int64)
        return cls(count, mean, squares, size.sum(0), np.sqrt(size).sum(0), (rows > 0).sum(0).astype(np.int64))

    def merge(self, other: ImportanceSums) -> None:
        """Add the tokens of another."""
        self._check_same(other)
        self.mean, self.squares = merge_moments(
            (self.count, self.mean, self.squares), (other.count, other.mean, other.squares)
        )
        for name in ("count", "absolute", "roots", "positive"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def importance(self, kind: ImportanceKind) -> Array:
        """Importance of every unit, float64 of shape (F,); of `mean_difference` the mean, from which it is made.

        Raises
        ------
        DataError
            No such kind, a unit has seen no token, or values were not finite.
        """
        if kind not in get_args(ImportanceKind) or not (self.count > 0).all():
            raise DataError(
                f"importance {kind!r} of units with {self.count.min(initial=0)} tokens or more: expected one of "
                f"{', '.join(get_args(ImportanceKind))}, and at least one token"
            )
        values: dict[str, Array] = {
            "abs": self.absolute / self.count,
            "rms": np.sqrt(self.squares / self.count + self.mean**2),
            "std": np.sqrt(self.squares / self.count),
            "freq": self.positive / self.count,
            "sqrt": self.roots / self.count,
            "mean_difference": self.mean,
        }
        n_bad = int((~np.isfinite(values[kind])).sum())
        if n_bad:
            raise DataError(
                f"importance {kind!r} of {n_bad} of {len(self.count)} units is not finite: the model leaves the range "
                "of its dtype on these texts; load it as float32 (model.dtype)"
            )
        return values[kind]


def pruning_scores(pruned: ImportanceSums, kept: ImportanceSums, kind: ImportanceKind, *, epsilon: float) -> Array:
    """Score of every unit; the highest are removed first.

    Parameters
    ----------
    pruned, kept : sums over the texts whose capability is to go, and over those whose capability is to stay
    kind : which importance; `mean_difference` is the absolute difference of the two means, the same in both directions
    epsilon : added to the importance on the kept texts, positive (1e-3 for FFN neurons, 1e-4 for attention)

    Returns
    -------
    scores_F : float64 array of shape (F,), not negative
    """
    if epsilon <= 0:
        raise DataError(f"{epsilon=}: expected a positive number, such as 1e-3")
    one, other = pruned.importance(kind), kept.importance(kind)
    scores: Array = np.abs(one - other) if kind == "mean_difference" else one / (other + epsilon)
    return scores


def highest(scores_F: Array, n: int, *, allowed_F: Array) -> Array:
    """Indices of the `n` highest scores among allowed units, or of all where they are fewer; ties by lowest index."""
    candidates = np.flatnonzero(allowed_F)
    order = np.argsort(-scores_F[candidates], kind="stable")
    chosen: Array = np.sort(candidates[order[:n]])
    return chosen
