import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import random_partition, random_partition_baseline, relabelling
from modularity.experts.relabelling import shuffled_counts


def test_shuffled_counts_follow_the_multivariate_hypergeometric_law():
    labels = np.repeat([0, 1, 2], [4, 6, 10])
    counts = shuffled_counts([[0, 1, 2, 3, 4]], labels, 4, n_permutations=20_000, seed=0)
    assert counts.shape == (20_000, 4)
    assert (counts.sum(axis=1) == 5).all()
    assert counts.mean(axis=0) == pytest.approx([1.0, 1.5, 2.5, 0.0], abs=0.03)
    variance = 5 * np.array([0.2, 0.3, 0.5]) * np.array([0.8, 0.7, 0.5]) * 15 / 19
    assert counts[:, :3].var(axis=0) == pytest.approx(variance, rel=0.05)


def test_duplicates_move_together():
    # The same four neurons in three lists: every shuffled count is a multiple of three.
    counts = shuffled_counts([[0, 1, 2, 3]] * 3, np.repeat(np.arange(5), 8), 5, n_permutations=300, seed=1)
    assert (counts % 3 == 0).all()
    assert (counts.sum(axis=1) == 12).all()


def test_duplicates_alone_do_not_make_an_expert_functional():
    labels = random_partition(320, 8, seed=0)
    rng = np.random.default_rng(1)
    same = rng.choice(320, 8, replace=False)
    tests = [relabelling([same] * 6, random_partition(320, 8, seed=s), n_permutations=99, seed=s) for s in range(100)]
    # The binomial rule of the paper counts the eight neurons as 48 draws and rejects far too often.
    assert np.mean([t.result.functional_E.mean() for t in tests]) > 0.01
    assert np.mean([t.p_value_E <= 0.001 for t in tests]) <= 0.002
    spread = relabelling([same], labels, n_permutations=99)
    assert spread.result.n_top == 8


def test_p_values_are_super_uniform_under_the_null():
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(6), [20, 20, 20, 10, 10, 40])
    tests = []
    for seed in range(400):
        lists = [rng.choice(120, 12, replace=False) for _ in range(2)]
        tests.append(relabelling(lists, labels, n_permutations=59, seed=seed, alpha=0.05))
    for values in (
        np.array([t.p_value_E for t in tests]).ravel(),
        np.array([t.concentration.p_value for t in tests]),
        np.array([t.degree.p_value for t in tests]),
        np.array([t.proportion.p_value for t in tests]),
    ):
        for level in (0.05, 0.1, 0.3, 0.6):
            assert (values <= level).mean() <= level + 3.5 * np.sqrt(level * (1 - level) / 400)
    concentration = np.array([t.concentration.p_value for t in tests])
    assert concentration.mean() == pytest.approx(0.5, abs=0.06)


def test_planted_expert_is_found_and_its_null_is_the_exact_baseline():
    labels = np.repeat(np.arange(16), 192)
    top = np.concatenate([np.arange(15), 200 * np.arange(1, 16)])
    test = relabelling([top], labels, n_permutations=4000, seed=0, alpha=0.05)
    assert test.p_value_E.argmin() == 0
    assert test.p_value_E[0] == pytest.approx(1 / (16 * 4001))
    assert test.degree.observed == test.result.degree
    assert test.degree.p_value == test.concentration.p_value == 1 / 4001
    baseline = random_partition_baseline(3072, 16, 30, alpha=0.05)
    assert test.degree.null_mean == pytest.approx(baseline.degree, abs=4 * test.degree.null_sd / np.sqrt(4000))
    assert test.proportion.null_mean == pytest.approx(baseline.proportion, rel=0.1)
    assert test.concentration.null_mean == pytest.approx(0.0, abs=0.002)


def test_a_figure_equal_to_every_shuffled_one_has_p_one():
    test = relabelling([[0, 1, 2, 3]], np.repeat([0, 1], 2), n_permutations=20)
    assert test.p_value_E.tolist() == [1.0, 1.0]
    assert test.concentration.p_value == 1.0
    assert test.degree.p_value == 1.0


def test_seed_decides():
    labels = np.repeat(np.arange(4), 10)
    first, again = (relabelling([[0, 1, 2, 9]], labels, n_permutations=50, seed=5) for _ in range(2))
    assert first.degree == again.degree
    assert (first.p_value_E == again.p_value_E).all()


def test_bad_input():
    with pytest.raises(InputError, match="n_permutations is 0: expected at least 1"):
        relabelling([[0]], [0, 1], n_permutations=0)
    with pytest.raises(DataError, match="no list of best neurons"):
        relabelling([], [0, 1])
