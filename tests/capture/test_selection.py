import numpy as np
import pytest
import torch

from modularity.capture.selection import Gather, Reduction
from modularity.errors import DataError

VALUES = torch.arange(2 * 4 * 3, dtype=torch.float32).reshape(2, 4, 3)


def spans(*bounds):
    mask = np.zeros((len(bounds), 9), dtype=bool)
    for example, (start, stop) in enumerate(bounds):
        mask[example, start:stop] = True
    return mask


def test_neighbours_with_one_span_are_reduced_together():
    mask = spans((0, 5), (0, 5), (0, 6), (2, 6), (2, 6))
    assert Reduction.over(mask, np.arange(5), kind="max").runs == ((0, 2, 0, 5), (2, 3, 0, 6), (3, 5, 2, 6))


def test_masks_with_holes_are_masked():
    mask = spans((0, 5), (0, 5))
    mask[1, 2] = False
    assert Reduction.over(mask, np.arange(2), kind="max").runs is None


@pytest.mark.parametrize("kind", ["max", "mean"])
@pytest.mark.parametrize("holes", [False, True])
def test_reductions_equal_numpy(kind, holes):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 9, 5)).astype(np.float32) - 3
    mask = spans((0, 9), (0, 3), (0, 3), (4, 6), (8, 9), (0, 1))
    if holes:
        mask[0, [1, 4]] = False
    seen = Reduction.over(mask, np.arange(6), kind=kind).select(torch.from_numpy(values)).numpy()
    function = np.max if kind == "max" else np.mean
    expected = np.stack([function(values[example][mask[example]], axis=0) for example in range(6)])
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


@pytest.mark.parametrize("holes", [False, True])
def test_mean_of_half_precision_is_summed_in_float32(holes):
    # In float16 the sum would stop growing at 2048.
    values = torch.ones(1, 5000, 1, dtype=torch.float16)
    mask = np.ones((1, 5000), dtype=bool)
    if holes:
        mask[0, 7] = False
    mean = Reduction.over(mask, np.arange(1), kind="mean").select(values)
    assert mean.dtype == torch.float32
    assert mean.item() == 1.0


def test_example_without_positions_is_refused():
    with pytest.raises(DataError, match="rows 41 have no position to pool over"):
        Reduction.over(spans((0, 5), (3, 3)), np.array([40, 41]), kind="max")


def test_gather_takes_pairs_in_any_order_to_any_rows():
    gather = Gather.at(np.array([1, 0, 1]), np.array([3, 0, 1]), np.array([2, 0, 1]), n_positions=4)
    assert gather.segments is None
    out = torch.zeros(3, 5, dtype=torch.float16)
    low, high = gather.store(VALUES, out)
    assert out.tolist() == [[0, 1, 2, 0, 0], [15, 16, 17, 0, 0], [21, 22, 23, 0, 0]]
    assert (low, high) == (0, 23)


def test_whole_stretches_are_copied_as_they_are():
    example, position = np.repeat([0, 1], 4), np.tile(np.arange(4), 2)
    rows = np.concatenate([np.arange(4, 8), np.arange(4)])
    gather = Gather.at(example, position, rows, n_positions=4)
    assert gather.segments == ((0, 4, 4), (4, 0, 4))
    out = torch.zeros(2, 8, 3)[1]
    assert gather.store(VALUES, out) == (0, 23)
    assert torch.equal(out, torch.cat([VALUES[1], VALUES[0]]))
    assert torch.equal(gather.select(VALUES), VALUES.reshape(8, 3))


def test_nan_shows_in_the_extremes():
    values = VALUES.clone()
    values[1, 2, 0] = torch.nan
    gather = Gather.at(np.repeat([0, 1], 4), np.tile(np.arange(4), 2), np.arange(8), n_positions=4)
    assert all(np.isnan(gather.store(values, torch.zeros(8, 3))))
    reduction = Reduction.over(np.ones((2, 4), dtype=bool), np.arange(2), kind="max")
    assert all(np.isnan(reduction.store(values, torch.zeros(2, 3))))


def test_positions_outside_are_refused():
    with pytest.raises(DataError, match="rows 8 want positions 4, but this stack has 4 positions here"):
        Gather.at(np.array([0, 0]), np.array([3, 4]), np.array([7, 8]), n_positions=4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["max", "mean"])
def test_device_gives_the_values_of_the_host(kind):
    values = torch.randn(6, 9, 5, generator=torch.Generator().manual_seed(0))
    mask = spans((0, 9), (0, 3), (0, 4), (4, 6), (8, 9), (0, 1))
    reduction = Reduction.over(mask, np.arange(6), kind=kind)
    torch.testing.assert_close(reduction.select(values.cuda()).cpu(), reduction.select(values))
