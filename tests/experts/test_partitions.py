import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import adjusted_rand, expert_predictivity, inertia, normalise_rows, random_partition


def test_normalised_rows_have_length_one_and_zero_rows_stay_zero():
    rows = normalise_rows(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]]))
    assert rows.tolist() == [[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64)]
)
def test_normalised_dtype(dtype, expected):
    assert normalise_rows(np.ones((2, 3), dtype)).dtype == expected


def test_tiny_and_huge_rows_are_normalised():
    rows = normalise_rows(np.array([[3e-38, 4e-38], [3e38, 4e37]], np.float32))
    assert np.allclose((rows.astype(float) ** 2).sum(axis=1), 1.0)


def test_rows_must_be_finite():
    with pytest.raises(
        DataError, match=r"rows_FD\[1, 0\] is nan: expected finite weights; is the checkpoint damaged\?"
    ):
        normalise_rows([[1.0], [np.nan]])


def test_random_partition_is_balanced_seeded_and_uniform():
    labels = random_partition(12, 4, seed=3)
    assert labels.dtype == np.int32
    assert np.bincount(labels).tolist() == [3, 3, 3, 3]
    assert (labels == random_partition(12, 4, seed=3)).all()
    first = [random_partition(8, 4, seed=s)[0] for s in range(2000)]
    assert np.abs(np.bincount(first) / 2000 - 0.25).max() < 0.04
    with pytest.raises(InputError, match="12 neurons cannot be split into 5 experts"):
        random_partition(12, 5, seed=0)


def test_inertia_by_hand():
    # Means (1, 0) and (5, 5); squares 1 + 1 and 0, and an expert of one neuron adds nothing.
    rows = np.array([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0]])
    assert inertia(rows, [0, 0, 1]) == 2.0
    assert inertia(rows, [0, 0, 7]) == 2.0
    assert inertia(rows, [0, 1, 2]) == 0.0


def test_inertia_far_from_the_origin_keeps_its_digits():
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(500, 7)), rng.integers(0, 9, 500)
    assert inertia(rows + 1e6, labels) == pytest.approx(inertia(rows, labels), rel=1e-8)
    expected = sum(((rows[labels == e] - rows[labels == e].mean(axis=0)) ** 2).sum() for e in range(9))
    assert inertia(rows, labels) == pytest.approx(expected, rel=1e-12)


def test_adjusted_rand_ignores_names():
    assert adjusted_rand([0, 0, 1, 1, 2, 2], [2, 2, 0, 0, 1, 1]) == 1.0
    rng = np.random.default_rng(0)
    chance = [adjusted_rand(random_partition(96, 8, seed=rng), random_partition(96, 8, seed=rng)) for _ in range(200)]
    assert abs(np.mean(chance)) < 0.01
    with pytest.raises(DataError, match="labels_F has 1 entries: expected 2, one per neuron"):
        adjusted_rand([0, 1], [0])


def test_expert_predictivity_is_the_mean_of_the_members():
    assert expert_predictivity([0.5, 0.7, 0.9, 0.6], [1, 0, 0, 1]).tolist() == pytest.approx([0.8, 0.55])
    two = expert_predictivity(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), [0, 1, 1])
    assert two.tolist() == [[1.0, 2.5], [4.0, 5.5]]


def test_expert_predictivity_refuses_gaps():
    with pytest.raises(DataError, match=r"experts \[1\] have no neuron, so no mean: number the experts without gaps"):
        expert_predictivity([0.5, 0.6], [0, 2])
    with pytest.raises(DataError, match="expected finite values, one per neuron"):
        expert_predictivity([0.5, np.nan], [0, 1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1]], r"labels_F has shape \(1, 2\) and dtype int64: expected one integer per neuron"),
        ([0.0, 1.0], r"labels_F has shape \(2,\) and dtype float64: expected one integer per neuron"),
        ([], r"labels_F has shape \(0,\)"),
        ([0, -1], r"labels_F\[1\] is -1: experts are numbered from 0"),
        ([0, 1, 1], "labels_F has 3 entries: expected 2, one per neuron"),
    ],
)
def test_bad_labels(labels, message):
    with pytest.raises(DataError, match=message):
        expert_predictivity([0.5, 0.6], labels)
