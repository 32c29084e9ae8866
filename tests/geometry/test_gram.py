"""Similarities from Gram matrices against the same computed from the vectors."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from modularity.errors import DataError
from modularity.geometry.gram import (
    MEASURES,
    centred,
    gram_matrix,
    principal_coordinates,
    scaled_similarity,
    similarity,
    text_means,
    without_components,
)


@pytest.fixture
def values() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(12, 5)) + 4 * rng.normal(size=5)).astype(np.float32)


def cosines(values: np.ndarray) -> np.ndarray:
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return unit @ unit.T


def test_cosine_and_scaled_by_hand() -> None:
    gram = gram_matrix(np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    np.testing.assert_allclose(similarity(gram, "cosine")[0], [1, 0, 1 / np.sqrt(2)])
    np.testing.assert_allclose(similarity(gram, "scaled"), np.array([[9, 0, 3], [0, 1, 1], [3, 1, 2]]) / 9)


def test_centring_and_removal_equal_those_of_the_vectors(values: np.ndarray) -> None:
    gram, moved = gram_matrix(values), values - values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(centred(gram), moved @ moved.T, atol=1e-9)
    np.testing.assert_allclose(similarity(gram, "centred"), cosines(moved), atol=1e-9)
    _, _, directions = np.linalg.svd(moved, full_matrices=False)
    kept = moved - moved @ directions[:2].T @ directions[:2]
    np.testing.assert_allclose(without_components(gram, 2), kept @ kept.T, atol=1e-9)
    np.testing.assert_allclose(similarity(gram, "components_removed", n_removed=2), cosines(kept), atol=1e-8)


def test_a_row_of_length_zero_is_similar_to_nothing() -> None:
    gram = gram_matrix(np.array([[0.0, 0.0], [1.0, 2.0]]))
    assert similarity(gram, "cosine").tolist() == [[0.0, 0.0], [0.0, pytest.approx(1.0)]]
    assert not scaled_similarity(np.zeros((2, 2))).any()


def test_rounding_that_is_left_of_rows_is_similar_to_nothing() -> None:
    rng = np.random.default_rng(1)
    equal = gram_matrix(np.tile(rng.normal(size=64), (40, 1)))
    assert not similarity(equal, "centred").any()
    assert not principal_coordinates(equal)[1].any()
    one_direction = gram_matrix(np.outer(np.repeat([1.0, 2.0], 15), rng.normal(size=50)) + 10)
    assert np.abs(similarity(one_direction, "centred")).min() == pytest.approx(1)
    assert not similarity(one_direction, "components_removed").any()


def test_principal_coordinates_are_those_of_pca(values: np.ndarray) -> None:
    coordinates, share = principal_coordinates(gram_matrix(values), 2)
    reference = PCA(2).fit(values.astype(np.float64))
    np.testing.assert_allclose(np.abs(coordinates), np.abs(reference.transform(values.astype(np.float64))), atol=1e-8)
    np.testing.assert_allclose(share, reference.explained_variance_ratio_)
    largest = np.abs(coordinates).argmax(axis=0)
    assert (coordinates[largest, [0, 1]] > 0).all()


def test_text_means_average_pairs_of_rows() -> None:
    rows = np.arange(16.0).reshape(4, 4)
    means = text_means(rows, np.array([0, 0, 1, 1]))
    assert means.tolist() == [[rows[:2, :2].mean(), rows[:2, 2:].mean()], [rows[2:, :2].mean(), rows[2:, 2:].mean()]]


def test_what_cannot_be_compared_is_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="finite values"):
        gram_matrix(np.array([[np.nan, 1.0]]))
    with pytest.raises(DataError, match=f"one of {', '.join(MEASURES)}"):
        similarity(gram_matrix(values), "euclid")
    with pytest.raises(DataError, match="expected 0 to 11"):
        without_components(gram_matrix(values), 12)
    with pytest.raises(DataError, match=r"texts \[1\] have no row"):
        text_means(np.eye(2), np.array([0, 2]))
