"""Restrict the router of mixture-of-experts layers to some experts.

Source: Zhang et al. 2023, arXiv 2305.18390, Table 3: tokens go to the best of the allowed experts; the gate value is
the probability that the original softmax, over all experts, gives to the chosen one; the capacity limit of Switch
Transformers is dropped in restricted layers, and stays in the others. A layer without allowed experts is unchanged.

Routers that choose several experts by a softmax (Mixtral, OLMoE, Qwen-MoE) are treated alike: the best k of the allowed
ones, all of them where they are fewer, weighted by their original probabilities, which are divided by their sum over
the chosen ones where the model does so. A shared expert is not routed and stays. DeepSeek's routers, which choose
within groups of experts and by a bias, cannot be restricted: such a layer has none that can. The table of architectures
says so without a model (`modularity.models.restricted_routing_problem`).

Routers are found by what they are, not by name: modules of transformers that hand on (dispatch mask, probability,
logits), or (logits, weights, indices). Gradients flow through the gate values as in the unrestricted model.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from modularity.errors import InputError, SiteError
from modularity.models import LoadedModel
from modularity.types import StackName

RouterKind = Literal["top1", "topk"]
_CLASS_ENDS: Mapping[str, RouterKind] = {"Top1Router": "top1", "TopKRouter": "topk"}


@dataclass(frozen=True, eq=False)
class Router:
    """The router of one sparse layer."""

    stack: StackName
    layer: int
    path: str
    """Path in the base model."""
    module: nn.Module
    kind: RouterKind
    n_experts: int
    n_chosen: int
    """Experts that process a token."""
    renormalises: bool
    """Whether the weights of the chosen experts are divided by their sum."""


def routers(model: LoadedModel) -> tuple[Router, ...]:
    """Routers of a model, by stack and layer; empty for a dense model."""
    found = []
    for layout in model.sites.architecture.stacks:
        if layout.stack not in model.sites.stacks:
            continue
        for layer in range(model.sites.n_layers(layout.stack)):
            place = f"{layout.blocks}.{layer}"
            block = model.module.get_submodule(place)
            found += [
                _router(layout.stack, layer, f"{place}.{name}", module)
                for name, module in block.named_modules()
                if router_kind(module) is not None
            ]
    return tuple(found)


@contextmanager
def restricted_routing(
    model: LoadedModel, experts: Mapping[tuple[StackName, int], Collection[int]]
) -> Iterator[tuple[Router, ...]]:
    """Within this context tokens are routed to the given experts only; yields the routers that are restricted.

    Parameters
    ----------
    model : a loaded model; calls of a head model around it are restricted too, in training as well
    experts : allowed experts by (stack, layer); layers that are not named, or have none, are unchanged

    Raises
    ------
    InputError
        A layer has no router, or no such expert; all are listed.
    SiteError
        A router returned something else than this version of transformers promises.
    """
    by_layer = {(router.stack, router.layer): router for router in routers(model)}
    _check_experts(by_layer, experts)
    restricted = tuple(router for key, router in by_layer.items() if len(experts.get(key, ())))
    with ExitStack() as handles:
        for router in restricted:
            allowed = torch.zeros(router.n_experts, dtype=torch.bool)
            allowed[sorted(set(experts[router.stack, router.layer]))] = True
            handles.callback(router.module.register_forward_hook(_Restriction(router, allowed)).remove)
        yield restricted


def random_other_experts(experts: Collection[int], n_experts: int, *, seed: int) -> tuple[int, ...]:
    """As many experts, drawn at random from the others, ascending: the control of a restriction to `experts`.

    Raises
    ------
    InputError
        There are fewer others, or an expert does not exist.
    """
    chosen = sorted(set(experts))
    others = np.setdiff1d(np.arange(n_experts), chosen)
    if len(others) != n_experts - len(chosen) or len(others) < len(chosen):
        raise InputError(
            f"experts {chosen} of {n_experts}: {len(others)} others are left for a control of {len(chosen)}; expected "
            f"existing experts, at most half of them"
        )
    drawn = np.random.default_rng(seed).choice(others, len(chosen), replace=False)
    return tuple(int(expert) for expert in np.sort(drawn))


def router_kind(module: nn.Module) -> RouterKind | None:
    """How a module chooses experts; None where it is no router, or one that cannot be restricted."""
    name = type(module).__name__
    return next((kind for end, kind in _CLASS_ENDS.items() if name.endswith(end)), None)


def _router(stack: StackName, layer: int, path: str, module: Any) -> Router:
    kind = router_kind(module)
    assert kind is not None
    return Router(
        stack=stack,
        layer=layer,
        path=path,
        module=module,
        kind=kind,
        n_experts=int(module.num_experts),
        n_chosen=1 if kind == "top1" else int(module.top_k),
        # Mixtral always divides and has no attribute for it.
        renormalises=kind == "topk" and bool(getattr(module, "norm_topk_prob", True)),
    )


def _check_experts(
    by_layer: Mapping[tuple[StackName, int], Router], experts: Mapping[tuple[StackName, int], Collection[int]]
) -> None:
    known = ", ".join(f"{stack} {layer}" for stack, layer in by_layer) or "none"
    problems = [
        f"layer {layer} of the {stack} has no router that can be restricted; layers with one: {known}"
        for stack, layer in experts
        if (stack, layer) not in by_layer
    ]
    problems += [
        f"experts {sorted(experts[key])} of the {key[0]}, layer {key[1]}: expected numbers from 0 to {n_experts - 1}"
        for key, n_experts in ((key, by_layer[key].n_experts) for key in experts if key in by_layer)
        if not set(experts[key]) <= set(range(n_experts))
    ]
    if problems:
        raise InputError(problems)


class _Restriction:
    """Forward hook of one router."""

    def __init__(self, router: Router, allowed_E: torch.Tensor) -> None:
        self._router, self._allowed_E = router, allowed_E
        self._n_chosen = min(router.n_chosen, int(allowed_E.sum()))

    def __call__(self, module: Any, args: tuple[Any, ...], output: Any) -> tuple[torch.Tensor, ...]:
        if self._router.kind == "top1":
            return self._top_one(module, output)
        return self._top_k(output)

    def _top_one(self, module: Any, output: Any) -> tuple[torch.Tensor, ...]:
        """(dispatch mask (B, T, E) without capacity, probability (B, T, 1), logits (B, T, E))."""
        dispatch, gate, logits = self._parts(output, logits_at=2)
        probabilities = functional.softmax(logits, dim=-1, dtype=module.dtype).to(gate.dtype)
        chosen = self._only_allowed(logits).argmax(dim=-1, keepdim=True)
        one_hot = torch.zeros_like(dispatch).scatter_(-1, chosen, 1)
        return one_hot, probabilities.gather(-1, chosen), logits

    def _top_k(self, output: Any) -> tuple[torch.Tensor, ...]:
        """(logits (N, E), weights (N, k), indices (N, k))."""
        logits, weights, _ = self._parts(output, logits_at=0)
        probabilities = functional.softmax(logits.float(), dim=-1)
        indices = self._only_allowed(logits.float()).topk(self._n_chosen, dim=-1).indices
        chosen = probabilities.gather(-1, indices)
        if self._router.renormalises:
            chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        return logits, chosen.to(weights.dtype), indices

    def _only_allowed(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(~self._allowed_E.to(logits.device), -torch.inf)

    def _parts(self, output: Any, *, logits_at: int) -> Sequence[torch.Tensor]:
        is_known = isinstance(output, tuple) and len(output) == 3
        if not is_known or output[logits_at].shape[-1] != self._router.n_experts:
            raise SiteError(
                f"router {self._router.path!r} ({type(self._router.module).__name__}) returned "
                f"{type(output).__name__}; expected three tensors with logits of {self._router.n_experts} experts at "
                f"{logits_at}: this version of transformers routes in another way"
            )
        return output
