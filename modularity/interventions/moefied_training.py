"""Train MLP routers: which experts of an FFN are active, predicted from the FFN's input.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786). Linear (D -> E) - tanh - Linear (E -> E), without bias, from
the centres of the experts and the identity; inputs of unit length; targets are the activation mass of each expert by
the largest of the batch; binary cross-entropy with logits, Adam with rate .01, 30 epochs of batches of 512, the last
tenth of the tokens held out. The epoch that keeps the most mass on them is taken (released: the second best).

Departure: the mass is that of the model's own activations, biases included; the released code multiplies normalised
inputs with the weights.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from modularity.data import TokenBatch
from modularity.errors import DataError, InputError, NumericError
from modularity.interventions.context import BatchContext
from modularity.interventions.forward import Forward
from modularity.interventions.moefied_layers import (
    LayerKey,
    Mass,
    MlpRouter,
    MoefiedLayer,
    activation_mass,
    ffn_modules,
    membership,
    normalised,
    top_experts,
)
from modularity.models import LoadedModel

_MIN_TOKENS = 20


@dataclass(frozen=True)
class RouterTraining:
    """How routers are trained; the defaults are the paper's."""

    share: float = 0.2
    """Share of experts by whose mass the epochs are compared."""
    n_epochs: int = 30
    rows_per_batch: int = 512
    learning_rate: float = 0.01
    held_out: float = 0.1
    """Share of the tokens, the last ones, by which the epochs are compared."""
    seed: int = 0
    """Of the order of tokens in each epoch."""

    def __post_init__(self) -> None:
        """InputError with every value that is out of range."""
        problems = [
            f"{name} is {getattr(self, name)}: expected {expected}"
            for name, expected, is_right in (
                ("share", "more than 0, at most 1", 0 < self.share <= 1),
                ("n_epochs", "at least 1", self.n_epochs >= 1),
                ("rows_per_batch", "at least 1", self.rows_per_batch >= 1),
                ("learning_rate", "more than 0", self.learning_rate > 0),
                ("held_out", "between 0 and 1", 0 < self.held_out < 1),
            )
            if not is_right
        ]
        if problems:
            raise InputError(problems)


@dataclass(frozen=True, eq=False)
class RoutingExamples:
    """What one layer's router learns from: one row for each token."""

    inputs_RD: np.ndarray
    """float32: inputs of the FFN, normalised."""
    mass_RE: np.ndarray
    """float32: activation mass of every expert."""


def train_routers(
    model: LoadedModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    batches: Iterable[TokenBatch],
    *,
    training: RouterTraining | None = None,
    mass: Mass = "absolute",
    max_tokens: int = 20_000,
) -> dict[LayerKey, MoefiedLayer]:
    """The layers with a trained router each.

    Deterministic for a seed, on one machine and device with one number of threads.

    Parameters
    ----------
    model : a loaded model, unchanged by this
    layers : from `moefy`
    batches : token batches on which no task is going to be measured. The decoder of an encoder-decoder model learns
        from its first step
    training : how; None = as the paper
    mass : as in `selected_experts`
    max_tokens : tokens to learn from; 4 (D + E) bytes of host memory for each of them and each layer

    Raises
    ------
    DataError
        Fewer than 20 tokens, or no activation in a layer.
    NumericError
        The loss is not finite.
    """
    examples = collect_routing(model, layers, batches, mass=mass, max_tokens=max_tokens)
    return {
        key: replace(layer, router=fit_router(layer, examples[key], training=training, device=model.device))
        for key, layer in layers.items()
    }


def collect_routing(
    model: LoadedModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    batches: Iterable[TokenBatch],
    *,
    mass: Mass = "absolute",
    max_tokens: int = 20_000,
) -> dict[LayerKey, RoutingExamples]:
    """FFN inputs and activation masses of the first real tokens of `batches`, in one pass for all layers.

    Parameters
    ----------
    model, layers, batches, mass, max_tokens : as in `train_routers`; no batch is read after `max_tokens`
    """
    context, forward = BatchContext(model), Forward(model.module, model)
    collectors = [_Collector(model, layer, mass, max_tokens, context) for layer in layers.values()]
    with ExitStack() as handles:
        for handle in context.attach():
            handles.callback(handle.remove)
        for collector in collectors:
            collector.attach(handles)
        for batch in batches:
            forward(batch)
            if all(collector.is_full for collector in collectors):
                break
    return {collector.layer.key: collector.examples() for collector in collectors}


def fit_router(
    layer: MoefiedLayer,
    examples: RoutingExamples,
    *,
    training: RouterTraining | None = None,
    device: torch.device | None = None,
) -> MlpRouter:
    """Train the router of one layer; parameters and errors as `train_routers`."""
    training = RouterTraining() if training is None else training
    inputs, mass = (torch.from_numpy(rows).to(device) for rows in (examples.inputs_RD, examples.mass_RE))
    n_trained = len(inputs) - max(1, round(training.held_out * len(inputs)))
    if len(inputs) < _MIN_TOKENS or not (mass[n_trained:] > 0).any() or not (mass[:n_trained] > 0).any():
        raise DataError(
            f"layer {layer.layer} of the {layer.stack}: {len(inputs)} tokens, {int((mass.sum(1) > 0).sum())} with "
            f"activation: expected at least {_MIN_TOKENS}, some with activation among the held-out ones too"
        )
    weights = [
        nn.Parameter(torch.from_numpy(layer.centres_ED).to(device).clone()),
        nn.Parameter(torch.eye(layer.n_experts, device=device)),
    ]
    optimiser = torch.optim.Adam(weights, lr=training.learning_rate)
    generator = torch.Generator().manual_seed(training.seed)
    n_selected = layer.n_selected(training.share)
    best, kept = -1.0, weights
    for epoch in range(training.n_epochs):
        with torch.enable_grad():
            loss = _epoch(weights, optimiser, inputs[:n_trained], mass[:n_trained], training, generator)
        if not np.isfinite(loss):
            raise NumericError(
                f"router of layer {layer.layer} of the {layer.stack}: the loss is {loss} in epoch {epoch}; take a "
                f"learning_rate below {training.learning_rate}"
            )
        share = _share_kept(weights, inputs[n_trained:], mass[n_trained:], n_selected)
        if share > best:
            best, kept = share, [weight.detach().clone() for weight in weights]  # type: ignore[misc]
    first, last = (weight.detach().cpu().numpy() for weight in kept)
    return MlpRouter(first, last, best, training.share)


def _epoch(
    weights: list[nn.Parameter],
    optimiser: torch.optim.Optimizer,
    inputs_RD: torch.Tensor,
    mass_RE: torch.Tensor,
    training: RouterTraining,
    generator: torch.Generator,
) -> float:
    """One pass over the tokens in random order; the return value is the loss of the last batch."""
    loss = torch.zeros(())
    order = torch.randperm(len(inputs_RD), generator=generator).to(inputs_RD.device)
    for start in range(0, len(order), training.rows_per_batch):
        rows = order[start : start + training.rows_per_batch]
        mass = mass_RE[rows]
        target = mass / mass.max().clamp_min(torch.finfo(mass.dtype).tiny)
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(_logits(weights, inputs_RD[rows]), target)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(loss.detach())


def _logits(weights: list[nn.Parameter], inputs_RD: torch.Tensor) -> torch.Tensor:
    first_ED, last_EE = weights
    return torch.tanh(inputs_RD @ first_ED.T) @ last_EE.T


@torch.no_grad()
def _share_kept(weights: list[nn.Parameter], inputs_RD: torch.Tensor, mass_RE: torch.Tensor, n_selected: int) -> float:
    """Mean over tokens with activation of the share of mass in the experts that the router selects."""
    selected_RE = top_experts(_logits(weights, inputs_RD), n_selected)
    all_R, kept_R = mass_RE.double().sum(1), (mass_RE.double() * selected_RE).sum(1)
    return float((kept_R[all_R > 0] / all_R[all_R > 0]).mean())


class _Collector:
    """Hooks on one FFN that keep its inputs and the mass of its experts."""

    def __init__(
        self, model: LoadedModel, layer: MoefiedLayer, mass: Mass, max_tokens: int, context: BatchContext
    ) -> None:
        self.layer = layer
        self._modules, self._mass, self._max_tokens, self._context = (
            ffn_modules(model, layer.key),
            mass,
            max_tokens,
            context,
        )
        self._is_member_FE = membership(layer, next(self._modules.output.module.parameters()).device)
        self._inputs: list[np.ndarray] = []
        self._masses: list[np.ndarray] = []

    @property
    def is_full(self) -> bool:
        """Whether there are enough tokens."""
        return sum(map(len, self._masses)) >= self._max_tokens

    def attach(self, handles: ExitStack) -> None:
        """Put the hooks on; leaving `handles` removes them."""
        handles.callback(self._modules.inputs[0].register_forward_pre_hook(self._note_input).remove)
        handles.callback(self._modules.output.attach(self._note_mass).remove)

    def examples(self) -> RoutingExamples:
        """All tokens, in order."""
        if not self._masses:
            raise DataError("no batch to learn routing from: expected at least one")
        return RoutingExamples(
            np.concatenate(self._inputs)[: self._max_tokens], np.concatenate(self._masses)[: self._max_tokens]
        )

    def _real(self, values: torch.Tensor) -> torch.Tensor:
        flat = values.reshape(-1, values.shape[-1])
        return flat[torch.from_numpy(self._context.content(self.layer.stack).real_BT.reshape(-1)).to(flat.device)]

    def _note_input(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inputs.append(normalised(self._real(args[0])).cpu().numpy())

    def _note_mass(self, values: torch.Tensor) -> None:
        self._masses.append(activation_mass(self._real(values), self._is_member_FE, self._mass).cpu().numpy())
