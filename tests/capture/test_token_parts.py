"""Which tokens of a batch are reduced, and the largest value of every example, by both ways."""

import numpy as np
import pytest
import torch

from modularity.capture.selection import Gather, Reduction
from modularity.capture.token_parts import BatchTokens, TokenPart, _maxima_by_scatter, _maxima_by_slices

CPU = torch.device("cpu")
MASK = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]], bool)


def part_of(tokens: BatchTokens, values: torch.Tensor) -> TokenPart:
    (part,) = tokens.parts(values)
    return part


def test_tokens_of_a_pooling_are_those_of_its_mask() -> None:
    values = torch.arange(24.0).view(3, 4, 2)
    selection = Reduction.over(MASK, np.arange(3), kind="max")
    part = part_of(BatchTokens.of(selection, shape=(3, 4), device=CPU), values)
    assert part.example_M.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert part.position_M.tolist() == [0, 1, 3, 2, 0, 1, 2, 3]
    assert part.values_MF[:, 0].tolist() == [0, 2, 6, 12, 16, 18, 20, 22]
    assert part.columns == slice(0, 2)


def test_gathered_tokens_stand_in_order_and_once() -> None:
    gather = Gather.at(np.array([1, 1, 0]), np.array([3, 0, 2]), np.arange(3), n_positions=4)
    part = part_of(BatchTokens.of(gather, shape=(3, 4), device=CPU), torch.arange(12.0).view(3, 4, 1))
    assert (part.example_M.tolist(), part.position_M.tolist()) == ([0, 1, 1], [2, 0, 3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_give_the_largest_value_and_its_first_position(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-3, 3, (40, 7), generator=generator).to(dtype)
    example = torch.sort(torch.randint(0, 6, (40,), generator=generator)).values
    example[example == 4] = 5  # example 4 has no token here
    position = torch.cat([torch.arange(int(n)) * 2 for n in torch.bincount(example, minlength=7)])
    part = TokenPart(values, 0, example, position, 7)
    value, place = _maxima_by_slices(part)
    for other_value, other_place in (_maxima_by_scatter(part),):
        assert torch.equal(value, other_value)
        present = ~torch.isneginf(value)
        assert torch.equal(place[present], other_place[present])
    for number in range(7):
        own = example == number
        if not own.any():
            assert torch.isneginf(value[number]).all()
            continue
        for neuron in range(7):
            column = values[own, neuron]
            assert value[number, neuron] == column.max()
            assert place[number, neuron] == position[own][int((column == column.max()).nonzero()[0])]
