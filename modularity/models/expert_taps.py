"""Taps of a sparse FFN: the neurons of its experts, the router's probabilities and its choices, a shared expert.

A neuron of an expert has a value only for the tokens that the expert processes; `RoutedNeurons` holds what the neurons
of one batch depend on and computes them expert by expert when they are asked for, so that the neurons of all experts
for all tokens, mostly values that do not exist, are never in memory together. Two variants:

- `corrected`: only the tokens that the router sent to the expert and that its capacity admitted;
- `released`: every expert for every token, as the code of Zhang et al. 2023 (arXiv 2305.18390) recorded them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from modularity.errors import SiteError
from modularity.models.architectures import RouterScores, StackLayout
from modularity.models.expert_layers import ExpertWeights, find_experts
from modularity.models.taps import Tap, linear_weight
from modularity.types import Site, SiteName

ExpertVariant = Literal["corrected", "released"]


@dataclass(frozen=True, eq=False)
class RoutedNeurons:
    """Expert neurons of one layer for the N tokens of one batch, U = E * f units, expert-major."""

    experts: ExpertWeights
    hidden_ND: torch.Tensor
    """What enters the experts."""
    choices_NE: torch.Tensor
    """bool: the expert processes the token."""
    weights_NE: torch.Tensor
    """Weights of the router, 0 where the expert does not process the token."""
    variant: ExpertVariant = "corrected"
    n_examples: int = 1
    """B; the tokens are those of example 0, then of example 1, and so on, equally many of each."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, T, U)."""
        n_units = self.experts.n_experts * self.experts.width
        return self.n_examples, len(self.hidden_ND) // self.n_examples, n_units

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the neurons."""
        return self.experts.dtype

    @property
    def device(self) -> torch.device:
        """Device of the hidden states."""
        return self.hidden_ND.device

    @property
    def active_NE(self) -> torch.Tensor:
        """bool: the neurons of the expert have a value for the token; in the variant `released` they always have."""
        return torch.ones_like(self.choices_NE) if self.variant == "released" else self.choices_NE

    def batched(self, n_examples: int) -> "RoutedNeurons":
        """The same, of `n_examples` examples."""
        return replace(self, n_examples=n_examples)

    def tokens(self, index_M: torch.Tensor) -> "RoutedNeurons":
        """Those of the tokens with these numbers, as one example."""
        return replace(
            self,
            hidden_ND=self.hidden_ND[index_M],
            choices_NE=self.choices_NE[index_M],
            weights_NE=self.weights_NE[index_M],
            n_examples=1,
        )

    def parts(self, counted_N: torch.Tensor | None = None) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """(expert, its tokens, ascending, int64 of shape (M,), its neurons for them, (M, f)), experts ascending.

        Experts without tokens are left out. `counted_N`, bool, restricts the tokens.
        """
        active_NE = self.active_NE if counted_N is None else self.active_NE & counted_N[:, None]
        _, token_M = active_NE.T.nonzero(as_tuple=True)
        start = 0
        for expert, count in enumerate(active_NE.sum(0).tolist()):
            tokens = token_M[start : start + count]
            start += count
            if count:
                yield expert, tokens, self.experts.neurons(expert, self.hidden_ND[tokens]).to(self.device)

    def dense(self) -> torch.Tensor:
        """All values as one tensor (B, T, U), 0 where the expert has no value for the token."""
        n_tokens, width = len(self.hidden_ND), self.experts.width
        out_NEF = torch.zeros((n_tokens, self.experts.n_experts, width), dtype=self.dtype, device=self.device)
        for expert, tokens, values_MF in self.parts():
            out_NEF[tokens, expert] = values_MF
        return out_NEF.view(self.shape)

    def project(self) -> torch.Tensor:
        """Output of the experts, (N, D) in float32: what the chosen experts write times the router's weights."""
        out_ND = torch.zeros((len(self.hidden_ND), self.experts.residual_width), device=self.device)
        for expert, tokens, values_MF in replace(self, variant="corrected").parts():
            written_MD = self.experts.project(expert, values_MF).to(self.device).float()
            out_ND[tokens] += written_MD * self.weights_NE[tokens, expert, None].float()
        return out_ND


@dataclass(frozen=True, eq=False)
class RouterTap(Tap):
    """Probabilities of the experts, from the logits of the router, before any choice, renormalisation or cast."""

    scores: RouterScores = "softmax"

    def from_output(self, output: Any) -> torch.Tensor:
        """Softmax or sigmoid of the logits, float32."""
        logits = super().from_output(output)
        if self.scores == "sigmoid":
            return logits.float().sigmoid()
        return functional.softmax(logits, dim=-1, dtype=torch.float32)


@dataclass(frozen=True, eq=False)
class ExpertTap(Tap):
    """A tap on the module of the experts: the hook receives `RoutedNeurons` of one example with all tokens."""

    experts: ExpertWeights | None = None
    variant: ExpertVariant = "corrected"

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RoutedNeurons:
        """What the neurons depend on, from the arguments of the experts' module."""
        assert self.experts is not None
        routing = self.experts.routing(args, kwargs)
        return RoutedNeurons(self.experts, *routing, variant=self.variant)

    def from_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """Neurons of all experts, (N, U): 0 where an expert has no value for a token."""
        return self.read(args, kwargs).dense()[0]

    def attach(self, receive: Callable[[Any], None]) -> RemovableHandle:
        """As `Tap.attach`; `receive` gets `RoutedNeurons`."""

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            receive(self.read(args, kwargs))

        return self.module.register_forward_pre_hook(before, with_kwargs=True)


@dataclass(frozen=True, eq=False)
class ChoiceTap(ExpertTap):
    """Which experts process a token: 1 or 0 for each, all 0 for a token dropped by capacity."""

    def from_input(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
        """The choices, (N, E) in float32."""
        return self.read(args, kwargs).choices_NE.float()

    def attach(self, receive: Callable[[Any], None]) -> RemovableHandle:
        """As `Tap.attach`."""
        return Tap.attach(self, receive)


def sparse_taps(
    block: nn.Module, place: str, layout: StackLayout, layer: int, phases: Mapping[SiteName, tuple[int, int, int]]
) -> tuple[Tap, ...]:
    """Taps of a sparse FFN: neurons, output, probabilities, choices; and the neurons of a shared expert.

    Parameters
    ----------
    block : a block with experts
    place : its path, for messages
    layout : of its stack
    layer : its number
    phases : place in the firing order by site name
    """
    assert layout.experts is not None
    paths = layout.experts
    needed = [path for path in (paths.ffn, paths.experts, paths.router, paths.shared_out) if path is not None]
    modules = {path: _get(block, path, place) for path in needed}
    experts = find_experts(modules[paths.experts], paths, f"{place}.{paths.experts}")
    n_units, n_experts = experts.n_experts * experts.width, experts.n_experts

    def tap(
        kind: type[Tap], name: SiteName, path: str, side: Any, width: int, dtype: torch.dtype, **options: Any
    ) -> Tap:
        site = Site(layout.stack, name)
        order = phases[name]
        return kind(site, layer, f"{place}.{path}", modules[path], side, width, (width,), dtype, order, **options)

    at_experts: dict[str, Any] = {"flattened": True, "experts": experts}
    shared: tuple[Tap, ...] = ()
    if paths.shared_out is not None:
        weight = linear_weight(modules[paths.shared_out], f"{place}.{paths.shared_out}")
        at_shared: dict[str, Any] = {"flattened": True, "check": "linear"}
        shared = (
            tap(Tap, "shared_expert.neurons", paths.shared_out, "input", weight.shape[1], weight.dtype, **at_shared),
        )
    at_router: dict[str, Any] = {"flattened": True, "scores": paths.scores}
    return (
        tap(ExpertTap, "ffn.neurons", paths.experts, "input", n_units, experts.dtype, check="experts", **at_experts),
        tap(Tap, "ffn.output", paths.ffn, "output", experts.residual_width, experts.input_dtype),
        tap(RouterTap, "router.probabilities", paths.router, "output", n_experts, torch.float32, **at_router),
        tap(ChoiceTap, "router.choices", paths.experts, "input", n_experts, torch.float32, **at_experts),
        *shared,
    )


def _get(block: nn.Module, path: str, place: str) -> nn.Module:
    try:
        return block.get_submodule(path)
    except AttributeError as error:
        raise SiteError(f"{place}.{path}: {error}. Correct the row of the site table") from None
