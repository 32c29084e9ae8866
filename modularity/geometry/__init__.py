"""Geometry of a model: spectra of Jacobians, with or without forming the matrix, and graphs of weights.

Takes arrays or linear operators, returns arrays: no model, no store, no Ray. torch is the numeric backend of spectra;
results are NumPy float64. Graphs and similarities are imported from their modules.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.geometry.ffn_jacobian import (
        FfnFactors,
        NormFactors,
        rank_bounds,
        token_jacobian,
        token_singular_values,
    )
    from modularity.geometry.krylov import LeadingValues, leading_singular_values
    from modularity.geometry.operators import (
        DenseOperator,
        FunctionJacobian,
        LinearOperator,
        dense_matrix,
        dense_singular_values,
        probe_vectors,
    )
    from modularity.geometry.quadrature import Quadrature, spectral_quadrature
    from modularity.geometry.spectrum import (
        LEVELS,
        SpectrumMeasures,
        count_above,
        measures_of_quadrature,
        noise_floor,
        spectrum_measures,
    )

__all__ = [
    "LEVELS",
    "DenseOperator",
    "FfnFactors",
    "FunctionJacobian",
    "LeadingValues",
    "LinearOperator",
    "NormFactors",
    "Quadrature",
    "SpectrumMeasures",
    "count_above",
    "dense_matrix",
    "dense_singular_values",
    "leading_singular_values",
    "measures_of_quadrature",
    "noise_floor",
    "probe_vectors",
    "rank_bounds",
    "spectral_quadrature",
    "spectrum_measures",
    "token_jacobian",
    "token_singular_values",
]

_MODULES = {
    "ffn_jacobian": ("FfnFactors", "NormFactors", "rank_bounds", "token_jacobian", "token_singular_values"),
    "krylov": ("LeadingValues", "leading_singular_values"),
    "operators": (
        "DenseOperator",
        "FunctionJacobian",
        "LinearOperator",
        "dense_matrix",
        "dense_singular_values",
        "probe_vectors",
    ),
    "quadrature": ("Quadrature", "spectral_quadrature"),
    "spectrum": (
        "LEVELS",
        "SpectrumMeasures",
        "count_above",
        "measures_of_quadrature",
        "noise_floor",
        "spectrum_measures",
    ),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
