import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import (
    expert_centres,
    mass_kept,
    mlp_scores,
    normalise_rows,
    oracle_scores,
    parameter_scores,
    select_top,
    selected_count,
)


def test_oracle_scores_by_hand():
    activations = np.array([[1.0, -2.0, 3.0, 0.5], [0.0, 0.0, -1.0, 0.0]])
    labels = [1, 0, 1, 0]
    assert oracle_scores(activations, labels).tolist() == [[2.5, 4.0], [0.0, 1.0]]
    assert oracle_scores(activations, labels, mass="positive").tolist() == [[0.5, 4.0], [0.0, 0.0]]
    assert oracle_scores(activations, labels, n_experts=3).tolist() == [[2.5, 4.0, 0.0], [0.0, 1.0, 0.0]]


def test_parameter_scores_are_minus_the_distance():
    rng = np.random.default_rng(0)
    rows, inputs, labels = rng.normal(size=(12, 5)), rng.normal(size=(7, 5)) * 100, np.arange(12) % 3
    centres = expert_centres(rows * rng.uniform(0.1, 9, (12, 1)), labels)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert np.allclose(centres, [unit[labels == e].mean(axis=0) for e in range(3)], atol=1e-12)
    point = inputs / np.linalg.norm(inputs, axis=1, keepdims=True)
    expected = -np.linalg.norm(point[:, None] - centres, axis=2)
    assert np.allclose(parameter_scores(inputs, centres), expected, atol=1e-12)


def test_mlp_scores():
    rng = np.random.default_rng(1)
    inputs, first, last = rng.normal(size=(4, 6)), rng.normal(size=(3, 6)), rng.normal(size=(3, 3))
    assert np.allclose(mlp_scores(inputs * 9, first, last), np.tanh(normalise_rows(inputs) @ first.T) @ last.T)
    assert np.allclose(mlp_scores(inputs, first, np.eye(3)), np.tanh(normalise_rows(inputs) @ first.T))


@pytest.mark.parametrize(
    ("n_experts", "share", "count"), [(96, 0.2, 20), (10, 0.2, 2), (10, 0.3, 3), (16, 0.01, 1), (5, 1, 5)]
)
def test_count_is_rounded_up(n_experts, share, count):
    assert selected_count(n_experts, share) == count


def test_top_experts_with_ties_by_lowest_index():
    assert select_top([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]], 2).tolist() == [[False, True, True], [True, True, False]]


def test_mass_kept_by_hand():
    mass = [[3.0, 1.0], [0.0, 0.0], [1.0, 9.0]]
    kept = mass_kept(mass, select_top(mass, 1))
    assert (kept.total, kept.mean, kept.n_rows) == (12 / 14, pytest.approx((0.75 + 0.9) / 2), 2)
    assert kept.chance == 0.5
    everything = mass_kept(mass, np.ones((3, 2), bool))
    assert (everything.total, everything.mean, everything.chance) == (1.0, 1.0, 1.0)


def test_random_selection_keeps_what_chance_says_and_routers_keep_more():
    # Neurons of an expert share a direction, so that the nearest experts are the active ones.
    rng = np.random.default_rng(2)
    labels = np.arange(160) % 16
    rows = 3 * rng.normal(size=(16, 32))[labels] + rng.normal(size=(160, 32))
    inputs = rng.normal(size=(600, 32))
    mass = oracle_scores(np.maximum(inputs @ rows.T, 0), labels)
    n = selected_count(16, 0.2)
    oracle = mass_kept(mass, select_top(mass, n)).mean
    routed = mass_kept(mass, select_top(parameter_scores(inputs, expert_centres(rows, labels)), n)).mean
    chance = mass_kept(mass, select_top(rng.random(mass.shape), n))
    assert chance.chance == n / 16
    assert chance.mean == pytest.approx(n / 16, abs=0.02)
    assert oracle >= routed > 0.9 * oracle > 2 * chance.mean


def test_bad_input():
    with pytest.raises(InputError, match="share is 0: expected more than 0, at most 1"):
        selected_count(8, 0)
    with pytest.raises(InputError, match="n_selected is 4: expected 1 to 3, the number of experts"):
        select_top(np.zeros((2, 3)), 4)
    with pytest.raises(DataError, match=r"scores_RE\[0, 1\] is nan"):
        select_top([[0.0, np.nan]], 1)
    with pytest.raises(DataError, match="centres_ED has width 3: expected 4, that of inputs_RD"):
        parameter_scores(np.ones((2, 4)), np.ones((2, 3)))
    with pytest.raises(DataError, match=r"output_EE has shape \(2, 3\): expected \(3, 3\)"):
        mlp_scores(np.ones((2, 4)), np.ones((3, 4)), np.ones((2, 3)))
    with pytest.raises(DataError, match=r"experts \[1\] have no neuron, so no centre"):
        expert_centres(np.ones((2, 4)), [0, 2])
    with pytest.raises(InputError, match="n_experts is 2, but labels_F holds expert 2"):
        oracle_scores(np.ones((2, 2)), [0, 2], n_experts=2)
    with pytest.raises(DataError, match=r"selected_RE has shape \(1, 2\), dtype int64: expected bool, \(1, 2\)"):
        mass_kept([[1.0, 2.0]], [[1, 0]])
    with pytest.raises(DataError, match="mass_RE has values from -1"):
        mass_kept([[1.0, -1.0]], [[True, False]])
