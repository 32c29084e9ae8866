"""The sites of one model: for each, which modules to hook and what shape and dtype arrive there.

A neuron is one coordinate of the input of an FFN's out-projection, a head one row of the input of the attention's
out-projection; so one rule, a forward pre-hook on an out-projection, covers every architecture. The rows that name the
modules are in `architectures.py`; here they are resolved on a module, and widths are read from its weights, so that a
pruned model may differ in width by layer. A sparse layer, whose FFN is made of experts, has the neurons of all of them
(`expert_layers.py`, `expert_taps.py`), those of a shared expert, which fire for every token, at a site of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import attrgetter
from typing import get_args

import numpy as np
import torch
from torch import nn

from modularity.errors import InputError, SiteError
from modularity.models.architectures import Architecture, StackLayout
from modularity.models.expert_layers import ExpertWeights, GatedMatrix
from modularity.models.expert_taps import ExpertTap, sparse_taps
from modularity.models.taps import Tap, linear_weight
from modularity.types import Site, SiteName, SiteShape, StackName

_UNIT_DIMS: Mapping[SiteName, tuple[str, ...]] = {
    "ffn.neurons": ("neuron",),
    "ffn.output": ("channel",),
    "shared_expert.neurons": ("shared_expert_neuron",),
    "attention.heads": ("head", "channel"),
    "attention.output": ("channel",),
    "residual": ("channel",),
    "router.probabilities": ("expert",),
    "router.choices": ("expert",),
}
# Firing order in one block, which begins with its input. NeoX runs attention and FFN in parallel, attention first.
_BLOCK_INPUT, _BLOCK_OUTPUT = 0, 9
_PHASES: Mapping[SiteName, int] = {
    "attention.heads": 1,
    "attention.output": 2,
    "shared_expert.neurons": 3,
    "router.probabilities": 4,
    "router.choices": 5,
    "ffn.neurons": 6,
    "ffn.output": 8,
}
_SHARED_LAST = 7
"""The phase of `shared_expert.neurons` where the shared expert runs after the routed ones."""
_ADDED = ("ffn.output", "attention.output")
"""What a block adds to the residual stream."""


class SiteTable:
    """All sites of one model, resolved on its module.

    Parameters
    ----------
    module : base model, as `AutoModel` builds it; may be on the meta device
    architecture : its row of the table

    Raises
    ------
    SiteError
        A path of the row does not exist in `module`, or leads to something that is not a linear projection.
    """

    def __init__(self, module: nn.Module, architecture: Architecture) -> None:
        self.architecture = architecture
        layouts = _present_layouts(module, architecture)
        self._layouts = {layout.stack: layout for layout in layouts}
        self._blocks = {layout.stack: _blocks(module, layout) for layout in layouts}
        self.stacks: tuple[StackName, ...] = tuple(self._layouts)
        chunk_tokens = int(getattr(module.config, "chunk_size_feed_forward", 0)) if architecture.ffn_chunked else 0
        embedding_dtype = _embedding_dtype(module)
        self._taps: dict[Site, tuple[Tap, ...]] = {}
        for index, stack in enumerate(self.stacks):
            taps = _stack_taps(self._blocks[stack], self._layouts[stack], index, embedding_dtype)
            self._taps.update(_with_ffn_traits(taps, flattened=architecture.ffn_flattened, chunk_tokens=chunk_tokens))
        self.sites: tuple[Site, ...] = tuple(self._taps)

    def __repr__(self) -> str:
        stacks = ", ".join(f"{stack}: {self.n_layers(stack)} layers" for stack in self.stacks)
        return f"SiteTable({self.architecture.model_type}, {stacks})"

    def n_layers(self, stack: StackName) -> int:
        """Number of blocks of a stack; InputError where the model lacks it."""
        return len(self._stack_blocks(stack))

    def residual_width(self, stack: StackName) -> int:
        """D, the width of the residual stream of a stack."""
        return self._taps[Site(stack, "residual")][0].width

    def taps(self, site: Site, layers: Sequence[int] | None = None) -> tuple[Tap, ...]:
        """Taps of a site, ascending by layer, which is their firing order.

        Parameters
        ----------
        site : one of `self.sites`
        layers : layer coordinates, any order; None = all. For `residual` these are depths, 0 … number of blocks; for
            the sites of a router, and those of a shared expert, only the layers with experts

        Raises
        ------
        InputError
            The model has no such site, or a layer is out of range or given twice.
        """
        if site not in self._taps:
            raise InputError(
                f"site {str(site)!r} does not exist in this {self.architecture.model_type} model; "
                f"it has {', '.join(map(str, self.sites))}"
            )
        taps = self._taps[site]
        if layers is None:
            return taps
        by_layer = {tap.layer: tap for tap in taps}
        if not set(layers) <= set(by_layer) or not layers or len(set(layers)) < len(layers):
            what = "depths" if site.name == "residual" else "layers"
            known = f"from 0 to {len(taps) - 1}"
            if list(by_layer) != list(range(len(taps))):
                known = f"of {', '.join(map(str, by_layer))}, the layers with experts"
            raise InputError(
                f"{what} {list(layers)} of site {str(site)!r}: expected one or more different numbers {known}"
            )
        return tuple(by_layer[layer] for layer in sorted(layers))

    def shape(self, site: Site, layers: Sequence[int] | None = None) -> SiteShape:
        """Shape of a site over `layers`, which are as for `taps`; with several widths the stored one is the largest."""
        taps = self.taps(site, layers)
        return SiteShape(
            site=site,
            layers=tuple(tap.layer for tap in taps),
            widths=tuple(tap.width for tap in taps),
            unit_dims=_UNIT_DIMS[site.name],
            unit_shape=tuple(max(sizes) for sizes in zip(*(tap.unit_shape for tap in taps), strict=True)),
        )

    def ffn_input_weights(self, stack: StackName, layer: int, *, matrix: GatedMatrix = "gate") -> np.ndarray:
        """W_in: row f holds the weights from the residual stream into neuron f; in a sparse layer expert by expert.

        Parameters
        ----------
        stack, layer : which FFN
        matrix : for gated FFNs `gate`, the projection into the activation function, which decides whether a neuron
            fires and so is the counterpart of W_in in an FFN without gate; or `up`, its linear factor. Without a
            gate there is one matrix and `gate` names it

        Returns
        -------
        weights_FD : float32 array of shape (F, D), a copy

        Raises
        ------
        InputError
            No such stack or layer, or `up` of an FFN without gate.
        """
        block, layout, place = self._block(stack, layer)
        experts = self.expert_weights(stack, layer)
        if experts is not None and (experts.is_gated or matrix == "gate"):
            return _float32(experts.input_weights(matrix))
        gated = layout.ffn_gate is not None and _find(block, layout.ffn_gate) is not None
        if matrix == "up" and not gated:
            raise InputError(f"{place}: matrix='up' exists in gated FFNs only, this one has no gate; use 'gate'")
        path = (layout.ffn_up if matrix == "up" else layout.ffn_gate) if gated else layout.ffn_in
        return _float32(linear_weight(_get(block, path or "", place), f"{place}.{path}"))

    def shared_input_weights(self, stack: StackName, layer: int, *, matrix: GatedMatrix = "gate") -> np.ndarray:
        """W_in of the shared expert of a sparse layer, as `ffn_input_weights` gives that of an FFN.

        Raises
        ------
        InputError
            No such stack or layer, or a layer without a shared expert.
        """
        block, layout, place = self._block(stack, layer)
        if layer not in {tap.layer for tap in self._taps.get(Site(stack, "shared_expert.neurons"), ())}:
            raise InputError(f"{place} has no shared expert; ask for its FFN, or for another layer")
        assert layout.experts is not None
        assert layout.experts.shared_out is not None
        name = layout.experts.shared_gate if matrix == "gate" else layout.experts.shared_up
        path = f"{layout.experts.shared_out.rpartition('.')[0]}.{name}"
        return _float32(linear_weight(_get(block, path, place), f"{place}.{path}"))

    def ffn_output_weights(self, stack: StackName, layer: int) -> np.ndarray:
        """W_out: row f is what neuron f, at activation 1, writes; float32 array of shape (F, D), a copy."""
        block, layout, place = self._block(stack, layer)
        experts = self.expert_weights(stack, layer)
        if experts is not None:
            return _float32(experts.output_weights())
        module = _get(block, layout.ffn_out, place)
        return _float32(linear_weight(module, f"{place}.{layout.ffn_out}").T)

    def sparse_layers(self, stack: StackName) -> tuple[int, ...]:
        """Layers of a stack whose FFN is made of experts, ascending; empty in a dense model."""
        self._stack_blocks(stack)
        return tuple(tap.layer for tap in self._taps.get(Site(stack, "router.choices"), ()))

    def expert_weights(self, stack: StackName, layer: int) -> ExpertWeights | None:
        """Experts of a sparse layer with their weights, None for a dense layer."""
        self._block(stack, layer)
        tap = self._taps[Site(stack, "ffn.neurons")][layer]
        return tap.experts if isinstance(tap, ExpertTap) else None

    def native_partition(self, stack: StackName, layer: int) -> np.ndarray:
        """The model's own expert of every neuron of a sparse layer.

        Returns
        -------
        labels_F : int32 array of shape (F,): 0 for the f neurons of the first expert, 1 for those of the second, …

        Raises
        ------
        InputError
            No such stack or layer, or a dense layer; the message names the sparse ones.
        """
        experts = self.expert_weights(stack, layer)
        if experts is None:
            sparse = self.sparse_layers(stack)
            known = f"layers {', '.join(map(str, sparse))} have some" if sparse else "no layer has any"
            raise InputError(f"layer {layer} of the {stack} is dense: it has no experts of its own; {known}")
        return np.repeat(np.arange(experts.n_experts, dtype=np.int32), experts.width)

    def _stack_blocks(self, stack: StackName) -> nn.ModuleList:
        if stack not in self._blocks:
            raise InputError(f"stack {stack!r} does not exist in this model; it has {', '.join(self.stacks)}")
        return self._blocks[stack]

    def _block(self, stack: StackName, layer: int) -> tuple[nn.Module, StackLayout, str]:
        blocks = self._stack_blocks(stack)
        if not 0 <= layer < len(blocks):
            raise InputError(f"layer {layer} of the {stack}: expected a number from 0 to {len(blocks) - 1}")
        layout = self._layouts[stack]
        return blocks[layer], layout, f"{layout.blocks}.{layer}"


def _present_layouts(module: nn.Module, architecture: Architecture) -> tuple[StackLayout, ...]:
    """Stacks that `module` has: one half of an encoder-decoder may be loaded alone."""
    present = tuple(layout for layout in architecture.stacks if _find(module, layout.blocks) is not None)
    if not present:
        paths = " or ".join(repr(layout.blocks) for layout in architecture.stacks)
        children = ", ".join(name for name, _ in module.named_children())
        raise SiteError(
            f"{type(module).__name__} of type {architecture.model_type!r} has no blocks at {paths}, it has {children}; "
            f"expected the base model as AutoModel builds it"
        )
    return present


def _find(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _get(module: nn.Module, path: str, place: str) -> nn.Module:
    found = _find(module, path)
    if found is None:
        children = ", ".join(name for name, _ in module.named_children())
        raise SiteError(f"{place} has no module {path!r}; it has {children}. Correct the row of the site table")
    return found


def _blocks(module: nn.Module, layout: StackLayout) -> nn.ModuleList:
    blocks = module.get_submodule(layout.blocks)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise SiteError(f"{layout.blocks!r} is a {type(blocks).__name__}, expected a list of one or more blocks")
    return blocks


def _float32(weight: torch.Tensor) -> np.ndarray:
    if weight.is_meta:
        raise SiteError("weights are not in memory (description or offloaded model); load the model with its weights")
    return np.array(weight.detach().to("cpu", torch.float32).numpy(), order="C", copy=True)


def _embedding_dtype(module: nn.Module) -> torch.dtype:
    embeddings = module.get_input_embeddings()  # type: ignore[operator]  # a method of every Hugging Face model
    return embeddings.weight.dtype


def _stack_taps(
    blocks: nn.ModuleList, layout: StackLayout, stack_index: int, embedding_dtype: torch.dtype
) -> dict[Site, tuple[Tap, ...]]:
    """Taps of every site that one stack has."""
    found: dict[SiteName, list[Tap]] = {name: [] for name in get_args(SiteName)}
    dtype = embedding_dtype
    for layer, block in enumerate(blocks):
        place = f"{layout.blocks}.{layer}"
        order = (stack_index, layer)
        taps = [
            *_ffn_taps(block, place, layout, order),
            *_projection_taps(block, place, layout, order, "attention.heads", "attention.output"),
        ]
        width = taps[1].width
        stream = Tap(
            Site(layout.stack, "residual"), layer, place, block, "input", width, (width,), dtype, (*order, _BLOCK_INPUT)
        )
        # A sum of float16 and float32 is float32: what T5 in float16 carries on after the first FFN.
        dtype = reduce(torch.promote_types, (tap.dtype for tap in taps if tap.site.name in _ADDED), dtype)
        if layer == 0:
            found["residual"].append(stream)
        found["residual"].append(
            replace(stream, layer=layer + 1, side="output", dtype=dtype, order=(*order, _BLOCK_OUTPUT))
        )
        for tap in taps:
            found[tap.site.name].append(tap)
    return {Site(layout.stack, name): tuple(taps) for name, taps in found.items() if taps}


def _ffn_taps(block: nn.Module, place: str, layout: StackLayout, order: tuple[int, int]) -> tuple[Tap, ...]:
    """Neurons and output first, then what else a sparse FFN has."""
    if layout.experts is not None and _find(block, layout.experts.experts) is not None:
        phases = {name: (*order, phase) for name, phase in _PHASES.items()}
        if not layout.experts.shared_first:
            phases["shared_expert.neurons"] = (*order, _SHARED_LAST)
        return sparse_taps(block, place, layout, order[1], phases)
    return _projection_taps(block, place, layout, order, "ffn.neurons", "ffn.output")


def _projection_taps(
    block: nn.Module, place: str, layout: StackLayout, order: tuple[int, int], inside: SiteName, outside: SiteName
) -> tuple[Tap, Tap]:
    """The two taps of one out-projection: its input, and its output."""
    is_ffn = inside == "ffn.neurons"
    path = layout.ffn_out if is_ffn else layout.attention_out
    module = _get(block, path, place)
    weight = linear_weight(module, f"{place}.{path}")
    width_out, width_in = weight.shape
    unit_shape = (width_in,) if is_ffn else _head_shape(block, place, layout.head_width, width_in)
    tap = Tap(
        site=Site(layout.stack, inside),
        layer=order[1],
        path=f"{place}.{path}",
        module=module,
        side="input",
        width=width_in,
        unit_shape=unit_shape,
        dtype=weight.dtype,
        order=(*order, _PHASES[inside]),
        check="linear",
    )
    output = replace(
        tap,
        site=Site(layout.stack, outside),
        side="output",
        width=width_out,
        unit_shape=(width_out,),
        order=(*order, _PHASES[outside]),
        check=None,
    )
    return tap, output


def _head_shape(block: nn.Module, place: str, attribute: str, width: int) -> tuple[int, int]:
    try:
        head_width = int(attrgetter(attribute)(block))
    except AttributeError as error:
        raise SiteError(
            f"{place} has no attribute {attribute!r} ({error}); correct the row of the site table"
        ) from None
    if head_width < 1 or width % head_width:
        raise SiteError(
            f"{place}: {width} inputs of the attention out-projection are no multiple of {attribute}={head_width}"
        )
    return width // head_width, head_width


def _with_ffn_traits(
    taps: Mapping[Site, tuple[Tap, ...]], *, flattened: bool, chunk_tokens: int
) -> dict[Site, tuple[Tap, ...]]:
    """Mark the FFN taps of architectures that flatten rows or run the FFN in slices of positions."""
    ffn: tuple[SiteName, ...] = ("ffn.neurons", "ffn.output")
    return {
        site: tuple(replace(tap, flattened=flattened, chunk_tokens=chunk_tokens) for tap in group)
        if site.name in ffn and (flattened or chunk_tokens)
        else group
        for site, group in taps.items()
    }
