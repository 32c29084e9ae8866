"""Small models trained on the planted languages, with a checkpoint at every log-spaced step.

Names are imported when first used: torch and transformers take seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.pretraining.config import PretrainConfig, checkpoint_steps, step_folder
    from modularity.pretraining.evaluation import LanguageScore, evaluate
    from modularity.pretraining.modules import build_module
    from modularity.pretraining.plan import PretrainPlan, plan_pretraining
    from modularity.pretraining.record import CheckpointRecord, TrainingRecord, read_record
    from modularity.pretraining.training import Pace, pretrain

__all__ = [
    "CheckpointRecord",
    "LanguageScore",
    "Pace",
    "PretrainConfig",
    "PretrainPlan",
    "TrainingRecord",
    "build_module",
    "checkpoint_steps",
    "evaluate",
    "plan_pretraining",
    "pretrain",
    "read_record",
    "step_folder",
]

_MODULES = {
    "config": ("PretrainConfig", "checkpoint_steps", "step_folder"),
    "evaluation": ("LanguageScore", "evaluate"),
    "modules": ("build_module",),
    "plan": ("PretrainPlan", "plan_pretraining"),
    "record": ("CheckpointRecord", "TrainingRecord", "read_record"),
    "training": ("Pace", "pretrain"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
