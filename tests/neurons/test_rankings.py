"""Masks of neurons to break: which, how many, and how alike the controls are."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.neurons import average_scores, matched_random_mask, random_mask, select_experts, select_neurons


@pytest.mark.parametrize("variant", ["paper", "corrected"])
@pytest.mark.parametrize("n_selected", [0, 1, 7, 39])
def test_both_variants_take_the_best_where_scores_differ(variant: str, n_selected: int) -> None:
    scores = np.random.default_rng(0).permuted(np.tile(np.arange(40.0), (3, 1)), axis=1)
    mask = select_neurons(scores, n_selected, variant=variant)
    assert mask.dtype == bool
    assert (mask == (scores >= 40 - n_selected)).all()


def test_paper_counts_of_t5_base() -> None:
    """p experts of 32 neurons out of 3,072: 2 -> 64 neurons, 12 -> 384."""
    scores = np.random.default_rng(1).random((2, 3072))
    for n_experts in (0, 2, 6, 10, 12):
        assert (select_neurons(scores, 32 * n_experts, variant="paper").sum(axis=1) == 32 * n_experts).all()


def test_ties_at_the_boundary_shorten_the_paper_s_list_and_go_to_the_lowest_index_otherwise() -> None:
    scores = np.array([[5.0, 3.0, 3.0, 3.0, 1.0, 0.0, 0.0, 0.0]])
    assert np.flatnonzero(select_neurons(scores, 2)).tolist() == [0, 1]
    assert np.flatnonzero(select_neurons(scores, 2, variant="paper")).tolist() == [0]


def test_all_neurons_are_not_strictly_above_the_lowest() -> None:
    scores = np.arange(4.0)[None]
    assert select_neurons(scores, 4).sum() == 4
    assert select_neurons(scores, 4, variant="paper").sum() == 3


def test_average_is_taken_over_sub_functions() -> None:
    predictivity = np.array([[[0.9, 0.5, 0.6]], [[0.5, 0.9, 0.6]]], dtype=np.float32)
    assert average_scores(predictivity) == pytest.approx(np.array([[0.7, 0.7, 0.6]]))
    with pytest.raises(DataError, match=r"shape \(2, 3\)"):
        average_scores(np.zeros((2, 3)))


@pytest.mark.parametrize("variant", ["paper", "corrected"])
def test_experts_are_taken_whole_by_their_mean(variant: str) -> None:
    labels = np.array([[0, 0, 1, 1, 2, 2, 3, 3], [3, 2, 1, 0, 3, 2, 1, 0]])
    scores = np.array([[9.0, 0, 5, 5, 4, 3, 1, 1], [1.0, 2, 3, 4, 1, 2, 3, 4]])
    mask = select_experts(scores, labels, 4, variant=variant)
    assert np.flatnonzero(mask[0]).tolist() == [0, 1, 2, 3]  # means 4.5, 5, 3.5, 1: the best neuron alone would not do
    assert np.flatnonzero(mask[1]).tolist() == [2, 3, 6, 7]


def test_experts_of_several_sizes_and_ties() -> None:
    labels = np.array([[0, 1, 1, 1, 2, 2]])
    scores = np.array([[2.0, 2, 2, 2, 1, 1]])
    assert np.flatnonzero(select_experts(scores, labels, 1)).tolist() == [0]
    assert np.flatnonzero(select_experts(scores, labels, 4)).tolist() == [0, 1, 2, 3]
    assert not select_experts(scores, labels, 0).any()
    with pytest.raises(DataError, match=r"layer 0: the best experts hold 1 or 4 neurons, 3 are wanted"):
        select_experts(scores, labels, 3)
    with pytest.raises(DataError, match=r"experts of \[1, 2, 3\] neurons and 1 to choose"):
        select_experts(scores, labels, 1, variant="paper")


def test_an_expert_without_neurons_is_never_among_the_best() -> None:
    labels = np.array([[0, 0, 2, 2]])
    assert np.flatnonzero(select_experts(-np.ones((1, 4)), labels, 2)).tolist() == [0, 1]


def test_random_masks_keep_the_counts_of_the_layers() -> None:
    mask = np.arange(50) < np.array([[3], [0], [20]])
    drawn = random_mask(mask, seed=1)
    assert drawn.sum(axis=1).tolist() == [3, 0, 20]
    assert (drawn == random_mask(mask, seed=1)).all()
    assert (drawn != random_mask(mask, seed=2)).any()


def test_random_masks_are_uniform_over_neurons() -> None:
    mask = np.arange(20)[None] < 5
    share = np.mean([random_mask(mask, seed=seed)[0] for seed in range(2000)], axis=0)
    assert share == pytest.approx(0.25, abs=0.04)


def heavy_layers(n_layers: int = 2, n_neurons: int = 600, n_chosen: int = 40) -> tuple[np.ndarray, ...]:
    """Chosen neurons are several times as active as the rest, and write a little more strongly."""
    rng = np.random.default_rng(0)
    activation = rng.lognormal(size=(n_layers, n_neurons))
    norm = 1 + 0.2 * rng.standard_normal((n_layers, n_neurons)) + 0.1 * np.log(activation)
    score = np.log(activation) + 1.2 * rng.standard_normal((n_layers, n_neurons))
    return select_neurons(score, n_chosen), activation, norm


def test_matched_neurons_are_others_and_as_active_as_the_chosen() -> None:
    mask, activation, norm = heavy_layers()
    found = matched_random_mask(mask, activation, norm, seed=0)
    assert not (found.mask_LF & mask).any()
    assert found.mask_LF.sum(axis=1).tolist() == [40, 40]
    by_activation, by_norm = found.balance
    assert (by_activation.feature, by_norm.feature) == ("mean_activation", "output_norm")
    assert (by_activation.difference_before_L > 0.5).all()
    assert (np.abs(by_activation.difference_L) < 0.02).all()
    assert (np.abs(by_norm.difference_L) < 0.02).all()


def test_balance_is_what_the_masks_say() -> None:
    mask, activation, norm = heavy_layers()
    found = matched_random_mask(mask, activation, norm, seed=3)
    layer = 1
    chosen, control = (activation[layer, which[layer]].mean() for which in (mask, found.mask_LF))
    balance = found.balance[0]
    assert balance.mean_chosen_L[layer] == pytest.approx(chosen)
    assert balance.mean_control_L[layer] == pytest.approx(control)
    assert balance.difference_L[layer] == pytest.approx((chosen - control) / activation[layer].std())


def test_matched_draws_differ_by_seed_only() -> None:
    mask, activation, norm = heavy_layers()
    draws = [matched_random_mask(mask, activation, norm, seed=seed).mask_LF for seed in (0, 0, 1)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


def test_half_of_a_layer_can_be_matched_and_no_more() -> None:
    half = np.arange(10)[None] < 5
    ones = np.ones((1, 10))
    assert (matched_random_mask(half, ones, ones, seed=0).mask_LF == ~half).all()
    with pytest.raises(DataError, match="6 of 10 neurons are chosen"):
        matched_random_mask(np.arange(10)[None] < 6, ones, ones, seed=0)


def test_a_layer_without_chosen_neurons_has_no_balance() -> None:
    mask, activation, norm = heavy_layers()
    mask[0] = False
    found = matched_random_mask(mask, activation, norm, seed=0)
    assert not found.mask_LF[0].any()
    assert np.isnan(found.balance[0].difference_L).tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select_neurons(np.zeros((2, 4)), 5), "5 neurons of each layer of 4"),
        (lambda: select_neurons(np.zeros(4), 1), r"scores of shape \(4,\)"),
        (lambda: select_neurons(np.full((1, 4), np.nan), 1), "finite"),
        (lambda: select_experts(np.zeros((1, 4)), np.zeros((1, 3), int), 1), r"labels have shape \(1, 3\)"),
        (lambda: random_mask(np.zeros((1, 3)), seed=0), "dtype float64: expected bool"),
        (
            lambda: matched_random_mask(np.zeros((1, 3), bool), np.zeros((1, 2)), np.zeros((1, 3)), seed=0),
            r"mean_activation has shape \(1, 2\)",
        ),
        (
            lambda: matched_random_mask(np.zeros((1, 3), bool), *np.zeros((2, 1, 3)), seed=0, n_nearest=0),
            "n_nearest is 0",
        ),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()
