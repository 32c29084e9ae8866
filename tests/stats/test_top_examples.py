"""Top examples: the order is total, and no split of the examples changes the lists."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.errors import DataError
from modularity.stats import TopExamples, merge_in_order


def test_the_best_come_first_and_ties_go_to_the_lowest_id() -> None:
    top = TopExamples.empty(1, 3)
    top.update(np.array([[1.0], [2.0], [2.0], [0.5]]), np.array([0, 9, 4, 1]), np.array([[7], [8], [5], [6]]))
    assert top.example.tolist() == [[4, 9, 0]]
    assert top.position.tolist() == [[5, 8, 7]]
    assert top.value.tolist() == [[2.0, 2.0, 1.0]]


def test_lists_with_fewer_examples_end_in_none() -> None:
    top = TopExamples.empty(2, 3)
    top.update(np.array([[-1.0, 3.0]]), np.array([5]), np.array([[0, 1]]))
    assert top.example.tolist() == [[5, -1, -1], [5, -1, -1]]
    assert top.value[:, 0].tolist() == [-1.0, 3.0]
    assert np.isneginf(top.value[:, 1:]).all()


@given(st.integers(0, 30), st.integers(0, 999), st.lists(st.integers(0, 30), max_size=5), st.booleans())
@settings(deadline=None)
def test_no_split_and_no_order_of_examples_changes_the_lists(
    n_examples: int, seed: int, cuts: list[int], shuffled: bool
) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(-2, 3, (n_examples, 4)).astype(np.float32)  # many ties
    values[values == 0] *= generator.choice([-1, 1])  # -0 equals 0
    positions = generator.integers(0, 9, (n_examples, 4))
    ids = np.arange(n_examples)
    order = generator.permutation(n_examples) if shuffled else ids

    def of(chosen: np.ndarray) -> TopExamples:
        top = TopExamples.empty(4, 5)
        top.update(values[chosen], ids[chosen], positions[chosen])
        return top

    bounds = [0, *sorted(min(cut, n_examples) for cut in cuts), n_examples]
    merged = merge_in_order(of(order[a:b]) for a, b in pairwise(bounds))
    for name, array in of(ids).arrays().items():
        np.testing.assert_array_equal(merged.arrays()[name], array)
    for neuron in range(4):
        best = sorted(range(n_examples), key=lambda i: (-values[i, neuron], i))[:5]
        assert merged.example[neuron].tolist() == best + [-1] * (5 - len(best))


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(2, 1\) values, ids of shape \(1,\)"):
        TopExamples.empty(1, 2).update(np.ones((2, 1)), np.array([0]), np.zeros((2, 1), int))
    with pytest.raises(DataError, match="an id from 0 up"):
        TopExamples.empty(1, 2).update(np.ones((1, 1)), np.array([-1]), np.zeros((1, 1), int))
