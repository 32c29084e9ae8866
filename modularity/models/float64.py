"""Modules of transformers computed in float64 throughout, although some cast to float32 on their way.

Norms, softmax and rotary products of several architectures convert to float32 inside, whatever the dtype of the model,
and some convert back. In float64 that would leave noise of 1e-7 in a Jacobian whose rank is counted at 1e-13. Inside
`keep_float64` conversions of float64 tensors to shorter formats do nothing.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SHORTER = (torch.float32, torch.float16, torch.bfloat16)
_CASTS = (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16, torch.Tensor.type_as)
_SOFTMAX = (functional.softmax, torch.softmax, torch.Tensor.softmax)


class keep_float64(TorchFunctionMode):  # noqa: N801  # used as a context manager
    """Context in which float64 tensors stay float64."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Skip a conversion of a float64 tensor to a shorter format; call everything else."""
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if isinstance(first, torch.Tensor) and first.dtype == torch.float64:
            if func in _CASTS or (func is torch.Tensor.to and _shortens(args[1:], kwargs)):
                return first
            if func in _SOFTMAX and kwargs.get("dtype") in _SHORTER:
                kwargs["dtype"] = None
        return func(*args, **kwargs)


def _shortens(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `Tensor.to` is asked for a shorter format, by name or by example."""
    asked = [*args, *kwargs.values()]
    return any(
        value in _SHORTER if isinstance(value, torch.dtype) else value.dtype in _SHORTER
        for value in asked
        if isinstance(value, torch.dtype | torch.Tensor)
    )


def float64_copy(module: nn.Module) -> nn.Module:
    """A copy of a module with float64 parameters and buffers, without gradients."""
    copied = copy.deepcopy(module).to(torch.float64).requires_grad_(False)
    if getattr(copied, "reorder_and_upcast_attn", False):
        copied.reorder_and_upcast_attn = False  # type: ignore[assignment]  # a float32 route of GPT-2
    return copied


def as_float64(value: Any) -> Any:
    """Floating-point tensors in arguments of a module as float64; tuples and lists likewise, the rest as it is."""
    if isinstance(value, torch.Tensor):
        return value.to(torch.float64) if value.is_floating_point() else value
    if isinstance(value, tuple | list):
        return type(value)(as_float64(each) for each in value)
    return value
