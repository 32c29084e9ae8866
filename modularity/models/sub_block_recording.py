"""What enters and leaves sub-blocks, and how their attention is called, during one forward of one text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modularity.errors import InputError, SiteError
from modularity.models.float64 import as_float64
from modularity.models.loading import LoadedModel
from modularity.models.sub_block_parts import KINDS, SubBlockKind, SubBlockParts
from modularity.types import StackName

Tensor = torch.Tensor
EAGER = "eager"


@dataclass(frozen=True, eq=False)
class Recorded:
    """What one sub-block received and gave during a forward of one text."""

    kind: SubBlockKind
    stack: StackName
    layer: int
    input_TD: Tensor
    """Input of its norm, or of the sub-block where no norm precedes it, float64."""
    output_TD: Tensor
    """What it added to the residual stream, float64."""
    args: tuple[Any, ...] = ()
    """Positional arguments of the attention module after the hidden states."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its other arguments."""


def record_sub_blocks(
    model: LoadedModel,
    forward: Callable[[], Any],
    *,
    stack: StackName,
    layers: Sequence[int],
    kinds: Sequence[SubBlockKind] = KINDS,
) -> dict[tuple[SubBlockKind, int], Recorded]:
    """What enters and leaves the sub-blocks of some layers in one forward of one text.

    Parameters
    ----------
    model : loaded with `attention="eager"`, the implementation that has derivatives of every kind
    forward : runs the model on one text without padding
    stack, layers, kinds : the sub-blocks

    Raises
    ------
    InputError
        Another attention implementation, a layer that does not exist, or the FFN of a layer made of experts.
    SiteError
        A module of the layout does not exist or was not called once.
    """
    if model.identity.attention != EAGER:
        raise InputError(
            f"the model computes attention by {model.identity.attention!r}; load it with attention='eager', of whose "
            "operations torch knows both derivatives"
        )
    recorders = {(kind, layer): _Recorder(model, kind, stack, layer) for layer in layers for kind in kinds}
    handles = [handle for recorder in recorders.values() for handle in recorder.attach()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return {key: recorder.result() for key, recorder in recorders.items()}


def record_text(
    model: LoadedModel,
    ids_T: np.ndarray,
    *,
    stack: StackName,
    layers: Sequence[int],
    kinds: Sequence[SubBlockKind] = KINDS,
) -> dict[tuple[SubBlockKind, int], Recorded]:
    """As `record_sub_blocks`, in a forward of one text; the decoder of two stacks gets its start token.

    Parameters
    ----------
    model, stack, layers, kinds : see `record_sub_blocks`
    ids_T : integer array of shape (T,): token ids
    """
    ids_BT = torch.from_numpy(np.asarray(ids_T, dtype=np.int64))[None].to(model.device)
    inputs = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    if len(model.sites.stacks) == 2:
        inputs["decoder_input_ids"] = torch.full((1, 1), model.decoder_start_id, device=model.device)
    return record_sub_blocks(model, lambda: model.module(**inputs), stack=stack, layers=layers, kinds=kinds)


class _Recorder:
    """Hooks of one sub-block."""

    def __init__(self, model: LoadedModel, kind: SubBlockKind, stack: StackName, layer: int) -> None:
        self._parts = SubBlockParts.of(model, kind, stack, layer)
        self._kind, self._stack, self._layer = kind, stack, layer
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def attach(self) -> list[RemovableHandle]:
        parts = self._parts
        enters = parts.before or parts.entry
        leaves = parts.after or parts.out
        handles = [
            enters.register_forward_pre_hook(self._note_input, with_kwargs=True),
            leaves.register_forward_hook(self._note_output),
        ]
        if parts.attention is not None:
            handles.append(parts.attention.register_forward_pre_hook(self._note_call, with_kwargs=True))
        return handles

    def _note_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._inputs.append(_hidden_states(args, kwargs))

    def _note_output(self, module: nn.Module, args: Any, output: Any) -> None:
        self._outputs.append(output[0] if isinstance(output, tuple) else output)

    def _note_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        self._calls.append((args[1:], others))

    def result(self) -> Recorded:
        n_calls = len(self._calls) if self._parts.attention is not None else 1
        if not self._inputs or len(self._inputs) != len(self._outputs) or n_calls != 1:
            raise SiteError(
                f"{self._parts.place}: the {self._kind} was entered {len(self._inputs)} times and left "
                f"{len(self._outputs)} times in one forward; expected once. The row of this architecture in "
                "modularity/models/sub_block_layouts.py does not fit this model"
            )
        args, kwargs = self._calls[0] if self._calls else ((), {})
        # An FFN may run in slices of positions (chunk_size_feed_forward).
        inputs, outputs = (
            torch.cat([rows.reshape(-1, rows.shape[-1]) for rows in side]).to(torch.float64)
            for side in (self._inputs, self._outputs)
        )
        return Recorded(
            self._kind, self._stack, self._layer, inputs, outputs, as_float64(args),
            {name: as_float64(value) for name, value in kwargs.items()},
        )  # fmt: skip


def _hidden_states(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    value = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(value, Tensor):
        raise SiteError(f"a sub-block was called with {len(args)} arguments and {sorted(kwargs)}, no hidden states")
    return value
