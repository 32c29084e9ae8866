"""Run a dense model with only some experts of its FFNs for every token, and measure what is kept.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786). A hook before each FFN out-projection sets the neurons of the
experts that a router did not select to zero; with all experts selected the numbers are exactly those of the model. The
neurons are computed all the same: this measures what selection costs in accuracy, it does not save time.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from modularity.errors import DataError, InputError, SiteError
from modularity.interventions.context import BatchContext
from modularity.interventions.measure import LabelTask, measure_task
from modularity.interventions.moefied_layers import (
    LayerKey,
    Mass,
    MoefiedLayer,
    RouterKind,
    activation_mass,
    ffn_modules,
    make_scorer,
    membership,
    top_experts,
)
from modularity.interventions.scores import TaskScores
from modularity.models import HeadModel, LoadedModel


@dataclass(frozen=True)
class LayerMass:
    """Activation mass that the selected experts of one layer had, over the real tokens of all batches."""

    total: float
    """Mass of the selected experts by mass of all."""
    mean: float
    """Mean over tokens of the share of each, tokens without activation left out (the paper's figure)."""
    n_tokens: int
    """Tokens with activation."""
    neurons: float
    """Mean over all tokens of the share of the layer's neurons that are in the selected experts."""


@dataclass(frozen=True)
class SelectionPoint:
    """A task with one share of experts chosen by one router."""

    router: RouterKind
    share: float
    """As asked for; the selected experts of a layer are rounded up."""
    selected: float
    """Selected experts by all, over the layers."""
    scores: TaskScores
    accuracy_kept: float
    """Accuracy by that of the whole model; see `scores.majority` for what a constant answer would keep."""
    mass_kept: float
    """Mean over layers of the mass kept (`LayerMass.mean`); by chance it is `selected`."""

    def as_row(self) -> dict[str, float | int | bool | str]:
        """All values by name, as tables take them."""
        scores = {name: value for name, value in asdict(self).items() if name != "scores"}
        return {**scores, **self.scores.as_dict()}


class SelectionRecord:
    """What a run with selected experts counts."""

    is_paused: bool = False
    """While it is set the model runs with all experts, and nothing is counted."""

    def __init__(self, layers: Mapping[LayerKey, MoefiedLayer]) -> None:
        self._sums = {key: [0.0] * 6 for key in layers}

    def add(self, key: LayerKey, all_R: torch.Tensor, kept_R: torch.Tensor, neurons_R: torch.Tensor) -> None:
        """Add the mass of all and of the selected experts of some tokens, and the share of neurons in these."""
        has_R = all_R > 0
        everything, kept = all_R[has_R].double(), kept_R[has_R].double()
        more: tuple[float | torch.Tensor, ...] = (
            kept.sum(), everything.sum(), (kept / everything).sum(), has_R.sum(), neurons_R.double().sum(), len(all_R),
        )  # fmt: skip
        self._sums[key] = [old + float(new) for old, new in zip(self._sums[key], more, strict=True)]

    def layers(self) -> dict[LayerKey, LayerMass]:
        """Mass kept in every layer; DataError where no token had any activation."""
        empty = [f"{stack} {layer}" for (stack, layer), sums in self._sums.items() if not sums[3]]
        if empty:
            raise DataError(f"no token had any activation in {', '.join(empty)}: run the model within the context")
        return {
            key: LayerMass(min(kept / everything, 1.0), min(ratios / n, 1.0), int(n), neurons / n_all)
            for key, (kept, everything, ratios, n, neurons, n_all) in self._sums.items()
        }


@contextmanager
def selected_experts(
    model: LoadedModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    *,
    share: float,
    router: RouterKind = "mlp",
    mass: Mass = "absolute",
    seed: int = 0,
) -> Iterator[SelectionRecord]:
    """Within this context every token has only the neurons of some experts, in the layers that are named.

    The model may be the base of one with a head. It has to be called with `input_ids`, and with `attention_mask` where
    there is padding. Hooks are gone afterwards, also after an error.

    Parameters
    ----------
    model : a loaded model
    layers : from `moefy` or `load_moefied`
    share : of the experts of each layer that every token keeps, in (0, 1]; rounded up
    router : who selects them
    mass : what the oracle sums, and what the record counts: |activation|, or the paper's ReLU(activation)
    seed : of the random router

    Yields
    ------
    SelectionRecord, which counts the activation mass that is kept

    Raises
    ------
    InputError
        The share is out of range, a layer lacks the router, or the model is called without token ids.
    SiteError
        The model ran, and an FFN did not do so as expected.
    """
    if not 0 < share <= 1:
        raise InputError(f"share is {share}: expected more than 0, at most 1")
    record, context = SelectionRecord(layers), BatchContext(model)
    hooks = [_Selection(model, layer, share, router, mass, seed, record, context) for layer in layers.values()]
    with ExitStack() as handles:
        for handle in context.attach():
            handles.callback(handle.remove)
        for hook in hooks:
            hook.attach(handles)
        yield record


def selection_sweep(
    model: HeadModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    task: LabelTask,
    *,
    shares: Sequence[float] = (0.1, 0.2, 0.3, 0.5, 1.0),
    routers: Sequence[RouterKind] = ("oracle", "parameter", "mlp", "random"),
    tokens_per_batch: int = 8192,
    seed: int = 0,
) -> tuple[SelectionPoint, ...]:
    """Accuracy and activation mass kept for every router and share; `random` is the control.

    Parameters
    ----------
    model : a model with its LM head
    layers : as for `selected_experts`
    task : examples that trained no router
    shares, routers : all pairs are run, in this order
    tokens_per_batch, seed : of `measure_task`, and of the random router

    Raises
    ------
    InputError
        As `selected_experts` and `measure_task`; or no share, or no router.
    """
    if not shares or not routers:
        raise InputError(f"shares {list(shares)} and routers {list(routers)}: expected at least one of each")
    plain = measure_task(model, task, tokens_per_batch=tokens_per_batch)
    points = []
    for router in routers:
        for share in shares:
            with selected_experts(model.base, layers, share=share, router=router, seed=seed) as record:
                scores = measure_task(model, task, tokens_per_batch=tokens_per_batch)
            kept = [layer.mean for layer in record.layers().values()]
            points.append(
                SelectionPoint(
                    router=router,
                    share=share,
                    selected=sum(each.n_selected(share) for each in layers.values())
                    / sum(each.n_experts for each in layers.values()),
                    scores=scores,
                    accuracy_kept=scores.accuracy / plain.accuracy if plain.accuracy else 0.0,
                    mass_kept=sum(kept) / len(kept),
                )
            )
    return tuple(points)


class _Selection:
    """Hooks on one FFN: the first notes its input, the second sets neurons to zero."""

    def __init__(
        self,
        model: LoadedModel,
        layer: MoefiedLayer,
        share: float,
        router: RouterKind,
        mass: Mass,
        seed: int,
        record: SelectionRecord,
        context: BatchContext,
    ) -> None:
        self._modules = ffn_modules(model, layer.key)
        self._layer, self._record, self._context, self._mass = layer, record, context, mass
        device = next(self._modules.output.module.parameters()).device
        self._is_member_FE = membership(layer, device)
        self._neurons_E = self._is_member_FE.mean(0)
        self._score = make_scorer(layer, router, device, seed=seed)
        self._n_selected = layer.n_selected(share)
        self._inputs_RD: torch.Tensor | None = None

    def attach(self, handles: ExitStack) -> None:
        """Put the hooks on; leaving `handles` removes them."""
        first = self._modules.inputs[0].register_forward_pre_hook(self._note)
        last = self._modules.output.module.register_forward_pre_hook(self._select, with_kwargs=True)
        for handle in (first, last):
            handles.callback(handle.remove)

    def _note(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inputs_RD = args[0].reshape(-1, args[0].shape[-1])

    def _select(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._record.is_paused:
            self._inputs_RD = None
            return None
        values = self._modules.output.from_input(args, kwargs)
        flat_RF = values.reshape(-1, values.shape[-1])
        real_R = torch.from_numpy(self._context.content(self._layer.stack).real_BT.reshape(-1)).to(flat_RF.device)
        if self._inputs_RD is None or not len(self._inputs_RD) == len(flat_RF) == len(real_R):
            raise SiteError(
                f"FFN of layer {self._layer.layer} of the {self._layer.stack}: {len(flat_RF)} positions, the batch has "
                f"{len(real_R)}; expected its in-projection and its out-projection to run once each per forward"
            )
        mass_RE = activation_mass(flat_RF, self._is_member_FE, self._mass)
        selected_RE = top_experts(self._score(self._inputs_RD, mass_RE), self._n_selected)
        self._inputs_RD = None
        self._record.add(
            self._layer.key,
            mass_RE[real_R].sum(1),
            (mass_RE * selected_RE)[real_R].sum(1),
            selected_RE[real_R].float() @ self._neurons_E,
        )
        is_kept_RF = (selected_RE.float() @ self._is_member_FE.T).bool()
        new = torch.where(is_kept_RF, flat_RF, torch.zeros((), dtype=flat_RF.dtype, device=flat_RF.device))
        new = new.reshape(values.shape)
        if args:
            return (new, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": new}
