"""The steps that an accelerator takes give what the compiled kernels give on a CPU; tiles and groups."""

import numpy as np
import pytest
import torch

from modularity.capture import device_sums
from modularity.capture.device_sums import (
    DeviceCoActivation,
    DeviceHistogram,
    DeviceMoments,
    add_group_products,
    consecutive_groups,
    row_tiles,
)
from modularity.capture.token_parts import TokenPart
from modularity.stats import CoActivation, Histogram, Moments, log_edges

CPU = torch.device("cpu")


def part_of(values: torch.Tensor, lengths: list[int]) -> TokenPart:
    example = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    return TokenPart(values, 0, example, torch.cat([torch.arange(n) for n in lengths]), len(lengths))


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn((50, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("own", [False, True])
def test_bins_without_a_kernel_are_those_of_numpy(values: torch.Tensor, own: bool) -> None:
    edges = log_edges(0.01, 1.0, 4)
    edges = np.tile(edges, (6, 1)) * np.arange(1, 7)[:, None] if own else edges
    wanted = Histogram.empty(6, edges)
    wanted.update(values.numpy())
    found = DeviceHistogram(6, edges, CPU).tile_counts(values, slice(0, 6))
    np.testing.assert_array_equal(found.numpy(), wanted.counts)


def test_moments_do_not_show_the_tiles(values: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_sums, "TILE_VALUES", 40)
    assert [len(tile) for tile in row_tiles(values)] == [6] * 8 + [2]
    moments, wanted = DeviceMoments(6, CPU), Moments.empty(6)
    moments.add(part_of(values, [50]))
    wanted.update(values.numpy())
    for name, array in wanted.arrays().items():
        np.testing.assert_allclose(moments.finish().arrays()[name], array, rtol=1e-12)


def test_groups_start_with_every_example() -> None:
    part = part_of(torch.zeros(20, 1), [9, 3, 8])
    group, slot, n_groups = consecutive_groups(part)
    assert group.tolist() == [0] * 8 + [1] + [2] * 3 + [3] * 8
    assert slot.tolist() == [*range(8), 0, *range(3), *range(8)]
    assert n_groups == 4


def test_products_of_groups_without_a_kernel_are_those_of_numpy() -> None:
    rows = torch.randn((40, 300), generator=torch.Generator().manual_seed(1))
    wanted = CoActivation.empty(300, "groups")
    wanted.update(rows.numpy())
    found = torch.zeros((300, 300), dtype=torch.float64)
    add_group_products(rows.clamp(min=0).double().view(5, 8, 300), found)
    np.testing.assert_allclose(torch.triu(found).numpy(), np.triu(wanted.sums), rtol=1e-12)


def test_products_of_zeros_and_ones_are_exact_in_the_fastest_mode_of_matrix_products(values: torch.Tensor) -> None:
    rows = values.repeat(90, 1)
    wanted = CoActivation.empty(6)
    wanted.update(rows.numpy())
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        counts = DeviceCoActivation(6, "positive", CPU)
        counts.add(part_of(rows, [4500]))
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(counts.finish().sums, wanted.sums)
