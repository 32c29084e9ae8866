"""Loading checkpoints; the site table: where each architecture keeps its sites."""

from modularity.models.architectures import Architecture, StackLayout, known_architectures, register_architecture
from modularity.models.config import ModelConfig
from modularity.models.description import ModelDescription, describe_model
from modularity.models.loading import LoadedModel, ModelIdentity, load_model, wrap_model
from modularity.models.numerics import MatmulMode, apply_matmul_mode, choose_matmul_mode
from modularity.models.sites import SiteTable
from modularity.models.taps import Tap, firing_order

__all__ = [
    "Architecture",
    "LoadedModel",
    "MatmulMode",
    "ModelConfig",
    "ModelDescription",
    "ModelIdentity",
    "SiteTable",
    "StackLayout",
    "Tap",
    "apply_matmul_mode",
    "choose_matmul_mode",
    "describe_model",
    "firing_order",
    "known_architectures",
    "load_model",
    "register_architecture",
    "wrap_model",
]
