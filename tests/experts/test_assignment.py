from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from modularity.errors import DataError, InputError
from modularity.experts import balanced_assignment, require_divisible
from modularity.experts.assignment import assign_with_prices


def total(cost_FE, labels_F):
    return cost_FE[np.arange(len(cost_FE)), labels_F].sum()


def replicated_optimum(cost_FE):
    wide = np.repeat(cost_FE, len(cost_FE) // cost_FE.shape[1], axis=1)
    return wide[linear_sum_assignment(wide)].sum()


def assert_optimal(cost_FE, labels_F):
    n_neurons, n_experts = cost_FE.shape
    assert (np.bincount(labels_F, minlength=n_experts) == n_neurons // n_experts).all()
    assert total(cost_FE, labels_F) == pytest.approx(replicated_optimum(cost_FE), rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(("n_neurons", "n_experts"), [(4, 2), (6, 2), (6, 3), (7, 7), (8, 4)])
def test_equals_brute_force(n_neurons, n_experts):
    rng = np.random.default_rng(n_neurons)
    all_labels = set(permutations(np.repeat(np.arange(n_experts), n_neurons // n_experts)))
    for _ in range(5):
        cost = rng.integers(0, 5, (n_neurons, n_experts)).astype(float)
        labels = balanced_assignment(cost)
        assert total(cost, labels) == min(total(cost, np.array(other)) for other in all_labels)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 7),
    n_experts=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    levels=st.sampled_from([1, 2, 4, 1000, None]),
    scale=st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_equals_linear_sum_assignment_on_replicated_columns(size, n_experts, seed, levels, scale):
    rng = np.random.default_rng(seed)
    shape = (size * n_experts, n_experts)
    cost = rng.normal(size=shape) if levels is None else rng.integers(0, levels, shape).astype(float)
    labels = balanced_assignment(cost * scale)
    assert_optimal(cost, labels)


@pytest.mark.parametrize("crowded", [False, True])
def test_optimal_on_clustered_costs(crowded):
    rng = np.random.default_rng(3)
    rows, centres = rng.normal(size=(600, 12)), rng.normal(size=(30, 12))
    if crowded:  # nearly all neurons prefer the same few experts
        rows[:540] = centres[rng.integers(0, 3, 540)] + 0.1 * rng.normal(size=(540, 12))
    assert_optimal(cost := ((rows[:, None] - centres) ** 2).sum(-1), balanced_assignment(cost))


def test_prices_of_a_similar_problem_give_the_same_optimum_and_are_optimal_duals():
    rng = np.random.default_rng(4)
    cost = rng.normal(size=(200, 10))
    _, price = assign_with_prices(cost, None)
    changed = cost + 0.01 * rng.normal(size=cost.shape)
    labels, price = assign_with_prices(changed, price)
    assert_optimal(changed, labels)
    reduced = changed + price
    assert np.allclose(reduced[np.arange(200), labels], reduced.min(axis=1), atol=1e-12)
    assert abs(price.mean()) < 1e-12
    assign_again, _ = assign_with_prices(changed, price + 100.0)
    assert_optimal(changed, assign_again)


def test_equal_costs_go_to_the_lowest_index():
    labels = balanced_assignment(np.array([[0.0, 0.0, 9.0], [5.0, 0.0, 0.0], [0.0, 7.0, 0.0]]))
    assert labels.tolist() == [0, 1, 2]
    assert labels.dtype == np.int32


def test_single_expert_and_one_neuron_each():
    assert balanced_assignment(np.zeros((5, 1))).tolist() == [0] * 5
    assert balanced_assignment(1 - np.eye(4)[::-1]).tolist() == [3, 2, 1, 0]


def test_bad_costs():
    with pytest.raises(DataError, match=r"cost_FE has shape \(3,\): expected two dimensions, neurons x experts"):
        balanced_assignment([1.0, 2.0, 3.0])
    cost = np.zeros((4, 2))
    cost[2, 1] = np.nan
    with pytest.raises(DataError, match=r"cost_FE\[2, 1\] is nan: expected finite costs"):
        balanced_assignment(cost)
    with pytest.raises(InputError, match="5 neurons cannot be split into 2 experts"):
        balanced_assignment(np.zeros((5, 2)))


def test_divisors_are_named():
    assert require_divisible(3072, 96) == 32
    with pytest.raises(
        InputError, match=r"3072 neurons cannot be split into 100 experts of equal size: .* nearest are 48, 64, 96, 128"
    ):
        require_divisible(3072, 100)
    with pytest.raises(InputError, match="n_experts is 0: expected 1 to 8, the number of neurons"):
        require_divisible(8, 0)
    with pytest.raises(InputError, match="n_experts is 9: expected 1 to 8"):
        require_divisible(8, 9)
