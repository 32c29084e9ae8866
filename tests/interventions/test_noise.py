"""Kinds of noise on values made by hand; on models they are tested in test_neurons.py."""

import numpy as np
import pytest
import torch

from modularity.errors import InputError
from modularity.interventions import Gaussian, Mean, Resample, Shuffle, Zero, make_noise
from modularity.interventions.context import BatchContent
from modularity.interventions.noise import Place

REAL = np.array([[True, True, True], [True, True, False]])
COLUMNS = np.array([0, 3])


def place(*, seed: int = 0, expert: int | None = None, first_column: int = 0) -> Place:
    example, position = np.nonzero(REAL)
    content = BatchContent(REAL, (11, 22))
    return Place(content, example, position, REAL[REAL], 1, expert, seed, seed, COLUMNS, first_column)


def values() -> torch.Tensor:
    return torch.arange(10.0).reshape(5, 2)


def test_shuffle_moves_values_between_neurons_and_positions() -> None:
    new = Shuffle(scale=1.0).replace(values(), place())
    assert sorted(new.flatten().tolist()) == list(range(10))
    assert not torch.equal(new, values())
    columns = [set((new[:, column] % 2).tolist()) for column in (0, 1)]
    assert {0.0, 1.0} in columns


def test_every_order_of_a_shuffle_is_as_likely() -> None:
    moved = torch.stack([Shuffle(scale=1.0).replace(values(), place(seed=seed)) for seed in range(600)])
    assert moved.mean(dim=0).numpy() == pytest.approx(4.5, abs=0.5)


def test_only_the_released_shuffle_clips_and_pools_padding() -> None:
    negative = -values()
    assert Shuffle(variant="released").replace(negative, place()).abs().sum() == 0
    assert Shuffle().replace(negative, place()).min() == -36
    assert (Shuffle(variant="released").includes_padding, Shuffle().includes_padding) == (True, False)


def test_zero_and_mean_are_the_same_at_every_position() -> None:
    mean = np.arange(8.0).reshape(2, 4)
    assert Zero().replace(values(), place()).abs().sum() == 0
    assert Mean(mean).replace(values(), place()).tolist() == [[4.0, 7.0]] * 5
    assert (Zero.is_random, Mean.is_random) == (False, False)


def test_neurons_of_an_expert_have_its_numbers_in_the_layer() -> None:
    mean = np.arange(24.0).reshape(2, 12)
    assert Mean(mean).replace(values(), place(expert=2, first_column=8)).tolist() == [[20.0, 23.0]] * 5


def test_gaussian_without_spread_is_the_mean() -> None:
    mean = np.arange(8.0).reshape(2, 4)
    assert Gaussian(mean, 0 * mean).replace(values(), place()).tolist() == [[4.0, 7.0]] * 5


def test_resampling_exchanges_the_two_examples_round() -> None:
    new = Resample().replace(values(), place())
    assert new.tolist() == [[6.0, 7.0], [8.0, 9.0], [6.0, 7.0], [0.0, 1.0], [2.0, 3.0]]
    with pytest.raises(InputError, match=r"not made of experts; give a bank"):
        Resample().replace(values(), place(expert=0))


def test_a_bank_is_drawn_uniformly() -> None:
    bank = np.zeros((4, 2, 4))
    bank[:, 1] = np.arange(4)[:, None]
    drawn = np.concatenate([Resample(bank).replace(values(), place(seed=seed)).numpy() for seed in range(400)])
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert np.bincount(drawn[:, 0].astype(int), minlength=4) / len(drawn) == pytest.approx(0.25, abs=0.04)


def test_replacing_leaves_the_values_alone() -> None:
    ones = np.ones((2, 4))
    for noise in (Shuffle(), Shuffle(variant="released"), Gaussian(ones, ones), Zero(), Mean(ones), Resample()):
        before = values()
        noise.replace(before, place())
        assert torch.equal(before, values())


def test_noise_by_name() -> None:
    ones = np.ones((2, 4))
    made = {kind: make_noise(kind, mean_LF=ones, sd_LF=ones) for kind in ("gaussian", "mean", "zero", "resample")}
    assert {kind: noise.kind for kind, noise in made.items()} == {kind: kind for kind in made}
    assert make_noise("shuffle", scale=2.0, variant="released") == Shuffle(2.0, "released")
    with pytest.raises(InputError, match="noise 'gaussian' needs the moments"):
        make_noise("gaussian", mean_LF=ones)
    with pytest.raises(InputError, match="noise 'none' is not known: expected one of shuffle, gaussian"):
        make_noise("none")
