"""Statistics over tokens on the device of the values: moments, firing rate, histogram, co-activation.

The twins of the NumPy accumulators of `stats`, to which `finish` hands their state. Sums, means and squares are in
float64 on every device. Rows are converted a tile at a time. Joint counts come from products of zeros and ones in
float32, which are exact in every mode of matrix products; clamped sums of groups from products in float64. GPUs for
graphics compute float64 at a small fraction of their speed: there `moments` and the rule `groups` are slow.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch

from modularity.capture.reduction_config import DEVICE_TILE_VALUES, TILE_VALUES
from modularity.capture.token_parts import TokenPart
from modularity.stats import Accumulator, CoActivation, CoActivationRule, FiringRate, Histogram, Moments
from modularity.stats.accumulator_kernels import add_clamped_groups, column_moments, count_bins
from modularity.stats.co_activation import GROUP_SIZE, mirror, tiles

_EXACT_ROWS = 2**20
"""Rows of zeros and ones whose products a float32 counts exactly, with room to spare."""
_PAIR_TILE = 1024
_GROUPS_AT_ONCE = 64


class TokenSums(Protocol):
    """State of one statistic of the neurons of one layer, on a device."""

    def add(self, part: TokenPart) -> None:
        """Add the tokens of a part."""

    def finish(self) -> Accumulator:
        """The state as a NumPy accumulator; nothing is added afterwards."""


class DeviceMoments:
    """Twin of `Moments`: means and squares of each tile, merged by Chan's formulas."""

    def __init__(self, n_neurons: int, device: torch.device) -> None:
        options: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self._count = torch.zeros(n_neurons, **options)
        self._mean, self._squares = torch.zeros(n_neurons, **options), torch.zeros(n_neurons, **options)
        self._low = torch.full((n_neurons,), torch.inf, **options)
        self._high = torch.full((n_neurons,), -torch.inf, **options)

    def add(self, part: TokenPart) -> None:
        """Add the tokens of a part."""
        columns = part.columns
        for tile_MF in row_tiles(part.values_MF):
            mean, squares = tile_moments(tile_MF)
            low, high = tile_MF.amin(0).double(), tile_MF.amax(0).double()
            share = len(tile_MF) / (self._count[columns] + len(tile_MF))
            difference = mean - self._mean[columns]
            self._squares[columns] += squares + difference.square() * (self._count[columns] * share)
            self._mean[columns] += difference * share
            self._count[columns] += len(tile_MF)
            self._low[columns] = torch.minimum(self._low[columns], low)
            self._high[columns] = torch.maximum(self._high[columns], high)

    def finish(self) -> Moments:
        """The state as a NumPy accumulator."""
        rest = (to_host(each) for each in (self._mean, self._squares, self._low, self._high))
        return Moments(to_host(self._count.long()), *rest)


def tile_moments(tile_MF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sum of squared distances from it, of every column, in float64."""
    if tile_MF.device.type == "cpu":
        mean, squares = column_moments(kernel_rows(tile_MF), n_threads=torch.get_num_threads())
        return torch.from_numpy(mean), torch.from_numpy(squares)
    exact_MF = tile_MF.double()
    mean_F = exact_MF.mean(0)
    return mean_F, (exact_MF - mean_F).square_().sum(0)


class DeviceFiringRate:
    """Twin of `FiringRate`."""

    def __init__(self, n_neurons: int, threshold: float, device: torch.device) -> None:
        self._count = torch.zeros(n_neurons, dtype=torch.int64, device=device)
        self._above = torch.zeros_like(self._count)
        self._threshold = threshold

    def add(self, part: TokenPart) -> None:
        """Add the tokens of a part."""
        self._count[part.columns] += len(part.values_MF)
        for tile_MF in row_tiles(part.values_MF):
            self._above[part.columns] += (tile_MF > self._threshold).sum(0)

    def finish(self) -> FiringRate:
        """The state as a NumPy accumulator."""
        return FiringRate(to_host(self._count), to_host(self._above), self._threshold)


class DeviceHistogram:
    """Twin of `Histogram`; edges of shape (n_edges,), or (F, n_edges) where neurons have their own."""

    def __init__(self, n_neurons: int, edges: np.ndarray, device: torch.device) -> None:
        self._empty = Histogram.empty(n_neurons, edges)
        self._edges = torch.from_numpy(self._empty.edges).to(device)
        self._counts = torch.zeros(self._empty.counts.shape, dtype=torch.int64, device=device)
        self._low = torch.full((n_neurons,), torch.inf, dtype=torch.float64, device=device)
        self._high = torch.full_like(self._low, -torch.inf)

    def add(self, part: TokenPart) -> None:
        """Add the tokens of a part."""
        columns = part.columns
        for tile_MF in row_tiles(part.values_MF):
            if tile_MF.device.type == "cpu":
                edges = self._empty.edges if self._empty.edges.ndim == 1 else self._empty.edges[columns]
                counts_FB = self._counts[columns].numpy()
                count_bins(kernel_rows(tile_MF), edges, counts_FB, n_threads=torch.get_num_threads())
            else:
                self._counts[columns] += self.tile_counts(tile_MF, columns)
            self._low[columns] = torch.minimum(self._low[columns], tile_MF.amin(0).double())
            self._high[columns] = torch.maximum(self._high[columns], tile_MF.amax(0).double())

    def tile_counts(self, tile_MF: torch.Tensor, columns: slice) -> torch.Tensor:
        """Counts of a tile by neuron and bin, int64, without a compiled kernel."""
        n_neurons, n_bins = tile_MF.shape[1], self._counts.shape[1]
        first_bin = torch.arange(0, n_neurons * n_bins, n_bins, device=tile_MF.device)
        flat = self._bins(tile_MF, columns).add_(first_bin)
        return torch.bincount(flat.view(-1), minlength=n_neurons * n_bins).view(n_neurons, n_bins)

    def _bins(self, tile_MF: torch.Tensor, columns: slice) -> torch.Tensor:
        """Bin of every value; edges are exact in float32, and wider or narrower dtypes are compared exactly, too."""
        exact = tile_MF if tile_MF.dtype == torch.float64 else tile_MF.float()
        edges = self._edges.to(exact.dtype)
        if edges.dim() == 1:
            return torch.bucketize(exact, edges, right=True)
        return torch.searchsorted(edges[columns], exact.T.contiguous(), right=True).T.contiguous()

    def finish(self) -> Histogram:
        """The state as a NumPy accumulator."""
        low, high = to_host(self._low), to_host(self._high)
        return Histogram(to_host(self._counts), low, high, self._empty.edges)


class DeviceCoActivation:
    """Twin of `CoActivation`; needs all neurons of a layer in one part."""

    def __init__(self, n_neurons: int, rule: CoActivationRule, device: torch.device) -> None:
        self._sums_FF = torch.zeros((n_neurons, n_neurons), dtype=torch.float64, device=device)
        self._rule: CoActivationRule = rule
        self._count = 0

    def add(self, part: TokenPart) -> None:
        """Add the tokens of a part."""
        if self._rule == "positive":
            self._add_positive(part.values_MF)
        else:
            self._add_groups(part)

    def _add_positive(self, values_MF: torch.Tensor) -> None:
        self._count += len(values_MF)
        for rows_MF in _chunks(values_MF, _EXACT_ROWS):
            active_MF = (rows_MF > 0).float()
            for i, j in tiles(len(self._sums_FF), _PAIR_TILE):
                self._sums_FF[i, j] += active_MF[:, i].T @ active_MF[:, j]

    def _add_groups(self, part: TokenPart) -> None:
        group_M, slot_M, n_groups = consecutive_groups(part)
        self._count += n_groups
        n_neurons = len(self._sums_FF)
        values_GKF = torch.zeros((n_groups, GROUP_SIZE, n_neurons), dtype=torch.float64, device=self._sums_FF.device)
        values_GKF[group_M, slot_M] = part.values_MF.clamp(min=0).double()
        if values_GKF.device.type == "cpu":
            add_clamped_groups(values_GKF.numpy(), self._sums_FF.numpy(), n_threads=torch.get_num_threads())
            return
        for chunk_GKF in _chunks(values_GKF, _GROUPS_AT_ONCE):
            add_group_products(chunk_GKF, self._sums_FF)

    def finish(self) -> CoActivation:
        """The state as a NumPy accumulator."""
        sums_FF = to_host(self._sums_FF)
        mirror(sums_FF)
        return CoActivation(sums_FF, np.array([self._count]), self._rule)


def add_group_products(values_GKF: torch.Tensor, sums_FF: torch.Tensor) -> None:
    """As `stats.accumulator_kernels.add_clamped_groups`, by products of small matrices, tile by tile."""
    for i, j in tiles(len(sums_FF)):
        products_Gij = torch.bmm(values_GKF[:, :, i].transpose(1, 2), values_GKF[:, :, j])
        sums_FF[i, j] += products_Gij.clamp_(max=1).sum(0)


def consecutive_groups(part: TokenPart) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Group and place in it of every token: eight tokens of an example after each other, the last may be fewer.

    Returns
    -------
    group_M, slot_M : int64
    n_groups : number of groups
    """
    example_M = part.example_M
    count_B = torch.bincount(example_M, minlength=part.n_examples)
    start_B = count_B.cumsum(0) - count_B
    groups_B = (count_B + GROUP_SIZE - 1) // GROUP_SIZE
    rank_M = torch.arange(len(example_M), device=example_M.device) - start_B[example_M]
    first_B = groups_B.cumsum(0) - groups_B
    return first_B[example_M] + rank_M // GROUP_SIZE, rank_M % GROUP_SIZE, int(groups_B.sum())


def kernel_rows(values_MF: torch.Tensor) -> np.ndarray:
    """Values on the CPU as the compiled kernels take them: float32 or float64."""
    exact = values_MF if values_MF.dtype == torch.float64 else values_MF.float()
    return exact.contiguous().numpy()


def row_tiles(values_MF: torch.Tensor) -> Iterator[torch.Tensor]:
    """Whole rows, as many at a time as a tile of this device holds; none of an empty tensor."""
    limit = TILE_VALUES if values_MF.device.type == "cpu" else DEVICE_TILE_VALUES
    if values_MF.numel():
        yield from _chunks(values_MF, max(1, limit // values_MF.shape[1]))


def _chunks(values: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def to_host(values: torch.Tensor) -> np.ndarray:
    """NumPy array of the values; on a CPU it shares their memory."""
    return values.cpu().numpy()
