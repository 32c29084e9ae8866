"""Loading checkpoints; the site table: where each architecture keeps its sites.

Names are imported when first used: a config is validated at once, while torch and transformers take seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.models.architectures import (
        Architecture,
        ExpertLayout,
        StackLayout,
        architecture_of,
        known_architectures,
        register_architecture,
        restricted_routing_problem,
    )
    from modularity.models.config import ModelConfig
    from modularity.models.description import ModelDescription, describe_model
    from modularity.models.expert_layers import ExpertWeights
    from modularity.models.expert_taps import ChoiceTap, ExpertTap, ExpertVariant, RoutedNeurons
    from modularity.models.heads import HeadModel, load_head_model, wrap_head_model
    from modularity.models.hub_cache import FetchedRevision, fetch_revision, hub_revisions, taken, trim_cache
    from modularity.models.loading import (
        LoadedModel,
        ModelIdentity,
        check_weights,
        load_model,
        load_tokenizer,
        uses_gpu,
        wrap_model,
    )
    from modularity.models.norm_pieces import NormPieces, norm_pieces
    from modularity.models.numerics import MatmulMode, apply_matmul_mode, choose_matmul_mode, compute_threads
    from modularity.models.sites import SiteTable
    from modularity.models.sub_block_parts import SubBlockKind
    from modularity.models.sub_block_recording import Recorded, record_sub_blocks, record_text
    from modularity.models.sub_blocks import FfnPieces, SubBlock
    from modularity.models.taps import Tap, firing_order

__all__ = [
    "Architecture",
    "ChoiceTap",
    "ExpertLayout",
    "ExpertTap",
    "ExpertVariant",
    "ExpertWeights",
    "FetchedRevision",
    "FfnPieces",
    "HeadModel",
    "LoadedModel",
    "MatmulMode",
    "ModelConfig",
    "ModelDescription",
    "ModelIdentity",
    "NormPieces",
    "Recorded",
    "RoutedNeurons",
    "SiteTable",
    "StackLayout",
    "SubBlock",
    "SubBlockKind",
    "Tap",
    "apply_matmul_mode",
    "architecture_of",
    "check_weights",
    "choose_matmul_mode",
    "compute_threads",
    "describe_model",
    "fetch_revision",
    "firing_order",
    "hub_revisions",
    "known_architectures",
    "load_head_model",
    "load_model",
    "load_tokenizer",
    "norm_pieces",
    "record_sub_blocks",
    "record_text",
    "register_architecture",
    "restricted_routing_problem",
    "taken",
    "trim_cache",
    "uses_gpu",
    "wrap_head_model",
    "wrap_model",
]

_MODULES = {
    "architectures": (
        "Architecture",
        "ExpertLayout",
        "StackLayout",
        "architecture_of",
        "known_architectures",
        "register_architecture",
        "restricted_routing_problem",
    ),
    "config": ("ModelConfig",),
    "description": ("ModelDescription", "describe_model"),
    "expert_layers": ("ExpertWeights",),
    "expert_taps": ("ChoiceTap", "ExpertTap", "ExpertVariant", "RoutedNeurons"),
    "heads": ("HeadModel", "load_head_model", "wrap_head_model"),
    "hub_cache": ("FetchedRevision", "fetch_revision", "hub_revisions", "taken", "trim_cache"),
    "loading": (
        "LoadedModel",
        "ModelIdentity",
        "check_weights",
        "load_model",
        "load_tokenizer",
        "uses_gpu",
        "wrap_model",
    ),
    "numerics": ("MatmulMode", "apply_matmul_mode", "choose_matmul_mode", "compute_threads"),
    "norm_pieces": ("NormPieces", "norm_pieces"),
    "sites": ("SiteTable",),
    "sub_block_parts": ("SubBlockKind",),
    "sub_block_recording": ("Recorded", "record_sub_blocks", "record_text"),
    "sub_blocks": ("FfnPieces", "SubBlock"),
    "taps": ("Tap", "firing_order"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
