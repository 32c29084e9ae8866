"""How often two neurons are active together: F x F counts, mergeable.

Two rules. `positive`: rows in which both neurons are above 0. `groups`: over groups of eight token vectors, the sum of
min(1, sum over the group of a_i a_j), as in MoEfication (Zhang Z. et al. 2022, arXiv 2110.01786, co-activation graph
split; card B2). Departures of the second: values below 0, which ReLU models do not have, count as 0; a group never
crosses the end of a text, so that the result does not depend on how texts are cut into batches.

The diagonal holds the same sum for a neuron with itself. The matrix is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from modularity.errors import DataError, InputError
from modularity.stats.accumulator_kernels import add_clamped_groups
from modularity.stats.accumulators import Accumulator, Array, finite_rows

CoActivationRule = Literal["positive", "groups"]
GROUP_SIZE = 8
"""Token vectors of a group under the rule `groups`."""
TILE_NEURONS = 256
_GROUPS_AT_ONCE = 64


@dataclass(eq=False)
class CoActivation(Accumulator):
    """Co-activation of all pairs of F neurons; start with `CoActivation.empty(n_neurons, "positive")`."""

    sums: Array
    """float64 (F, F), symmetric; whole numbers under the rule `positive`."""
    count: Array
    """int64 (1,): rows, or groups under the rule `groups`."""
    rule: CoActivationRule

    DIMS: ClassVar = {"sums": ("neuron", "other"), "count": ("one",)}

    @classmethod
    def empty(cls, n_neurons: int, rule: CoActivationRule = "positive") -> CoActivation:
        """Of no rows."""
        if rule not in get_args(CoActivationRule):
            raise InputError(f"{rule=}: expected one of {', '.join(get_args(CoActivationRule))}")
        return cls(np.zeros((n_neurons, n_neurons)), np.zeros(1, np.int64), rule)

    def update(self, values_RF: Array, group_R: Array | None = None) -> None:
        """Add rows.

        Parameters
        ----------
        values_RF : finite, any float dtype
        group_R : for the rule `groups`, int, not descending: rows with one number are one group, at most eight; None =
            eight rows after each other, the last group may be shorter

        Raises
        ------
        DataError
            Shapes do not belong together, a value is not finite, or a group is too large.
        """
        rows = finite_rows(values_RF, len(self.sums), kind="co-activation")
        if not len(rows):
            return
        if self.rule == "positive":
            active = (rows > 0).astype(np.float64)
            for i, j in tiles(len(self.sums)):
                self.sums[i, j] += active[:, i].T @ active[:, j]
            self.count = self.count + len(rows)
        else:
            group_R = np.arange(len(rows)) // GROUP_SIZE if group_R is None else np.asarray(group_R)
            self._add_groups(rows, group_R)
        mirror(self.sums)

    def _add_groups(self, rows: Array, group_R: Array) -> None:
        group_R, slot_R = group_slots(group_R, len(rows))
        n_groups = int(group_R[-1]) + 1
        for first in range(0, n_groups, _GROUPS_AT_ONCE):
            chosen = (group_R >= first) & (group_R < first + _GROUPS_AT_ONCE)
            values_GKF = np.zeros((min(_GROUPS_AT_ONCE, n_groups - first), GROUP_SIZE, rows.shape[1]))
            values_GKF[group_R[chosen] - first, slot_R[chosen]] = np.maximum(rows[chosen], 0)
            add_clamped_groups(values_GKF, self.sums)
        self.count = self.count + n_groups

    def merge(self, other: CoActivation) -> None:
        """Add the rows or groups of another of the same rule."""
        self._check_same(other)
        if other.rule != self.rule:
            raise DataError(f"co-activation by the rules {self.rule!r} and {other.rule!r} does not merge")
        self.sums += other.sums
        self.count = self.count + other.count

    def result(self) -> Array:
        """`sums`, the weights of a co-activation graph."""
        return self.sums


def group_slots(group_R: Array, n_rows: int) -> tuple[Array, Array]:
    """Groups renumbered from 0, and the place of each row within its group.

    Raises
    ------
    DataError
        Numbers descend, a group has more than eight rows, or there is not one number for each row.
    """
    starts = np.flatnonzero(np.diff(group_R, prepend=group_R[0] - 1))
    sizes = np.diff([*starts, len(group_R)])
    if len(group_R) != n_rows or (np.diff(group_R) < 0).any() or sizes.max() > GROUP_SIZE:
        raise DataError(
            f"{len(group_R)} group numbers for {n_rows} rows, largest group {sizes.max()}: expected one for each row, "
            f"not descending, and at most {GROUP_SIZE} rows with the same"
        )
    return np.repeat(np.arange(len(starts)), sizes), np.arange(n_rows) - np.repeat(starts, sizes)


def tiles(n_neurons: int, step: int = TILE_NEURONS) -> Iterator[tuple[slice, slice]]:
    """Squares of neurons on and above the diagonal, which cover every pair once."""
    for i in range(0, n_neurons, step):
        for j in range(i, n_neurons, step):
            yield slice(i, i + step), slice(j, j + step)


def mirror(sums_FF: Array) -> None:
    """Copy what stands above the diagonal to below it, in place."""
    for i, j in tiles(len(sums_FF)):
        if i == j:
            sums_FF[i, i] = np.triu(sums_FF[i, i]) + np.triu(sums_FF[i, i], 1).T
        else:
            sums_FF[j, i] = sums_FF[i, j].T
