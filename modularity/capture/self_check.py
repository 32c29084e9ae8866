"""Is what was captured what the model used? The out-projection of it must give the output of the hooked module.

For the neurons of experts: what the chosen experts write, times the weights of the router, must give the output of the
module of the experts.
"""

import torch

from modularity.errors import SiteError
from modularity.models import RoutedNeurons, Tap

PROJECTION_TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}
"""Largest difference allowed, relative to the largest output: some units in the last place of each dtype, because a
product over [B*T, F] or in chunks may sum in another order than one over [B, T, F]."""


def check_projection(tap: Tap, captured_BTU: torch.Tensor | RoutedNeurons, output_BTD: torch.Tensor) -> None:
    """Compare `tap.project(captured)` with the output of its module.

    Positions whose output is not finite are left out: values that are not finite are refused where they are stored,
    with their rows.

    Parameters
    ----------
    tap : a tap with `check`
    captured_BTU : what capture delivers, (B, T, width), or neurons of experts
    output_BTD : what the module returned, (B, T, D)

    Raises
    ------
    SiteError
        The two differ in shape, or by more than the tolerance of their dtype.
    """
    where = f"{tap.site} layer {tap.layer}: the out-projection of the captured values"
    remedy = f"check {tap.path} in the architecture's row of the site table, and that no other hook changes its input"
    if isinstance(captured_BTU, RoutedNeurons):
        projected_BTD = captured_BTU.project().view(*captured_BTU.shape[:2], -1).to(output_BTD.device)
    else:
        projected_BTD = _project(tap, captured_BTU).to(output_BTD.device)
    if projected_BTD.shape != output_BTD.shape:
        raise SiteError(
            f"{where} has shape {tuple(projected_BTD.shape)}, but {tap.path} returned "
            f"{tuple(output_BTD.shape)}; {remedy}"
        )
    finite_BT = torch.isfinite(output_BTD).all(-1) & torch.isfinite(projected_BTD).all(-1)
    if not finite_BT.any():
        return
    expected = output_BTD[finite_BT].float()
    seen = projected_BTD[finite_BT].float()
    scale = expected.abs().max().item()
    difference = (seen - expected).abs().max().item()
    allowed = PROJECTION_TOLERANCE.get(output_BTD.dtype, 3e-2) * scale
    if difference > allowed:
        raise SiteError(
            f"{where} differs from the output of {tap.path} by {difference:.3g}, expected at most {allowed:.3g} "
            f"(outputs up to {scale:.3g}, {output_BTD.dtype}); {remedy}"
        )


def _project(tap: Tap, captured_BTU: torch.Tensor) -> torch.Tensor:
    weight = getattr(tap.module, "weight", None)
    if isinstance(weight, torch.Tensor) and weight.is_meta:
        # Weights that accelerate keeps on the host or on disk are only there inside the module's own forward.
        return tap.module.forward(captured_BTU)
    # Between GPUs the input is moved in the module's own forward, after its pre-hooks.
    return tap.project(captured_BTU if not isinstance(weight, torch.Tensor) else captured_BTU.to(weight.device))
