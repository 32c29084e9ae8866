"""Dense FFN layers seen as experts: which neurons each expert has, and the routers that choose experts for a token.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786). The four routers:

- `oracle`: the experts of largest activation mass, which has to be computed to know them;
- `parameter`: the experts whose mean normalised row of input weights is nearest to the normalised FFN input;
- `mlp`: a small trained network (`moefied_training.py`);
- `random`: an untrained linear router, the control: it selects by the token, but by nothing that matters.

`modularity.experts` has the same scores on arrays; here they are computed on the model's device. Of gated FFNs the rows
are those of the gate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from modularity.errors import InputError
from modularity.models import LoadedModel, Tap
from modularity.types import Site, StackName

LayerKey = tuple[StackName, int]
RouterKind = Literal["oracle", "parameter", "mlp", "random"]
Mass = Literal["absolute", "positive"]
Scorer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(FFN inputs (R, D), activation mass of the experts (R, E)) -> scores (R, E)."""
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class MlpRouter:
    """A trained router: scores are `output_EE` times the tanh of `input_ED` times the normalised input."""

    input_ED: Float32
    output_EE: Float32
    mass_kept: float
    """Share of activation mass that its choices kept on held-out tokens; the best epoch, so slightly too high."""
    share: float
    """Share of experts that these choices had."""


@dataclass(frozen=True, eq=False)
class MoefiedLayer:
    """One dense FFN with a partition of its neurons and what routers need."""

    stack: StackName
    layer: int
    labels_F: NDArray[np.int32]
    """Expert of every neuron, numbered without gaps."""
    centres_ED: Float32
    """Mean normalised input weights of every expert: the parameter router."""
    router: MlpRouter | None = None

    @property
    def key(self) -> LayerKey:
        """(stack, layer)."""
        return self.stack, self.layer

    @property
    def n_experts(self) -> int:
        """E."""
        return len(self.centres_ED)

    def n_selected(self, share: float) -> int:
        """Experts that a share selects, rounded up: 20 of 96 for .2."""
        return min(self.n_experts, ceil(share * self.n_experts - 1e-9))


@dataclass(frozen=True, eq=False)
class FfnModules:
    """The projections of one dense FFN."""

    inputs: tuple[nn.Module, ...]
    """In-projection, or gate and up-projection; the first one's input is the input of the FFN."""
    output: Tap
    """The site `ffn.neurons`, at the out-projection."""


def moefy(model: LoadedModel, partition: Mapping[LayerKey, ArrayLike]) -> dict[LayerKey, MoefiedLayer]:
    """Layers of a model with their partitions, checked, and the centres of their experts.

    Parameters
    ----------
    model : a loaded model
    partition : for each (stack, layer), int array of shape (n_neurons,) with the expert of every neuron; experts may
        differ in size. Layers that are not named stay dense

    Raises
    ------
    InputError
        A layer does not exist or has experts of its own, labels do not fit its neurons, or an expert is empty; all are
        listed.
    """
    if not partition:
        raise InputError("partition names no layer: expected labels for at least one (stack, layer)")
    problems: list[str] = []
    for key, labels_F in partition.items():
        try:
            _check_layer(model, key, np.asarray(labels_F))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    found = {}
    for (stack, layer), labels in partition.items():
        labels_F = np.asarray(labels).astype(np.int32)
        centres_ED = _centres(model.sites.ffn_input_weights(stack, layer), labels_F)
        found[stack, layer] = MoefiedLayer(stack, layer, labels_F, centres_ED)
    return found


def ffn_modules(model: LoadedModel, key: LayerKey) -> FfnModules:
    """Projections of a dense FFN; InputError if the layer has experts of its own or sees a batch in slices."""
    stack, layer = key
    (tap,) = model.sites.taps(Site(stack, "ffn.neurons"), [layer])
    if tap.check != "linear":
        raise InputError(f"layer {layer} of the {stack} has experts of its own; only dense layers can be divided")
    if tap.chunk_tokens:
        raise InputError(
            f"chunk_size_feed_forward={tap.chunk_tokens}: the FFN sees a batch in slices; set it to 0 in the model's "
            f"config"
        )
    layout = next(each for each in model.sites.architecture.stacks if each.stack == stack)
    block = model.module.get_submodule(f"{layout.blocks}.{layer}")
    modules = dict(block.named_modules())
    gated = layout.ffn_gate is not None and layout.ffn_gate in modules
    paths = (layout.ffn_gate, layout.ffn_up) if gated else (layout.ffn_in,)
    return FfnModules(tuple(modules[path] for path in paths if path is not None), tap)


def ffn_flops(model: LoadedModel, layer: MoefiedLayer, router: RouterKind, neurons: float = 1.0) -> tuple[float, float]:
    """Multiplications and additions of one FFN for one token: with some of its neurons and a router, and whole.

    The weights alone are counted. The oracle computes every in-projection, to know which experts it wants; the
    parameter router and the random one score with one vector for each expert.

    Parameters
    ----------
    model, layer : from which the layer was made
    router : who selects
    neurons : share of neurons in the selected experts, 0 to 1
    """
    n_inputs, (n_experts, width) = len(ffn_modules(model, layer.key).inputs), layer.centres_ED.shape
    one_projection = 2.0 * width * len(layer.labels_F)
    whole = (n_inputs + 1) * one_projection
    if router == "oracle":
        return (n_inputs + neurons) * one_projection, whole
    routing = 2.0 * n_experts * (width + (n_experts if router == "mlp" else 0))
    return (n_inputs + 1) * one_projection * neurons + routing, whole


def activation_mass(values_RF: torch.Tensor, is_member_FE: torch.Tensor, mass: Mass) -> torch.Tensor:
    """Mass of every expert, float32 (R, E)."""
    values = values_RF.float()
    return (values.abs() if mass == "absolute" else values.relu()) @ is_member_FE


def membership(layer: MoefiedLayer, device: torch.device) -> torch.Tensor:
    """1 where the neuron is in the expert: float32 (F, E)."""
    return torch.eye(layer.n_experts, device=device)[torch.from_numpy(layer.labels_F).long().to(device)]


def make_scorer(layer: MoefiedLayer, router: RouterKind, device: torch.device, *, seed: int = 0) -> Scorer:
    """Scores of one router on a device; InputError if there is no such router, or the layer has no trained one."""
    if router not in get_args(RouterKind):
        raise InputError(f"router {router!r}: expected one of {', '.join(get_args(RouterKind))}")
    if router == "oracle":
        return lambda inputs_RD, mass_RE: mass_RE
    if router == "parameter":
        centres_ED = torch.from_numpy(layer.centres_ED).to(device)
        # The order of the distances: |x - c|^2 = |x|^2 + |c|^2 - 2 x c, and |x| is the same for all experts.
        half_norm_E = (centres_ED.double() ** 2).sum(1).float() / 2
        return lambda inputs_RD, mass_RE: normalised(inputs_RD) @ centres_ED.T - half_norm_E
    if router == "random":
        rng = np.random.default_rng([seed, layer.layer, 0 if layer.stack == "encoder" else 1])
        drawn_ED = torch.from_numpy(rng.normal(size=layer.centres_ED.shape).astype(np.float32)).to(device)
        return lambda inputs_RD, mass_RE: normalised(inputs_RD) @ drawn_ED.T
    if layer.router is None:
        raise InputError(
            f"layer {layer.layer} of the {layer.stack} has no trained router: call train_routers, or choose another one"
        )
    input_ED, output_EE = (
        torch.from_numpy(weights).to(device) for weights in (layer.router.input_ED, layer.router.output_EE)
    )
    return lambda inputs_RD, mass_RE: torch.tanh(normalised(inputs_RD) @ input_ED.T) @ output_EE.T


def normalised(inputs_RD: torch.Tensor) -> torch.Tensor:
    """Inputs of unit length, float32; a zero input stays zero."""
    return nn.functional.normalize(inputs_RD.float(), dim=-1, eps=1e-30)


def top_experts(scores_RE: torch.Tensor, n_selected: int) -> torch.Tensor:
    """Experts of highest score of every row, lowest index among equals: bool (R, E)."""
    order_RE = torch.sort(scores_RE, dim=1, descending=True, stable=True).indices
    return torch.zeros_like(scores_RE, dtype=torch.bool).scatter_(1, order_RE[:, :n_selected], True)


def _centres(rows_FD: np.ndarray, labels_F: NDArray[np.int32]) -> Float32:
    """Mean of the normalised rows of every expert, summed in float64."""
    rows = rows_FD.astype(np.float64)
    norm_F1 = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norm_F1 > 0, norm_F1, 1.0)
    centres_ED: Float32 = np.stack(
        [rows[labels_F == expert].mean(axis=0) for expert in range(int(labels_F.max()) + 1)]
    ).astype(np.float32)
    return centres_ED


def _check_layer(model: LoadedModel, key: LayerKey, labels_F: np.ndarray) -> None:
    stack, layer = key
    width = ffn_modules(model, key).output.width
    if labels_F.shape != (width,) or labels_F.dtype.kind not in "iu":
        raise InputError(
            f"labels of layer {layer} of the {stack} have shape {labels_F.shape} and dtype {labels_F.dtype}: expected "
            f"{width} integers, one for each neuron"
        )
    used = np.unique(labels_F)
    if used[0] != 0 or used[-1] != len(used) - 1:
        raise InputError(
            f"labels of layer {layer} of the {stack} hold {len(used)} experts from {used[0]} to {used[-1]}: expected "
            f"numbers from 0 without gaps"
        )
