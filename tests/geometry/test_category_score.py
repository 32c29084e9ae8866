"""Category scores: by hand, against brute force, found where planted, uniform p-values where nothing is."""

from itertools import permutations

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.geometry.category_score import category_blocks, category_scores, score_intervals
from modularity.geometry.gram import gram_matrix, similarity, text_means
from modularity.geometry.labellings import labellings

CATEGORY = np.repeat([0, 1, 2], [4, 3, 3])
TEXT = np.repeat(np.arange(10), 5)


def texts(seed: int, planted: float) -> np.ndarray:
    """Similarities of ten texts of five rows, whose categories have directions of their own."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(10, 24))[TEXT]
    rows = rng.normal(size=(50, 24)) + own + planted * rng.normal(size=(3, 24))[CATEGORY][TEXT]
    return text_means(similarity(gram_matrix(rows), "centred"), TEXT)


def brute_force(similarity_TT: np.ndarray, category_T: np.ndarray) -> float:
    within, between = [], []
    for i in range(len(category_T)):
        for j in range(i):
            (within if category_T[i] == category_T[j] else between).append(similarity_TT[i, j])
    return float(np.mean(within) - np.mean(between))


def test_score_and_exact_p_equal_brute_force() -> None:
    small = np.array([0, 0, 1, 1, 2])
    similar = texts(0, 1.0)[:5, :5]
    found = category_scores(similar[None], small, labellings(small))
    observed = brute_force(similar, small)
    null = np.array([brute_force(similar, np.array(each)) for each in set(permutations(small.tolist()))])
    assert found.score_M[0] == pytest.approx(observed)
    assert found.score_M[0] == pytest.approx(found.within_M[0] - found.between_M[0])
    assert found.p_value_M[0] == pytest.approx((null >= observed - 1e-12).mean())
    assert found.null_mean_M[0] == pytest.approx(null.mean())
    assert found.null_sd_M[0] == pytest.approx(null.std())
    assert (found.null_low_M[0], found.null_high_M[0]) == pytest.approx(
        tuple(np.quantile(null, [0.05, 0.95])), abs=0.02
    )


def test_planted_categories_are_found_with_the_smallest_p() -> None:
    found = category_scores(texts(1, 2.0)[None], CATEGORY, labellings(CATEGORY))
    assert found.p_value_M[0] == pytest.approx(2 / 4200)
    assert found.score_M[0] > found.null_high_M[0]


def test_without_categories_exact_p_values_are_uniform() -> None:
    similar = np.stack([texts(seed, 0.0) for seed in range(300)])
    p = category_scores(similar, CATEGORY, labellings(CATEGORY)).p_value_M
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs((p <= level).mean() - level) < 3 * np.sqrt(level * (1 - level) / len(p))


def test_drawn_labellings_agree_with_all() -> None:
    similar = np.stack([texts(seed, 0.4) for seed in range(20)])
    exact = category_scores(similar, CATEGORY, labellings(CATEGORY)).p_value_M
    drawn = category_scores(similar, CATEGORY, labellings(CATEGORY, limit=10, n_draws=4999)).p_value_M
    np.testing.assert_allclose(drawn, exact, atol=0.03)


def test_interval_holds_the_score_of_new_texts() -> None:
    """Of planted categories: the score of other texts of the same categories lies inside most intervals."""
    rng = np.random.default_rng(5)
    directions = 1.2 * rng.normal(size=(3, 24))

    def draw(category_T: np.ndarray) -> np.ndarray:
        rows = rng.normal(size=(len(category_T), 24)) * 1.2 + directions[category_T]
        return similarity(gram_matrix(rows), "cosine")

    many = np.repeat([0, 1, 2], 150)
    truth = brute_force(draw(many), many)
    eight = np.repeat([0, 1, 2], 8)
    ends = score_intervals(np.stack([draw(eight) for _ in range(100)]), eight, n_resamples=400)
    inside = (ends.low_M <= truth) & (truth <= ends.high_M)
    assert inside.mean() > 0.8


def test_resamples_without_a_pair_are_drawn_again() -> None:
    two = np.array([0, 0, 1, 1])
    ends = score_intervals(texts(2, 1.0)[None, :4, :4], two, n_resamples=200)
    assert ends.n_redrawn > 0
    assert np.isfinite([ends.low_M, ends.high_M]).all()


def test_blocks_leave_out_a_text_with_itself() -> None:
    blocks = category_blocks(np.array([[9.0, 1.0, 2.0], [1.0, 9.0, 4.0], [2.0, 4.0, 9.0]]), np.array([0, 0, 1]))
    np.testing.assert_equal(blocks, [[1.0, 3.0], [3.0, np.nan]])


def test_what_has_no_score_is_refused() -> None:
    null = labellings(np.array([0, 1]))
    with pytest.raises(DataError, match="one of them with two or more texts"):
        category_scores(np.eye(2)[None], np.array([0, 1]), null)
    with pytest.raises(DataError, match="NaN or infinite"):
        category_scores(np.full((1, 4, 4), np.nan), np.array([0, 0, 1, 1]), null)
    with pytest.raises(DataError, match="expected"):
        category_scores(np.eye(3)[None], np.array([0, 0, 1, 1]), null)
