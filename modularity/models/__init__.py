"""Loading checkpoints; the site table: where each architecture keeps its sites."""

from modularity.models.config import ModelConfig
from modularity.models.loading import (
    LoadedModel,
    ModelDescription,
    ModelIdentity,
    describe_model,
    load_model,
    wrap_model,
)
from modularity.models.sites import SiteTable, Tap, firing_order

__all__ = [
    "LoadedModel",
    "ModelConfig",
    "ModelDescription",
    "ModelIdentity",
    "SiteTable",
    "Tap",
    "describe_model",
    "firing_order",
    "load_model",
    "wrap_model",
]
