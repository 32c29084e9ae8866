"""Measures of spectra by hand."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.geometry import LEVELS, count_above, noise_floor, spectrum_measures


def test_measures_of_a_flat_spectrum() -> None:
    measures = spectrum_measures(np.full(7, 0.5), (9, 7))
    assert measures.stable_rank.value == pytest.approx(7)
    assert measures.effective_rank.value == pytest.approx(7)
    assert (measures.rank, measures.rank_float32, measures.n_values) == (7, 7, 7)
    assert [level.value for level in measures.above] == [7] * len(LEVELS)


def test_measures_by_hand() -> None:
    measures = spectrum_measures(np.array([2.0, 1.0, 1.0, 0.0]), (4, 4))
    assert measures.frobenius.value == pytest.approx(6**0.5)
    assert measures.stable_rank.value == pytest.approx(1.5)
    assert measures.effective_rank.value == pytest.approx(np.exp(1.5 * np.log(2)))  # p = 1/2, 1/4, 1/4
    assert measures.rank == 3


def test_the_two_noise_floors_differ() -> None:
    values = np.array([1.0, 1e-5, 1e-9, 1e-15])
    measures = spectrum_measures(values, (100, 100))
    assert noise_floor(1.0, (100, 100)) == pytest.approx(2.2204e-14, rel=1e-3)
    assert (measures.rank, measures.rank_float32) == (3, 1)


def test_values_that_are_left_out_are_zero() -> None:
    measures = spectrum_measures(np.array([1.0]), (10, 10))
    assert (measures.rank, measures.n_values) == (1, 10)
    assert spectrum_measures(np.zeros(3), (3, 3)).stable_rank.value == 0


def test_counts() -> None:
    for counts in count_above(np.array([3.0, 1.0, 2.0]), np.array([0.5, 1.0, 2.5, 9.0])):
        assert counts.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("values", [np.zeros(0), np.array([-1.0]), np.array([np.nan]), np.ones(4)])
def test_impossible_spectra_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="expected 1 to 3 finite numbers"):
        spectrum_measures(values, (3, 5))
