import numpy as np
import pytest

from modularity.errors import InputError
from modularity.experts import (
    adjusted_rand,
    balanced_kmeans,
    functional_experts,
    inertia,
    kmeans_partition,
    normalise_rows,
    shuffled_weight_partition,
)


def test_kmeans_reports_uneven_sizes():
    rng = np.random.default_rng(0)
    planted = np.repeat([0, 1, 2], [60, 30, 6])
    rows = np.eye(3)[planted] * 10 + 0.1 * rng.normal(size=(96, 3))
    partition = kmeans_partition(rows, 3, n_restarts=5)
    assert sorted(partition.sizes_E) == [6, 30, 60]
    assert partition.n_empty == 0
    assert adjusted_rand(partition.labels_F, planted) == 1.0
    assert partition.inertia == pytest.approx(inertia(rows, planted))
    critical = functional_experts([0, 1, 2, 3], partition.labels_F).critical_count_E
    assert critical[partition.sizes_E.argmin()] < critical[partition.sizes_E.argmax()]


def test_kmeans_reports_experts_that_stay_empty():
    rows = np.repeat(np.eye(2), 4, axis=0)
    partition = kmeans_partition(rows, 5)
    assert partition.n_empty == 3
    assert partition.sizes_E.tolist() == [4, 4]
    assert set(partition.labels_F) == {0, 1}


def test_kmeans_bad_numbers():
    with pytest.raises(InputError, match="n_experts is 9: expected 1 to 8, the number of neurons"):
        kmeans_partition(np.ones((8, 2)), 9)
    with pytest.raises(InputError, match="n_restarts is 0: expected at least 1"):
        kmeans_partition(np.ones((8, 2)), 2, n_restarts=0)


def test_shuffled_weights_lose_the_planted_experts():
    rng = np.random.default_rng(1)
    planted = rng.permutation(192) % 8
    rows = normalise_rows(rng.normal(size=(192, 64)) + rng.normal(size=(8, 64))[planted])
    assert adjusted_rand(balanced_kmeans(rows, 8), planted) == 1.0
    control = shuffled_weight_partition(rows, 8, seed=2)
    assert np.bincount(control).tolist() == [24] * 8
    assert abs(adjusted_rand(control, planted)) < 0.05
    assert (control == shuffled_weight_partition(rows, 8, seed=2)).all()
    assert (control != shuffled_weight_partition(rows, 8, seed=3)).any()
