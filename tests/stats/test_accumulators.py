"""Moments and firing rates: NumPy's figures for any split of the rows, and the merge that all accumulators share."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.errors import DataError
from modularity.stats import FiringRate, Moments, merge_in_order
from modularity.stats.accumulators import Accumulator

N_NEURONS = 3


def rows(n_rows: int, seed: int, *, offset: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((n_rows, N_NEURONS)) * [1.0, 100.0, 0.01] + offset
    values[:, 0] = np.maximum(values[:, 0], 0)
    return values.astype(np.float32)


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, list[slice]]:
    """Rows, and ranges that cover them in order, empty ones among them."""
    values = rows(draw(st.integers(0, 40)), draw(st.integers(0, 1000)), offset=draw(st.sampled_from([0.0, 1e3])))
    cuts = sorted(draw(st.lists(st.integers(0, len(values)), max_size=6)))
    bounds = [0, *cuts, len(values)]
    return values, [slice(a, b) for a, b in pairwise(bounds)]


def split_equals_one_pass(empty: Accumulator, values: np.ndarray, parts: list[slice]) -> Accumulator:
    """The accumulator over all rows, after comparing it with that of the parts merged pairwise and in a row."""
    make = type(empty).empty

    def over(chosen: list[slice]) -> Accumulator:
        accumulator = make(N_NEURONS)
        for part in chosen:
            accumulator.update(values[part])
        return accumulator

    whole = over([slice(None)])
    for other in (over(parts), merge_in_order(over([part]) for part in parts)):
        for name, array in whole.arrays().items():
            np.testing.assert_allclose(other.arrays()[name], array, rtol=1e-12, atol=1e-9, err_msg=name)
    return whole


@given(splits())
@settings(deadline=None)
def test_moments_of_any_split_are_those_of_numpy(split: tuple[np.ndarray, list[slice]]) -> None:
    values, parts = split
    result = split_equals_one_pass(Moments.empty(N_NEURONS), values, parts).result()
    assert result.count_F.tolist() == [len(values)] * N_NEURONS
    if not len(values):
        assert all(np.isnan(each).all() for each in (result.mean_F, result.variance_F, result.min_F, result.max_F))
        return
    exact = values.astype(np.float64)
    np.testing.assert_allclose(result.mean_F, exact.mean(0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(result.variance_F, exact.var(0), rtol=1e-10, atol=1e-18)
    np.testing.assert_array_equal(result.min_F, exact.min(0))
    np.testing.assert_array_equal(result.max_F, exact.max(0))


@given(splits())
@settings(deadline=None)
def test_firing_rates_of_any_split_are_exact(split: tuple[np.ndarray, list[slice]]) -> None:
    values, parts = split
    result = split_equals_one_pass(FiringRate.empty(N_NEURONS), values, parts).result()
    if len(values):
        np.testing.assert_array_equal(result.rate_F, (values > 0).mean(0))
    else:
        assert np.isnan(result.rate_F).all()


def test_the_variance_keeps_its_digits_far_from_zero() -> None:
    accumulator = Moments.empty(1)
    for value in (1e9 + 1, 1e9 + 2, 1e9 + 3):
        accumulator.update(np.array([[value]]))
    assert accumulator.result().variance_F[0] == pytest.approx(2 / 3, rel=1e-6)


def test_a_rate_by_hand_counts_only_values_above_the_threshold() -> None:
    accumulator = FiringRate.empty(1, 0.5)
    accumulator.update(np.array([[0.5], [0.6], [0.4], [2.0]]))
    assert accumulator.result().rate_F.tolist() == [0.5]


def test_merging_in_one_order_gives_the_same_bits_and_holds_few() -> None:
    values = rows(64, 3)
    alive: list[int] = []

    def parts():
        for index in range(64):
            accumulator = Moments.empty(N_NEURONS)
            accumulator.update(values[index : index + 1])
            alive.append(index)
            yield accumulator

    one, two = merge_in_order(parts()), merge_in_order(parts())
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, two.arrays()[name])
    assert one.nbytes == 5 * 8 * N_NEURONS


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(DataError, match=r"Moments: count has shape \(2,\), that of the Moments to merge has \(3,\)"):
        Moments.empty(2).merge(Moments.empty(3))
    with pytest.raises(DataError, match=r"that of the FiringRate to merge has None"):
        Moments.empty(2).merge(FiringRate.empty(2))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"above 0.0 and above 1.0 do not merge"):
        FiringRate.empty(2, 0.0).merge(FiringRate.empty(2, 1.0))
    with pytest.raises(DataError, match="no accumulator to merge"):
        merge_in_order([])


def test_values_that_are_not_finite_or_not_of_the_neurons_are_refused() -> None:
    with pytest.raises(DataError, match="moments: value nan of row 1, neuron 0; expected finite"):
        Moments.empty(1).update(np.array([[1.0], [np.nan]]))
    with pytest.raises(DataError, match=r"shape \(2, 3\), expected \(rows, 2\)"):
        Moments.empty(2).update(np.ones((2, 3)))
