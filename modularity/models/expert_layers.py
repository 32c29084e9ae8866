"""The experts of one sparse FFN: how they are called, what their neurons are, and their weights.

Two kinds. *Modules*: every expert is an FFN module of its own (Switch Transformers). *Fused*: the experts are slices of
3-D parameters of one module, `gate_up_proj` (E, 2f, D) and `down_proj` (E, D, f), and which code multiplies them is a
switch of transformers (`experts_implementation`); nothing inside can be hooked. Both are called with the hidden states
of all tokens, the choices of the router and its weights, which is all that the neurons depend on. So neurons are
computed here, from these inputs and the module's own weights and activation function, whatever the implementation.

The units of a layer are expert-major: neuron i of expert e is unit e * f + i.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from modularity.errors import SiteError
from modularity.models.architectures import ExpertLayout
from modularity.models.taps import linear_weight

GatedMatrix = Literal["gate", "up"]

# Of the decorator that transformers puts on fused experts: the only layout that is supported.
_FUSED_TRAITS = {
    "has_gate": True,
    "has_bias": False,
    "has_post_expert_norm": False,
    "is_transposed": False,
    "is_concatenated": True,
}


class Routing(NamedTuple):
    """What the experts of one layer are called with, N tokens of a batch."""

    hidden_ND: torch.Tensor
    choices_NE: torch.Tensor
    """bool: the expert processes the token; tokens dropped by capacity have no True."""
    weights_NE: torch.Tensor
    """Weight of the expert in the sum for the token, 0 where it is not chosen."""


class ExpertWeights(ABC):
    """Experts of one layer, all with the same number of neurons."""

    n_experts: int
    width: int
    """f, neurons of one expert."""
    residual_width: int
    input_dtype: torch.dtype
    dtype: torch.dtype
    """Dtype of the neurons."""

    @abstractmethod
    def neurons(self, expert: int, hidden_MD: torch.Tensor) -> torch.Tensor:
        """Neurons of one expert for M tokens, (M, f)."""

    @abstractmethod
    def project(self, expert: int, neurons_MF: torch.Tensor) -> torch.Tensor:
        """What these neurons write, before the router's weight, (M, D)."""

    @abstractmethod
    def input_weights(self, matrix: GatedMatrix) -> torch.Tensor:
        """W_in, or one of the two of a gated FFN, (E * f, D), expert-major."""

    @abstractmethod
    def output_weights(self) -> torch.Tensor:
        """W_out, (E * f, D), expert-major."""

    @abstractmethod
    def routing(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Routing:
        """Arguments of the module of the experts in one form."""

    @property
    def is_gated(self) -> bool:
        """Whether a neuron is act(gate) * up."""
        return False


class FusedExperts(ExpertWeights):
    """Experts in 3-D parameters (OLMoE, Mixtral, Qwen3-MoE).

    Raises
    ------
    SiteError
        The module has not these parameters, or another layout of them.
    """

    def __init__(self, module: Any, place: str) -> None:
        names = ("gate_up_proj", "down_proj", "act_fn")
        missing = [name for name in names if not hasattr(module, name)]
        other = {name: getattr(module, name, usual) for name, usual in _FUSED_TRAITS.items()}
        wrong = {name: value for name, value in other.items() if value != _FUSED_TRAITS[name]}
        self._module = module
        if missing or wrong or self._module.gate_up_proj.ndim != 3:
            found = f"has {wrong}" if wrong else f"lacks {', '.join(missing) or 'parameters of three dimensions'}"
            raise SiteError(
                f"{place} is a {type(module).__name__} that {found}; expected fused experts with gate_up_proj "
                f"(experts, 2 * neurons, residual), down_proj (experts, residual, neurons), act_fn, no bias and no norm"
            )
        self.n_experts, double_width, self.residual_width = self._module.gate_up_proj.shape
        self.width = int(double_width) // 2
        self.input_dtype = self.dtype = self._module.gate_up_proj.dtype

    @property
    def is_gated(self) -> bool:
        """Always: a neuron is act(gate) * up."""
        return True

    def neurons(self, expert: int, hidden_MD: torch.Tensor) -> torch.Tensor:
        """act(gate) * up."""
        weight = _in_memory(self._module.gate_up_proj, "gate_up_proj")[expert]
        gate_MF, up_MF = functional.linear(hidden_MD.to(weight.device), weight).chunk(2, dim=-1)
        return self._module.act_fn(gate_MF) * up_MF

    def project(self, expert: int, neurons_MF: torch.Tensor) -> torch.Tensor:
        """W_down of the expert."""
        return functional.linear(neurons_MF, self._module.down_proj[expert])

    def input_weights(self, matrix: GatedMatrix) -> torch.Tensor:
        """Rows of W_gate come first in `gate_up_proj`."""
        half = slice(None, self.width) if matrix == "gate" else slice(self.width, None)
        return self._module.gate_up_proj[:, half].reshape(-1, self.residual_width)

    def output_weights(self) -> torch.Tensor:
        """Columns of `down_proj`."""
        return self._module.down_proj.transpose(1, 2).reshape(-1, self.residual_width)

    def routing(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Routing:
        """Indices and weights of the top k experts become (N, E)."""
        hidden_ND, index_NK, weight_NK = _arguments(args, kwargs, ("hidden_states", "top_k_index", "top_k_weights"))
        shape = (len(hidden_ND), self.n_experts)
        choices_NE = torch.zeros(shape, dtype=torch.bool, device=hidden_ND.device).scatter_(1, index_NK, True)
        weights_NE = torch.zeros(shape, dtype=weight_NK.dtype, device=hidden_ND.device).scatter_(1, index_NK, weight_NK)
        return Routing(hidden_ND, choices_NE, weights_NE)


class ModuleExperts(ExpertWeights):
    """Experts that are modules without gate, one for each expert (Switch Transformers).

    Raises
    ------
    SiteError
        An expert lacks its projections, or the experts differ in width.
    """

    def __init__(self, module: nn.Module, layout: ExpertLayout, place: str) -> None:
        self._experts: list[Any] = list(module.children())
        try:
            self._in = [expert.get_submodule(layout.expert_in) for expert in self._experts]
            self._out = [expert.get_submodule(layout.expert_out) for expert in self._experts]
            self._activation = [expert.get_submodule(layout.expert_activation) for expert in self._experts]
        except AttributeError as error:
            raise SiteError(f"experts of {place}: {error}; correct the row of the site table") from None
        shapes = {tuple(linear_weight(one, f"{place}.{layout.expert_in}").shape) for one in self._in}
        if len(shapes) != 1:
            raise SiteError(f"{place} has experts of the shapes {sorted(shapes)}, expected one or more of one shape")
        self.width, self.residual_width = shapes.pop()
        self.n_experts = len(self._experts)
        self.input_dtype = self._in[0].weight.dtype
        self.dtype = self._out[0].weight.dtype

    def neurons(self, expert: int, hidden_MD: torch.Tensor) -> torch.Tensor:
        """act(W_in x); in float16 `wo` stays in float32, and its input is cast to it."""
        inside = self._in[expert]
        weight, bias = _in_memory(inside.weight, "W_in of an expert"), inside.bias
        value_MF = functional.linear(hidden_MD.to(weight.device), weight, bias)
        return self._activation[expert](value_MF).to(self.dtype)

    def project(self, expert: int, neurons_MF: torch.Tensor) -> torch.Tensor:
        """W_out of the expert."""
        outside = self._out[expert]
        return functional.linear(neurons_MF, outside.weight, outside.bias)

    def input_weights(self, matrix: GatedMatrix) -> torch.Tensor:
        """W_in of all experts."""
        return torch.cat([one.weight for one in self._in])

    def output_weights(self) -> torch.Tensor:
        """W_out of all experts."""
        return torch.cat([one.weight.T for one in self._out])

    def routing(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Routing:
        """The dispatch mask is (N, 1, E) already, without the tokens over capacity; the weights are (N, 1)."""
        names = ("hidden_states", "selected_experts", "routing_weights")
        hidden_ND, selected_N1E, weight_N1 = _arguments(args, kwargs, names)
        choices_NE = selected_N1E.reshape(len(hidden_ND), self.n_experts) > 0
        return Routing(hidden_ND, choices_NE, choices_NE * weight_N1.reshape(-1, 1))


def find_experts(module: nn.Module, layout: ExpertLayout, place: str) -> ExpertWeights:
    """Experts of a sparse FFN, from the module at `layout.experts`."""
    return FusedExperts(module, place) if layout.kind == "fused" else ModuleExperts(module, layout, place)


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], names: tuple[str, str, str]) -> list[torch.Tensor]:
    given = {**dict(zip(names, args)), **kwargs}
    values = [value for name in names if isinstance(value := given.get(name), torch.Tensor)]
    if len(values) < len(names) or values[0].ndim != 2:
        raise SiteError(
            f"the experts were called with {len(args)} arguments and {sorted(kwargs)} by name; expected {list(names)}, "
            f"with hidden states of shape (tokens, residual): this version of transformers calls them in another way"
        )
    return values


def _in_memory(weight: torch.Tensor, what: str) -> torch.Tensor:
    if weight.is_meta:
        raise SiteError(
            f"{what} is not in memory (offloaded by device_map): expert neurons are computed from it; use more or "
            f"larger GPUs, or a smaller dtype"
        )
    return weight
