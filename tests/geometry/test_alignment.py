"""Linear CKA: identities, its invariances, the bias of the plain form, and the null over texts."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.geometry.alignment import alignment, debiased_cka, linear_cka
from modularity.geometry.gram import gram_matrix

TEXT = np.repeat(np.arange(10), 3)


def grams(*values: np.ndarray) -> np.ndarray:
    return np.stack([gram_matrix(each) for each in values])


def test_plain_cka_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.normal(size=(30, 4))
    x, y = x - x.mean(0), y - y.mean(0)
    expected = np.linalg.norm(y.T @ x) ** 2 / np.linalg.norm(x.T @ x) / np.linalg.norm(y.T @ y)
    assert linear_cka(grams(x, y))[0, 1] == pytest.approx(expected)


def test_rotation_scale_and_shift_change_nothing() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 6))
    turned = 3 * x @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 5
    for cka in (linear_cka, debiased_cka):
        np.testing.assert_allclose(cka(grams(x, turned)), 1.0)


def test_debiased_form_is_near_zero_for_unrelated_wide_sets() -> None:
    rng = np.random.default_rng(2)
    unrelated = grams(rng.normal(size=(30, 500)), rng.normal(size=(30, 500)))
    assert linear_cka(unrelated)[0, 1] > 0.9
    assert abs(debiased_cka(unrelated)[0, 1]) < 0.2


def test_equal_vectors_are_aligned_with_nothing() -> None:
    rng = np.random.default_rng(4)
    sets = grams(np.tile(rng.normal(size=64), (30, 1)), rng.normal(size=(30, 8)))
    for cka in (linear_cka, debiased_cka):
        assert not cka(sets)[0].any()


def test_related_sets_are_told_from_unrelated_ones() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(10, 8))[TEXT] + 0.3 * rng.normal(size=(30, 8))
    found = alignment(grams(x, x[:, :4], rng.normal(size=(30, 8))), TEXT, n_permutations=99)
    assert found.p_value_MM[0, 1] == pytest.approx(0.01)
    assert found.p_value_MM[0, 2] > 0.05
    assert np.isnan(np.diagonal(found.p_value_MM)).all()
    assert (found.null_mean_MM <= found.null_high_MM).all()
    assert found.cka_MM[0, 1] > found.null_high_MM[0, 1]


def test_rows_must_be_ordered_by_text() -> None:
    with pytest.raises(DataError, match="ordered by text"):
        alignment(grams(np.eye(4), np.eye(4)), np.array([0, 1, 0, 1]))
    with pytest.raises(DataError, match="4 or more"):
        debiased_cka(grams(np.eye(3)))
