from math import comb

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from modularity.errors import DataError
from modularity.stats import (
    boundary_ties,
    chance_jaccard,
    chance_overlap,
    function_overlap,
    jaccard,
    n_common,
    overlap_p_values,
    rank_correlation,
    top_k_overlap,
    top_neurons,
)

VALUES_SF = np.array([[9.0, 8, 7, 1, 1], [1, 9, 8, 7, 1], [5, 5, 5, 5, 5]])


def test_top_neurons_descend_and_break_ties_by_lowest_index():
    assert top_neurons(np.array([1.0, 3, 2, 3, 3]), 3).tolist() == [1, 3, 4]
    assert top_neurons(VALUES_SF, 2).tolist() == [[0, 1], [1, 2], [0, 1]]
    with pytest.raises(DataError, match="k is 6: expected between 1 and the 5 neurons"):
        top_neurons(VALUES_SF, 6)
    with pytest.raises(DataError, match="1 of 2 values are NaN"):
        top_neurons(np.array([np.nan, 1.0]), 1)


def test_boundary_ties_are_counted():
    assert boundary_ties(VALUES_SF, 3).tolist() == [0, 0, 2]
    assert boundary_ties(VALUES_SF, 4).tolist() == [1, 1, 1]
    assert boundary_ties(VALUES_SF, 5).tolist() == [0, 0, 0]


def test_overlap_by_hand():
    assert n_common(VALUES_SF, 3).tolist() == [[3, 2, 3], [2, 3, 2], [3, 2, 3]]
    np.testing.assert_allclose(top_k_overlap(VALUES_SF, 3)[0], [1, 2 / 3, 1])
    np.testing.assert_allclose(jaccard(VALUES_SF, 3)[0], [1, 2 / 4, 1])
    layers_LSF = np.stack([VALUES_SF, VALUES_SF[::-1]])
    np.testing.assert_array_equal(top_k_overlap(layers_LSF, 3)[1], top_k_overlap(VALUES_SF[::-1], 3))


def test_rank_correlation_equals_scipy_and_is_nan_for_constants():
    values_SF = np.random.default_rng(0).integers(0, 9, (4, 50)).astype(float)
    np.testing.assert_allclose(rank_correlation(values_SF), spearmanr(values_SF, axis=1).statistic, atol=1e-14)
    rho = rank_correlation(VALUES_SF)
    assert np.isnan(rho[2]).all()
    assert rho[0, 0] == pytest.approx(1)


def test_chance_of_the_published_setting():
    assert chance_overlap(32, 3072) == pytest.approx(0.0104, abs=5e-5)
    assert chance_overlap(512, 49152) == chance_overlap(32, 3072)
    values_SF = np.random.default_rng(0).random((60, 3072))
    off_diagonal = top_k_overlap(values_SF, 32)[np.triu_indices(60, 1)]
    assert off_diagonal.mean() == pytest.approx(1 / 96, rel=0.05)


def test_hypergeometric_p_by_counting():
    # two lists of 2 out of 5: share none in 3 of 10 cases, one in 6, both in 1
    np.testing.assert_allclose(overlap_p_values(np.array([0, 1, 2]), 2, 5), [1, 7 / 10, 1 / 10])
    assert overlap_p_values(np.array(32), 32, 3072) == pytest.approx(1 / comb(3072, 32))


def test_function_overlap_by_hand():
    similarity_SS = np.array([[1.0, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]])
    result = function_overlap(similarity_SS, ["task", "task", "semantic"], n_permutations=600)
    assert result.functions == ("task", "semantic")
    np.testing.assert_allclose(result.mean_GG, [[0.5, 0.2], [0.2, np.nan]])
    # the pair within "task" is each of the three pairs equally often
    assert result.p_above_GG[0, 0] == pytest.approx(1 / 3, abs=0.06)
    assert result.p_below_GG[0, 0] == 1
    assert result.null_mean_GG[0, 0] == pytest.approx(0.3, abs=0.02)
    assert result.null_sd_GG[0, 0] == pytest.approx(np.std([0.5, 0.1, 0.3]), abs=0.02)
    assert result.within_minus_between == pytest.approx(0.3)
    assert result.p_within_above_between == result.p_above_GG[0, 0]
    assert np.isnan(result.p_above_GG[1, 1])


def test_planted_blocks_are_found():
    rng = np.random.default_rng(0)
    values_SF = rng.random((12, 500))
    for s in range(12):
        values_SF[s, 50 * (s // 4) : 50 * (s // 4) + 10] += 0.9
    functions = [name for name in ("a", "b", "c") for _ in range(4)]
    result = function_overlap(top_k_overlap(values_SF, 20), functions)
    assert (np.diag(result.p_above_GG) < 0.01).all()
    assert result.p_within_above_between < 0.002
    assert (np.diag(result.mean_GG) > 0.2).all()


def test_block_null_is_uniform():
    rng = np.random.default_rng(1)
    functions = [name for name in ("a", "b") for _ in range(6)]
    p = [
        function_overlap(top_k_overlap(rng.random((12, 200)), 40), functions, n_permutations=199, seed=seed).p_above_GG[
            0, 0
        ]
        for seed in range(100)
    ]
    assert kstest(p, "uniform").pvalue > 0.01


def test_single_function_has_no_contrast():
    result = function_overlap(np.eye(3), ["a"] * 3, n_permutations=9)
    assert np.isnan(result.within_minus_between)
    assert np.isnan(result.p_within_above_between)
    assert result.mean_GG.tolist() == [[0.0]]


def test_function_overlap_inputs():
    with pytest.raises(DataError, match=r"similarity has shape \(3, 3\): expected one row and column for each of 2"):
        function_overlap(np.eye(3), ["a", "b"])
    with pytest.raises(DataError, match="n_permutations is 0"):
        function_overlap(np.eye(2), ["a", "b"], n_permutations=0)


def test_expected_jaccard_is_that_of_random_lists():
    rng = np.random.default_rng(0)
    lists = [set(rng.choice(20, 4, replace=False)) for _ in range(8000)]
    simulated = np.mean([len(a & b) / len(a | b) for a, b in zip(lists[::2], lists[1::2])])
    assert chance_jaccard(4, 20) == pytest.approx(simulated, abs=5e-3)
    assert chance_jaccard(5, 5) == 1.0
