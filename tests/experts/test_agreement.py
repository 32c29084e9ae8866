import numpy as np
import pytest
from scipy.stats import ks_2samp, kstest
from sklearn.metrics import adjusted_rand_score

from modularity.errors import DataError, InputError
from modularity.experts import match_experts, partition_agreement, random_partition
from modularity.experts.agreement import _adjusted, _null_squares


def test_equal_up_to_names():
    labels = random_partition(96, 8, seed=0)
    found = partition_agreement(labels, (labels + 3) % 8, n_permutations=199)
    assert found.adjusted_rand == found.adjusted_mutual_information == pytest.approx(1.0)
    assert found.p_value == pytest.approx(1 / 200)
    assert abs(found.null_mean) < 4 * found.null_sd / np.sqrt(199)
    assert 0 < found.null_sd < 0.05


def test_p_values_are_uniform_without_relation():
    p = [
        partition_agreement(
            random_partition(240, 12, seed=2 * s), random_partition(240, 8, seed=2 * s + 1), n_permutations=99, seed=s
        ).p_value
        for s in range(200)
    ]
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.04)


def test_drawn_tables_are_those_of_permuted_labels():
    rng = np.random.default_rng(0)
    labels, other = np.repeat([0, 1, 2], [5, 9, 10]), np.repeat([0, 1], [14, 10])
    table = np.array([[5, 0], [9, 0], [0, 10]])
    permuted = np.zeros((4000, 3, 2), np.int64)
    for draw in permuted:
        np.add.at(draw, (labels, rng.permutation(other)), 1)
    expected = _adjusted((permuted**2).sum(axis=(1, 2)), table)
    drawn = _adjusted(_null_squares(table.sum(axis=1), table.sum(axis=0), 4000, seed=0), table)
    assert ks_2samp(expected, drawn).pvalue > 0.01
    assert drawn.mean() == pytest.approx(0.0, abs=4 * drawn.std() / np.sqrt(4000))
    squares = np.array([(table**2).sum()])
    assert _adjusted(squares, table)[0] == pytest.approx(adjusted_rand_score(labels, other), rel=1e-12)


def test_a_weak_relation_is_significant_with_many_neurons():
    rng = np.random.default_rng(1)
    labels = random_partition(960, 12, seed=0)
    other = labels.copy()
    mixed = rng.random(960) < 0.8
    other[mixed] = rng.permutation(labels[mixed])
    found = partition_agreement(labels, other, n_permutations=499)
    assert 0.01 < found.adjusted_rand < 0.15
    assert found.p_value == 1 / 500


def test_deterministic():
    labels, other = random_partition(60, 6, seed=0), random_partition(60, 5, seed=1)
    first, again, other_seed = (partition_agreement(labels, other, n_permutations=120, seed=s) for s in (0, 0, 1))
    assert (first.p_value, first.null_mean) == (again.p_value, again.null_mean)
    assert first.null_mean != other_seed.null_mean


def test_single_experts_agree():
    found = partition_agreement([0, 0, 0], [0, 0, 0], n_permutations=9)
    assert (found.adjusted_rand, found.p_value, found.null_mean) == (1.0, 1.0, 1.0)


def test_matching_by_hand():
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    other = [1, 1, 0, 2, 2, 2, 0, 0, 1]
    found = match_experts(labels, other)
    assert found.other_E.tolist() == [1, 2, 0]
    assert found.shared_E.tolist() == [2, 3, 2]
    assert found.share == pytest.approx(7 / 9)
    assert found.renamed(other).tolist() == [0, 0, 2, 1, 1, 1, 2, 2, 0]


def test_matching_of_unequal_numbers():
    labels, other = [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]
    assert match_experts(labels, other).other_E.tolist() == [0, -1, 1]
    back = match_experts(other, labels)
    assert back.other_E.tolist() == [0, 2]
    assert back.renamed(labels).tolist() == [0, 0, 2, 2, 1, 1]


def test_bad_input():
    with pytest.raises(DataError, match="labels_F has 3 entries: expected 2, one per neuron"):
        partition_agreement([0, 1], [0, 1, 1])
    with pytest.raises(DataError, match=r"labels_F\[0\] is -1"):
        match_experts([-1, 0], [0, 1])
    with pytest.raises(InputError, match="n_permutations is 0: expected at least 1"):
        partition_agreement([0, 1], [0, 1], n_permutations=0)
