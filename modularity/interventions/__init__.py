"""Live model changed: noise in chosen neurons, routers restricted to some experts; the effect on tasks measured.

Names are imported when first used: torch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.interventions.calibration import NeuronMoments, neuron_moments
    from modularity.interventions.measure import LabelTask, label_logits, label_task, label_token_ids, measure_task
    from modularity.interventions.neurons import perturbed
    from modularity.interventions.noise import Gaussian, Mean, Noise, NoiseKind, Resample, Shuffle, Zero, make_noise
    from modularity.interventions.routing import Router, random_other_experts, restricted_routing, routers
    from modularity.interventions.scores import TaskScores, logit_margins, task_scores
    from modularity.interventions.sweep import Cell, Selection, Sweep, drop_array, run_sweep, sweep_cells

__all__ = [
    "Cell",
    "Gaussian",
    "LabelTask",
    "Mean",
    "NeuronMoments",
    "Noise",
    "NoiseKind",
    "Resample",
    "Router",
    "Selection",
    "Shuffle",
    "Sweep",
    "TaskScores",
    "Zero",
    "drop_array",
    "label_logits",
    "label_task",
    "label_token_ids",
    "logit_margins",
    "make_noise",
    "measure_task",
    "neuron_moments",
    "perturbed",
    "random_other_experts",
    "restricted_routing",
    "routers",
    "run_sweep",
    "sweep_cells",
    "task_scores",
]

_MODULES = {
    "calibration": ("NeuronMoments", "neuron_moments"),
    "measure": ("LabelTask", "label_logits", "label_task", "label_token_ids", "measure_task"),
    "neurons": ("perturbed",),
    "noise": ("Gaussian", "Mean", "Noise", "NoiseKind", "Resample", "Shuffle", "Zero", "make_noise"),
    "routing": ("Router", "random_other_experts", "restricted_routing", "routers"),
    "scores": ("TaskScores", "logit_margins", "task_scores"),
    "sweep": ("Cell", "Selection", "Sweep", "drop_array", "run_sweep", "sweep_cells"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
