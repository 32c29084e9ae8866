"""The modules of one sub-block in a live model, found by the site table and the layout of sub-blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import torch
from torch import nn

from modularity.errors import InputError, SiteError
from modularity.models.architectures import StackLayout
from modularity.models.loading import LoadedModel
from modularity.models.sub_block_layouts import SubBlockLayout, sub_block_layout
from modularity.types import StackName

Tensor = torch.Tensor
SubBlockKind = Literal["ffn", "attention"]
KINDS: tuple[SubBlockKind, ...] = ("ffn", "attention")


@dataclass(frozen=True, eq=False)
class SubBlockParts:
    """Modules of one sub-block in the live model."""

    place: str
    before: nn.Module | None
    after: nn.Module | None
    out: nn.Module
    """Out-projection."""
    entry: nn.Module
    """Where the (normed) input arrives."""
    attention: nn.Module | None = None
    out_apart: bool = False
    gate: nn.Module | None = None
    """In-projection into the activation function."""
    up: nn.Module | None = None
    activation: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, model: LoadedModel, kind: SubBlockKind, stack: StackName, layer: int) -> "SubBlockParts":
        """The modules of one sub-block; InputError where it does not exist, or is made of experts."""
        n_layers = model.sites.n_layers(stack)
        if not 0 <= layer < n_layers:
            raise InputError(f"layer {layer} of the {stack}: expected a number from 0 to {n_layers - 1}")
        (sites,) = (each for each in model.sites.architecture.stacks if each.stack == stack)
        layout = sub_block_layout(model.sites.architecture, stack)
        place = f"{sites.blocks}.{layer}"
        block = model.module.get_submodule(place)
        normed_first = layout.norm_first is None or bool(getattr(block, layout.norm_first))
        if kind == "attention":
            return cls._attention(block, place, sites, layout, normed_first)
        if model.sites.expert_weights(stack, layer) is not None:
            raise InputError(
                f"layer {layer} of the {stack} is made of experts; the FFN of dense layers only is taken apart here: "
                "leave the layer, or the kind 'ffn', out"
            )
        return cls._ffn(block, place, sites, layout, normed_first)

    @classmethod
    def _attention(
        cls, block: nn.Module, place: str, sites: StackLayout, layout: SubBlockLayout, normed_first: bool
    ) -> "SubBlockParts":
        attention = _module(block, layout.attention, place)
        return cls(
            place=place,
            before=_module(block, layout.attention_norm, place) if layout.attention_norm and normed_first else None,
            after=_module(block, layout.attention_after, place) if layout.attention_after else None,
            out=_module(block, sites.attention_out, place),
            entry=attention,
            attention=attention,
            out_apart=layout.out_apart,
        )

    @classmethod
    def _ffn(
        cls, block: nn.Module, place: str, sites: StackLayout, layout: SubBlockLayout, normed_first: bool
    ) -> "SubBlockParts":
        gated = sites.ffn_gate is not None and _has(block, sites.ffn_gate)
        gate = _module(block, (sites.ffn_gate if gated else sites.ffn_in) or "", place)
        return cls(
            place=place,
            before=_module(block, layout.ffn_norm, place) if layout.ffn_norm and normed_first else None,
            after=_module(block, layout.ffn_after, place) if layout.ffn_after else None,
            out=_module(block, sites.ffn_out, place),
            entry=gate,
            gate=gate,
            up=_module(block, sites.ffn_up or "", place) if gated else None,
            activation=attrgetter(layout.activation)(block),
        )


def _has(block: nn.Module, path: str) -> bool:
    try:
        block.get_submodule(path)
    except AttributeError:
        return False
    return True


def _module(block: nn.Module, path: str, place: str) -> nn.Module:
    if not path or not _has(block, path):
        raise SiteError(
            f"{place} has no module {path!r}; correct the row of this architecture in "
            "modularity/models/sub_block_layouts.py"
        )
    return block.get_submodule(path)
