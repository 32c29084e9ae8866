from itertools import pairwise

import numpy as np
import pytest

from modularity.stats.top_lists import TopHeaps, merge_lists


def by_sorting(values_NF, k):
    return np.argsort(-values_NF, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("k", [1, 2, 7, 30])
@pytest.mark.parametrize("order", [1, -1])
def test_lists_are_those_of_a_stable_sort_in_any_order_of_tiles(k, order):
    rng = np.random.default_rng(k)
    values_NF = rng.integers(0, 12, (9, 100)).astype(np.float32)  # many ties
    heaps = TopHeaps(9, k)
    for start in range(0, 100, 16)[::order]:
        heaps.add(values_NF[:, start : start + 16], start)
    found = heaps.result()
    np.testing.assert_array_equal(found.neuron, by_sorting(values_NF, k))
    np.testing.assert_array_equal(found.value, np.take_along_axis(values_NF, found.neuron, 1))
    assert (found.neuron.dtype, found.value.dtype) == (np.int32, np.float32)


def test_short_lists_end_without_neurons():
    heaps = TopHeaps(2, 4)
    heaps.add(np.array([[1, 3], [2, 2]], np.float32), 5)
    found = heaps.result()
    assert found.neuron.tolist() == [[6, 5, -1, -1], [5, 6, -1, -1]]
    assert np.isneginf(found.value[:, 2:]).all()


@pytest.mark.parametrize("cuts", [[0, 100], [0, 1, 100], [0, 33, 40, 100]])
def test_lists_of_blocks_merge_to_the_list_of_all(cuts):
    values_NF = np.random.default_rng(1).integers(0, 9, (5, 100)).astype(np.float32)
    parts = []
    for start, stop in pairwise(cuts):
        heaps = TopHeaps(5, 12)
        heaps.add(values_NF[:, start:stop], start)
        parts.append(heaps.result())
    for k in (12, 5):
        np.testing.assert_array_equal(merge_lists(parts, k).neuron, by_sorting(values_NF, k))


def test_no_list_is_kept_for_zero():
    heaps = TopHeaps(3, 0)
    heaps.add(np.ones((3, 4), np.float32), 0)
    assert heaps.result().neuron.shape == (3, 0)
