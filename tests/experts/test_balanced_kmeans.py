import numpy as np
import pytest
from sklearn.cluster import KMeans

from modularity.errors import DataError, InputError
from modularity.experts import (
    adjusted_rand,
    balanced_kmeans,
    fit_balanced_kmeans,
    inertia,
    normalise_rows,
    random_partition,
)


def planted_rows(n_neurons, n_dims, n_experts, strength, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n_neurons) % n_experts
    rows = rng.normal(size=(n_neurons, n_dims)) + strength * rng.normal(size=(n_experts, n_dims))[labels]
    return normalise_rows(rows.astype(np.float32)), labels


@pytest.mark.parametrize(("n_experts", "strength"), [(4, 0.6), (16, 0.6), (48, 0.8)])
def test_planted_experts_are_found(n_experts, strength):
    rows, planted = planted_rows(768, 256, n_experts, strength)
    labels = balanced_kmeans(rows, n_experts)
    assert adjusted_rand(labels, planted) == 1.0
    assert labels.dtype == np.int32


@pytest.mark.parametrize(("n_neurons", "n_experts"), [(60, 1), (60, 2), (60, 12), (60, 60), (512, 32)])
def test_exactly_balanced_and_better_than_random(n_neurons, n_experts):
    rows = np.random.default_rng(1).normal(size=(n_neurons, 24)).astype(np.float32)
    labels = balanced_kmeans(rows, n_experts)
    assert (np.bincount(labels, minlength=n_experts) == n_neurons // n_experts).all()
    chance = np.mean([inertia(rows, random_partition(n_neurons, n_experts, seed=s)) for s in range(5)])
    assert inertia(rows, labels) <= chance * (1 + 1e-12)
    if 1 < n_experts < n_neurons:
        assert inertia(rows, labels) < 0.97 * chance


def test_nearly_orthogonal_rows_end_below_kmeans_without_balance():
    # Where Lloyd steps stall, exchanges go on: below even the unbalanced optimum of scikit-learn's k-means.
    rows = normalise_rows(np.random.default_rng(0).normal(size=(960, 480)).astype(np.float32))
    unbalanced = KMeans(30, n_init=3, random_state=0).fit(rows).inertia_
    assert inertia(rows, balanced_kmeans(rows, 30)) < 0.995 * unbalanced


def test_result_describes_the_labels_that_are_kept():
    rows, _ = planted_rows(240, 32, 8, 0.3)
    result = fit_balanced_kmeans(rows, 8, n_restarts=4, seed=5)
    assert result.inertia == result.inertia_N.min() == pytest.approx(inertia(rows, result.labels_F), rel=1e-12)
    assert result.inertia_N.shape == (4,)
    means = np.stack([rows[result.labels_F == e].astype(np.float64).mean(axis=0) for e in range(8)])
    assert np.allclose(result.centres_ED, means, atol=1e-12)
    assert result.converged
    assert result.exchange == "full"
    assert result.n_iterations >= 1
    assert (result.labels_F == balanced_kmeans(rows, 8, n_restarts=4, seed=5)).all()


def test_a_start_is_the_same_whatever_else_runs():
    rows = np.random.default_rng(2).normal(size=(240, 16)).astype(np.float32)
    three = fit_balanced_kmeans(rows, 12, n_restarts=3, seed=7, n_threads=3)
    alone = fit_balanced_kmeans(rows, 12, n_restarts=3, seed=7, n_threads=1)
    assert (three.labels_F == alone.labels_F).all()
    assert three.inertia_N[0] == fit_balanced_kmeans(rows, 12, seed=7).inertia
    assert three.inertia_N[0] != fit_balanced_kmeans(rows, 12, seed=8).inertia


def test_a_good_partition_given_as_start_is_kept():
    rows, planted = planted_rows(240, 64, 8, 0.6)
    result = fit_balanced_kmeans(rows, 8, n_restarts=0, initial_labels=planted)
    assert (result.labels_F == planted).all()
    assert result.n_swaps == 0
    both = fit_balanced_kmeans(rows, 8, n_restarts=2, initial_labels=planted)
    assert both.inertia_N.shape == (3,)
    assert both.inertia_N[0] == result.inertia
    assert both.inertia_N[1] == fit_balanced_kmeans(rows, 8).inertia


def test_the_start_of_lower_inertia_is_kept_and_named():
    rows, planted = planted_rows(240, 64, 8, 0.6)
    moved = normalise_rows(rows + 0.02 * np.random.default_rng(1).normal(size=rows.shape).astype(np.float32))
    warm = fit_balanced_kmeans(moved, 8, initial_labels=planted)
    assert warm.start == "warm"
    assert (warm.labels_F == planted).all()  # The names of the experts stay.
    assert (balanced_kmeans(moved, 8, initial_labels=planted) == planted).all()
    noise = np.random.default_rng(2).normal(size=(240, 6)).astype(np.float32)
    other = np.repeat(np.arange(8), 30)
    starts = set()
    for seed in range(8):
        result = fit_balanced_kmeans(noise, 8, seed=seed, initial_labels=other)
        assert result.start == ("warm" if result.inertia_N[0] <= result.inertia_N[1:].min() else "scratch")
        assert result.inertia == result.inertia_N.min()
        starts.add(result.start)
    assert starts == {"warm", "scratch"}
    assert fit_balanced_kmeans(noise, 8, n_restarts=3).start == "scratch"


def test_warm_starts_along_checkpoints_are_deterministic_and_never_worse_than_scratch():
    rng = np.random.default_rng(3)
    rows_TFD = np.cumsum(rng.normal(size=(4, 120, 12)).astype(np.float32), axis=0)
    chains = []
    for _ in range(2):
        labels, chain = None, []
        for rows in rows_TFD:
            labels = balanced_kmeans(rows, 6, seed=1, initial_labels=labels)
            chain.append(labels)
        chains.append(np.stack(chain))
    assert (chains[0] == chains[1]).all()
    for rows, labels in zip(rows_TFD, chains[0]):
        assert inertia(rows, labels) <= inertia(rows, balanced_kmeans(rows, 6, seed=1))


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e15])
def test_scale_and_shift_of_all_rows_do_not_matter(factor):
    rows, planted = planted_rows(192, 64, 8, 0.7)
    moved = (rows.astype(np.float64) + 3.0) * factor
    assert adjusted_rand(balanced_kmeans(moved, 8), planted) == 1.0


def test_scale_of_single_rows_does_not_matter_after_normalisation():
    rows, _ = planted_rows(192, 64, 8, 0.5)
    scale = 2.0 ** np.random.default_rng(0).integers(-8, 8, 192)
    assert (balanced_kmeans(normalise_rows(rows * scale[:, None]), 8) == balanced_kmeans(normalise_rows(rows), 8)).all()


def test_blockwise_when_the_gram_matrix_would_not_fit():
    rows, planted = planted_rows(384, 128, 12, 0.7)
    result = fit_balanced_kmeans(rows, 12, max_gram_bytes=4 * 100**2)
    assert result.exchange == "blockwise"
    assert adjusted_rand(result.labels_F, planted) == 1.0


def test_few_iterations_are_reported_as_not_converged():
    rows = np.random.default_rng(3).normal(size=(96, 8)).astype(np.float32)
    result = fit_balanced_kmeans(rows, 8, max_iterations=1)
    assert result.n_iterations == 1
    assert not result.converged


def test_rows_without_any_difference():
    result = fit_balanced_kmeans(np.ones((12, 4), np.float32), 3)
    assert np.bincount(result.labels_F).tolist() == [4, 4, 4]
    assert result.inertia == 0.0


def test_float16_and_integer_rows():
    rows = np.repeat(np.eye(4), 3, axis=0)
    for dtype in (np.float16, np.int64, np.float64):
        assert inertia(rows, balanced_kmeans(rows.astype(dtype), 4)) == 0.0


def test_bad_input():
    rows = np.zeros((12, 3), np.float32)
    with pytest.raises(InputError, match=r"12 neurons cannot be split into 5 experts .* nearest are 2, 3, 4, 6"):
        balanced_kmeans(rows, 5)
    with pytest.raises(InputError, match=r"n_restarts is 0: expected at least 1 \(0 only with initial_labels\)"):
        balanced_kmeans(rows, 4, n_restarts=0)
    with pytest.raises(DataError, match=r"rows_FD has shape \(12,\): expected neurons x dimensions"):
        balanced_kmeans(np.zeros(12), 4)
    with pytest.raises(DataError, match="rows_FD has dtype complex128: expected real numbers"):
        balanced_kmeans(rows.astype(complex), 4)
    rows[7, 2] = np.inf
    with pytest.raises(DataError, match=r"rows_FD\[7, 2\] is inf: expected finite weights"):
        balanced_kmeans(rows, 4)


def test_bad_initial_labels():
    rows = np.zeros((12, 3), np.float32)
    with pytest.raises(DataError, match="experts of 2 to 10 neurons, 2 of them: expected 2 experts of 6"):
        fit_balanced_kmeans(rows, 2, initial_labels=[0] * 10 + [1] * 2)
    with pytest.raises(DataError, match="labels_F has 3 entries: expected 12, one per neuron"):
        fit_balanced_kmeans(rows, 3, initial_labels=[0, 1, 2])
