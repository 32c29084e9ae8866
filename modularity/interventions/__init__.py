"""Live model changed: noise in chosen neurons, routers restricted to some experts, FFNs divided into experts; the
effect on tasks measured, and few-shot fine-tuning under such a change.

Names are imported when first used: torch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.interventions.calibration import NeuronMoments, neuron_moments
    from modularity.interventions.fine_tuning import (
        Checkpoint,
        FineTuned,
        FineTuning,
        fine_tuned,
        trainable_parameters,
    )
    from modularity.interventions.measure import LabelTask, label_logits, label_task, label_token_ids, measure_task
    from modularity.interventions.moefied import (
        LayerMass,
        SelectionPoint,
        SelectionRecord,
        selected_experts,
        selection_sweep,
    )
    from modularity.interventions.moefied_checkpoint import (
        MoefiedModel,
        export_moefied,
        load_moefied,
    )
    from modularity.interventions.moefied_layers import (
        LayerKey,
        MlpRouter,
        MoefiedLayer,
        RouterKind,
        ffn_flops,
        moefy,
    )
    from modularity.interventions.moefied_mass import MassByText, mass_by_text, rows_of_texts
    from modularity.interventions.moefied_training import (
        RouterTraining,
        RoutingExamples,
        collect_routing,
        fit_router,
        train_routers,
    )
    from modularity.interventions.neurons import perturbed
    from modularity.interventions.noise import Gaussian, Mean, Noise, NoiseKind, Resample, Shuffle, Zero, make_noise
    from modularity.interventions.outputs import OutputComparison, compare_outputs, last_logits, positions_read
    from modularity.interventions.routing import Router, random_other_experts, restricted_routing, routers
    from modularity.interventions.scores import TaskScores, logit_margins, task_scores
    from modularity.interventions.sweep import Cell, Selection, Sweep, drop_array, run_sweep, sweep_cells

__all__ = [
    "Cell",
    "Checkpoint",
    "FineTuned",
    "FineTuning",
    "Gaussian",
    "LabelTask",
    "LayerKey",
    "LayerMass",
    "MassByText",
    "Mean",
    "MlpRouter",
    "MoefiedLayer",
    "MoefiedModel",
    "NeuronMoments",
    "Noise",
    "NoiseKind",
    "OutputComparison",
    "Resample",
    "Router",
    "RouterKind",
    "RouterTraining",
    "RoutingExamples",
    "Selection",
    "SelectionPoint",
    "SelectionRecord",
    "Shuffle",
    "Sweep",
    "TaskScores",
    "Zero",
    "collect_routing",
    "compare_outputs",
    "drop_array",
    "export_moefied",
    "ffn_flops",
    "fine_tuned",
    "fit_router",
    "label_logits",
    "label_task",
    "label_token_ids",
    "last_logits",
    "load_moefied",
    "logit_margins",
    "make_noise",
    "mass_by_text",
    "measure_task",
    "moefy",
    "neuron_moments",
    "perturbed",
    "positions_read",
    "random_other_experts",
    "restricted_routing",
    "routers",
    "rows_of_texts",
    "run_sweep",
    "selected_experts",
    "selection_sweep",
    "sweep_cells",
    "task_scores",
    "train_routers",
    "trainable_parameters",
]

_MODULES = {
    "calibration": ("NeuronMoments", "neuron_moments"),
    "fine_tuning": ("Checkpoint", "FineTuned", "FineTuning", "fine_tuned", "trainable_parameters"),
    "measure": ("LabelTask", "label_logits", "label_task", "label_token_ids", "measure_task"),
    "moefied": ("LayerMass", "SelectionPoint", "SelectionRecord", "selected_experts", "selection_sweep"),
    "moefied_checkpoint": ("MoefiedModel", "export_moefied", "load_moefied"),
    "moefied_layers": ("LayerKey", "MlpRouter", "MoefiedLayer", "RouterKind", "ffn_flops", "moefy"),
    "moefied_mass": ("MassByText", "mass_by_text", "rows_of_texts"),
    "moefied_training": ("RouterTraining", "RoutingExamples", "collect_routing", "fit_router", "train_routers"),
    "neurons": ("perturbed",),
    "noise": ("Gaussian", "Mean", "Noise", "NoiseKind", "Resample", "Shuffle", "Zero", "make_noise"),
    "outputs": ("OutputComparison", "compare_outputs", "last_logits", "positions_read"),
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
