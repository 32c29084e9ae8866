"""One tap: a module to hook, the side to hook it on, and what shape and dtype arrive there.

Blocks of transformers return a tensor in some versions and a tuple in others, and pass hidden states by position or by
name; a tap handles both, and refuses what has not the declared width instead of handing over something else.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from modularity.errors import SiteError
from modularity.types import Site

Side = Literal["input", "output"]
Check = Literal["linear", "experts"]


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
    """`linear`: `project(captured)` must equal the output of `module`. `experts`: so must the weighted sum of what the
    experts write. None: nothing to recompute."""
    flattened: bool = False
    """True where rows may arrive as [B*T, width] instead of [B, T, width] (OPT's `fc2`)."""
    chunk_tokens: int = 0
    """When > 0 the module fires once for every `chunk_tokens` positions, in order: concatenate over axis 1."""

    def from_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """Hidden states among the arguments of `module`: the first positional one, else `hidden_states`."""
        value = args[0] if args else kwargs.get("hidden_states")
        return self._checked(value, f"arguments {len(args)} positional and {sorted(kwargs)} by name")

    def from_output(self, output: Any) -> torch.Tensor:
        """Hidden states in the output of `module`: the tensor itself, or the first element of a tuple."""
        value = output[0] if isinstance(output, tuple) and output else output
        return self._checked(value, f"an output of type {type(output).__name__}")

    def _checked(self, value: Any, found: str) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.shape[-1:] != (self.width,):
            shape = list(value.shape) if isinstance(value, torch.Tensor) else None
            raise SiteError(
                f"{self.site} of layer {self.layer}: module {self.path!r} was called with {found}, shape {shape}; "
                f"expected hidden states with last axis {self.width}. The row of this architecture in the site table "
                f"does not fit this model"
            )
        return value

    def project(self, value: torch.Tensor) -> torch.Tensor:
        """Apply the out-projection to captured values [..., width], without firing its hooks.

        Raises
        ------
        SiteError
            The tap has no linear check.
        """
        if self.check != "linear":
            raise SiteError(
                f"{self.site} of layer {self.layer} is not the input of an out-projection: nothing to project"
            )
        weight, bias = linear_weight(self.module, self.path), self.module.bias
        return functional.linear(value, weight, bias)  # type: ignore[arg-type]  # bias is a tensor or None

    def attach(self, receive: Callable[[Any], None]) -> RemovableHandle:
        """Register the hook of the right side; it hands the tensor to `receive` and returns None, changing nothing."""

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            receive(self.from_input(args, kwargs))

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            receive(self.from_output(output))

        if self.side == "input":
            return self.module.register_forward_pre_hook(before, with_kwargs=True)
        return self.module.register_forward_hook(after)


def firing_order(taps: Iterable[Tap]) -> tuple[Tap, ...]:
    """Taps of any sites of one model in the order in which they fire; the last is where a forward may stop."""
    return tuple(sorted(taps, key=lambda tap: tap.order))


def linear_weight(module: nn.Module, path: str) -> torch.Tensor:
    """Weight of a linear projection as (out, in), a view. GPT-2's Conv1D stores (in, out)."""
    weight = getattr(module, "weight", None)
    if (
        not isinstance(module, nn.Linear | Conv1D)
        or not isinstance(weight, torch.Tensor)
        or not weight.is_floating_point()
    ):
        raise SiteError(
            f"module {path!r} is a {type(module).__name__}, expected a linear projection with floating-point weights "
            f"(quantised and adapter-wrapped models are not supported: merge or load the plain checkpoint)"
        )
    return weight.T if isinstance(module, Conv1D) else weight
