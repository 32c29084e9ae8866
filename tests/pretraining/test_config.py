"""What a training config refuses, and where its checkpoints lie."""

import numpy as np
import pytest

from modularity.config import validate_config
from modularity.errors import InputError
from modularity.pretraining import PretrainConfig, checkpoint_steps, step_folder


def test_checkpoints_are_log_spaced_from_the_untrained_weights() -> None:
    steps = checkpoint_steps(PretrainConfig(steps=1600, n_checkpoints=7, first_checkpoint=50))
    assert steps == (0, 50, 100, 200, 400, 800, 1600)
    assert checkpoint_steps(PretrainConfig())[0] == 0
    assert checkpoint_steps(PretrainConfig())[-1] == 2000
    assert len(checkpoint_steps(PretrainConfig())) == 13


@pytest.mark.parametrize(("steps", "n", "first"), [(12, 13, 1), (12, 12, 2), (13, 13, 1), (5, 2, 1), (100, 20, 3)])
def test_checkpoints_differ_even_when_steps_are_few(steps: int, n: int, first: int) -> None:
    found = checkpoint_steps(PretrainConfig(steps=steps, n_checkpoints=n, first_checkpoint=first))
    assert len(found) == n
    assert np.all(np.diff(found) > 0)
    assert (found[0], found[-1]) == (0, steps)


def test_folders_sort_by_step() -> None:
    assert step_folder(10) == "step00000010"


def test_what_does_not_fit_is_refused_at_once() -> None:
    values = {"architecture": "switch", "n_layers": 1, "width": 20, "n_heads": 4, "n_sentences": 10, "steps": 5}
    with pytest.raises(InputError) as refused:
        validate_config(PretrainConfig, values)
    text = str(refused.value)
    assert "width=20 is not a multiple of twice n_heads=4" in text
    assert "Switch has a sparse layer in every second one" in text
    assert "batch_sentences=128 is more than n_sentences=10" in text
    assert "n_checkpoints=13: between first_checkpoint=50 and steps=5" in text
