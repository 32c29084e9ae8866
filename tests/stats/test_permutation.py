import numpy as np
import pytest
from scipy.stats import kstest

from modularity.errors import DataError
from modularity.stats import (
    TopLists,
    better_polarity,
    max_statistic_p_values,
    merge_lists,
    p_values,
    permutation,
    permute_labels,
    polarity_scales,
    predictivity_null,
    ranking_scores,
)


def planted(rng, n_rows, n_neurons):
    activations_RF = rng.standard_normal((n_rows, n_neurons)).astype(np.float32)
    labels_SR = rng.permuted(np.tile(np.arange(n_rows) < n_rows // 2, (2, 1)), axis=1)
    return activations_RF, labels_SR


def statistic(activations_RF, labels_SR, rule="standardised"):
    scales = polarity_scales(labels_SR, rule=rule)
    return better_polarity(ranking_scores(activations_RF, labels_SR), scales).score_SF


def null_of(activations_RF, labels_SR, **options):
    observed_SF = statistic(activations_RF, labels_SR)
    return predictivity_null(activations_RF, labels_SR, observed_SF, **{"n_permutations": 50, "seed": 3, **options})


def test_permuted_labels_keep_their_count_and_move_the_same_rows():
    labels_R = np.arange(20) < 7
    first = permute_labels(labels_R, n_permutations=5, seed=1)
    assert first.shape == (5, 20)
    assert (first.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(permute_labels(~labels_R, n_permutations=5, seed=1), ~first)
    assert (permute_labels(labels_R, n_permutations=5, seed=2) != first).any()
    with pytest.raises(DataError, match="n_permutations is 0: expected at least 1"):
        permute_labels(labels_R, n_permutations=0, seed=1)


def test_p_values_by_hand():
    null_N = np.array([0.1, 0.2, 0.2, 0.4])
    np.testing.assert_array_equal(p_values([0.5, 0.4, 0.2, 0.0], null_N), [1 / 5, 2 / 5, 4 / 5, 1])
    np.testing.assert_array_equal(p_values([0.3, 0.1], np.array([[0.1, 0.1], [0.3, 0.0]])), [2 / 3, 2 / 3])
    np.testing.assert_array_equal(max_statistic_p_values(np.array([[0.3]]), null_N[None]), [[2 / 5]])
    with pytest.raises(DataError, match=r"null has shape \(4, 3\): expected \(draws, \*\(2,\)\)"):
        p_values([0.1, 0.2], np.zeros((4, 3)))
    with pytest.raises(DataError, match="2 sub-functions observed, 1 in the null"):
        max_statistic_p_values(np.zeros((2, 1)), null_N[None])


def test_moments_and_maxima_equal_the_null_held_whole():
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = planted(rng, 60, 150)
    activations_RF[:, 3] = 0
    null = null_of(activations_RF, labels_SR, n_threads=2)
    for s, labels_R in enumerate(labels_SR):
        permuted = permute_labels(labels_R, n_permutations=50, seed=3)
        whole_NF = statistic(activations_RF, permuted)
        np.testing.assert_allclose(null.mean_SF[s], whole_NF.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(null.sd_SF[s], whole_NF.std(axis=0), atol=1e-12)
        np.testing.assert_array_equal(null.max_SN[s], whole_NF.max(axis=1))
    assert null.sd_SF[0, 3] == 0
    assert null.p_value_SF[0, 3] == 1


def test_pooled_p_values_equal_their_definition_up_to_the_bins():
    rng = np.random.default_rng(0)
    activations_RF, labels_SR = planted(rng, 80, 70)
    null = null_of(activations_RF, labels_SR[:1])
    observed_F = statistic(activations_RF, labels_SR[:1])[0]
    permuted = permute_labels(labels_SR[0], n_permutations=50, seed=3)
    together = np.vstack([observed_F, statistic(activations_RF, permuted)])
    z = (together - together.mean(axis=0)) / together.std(axis=0)
    exact_F = p_values(z[0], z[1:].ravel())
    assert (null.p_value_SF[0] >= exact_F - 1e-12).all()
    np.testing.assert_allclose(null.p_value_SF[0], exact_F, rtol=0.02, atol=3 / (50 * 70))


def test_blocks_merge_by_elementwise_maximum(monkeypatch):
    rng = np.random.default_rng(1)
    activations_RF, labels_SR = planted(rng, 60, 130)
    whole = null_of(activations_RF, labels_SR, n_threads=1)
    parts = [null_of(activations_RF[:, block], labels_SR) for block in (slice(0, 1), slice(1, 77), slice(77, 130))]
    np.testing.assert_array_equal(np.maximum.reduce([part.max_SN for part in parts]), whole.max_SN)
    np.testing.assert_allclose(np.concatenate([part.mean_SF for part in parts], axis=1), whole.mean_SF, rtol=1e-14)
    monkeypatch.setattr(permutation, "LABEL_BYTES", 1)
    one_by_one = null_of(activations_RF, labels_SR, n_threads=3)
    np.testing.assert_array_equal(one_by_one.p_value_SF, whole.p_value_SF)


@pytest.mark.parametrize("kind", ["dense", "relu of mixed sparsity", "correlated"])
def test_shuffled_labels_give_uniform_p_values(kind):
    rng = np.random.default_rng(4)
    p_value, p_max = [], []
    for draw in range(40):
        activations_RF, labels_SR = planted(rng, 120, 60)
        if kind == "correlated":
            activations_RF = activations_RF[:, :5] @ rng.standard_normal((5, 60)).astype(np.float32)
        if kind == "relu of mixed sparsity":
            activations_RF = np.maximum(activations_RF - np.linspace(-1, 1, 60, dtype=np.float32), 0)
        observed_SF = statistic(activations_RF, labels_SR)
        null = predictivity_null(activations_RF, labels_SR, observed_SF, n_permutations=99, seed=draw)
        neuron = rng.integers(60)
        p_value.extend(null.p_value_SF[:, neuron])
        p_max.extend(max_statistic_p_values(observed_SF.max(axis=1, keepdims=True), null.max_SN)[:, 0])
    assert kstest(p_value, "uniform").pvalue > 0.01
    assert kstest(np.array(p_max) - rng.random(80) / 100, "uniform").pvalue > 0.01


def test_tail_is_calibrated_over_all_neurons():
    rng = np.random.default_rng(5)
    activations_RF = rng.standard_normal((200, 4000)).astype(np.float32)
    labels_SR = rng.permuted(np.tile(np.arange(200) < 80, (3, 1)), axis=1)
    p_value_SF = null_of(activations_RF, labels_SR, n_permutations=60).p_value_SF
    for level in (0.5, 0.1, 0.01, 0.001):
        assert (p_value_SF <= level).mean() == pytest.approx(level, rel=0.05 + 4 / np.sqrt(12000 * level))


def test_planted_neuron_has_a_finer_p_value_than_its_own_permutations_allow():
    rng = np.random.default_rng(6)
    activations_RF, labels_SR = planted(rng, 200, 300)
    activations_RF[:, 17] -= 2 * labels_SR[0]
    null = null_of(activations_RF, labels_SR, n_permutations=100)
    assert null.p_value_SF[0].argmin() == 17
    assert null.p_value_SF[0, 17] < 1e-4
    assert null.p_value_SF[1, 17] > 1e-3


def test_inputs_are_checked():
    activations_RF, labels_SR = planted(np.random.default_rng(0), 20, 4)
    observed_SF = np.ones((2, 4))
    with pytest.raises(DataError, match="n_permutations is 1: expected at least 2"):
        predictivity_null(activations_RF, labels_SR, observed_SF, n_permutations=1, seed=0)
    with pytest.raises(DataError, match=r"observed_SF has shape \(2, 3\): expected \(2, 4\)"):
        predictivity_null(activations_RF, labels_SR, observed_SF[:, :3], n_permutations=5, seed=0)


@pytest.mark.parametrize("kind", ["dense", "tied"])
def test_lists_of_the_best_are_those_of_the_null_held_whole(kind):
    rng = np.random.default_rng(7)
    activations_RF, labels_SR = planted(rng, 40, 150)
    if kind == "tied":
        activations_RF = (activations_RF > 1).astype(np.float32)
    whole = null_of(activations_RF, labels_SR, n_top=20, n_threads=2)
    blocks = [(0, 7), (7, 100), (100, 150)]
    parts = [null_of(activations_RF[:, start:stop], labels_SR, n_top=20).top_SNK for start, stop in blocks]
    moved = [TopLists(np.where(p.neuron < 0, -1, p.neuron + start), p.value) for p, (start, _) in zip(parts, blocks)]
    merged = merge_lists(moved, 20)
    for s, labels_R in enumerate(labels_SR):
        permuted = permute_labels(labels_R, n_permutations=50, seed=3)
        values_NF = statistic(activations_RF, permuted).astype(np.float32)
        expected_NK = np.argsort(-values_NF, axis=1, kind="stable")[:, :20]
        np.testing.assert_array_equal(whole.top_SNK.neuron[s], expected_NK)
        np.testing.assert_array_equal(whole.top_SNK.value[s, :, 0], whole.max_SN[s].astype(np.float32))
        np.testing.assert_array_equal(merged.neuron[s], expected_NK)


def test_clusters_are_exchanged_as_wholes() -> None:
    clusters_R = np.array([3, 3, 7, 7, 1, 1, 9, 9])
    constant_R = np.repeat([True, False, True, False], 2)
    permuted = permute_labels(constant_R, n_permutations=200, seed=0, clusters_R=clusters_R)
    assert (permuted[:, ::2] == permuted[:, 1::2]).all()
    assert (permuted.sum(axis=1) == 4).all()
    assert len(np.unique(permuted, axis=0)) == 6
    pairs_R = np.tile([True, False], 4)
    permuted = permute_labels(pairs_R, n_permutations=200, seed=0, clusters_R=clusters_R)
    assert (permuted[:, ::2] != permuted[:, 1::2]).all()
    assert len(np.unique(permuted, axis=0)) == 16


def test_clusters_of_other_sizes_keep_their_labels() -> None:
    clusters_R = np.array([0, 0, 0, 1, 1, 2, 3])
    labels_R = np.array([True, True, True, False, False, True, False])
    permuted = permute_labels(labels_R, n_permutations=50, seed=0, clusters_R=clusters_R)
    assert permuted[:, :3].all()
    assert not permuted[:, 3:5].any()
    assert len(np.unique(permuted, axis=0)) == 2
    with pytest.raises(DataError, match=r"clusters have shape \(2,\): expected \(7,\)"):
        permute_labels(labels_R, n_permutations=5, seed=0, clusters_R=clusters_R[:2])


@pytest.mark.parametrize("clustered", [True, False])
def test_clusters_keep_p_values_uniform_where_free_permutation_does_not(clustered: bool) -> None:
    generator = np.random.default_rng(0)
    p_values_found = []
    for draw in range(60):
        clusters_R = np.repeat(np.arange(20), 5)
        labels_R = np.repeat(generator.permutation(np.arange(20) % 2 == 0), 5)
        shared_CF = generator.normal(size=(20, 8))
        activations_RF = shared_CF[clusters_R] + 0.3 * generator.normal(size=(100, 8))
        observed_SF = statistic(activations_RF, labels_R[None])
        null = predictivity_null(
            activations_RF,
            labels_R[None],
            observed_SF,
            n_permutations=60,
            seed=draw,
            clusters_R=clusters_R if clustered else None,
        )
        p_values_found.append(max_statistic_p_values(observed_SF.max(axis=1)[:, None], null.max_SN)[0, 0])
    rejected = np.mean(np.array(p_values_found) <= 0.05)
    assert rejected <= 0.13 if clustered else rejected > 0.4


def test_a_draw_lower_by_rounding_counts_as_reached() -> None:
    null_N = np.array([0.5, 0.7 - 1e-15, 0.9])
    assert p_values(np.array([0.7]), null_N).tolist() == [3 / 4]
    assert p_values(np.array([0.7]), null_N[:, None]).tolist() == [3 / 4]
