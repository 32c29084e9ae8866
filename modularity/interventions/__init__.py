"""Live model changed: noise in chosen neurons, routers restricted to some experts; the effect on tasks measured.

Names are imported when first used: torch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.interventions.calibration import NeuronMoments, neuron_moments
    from modularity.interventions.neurons import perturbed
    from modularity.interventions.noise import Gaussian, Mean, Noise, NoiseKind, Resample, Shuffle, Zero, make_noise

__all__ = [
    "Gaussian",
    "Mean",
    "NeuronMoments",
    "Noise",
    "NoiseKind",
    "Resample",
    "Shuffle",
    "Zero",
    "make_noise",
    "neuron_moments",
    "perturbed",
]

_MODULES = {
    "calibration": ("NeuronMoments", "neuron_moments"),
    "neurons": ("perturbed",),
    "noise": ("Gaussian", "Mean", "Noise", "NoiseKind", "Resample", "Shuffle", "Zero", "make_noise"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
