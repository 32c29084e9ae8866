"""The tokens of one batch that reductions are over, on the device, and the largest value of each example among them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from modularity.capture.selection import Gather, Reduction, Selection, Values
from modularity.models import RoutedNeurons

_NO_POSITION = 2**31 - 1


@dataclass(frozen=True, eq=False)
class TokenPart:
    """Values of neighbouring neurons for M tokens of a batch: all neurons, or those of one expert."""

    values_MF: torch.Tensor
    first: int
    """Number of the first of these neurons in its layer."""
    example_M: torch.Tensor
    """int64: index in the batch, ascending."""
    position_M: torch.Tensor
    """int64: token position, ascending within an example."""
    n_examples: int
    """B."""

    @property
    def columns(self) -> slice:
        """The neurons, as columns of their layer."""
        return slice(self.first, self.first + self.values_MF.shape[1])


@dataclass(frozen=True, eq=False)
class BatchTokens:
    """The tokens that a selection looks at: of a pooling its mask, else the gathered positions."""

    flat_M: np.ndarray
    """int64: example * T + position, ascending, each once."""
    n_examples: int
    n_positions: int
    device: torch.device

    @classmethod
    def of(cls, selection: Selection, *, shape: tuple[int, int], device: torch.device) -> "BatchTokens":
        """The tokens of a batch of `shape` (B, T)."""
        if isinstance(selection, Reduction):
            flat_M = np.flatnonzero(selection.mask_BT)
        else:
            assert isinstance(selection, Gather)
            flat_M = np.unique(selection.flat)
        return cls(flat_M, *shape, device)

    @cached_property
    def _index_M(self) -> torch.Tensor:
        index_M = torch.from_numpy(self.flat_M)
        if self.device.type == "cuda":
            index_M = index_M.pin_memory().to(self.device, non_blocking=True)
        return index_M

    @cached_property
    def _counted_N(self) -> torch.Tensor:
        counted_N = torch.zeros(self.n_examples * self.n_positions, dtype=torch.bool, device=self.device)
        counted_N[self._index_M] = True
        return counted_N

    def parts(self, values_BTU: Values) -> Iterator[TokenPart]:
        """Values of the tokens: one part, or one for each expert that processes any of them."""
        if isinstance(values_BTU, RoutedNeurons):
            for expert, token_M, values_MF in values_BTU.parts(self._counted_N):
                yield self._part(token_M, values_MF, expert * values_BTU.experts.width)
            return
        values_NU = values_BTU.reshape(-1, values_BTU.shape[-1])
        if len(self.flat_M) < len(values_NU):
            values_NU = values_NU.index_select(0, self._index_M)
        yield self._part(self._index_M, values_NU, 0)

    def _part(self, token_M: torch.Tensor, values_MF: torch.Tensor, first: int) -> TokenPart:
        example_M = torch.div(token_M, self.n_positions, rounding_mode="floor")
        return TokenPart(values_MF, first, example_M, token_M - example_M * self.n_positions, self.n_examples)


def example_maxima(part: TokenPart) -> tuple[torch.Tensor, torch.Tensor]:
    """Largest value of every neuron in every example, and its first position.

    Returns
    -------
    value_BF : in the dtype of the values; -inf for an example without tokens in the part
    position_BF : int32; undefined there
    """
    return _maxima_by_slices(part) if part.values_MF.device.type == "cpu" else _maxima_by_scatter(part)


def largest_values(part: TokenPart) -> torch.Tensor:
    """`value_BF` of `example_maxima` alone, on a CPU: a quarter of the work."""
    value_BF = part.values_MF.new_full((part.n_examples, part.values_MF.shape[1]), -torch.inf)
    for example, span in _spans(part):
        value_BF[example] = part.values_MF[span].amax(0)
    return value_BF


def _spans(part: TokenPart) -> Iterator[tuple[int, slice]]:
    """Examples with tokens, and the rows of these."""
    start = 0
    for example, count in enumerate(torch.bincount(part.example_M, minlength=part.n_examples).tolist()):
        if count:
            yield example, slice(start, start + count)
        start += count


def _maxima_by_slices(part: TokenPart) -> tuple[torch.Tensor, torch.Tensor]:
    """One reduction for each example: on a CPU several times as fast as a scatter."""
    shape = (part.n_examples, part.values_MF.shape[1])
    value_BF = torch.full(shape, -torch.inf, dtype=part.values_MF.dtype)
    position_BF = torch.zeros(shape, dtype=torch.int32)
    for example, span in _spans(part):
        value_BF[example], index_F = part.values_MF[span].max(0)
        position_BF[example] = part.position_M[span][index_F].to(torch.int32)
    return value_BF, position_BF


def _maxima_by_scatter(part: TokenPart) -> tuple[torch.Tensor, torch.Tensor]:
    """Two scatters, of values and of the positions that attain them, without a loop over examples."""
    shape = (part.n_examples, part.values_MF.shape[1])
    index_MF = part.example_M[:, None].expand_as(part.values_MF)
    value_BF = part.values_MF.new_full(shape, -torch.inf)
    value_BF.scatter_reduce_(0, index_MF, part.values_MF, "amax")
    attained_MF = part.values_MF == value_BF[part.example_M]
    place_MF = torch.where(attained_MF, part.position_M[:, None].to(torch.int32), _NO_POSITION)
    position_BF = torch.full(shape, _NO_POSITION, dtype=torch.int32, device=place_MF.device)
    return value_BF, position_BF.scatter_reduce_(0, index_MF, place_MF, "amin")
