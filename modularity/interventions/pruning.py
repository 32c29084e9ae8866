"""Take units out of a running model: FFN neurons and attention coordinates, chosen by what they do on two corpora.

Source: Pochinkov and Schoots 2024, arXiv 2403.01267, section 3: at each step the FFN neurons with the highest score in
all layers together (2 % of them), and optionally attention coordinates (0.5 %), are set to zero; activations are then
taken again. A unit is one coordinate of the input of an out-projection, and a hook before it sets it to zero; both
stacks of an encoder-decoder are pruned together. Departure: `one_shot` scores once and removes in that order.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from modularity.errors import InputError, ModelError
from modularity.interventions.language_modelling import TokenTexts, model_batches, run_base
from modularity.models import ExpertTap, HeadModel, LoadedModel, SiteTable, Tap
from modularity.stats.importance import ImportanceKind, ImportanceSums, highest, pruning_scores
from modularity.types import Site, SiteName, SiteShape

UnitKind = Literal["ffn", "attention"]
UNIT_SITES: Mapping[UnitKind, SiteName] = {"ffn": "ffn.neurons", "attention": "attention.heads"}
EPSILON: Mapping[UnitKind, float] = {"ffn": 1e-3, "attention": 1e-4}
"""The card's constants in the denominator of a score."""
Removed = Mapping[UnitKind, np.ndarray]
"""For each kind a bool array over all its units: True where a unit is out."""
Sums = Mapping[UnitKind, ImportanceSums]


@dataclass(frozen=True)
class UnitLayer:
    """The units of one layer, among all units of a kind."""

    site: Site
    layer: int
    start: int
    """Number of its first unit."""
    stop: int

    @property
    def span(self) -> slice:
        """Its units."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Units:
    """All units of one kind, numbered over the stacks and layers of a model."""

    kind: UnitKind
    layers: tuple[UnitLayer, ...]

    @classmethod
    def of(cls, kind: UnitKind, shapes: Mapping[Site, SiteShape]) -> "Units":
        """Units of a model by the shapes of its sites, encoder first."""
        layers, start = [], 0
        for site in sorted(
            (site for site in shapes if site.name == UNIT_SITES[kind]), key=lambda s: s.stack != "encoder"
        ):
            for layer, width in zip(shapes[site].layers, shapes[site].widths):
                layers.append(UnitLayer(site, layer, start, start + width))
                start += width
        return cls(kind, tuple(layers))

    @property
    def n(self) -> int:
        """Number of units."""
        return self.layers[-1].stop

    @cached_property
    def place(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stack (0 encoder, 1 decoder), layer and number in the layer of every unit, int64 each."""
        stack = [np.full(each.stop - each.start, int(each.site.stack == "decoder")) for each in self.layers]
        layer = [np.full(each.stop - each.start, each.layer) for each in self.layers]
        number = [np.arange(each.stop - each.start) for each in self.layers]
        return np.concatenate(stack), np.concatenate(layer), np.concatenate(number)


def all_units(shapes: Mapping[Site, SiteShape]) -> dict[UnitKind, Units]:
    """Units of both kinds."""
    return {kind: Units.of(kind, shapes) for kind in get_args(UnitKind)}


def units_of(model: LoadedModel) -> dict[UnitKind, Units]:
    """Units of a loaded model.

    Raises
    ------
    ModelError
        A layer has experts of its own: only dense layers are pruned.
    """
    sparse = {stack: model.sites.sparse_layers(stack) for stack in model.sites.stacks}
    if any(sparse.values()):
        raise ModelError(f"{model.identity.name} has experts of its own in layers {sparse}; only dense FFNs are pruned")
    return all_units({site: model.sites.shape(site) for site in model.sites.sites})


def nothing_removed(units: Mapping[UnitKind, Units]) -> dict[UnitKind, np.ndarray]:
    """The unchanged model."""
    return {kind: np.zeros(each.n, dtype=bool) for kind, each in units.items()}


@contextmanager
def pruned(model: LoadedModel, removed: Removed) -> Iterator[None]:
    """Within this context units are zero, at every position, however the model is called; afterwards hooks are gone.

    The model may be the base of one with a head: calls of the head model are changed too.

    Parameters
    ----------
    model : a loaded model without experts of its own
    removed : for each kind that is pruned, bool over its units as `units_of` numbers them

    Raises
    ------
    InputError
        A mask has another shape or dtype than the model's units.
    """
    units = units_of(model)
    _check(units, removed)
    with ExitStack() as handles:
        for kind, out_U in removed.items():
            for each in units[kind].layers:
                if out_U[each.span].any():
                    tap = _tap(model.sites, each)
                    hook = _zeroing(tap, torch.from_numpy(out_U[each.span].copy()).to(model.device))
                    handles.callback(tap.module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def importance_sums(
    model: HeadModel, texts: TokenTexts, removed: Removed, kinds: Sequence[UnitKind], *, tokens_per_batch: int = 2048
) -> dict[UnitKind, ImportanceSums]:
    """Sums over all real tokens of texts, of the model without the removed units; in float64, on the device.

    Parameters
    ----------
    model : with its LM head
    texts : of the model's kind
    removed : units that are out; their values are zero
    kinds : which units
    tokens_per_batch : size of a batch

    Raises
    ------
    InputError
        The FFN sees slices of a batch (`chunk_size_feed_forward`).
    """
    units = units_of(model.base)
    found = {kind: [ImportanceSums.empty(each.stop - each.start) for each in units[kind].layers] for kind in kinds}
    real: dict[str, torch.Tensor] = {}
    with pruned(model.base, removed), ExitStack() as handles, torch.inference_mode():
        for kind in kinds:
            for each, sums in zip(units[kind].layers, found[kind]):
                tap = _tap(model.base.sites, each)
                handles.callback(tap.attach(_adder(tap, sums, real)).remove)
        for batch in model_batches(model, texts, tokens_per_batch=tokens_per_batch):
            real.clear()
            real.update({stack: torch.from_numpy(mask.reshape(-1)) for stack, mask in batch.real.items()})
            run_base(model, batch)
    return {kind: _joined(layers) for kind, layers in found.items()}


def next_removed(
    removed: Removed, pruned_sums: Sums, kept_sums: Sums, kind: ImportanceKind, numbers: Mapping[UnitKind, int]
) -> dict[UnitKind, np.ndarray]:
    """Units that are out after one more step.

    Parameters
    ----------
    removed : units that are out
    pruned_sums, kept_sums : sums on the texts whose capability is to go, and on those whose capability is to stay
    kind : importance
    numbers : how many more units of each kind are removed, over all layers together
    """
    found = {name: mask.copy() for name, mask in removed.items()}
    for name, number in numbers.items():
        if number:
            scores = pruning_scores(pruned_sums[name], kept_sums[name], kind, epsilon=EPSILON[name])
            found[name][highest(scores, number, allowed_F=~removed[name])] = True
    return found


def random_order(units: Mapping[UnitKind, Units], seed: int) -> dict[UnitKind, np.ndarray]:
    """Units in random order: the order in which the null removes them."""
    return {
        kind: np.random.default_rng([seed, place]).permutation(units[kind].n)
        for place, kind in enumerate(get_args(UnitKind))
    }


def _tap(sites: SiteTable, each: UnitLayer) -> Tap:
    (tap,) = sites.taps(each.site, [each.layer])
    assert not isinstance(tap, ExpertTap)
    return tap


def _check(units: Mapping[UnitKind, Units], removed: Removed) -> None:
    for kind, out_U in removed.items():
        if kind not in units or out_U.shape != (units[kind].n,) or out_U.dtype != np.bool_:
            known = ", ".join(f"{name}: {each.n}" for name, each in units.items())
            raise InputError(
                f"removed units {kind!r} have shape {out_U.shape} and dtype {out_U.dtype}: expected bool over all "
                f"units of a kind ({known})"
            )


def _zeroing(tap: Tap, out_F: torch.Tensor) -> Callable[..., Any]:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = tap.from_input(args, kwargs)
        values = values.masked_fill(out_F.to(values.device), 0.0)
        if args:
            return (values, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": values}

    return before


def _adder(tap: Tap, sums: ImportanceSums, real: Mapping[str, torch.Tensor]) -> Callable[[Any], None]:
    def add(values: Any) -> None:
        flat = values.reshape(-1, tap.width)
        mask = real[tap.site.stack].to(flat.device)
        if len(mask) != len(flat):
            raise InputError(
                f"{tap.site} of layer {tap.layer} sees {len(flat)} positions of a batch of {len(mask)}; set "
                "chunk_size_feed_forward to 0 in the model's config"
            )
        sums.merge(_sums_of(flat[mask].double()))

    return add


def _sums_of(rows_RF: torch.Tensor) -> ImportanceSums:
    """As `ImportanceSums.of`, on the device of the rows; only the sums come to the host."""
    mean, size = rows_RF.mean(0), rows_RF.abs()
    parts = torch.stack([mean, ((rows_RF - mean) ** 2).sum(0), size.sum(0), size.sqrt().sum(0)]).cpu().numpy()
    positive = (rows_RF > 0).sum(0).cpu().numpy()
    count = np.full(rows_RF.shape[1], len(rows_RF), np.int64)
    return ImportanceSums(count, parts[0], parts[1], parts[2], parts[3], positive)


def _joined(layers: Sequence[ImportanceSums]) -> ImportanceSums:
    return ImportanceSums(
        **{name: np.concatenate([getattr(each, name) for each in layers]) for name in ImportanceSums.DIMS}
    )
