"""Sites of a live model: which module to hook, on which side, and what shape and dtype arrive there.

A neuron is one coordinate of the input of an FFN's out-projection, a head one row of the input of the attention's
out-projection; so one rule, a forward pre-hook on an out-projection, covers every architecture. The rows that name the
modules are in `architectures.py`; here they are resolved on a module, and widths are read from its weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modularity.types import Site, SiteShape, StackName

Side = Literal["input", "output"]
Check = Literal["linear"]
GatedMatrix = Literal["gate", "up"]


@dataclass(frozen=True, eq=False)
class Tap:
    """One layer of one site: the module to hook and what its hook receives."""

    site: Site
    layer: int
    """Layer coordinate; for `residual` the depth: 0 is what enters the first block, i + 1 the output of block i."""
    path: str
    """Path of `module` in the model, for messages."""
    module: nn.Module
    side: Side
    """`input`: forward pre-hook, first argument. `output`: forward hook, the tensor or the first element of a tuple."""
    width: int
    """Length of the last axis of what arrives (units flattened)."""
    unit_shape: tuple[int, ...]
    """Shape of the units of this layer: `(F,)`, `(H, K)` or `(D,)`; its product is `width`."""
    dtype: torch.dtype
    """Dtype of what arrives; not always the model's: T5 in float16 keeps `wo` in float32."""
    order: tuple[int, int, int]
    """Sorts the taps of all sites of a model in the order in which they fire."""
    check: Check | None = None
    """`linear`: `project(captured)` must equal the output of `module`. None: nothing to recompute."""
    flattened: bool = False
    """True where rows may arrive as [B*T, width] instead of [B, T, width] (OPT's `fc2`)."""
    chunk_tokens: int = 0
    """When > 0 the module fires once for every `chunk_tokens` positions, in order: concatenate over axis 1."""

    def from_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """Hidden states among the arguments of `module`, last axis = `width`."""
        raise NotImplementedError

    def from_output(self, output: Any) -> torch.Tensor:
        """Hidden states in the output of `module`, whether it returns a tensor or a tuple; last axis = `width`."""
        raise NotImplementedError

    def project(self, value: torch.Tensor) -> torch.Tensor:
        """Apply the out-projection to captured values [..., width], giving [..., D] (only where `check` is `linear`)."""
        raise NotImplementedError

    def attach(self, receive: Callable[[torch.Tensor], None]) -> RemovableHandle:
        """Register the hook of the right kind and side; it hands the tensor to `receive` and itself returns None."""
        raise NotImplementedError


class SiteTable:
    """All sites of one model, resolved on its module."""

    stacks: tuple[StackName, ...]
    """Stacks present, in firing order: `("decoder",)`, `("encoder",)` or `("encoder", "decoder")`."""
    sites: tuple[Site, ...]
    """Every site of every stack."""

    def n_layers(self, stack: StackName) -> int:
        """Number of blocks of a stack."""
        raise NotImplementedError

    def shape(self, site: Site, layers: Sequence[int] | None = None) -> SiteShape:
        """Shape of a site over `layers` (None = all; for `residual` these are depths)."""
        raise NotImplementedError

    def taps(self, site: Site, layers: Sequence[int] | None = None) -> tuple[Tap, ...]:
        """Taps of a site over `layers`, in firing order."""
        raise NotImplementedError

    def ffn_input_weights(self, stack: StackName, layer: int, *, matrix: GatedMatrix = "gate") -> np.ndarray:
        """W_in, float32 of shape (F, D): row f holds the weights from the residual stream into neuron f."""
        raise NotImplementedError

    def ffn_output_weights(self, stack: StackName, layer: int) -> np.ndarray:
        """W_out, float32 of shape (F, D): row f is what neuron f writes to the residual stream."""
        raise NotImplementedError


def firing_order(taps: Iterable[Tap]) -> tuple[Tap, ...]:
    """Taps of any sites of one model in the order in which they fire; the last is where a forward may stop."""
    return tuple(sorted(taps, key=lambda tap: tap.order))
