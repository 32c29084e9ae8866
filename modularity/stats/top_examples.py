"""The examples on which each neuron is most active, with the position where: exact for any split of the examples.

The order is total: the higher value first, of equal values the example with the lower id, then the lower position.
Each example is handed over once, with its largest value; then no example stands twice in a list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modularity.errors import DataError
from modularity.stats.accumulators import Accumulator, Array, finite_rows

NO_EXAMPLE = -1
_LAST = np.iinfo(np.int64).max


@dataclass(eq=False)
class TopExamples(Accumulator):
    """The k best examples of F neurons, best first; start with `TopExamples.empty(n_neurons, k)`."""

    value: Array
    """float32 (F, k): -inf where there is no example."""
    example: Array
    """int64 (F, k): -1 where there is none."""
    position: Array
    """int32 (F, k): token position of the value in its example; -1 where there is none."""

    DIMS: ClassVar = dict.fromkeys(("value", "example", "position"), ("neuron", "rank"))

    @classmethod
    def empty(cls, n_neurons: int, k: int) -> TopExamples:
        """Of no examples."""
        shape = (n_neurons, k)
        return cls(
            np.full(shape, -np.inf, np.float32),
            np.full(shape, NO_EXAMPLE, np.int64),
            np.full(shape, NO_EXAMPLE, np.int32),
        )

    def update(self, values_RF: Array, example_R: Array, position_RF: Array) -> None:
        """Add the largest values of some examples.

        Parameters
        ----------
        values_RF : one row for each example, compared as float32
        example_R : int, from 0: their ids
        position_RF : int: where in the example each value stands

        Raises
        ------
        DataError
            Shapes differ, a value is not finite, or an id is negative.
        """
        rows = finite_rows(values_RF, len(self.value), kind="top examples").astype(np.float32)
        if position_RF.shape != rows.shape or len(example_R) != len(rows) or (len(rows) and example_R.min() < 0):
            raise DataError(
                f"top examples: {rows.shape} values, ids of shape {example_R.shape}, positions {position_RF.shape}; "
                "expected an id from 0 up for each row and a position for each value"
            )
        example_RF = np.broadcast_to(np.asarray(example_R, np.int64)[:, None], rows.shape)
        # Adding 0 turns -0 into 0, so that the two are equal for every way of sorting.
        self._keep_best((rows + np.float32(0)).T, example_RF.T, np.asarray(position_RF, np.int32).T)

    def merge(self, other: TopExamples) -> None:
        """Add the examples of another."""
        self._check_same(other)
        self._keep_best(other.value, other.example, other.position)

    def result(self) -> TopExamples:
        """The lists so far: itself."""
        return self

    def _keep_best(self, value: Array, example: Array, position: Array) -> None:
        k = self.value.shape[1]
        values = np.concatenate([self.value, value], axis=1)
        examples = np.concatenate([self.example, example], axis=1)
        positions = np.concatenate([self.position, position], axis=1)
        ids = np.where(examples == NO_EXAMPLE, _LAST, examples)
        order = np.lexsort((positions, ids, -values), axis=1)[:, :k]
        self.value = np.take_along_axis(values, order, 1)
        self.example = np.take_along_axis(examples, order, 1)
        self.position = np.take_along_axis(positions, order, 1)
