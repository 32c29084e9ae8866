"""A norm taken apart into all that its derivative depends on."""

from dataclasses import dataclass

import torch
from torch import nn

from modularity.errors import SiteError
from modularity.models.float64 import keep_float64

Tensor = torch.Tensor
RTOL = 1e-9
"""Agreement of the formula with the module, both in float64."""


@dataclass(frozen=True, eq=False)
class NormPieces:
    """A norm at T inputs; its Jacobian is in `modularity.geometry.ffn_jacobian`."""

    unit_TD: Tensor
    """Output before gain and bias."""
    scale_T: Tensor
    """What the (centred) input was divided by."""
    gain_D: Tensor
    centred: bool
    """True for a layer norm, False for a root-mean-square norm."""


def norm_pieces(norm: nn.Module, input_TD: Tensor) -> NormPieces:
    """A layer norm or root-mean-square norm at T inputs, taken apart.

    Its kind is found by computing: with or without mean, gain as it is or added to one (Gemma), at its own epsilon.

    Raises
    ------
    SiteError
        The norm is of neither kind.
    """
    width = input_TD.shape[1]
    with keep_float64(), torch.no_grad():
        output_TD = norm(input_TD)
    epsilon = float(next((getattr(norm, name) for name in ("eps", "variance_epsilon") if hasattr(norm, name)), 1e-5))
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    ones = torch.ones(width, dtype=torch.float64, device=input_TD.device)
    gains = [ones] if weight is None else [weight.detach(), ones + weight.detach()]
    for centred in (True, False):
        deviation_TD = input_TD - input_TD.mean(dim=1, keepdim=True) if centred else input_TD
        scale_T = (deviation_TD.pow(2).mean(dim=1) + epsilon).sqrt()
        unit_TD = deviation_TD / scale_T[:, None]
        for gain_D in gains:
            expected_TD = unit_TD * gain_D + (0.0 if bias is None else bias.detach())
            if torch.allclose(expected_TD, output_TD, rtol=RTOL, atol=RTOL * float(output_TD.abs().max())):
                return NormPieces(unit_TD, scale_T, gain_D, centred)
    raise SiteError(
        f"{type(norm).__name__} is neither a layer norm nor a root-mean-square norm; its derivative is not known here"
    )
