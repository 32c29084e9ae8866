"""Trainings of a few steps, small enough for every test."""

from collections.abc import Callable
from typing import Any

import pytest

from modularity.pretraining import PretrainConfig

SMALL: dict[str, Any] = {
    "n_layers": 2,
    "width": 16,
    "n_heads": 2,
    "n_neurons": 12,
    "n_sentences": 60,
    "n_held_out": 6,
    "steps": 12,
    "batch_sentences": 16,
    "warmup_steps": 4,
    "n_checkpoints": 4,
    "first_checkpoint": 2,
    "n_threads": 1,
    "learning_rate": 0.01,
}


@pytest.fixture
def small() -> Callable[..., PretrainConfig]:
    """Config of a training of twelve steps, with changes."""
    return lambda **changes: PretrainConfig(**{**SMALL, **changes})
