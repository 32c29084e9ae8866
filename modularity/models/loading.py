"""Checkpoints become frozen base models with their site tables and identities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modularity.models.config import ModelConfig
from modularity.models.sites import SiteTable
from modularity.types import Site, SiteShape, StackName


@dataclass(frozen=True)
class ModelIdentity:
    """What distinguishes one loaded model from another; recorded in the run."""

    name: str
    revision: str | None
    """Resolved commit hash where known, else the revision asked for."""
    parameter_hash: str
    tokenizer_hash: str | None
    architecture: str
    dtype: str
    attention: str | None
    n_parameters: int


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model without LM head, in eval mode and without gradients, with everything capture needs."""

    module: nn.Module
    tokenizer: Any
    config: ModelConfig
    hf_config: Any
    sites: SiteTable
    identity: ModelIdentity

    @property
    def device(self) -> torch.device:
        """Device on which the input ids belong."""
        raise NotImplementedError

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens; None = no limit (relative positions)."""
        raise NotImplementedError


@dataclass(frozen=True)
class ModelDescription:
    """What planning needs, from the config alone."""

    architecture: str
    stacks: tuple[StackName, ...]
    shapes: Mapping[Site, SiteShape]
    n_parameters: int
    parameter_bytes: int
    dtype: str
    max_positions: int | None
    residual_width: int
    has_decoder: bool


def load_model(config: ModelConfig) -> LoadedModel:
    """Load a checkpoint."""
    raise NotImplementedError


def describe_model(config: ModelConfig) -> ModelDescription:
    """Shapes and sizes from the config alone."""
    raise NotImplementedError


def wrap_model(module: nn.Module, tokenizer: Any, *, name: str) -> LoadedModel:
    """Treat an already built Hugging Face module as a loaded model."""
    raise NotImplementedError
