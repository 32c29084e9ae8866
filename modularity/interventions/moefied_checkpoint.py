"""Write a model with experts as a Hugging Face checkpoint, and load it with its experts.

The neurons of each divided FFN are stored expert by expert: rows of the in-projections and columns of the
out-projection change places, which changes no output but by the order of sums. So the checkpoint is one of the same
architecture, which plain `from_pretrained` loads and any program runs whole. Beside it:

- `experts.json`: for each layer the expert of every neuron as stored, and its number in the original model;
- `routers.safetensors`: `<stack>.<layer>.centres_ED`, and `….input_ED` and `….output_EE` of trained routers, float32.

`experts.json` holds the hash of the parameters that it belongs to; loading it with others is refused.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from modularity.errors import IdentityError, InputError, StoreError
from modularity.interventions.moefied_layers import LayerKey, MlpRouter, MoefiedLayer, ffn_modules
from modularity.models import HeadModel, LoadedModel, ModelConfig, load_head_model, load_model
from modularity.models.identity import parameter_hash

EXPERTS_FILE, ROUTERS_FILE = "experts.json", "routers.safetensors"
_FORMAT, _VERSION = "modularity-moefied", 1


@dataclass(frozen=True, eq=False)
class MoefiedModel:
    """A checkpoint with its experts, loaded."""

    base: LoadedModel
    """The base model; with `layers` it is what `selected_experts` takes."""
    head: HeadModel | None
    """The model with its LM head; None if it was exported without."""
    layers: Mapping[LayerKey, MoefiedLayer]
    """Layers with experts, whose neurons are expert-major."""
    original_neuron: Mapping[LayerKey, NDArray[np.int64]]
    """For every neuron of these layers its number in the model that was exported."""


def export_moefied(model: HeadModel | LoadedModel, layers: Mapping[LayerKey, MoefiedLayer], folder: str | Path) -> Path:
    """Write a checkpoint whose neurons are sorted by expert, with its experts and routers.

    The model itself is the same afterwards. `config.json` has `use_cache` off, as models have here.

    Parameters
    ----------
    model : with its LM head, or the base model alone; with its tokenizer
    layers : from `moefy` or `train_routers`, of this model
    folder : new or empty; written last is `experts.json`, without which it does not load

    Returns
    -------
    The folder.

    Raises
    ------
    InputError
        The folder is not empty, the model has no tokenizer, or a layer does not fit it.
    """
    base = model.base if isinstance(model, HeadModel) else model
    target = Path(folder)
    if base.tokenizer is None:
        raise InputError(f"{base.identity.name!r} was wrapped without a tokenizer, which the checkpoint needs")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{str(target)!r} exists and is not an empty folder: give a new one, nothing is overwritten")
    orders = {key: np.argsort(layer.labels_F, kind="stable") for key, layer in layers.items()}
    for key, order_F in orders.items():
        if len(order_F) != ffn_modules(base, key).output.width:
            raise InputError(f"layer {key[1]} of the {key[0]} has other neurons than its labels: {len(order_F)} labels")
    with _expert_major(base, orders):
        model.module.save_pretrained(target)  # type: ignore[operator]  # a method of every Hugging Face model
        stored_hash = parameter_hash(base.module)
    base.tokenizer.save_pretrained(target)
    save_file(_router_arrays(layers), target / ROUTERS_FILE)
    content = _experts_content(model, layers, orders, stored_hash)
    (target / EXPERTS_FILE).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    return target


def load_moefied(
    folder: str | Path, *, device: str = "cpu", dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
) -> MoefiedModel:
    """Load what `export_moefied` wrote.

    Parameters
    ----------
    folder : a local folder
    device, dtype : as in `ModelConfig`; with another dtype than the stored one the parameters are not compared

    Raises
    ------
    StoreError
        `experts.json` is missing, of another version or damaged, or a router is.
    IdentityError
        The parameters are not those that the experts were written with.
    ModelError
        As `load_head_model`.
    """
    source = Path(folder)
    content = _read_experts(source / EXPERTS_FILE)
    config = ModelConfig(name=str(source), device=device, dtype=dtype)
    head = load_head_model(config) if content["head"] else None
    base = load_model(config) if head is None else head.base
    if base.identity.dtype == content["dtype"] and base.identity.parameter_hash != content["parameter_hash"]:
        raise IdentityError(
            f"{str(source)!r} has parameters {base.identity.parameter_hash[:16]}, its {EXPERTS_FILE} belongs to "
            f"{content['parameter_hash'][:16]}: the weights were replaced; export again"
        )
    arrays = load_file(source / ROUTERS_FILE)
    try:
        layers = {_key(entry): _layer(entry, arrays) for entry in content["layers"]}
        original = {_key(entry): np.array(entry["original_neuron"], dtype=np.int64) for entry in content["layers"]}
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{str(source)!r}: {EXPERTS_FILE} or {ROUTERS_FILE} is damaged ({error!r}); export again"
        ) from None
    return MoefiedModel(base, head, layers, original)


@contextmanager
def _expert_major(model: LoadedModel, orders: Mapping[LayerKey, NDArray[np.int64]]) -> Iterator[None]:
    """Within this context the neurons of the model are sorted; afterwards it holds its own tensors again."""
    before: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        for key, order_F in orders.items():
            modules = ffn_modules(model, key)
            order = torch.from_numpy(order_F)
            for module in modules.inputs:
                _sort(module, order, before, rows=True)
            _sort(modules.output.module, order, before, rows=False)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def _sort(
    module: nn.Module, order: torch.Tensor, before: list[tuple[nn.Parameter, torch.Tensor]], *, rows: bool
) -> None:
    """Sort the outputs (`rows`, with their bias) or the inputs of a projection."""
    weight: Any = module.weight
    # GPT-2's Conv1D stores (in, out).
    dim = int(rows) if isinstance(module, Conv1D) else int(not rows)
    bias: Any = module.bias if rows else None
    for parameter, axis in ((weight, dim), (bias, 0)):
        if parameter is not None:
            before.append((parameter, parameter.data))
            parameter.data = parameter.data.index_select(axis, order.to(parameter.device))


def _experts_content(
    model: HeadModel | LoadedModel,
    layers: Mapping[LayerKey, MoefiedLayer],
    orders: Mapping[LayerKey, NDArray[np.int64]],
    stored_hash: str,
) -> dict[str, Any]:
    base = model.base if isinstance(model, HeadModel) else model
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "head": isinstance(model, HeadModel),
        "dtype": base.identity.dtype,
        "parameter_hash": stored_hash,
        "original": {
            "name": base.identity.name,
            "revision": base.identity.revision,
            "parameter_hash": base.identity.parameter_hash,
        },
        "layers": [
            {
                "stack": layer.stack,
                "layer": layer.layer,
                "n_experts": layer.n_experts,
                "labels": layer.labels_F[orders[key]].tolist(),
                "original_neuron": orders[key].tolist(),
                "router": None
                if layer.router is None
                else {"mass_kept": layer.router.mass_kept, "share": layer.router.share},
            }
            for key, layer in layers.items()
        ],
    }


def _router_arrays(layers: Mapping[LayerKey, MoefiedLayer]) -> dict[str, np.ndarray]:
    arrays = {}
    for (stack, number), layer in layers.items():
        place = f"{stack}.{number}"
        arrays[f"{place}.centres_ED"] = np.ascontiguousarray(layer.centres_ED, dtype=np.float32)
        if layer.router is not None:
            arrays[f"{place}.input_ED"] = np.ascontiguousarray(layer.router.input_ED, dtype=np.float32)
            arrays[f"{place}.output_EE"] = np.ascontiguousarray(layer.router.output_EE, dtype=np.float32)
    return arrays


def _read_experts(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise StoreError(f"{str(path)!r} does not exist: expected a folder written by export_moefied") from None
    except json.JSONDecodeError as error:
        raise StoreError(f"{str(path)!r} is not JSON ({error}); export again") from None
    found = (content.get("format"), content.get("version")) if isinstance(content, dict) else None
    if found != (_FORMAT, _VERSION):
        raise StoreError(f"{str(path)!r} has format and version {found}: expected {(_FORMAT, _VERSION)}")
    return dict(content)


def _key(entry: Mapping[str, Any]) -> LayerKey:
    return entry["stack"], int(entry["layer"])


def _layer(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> MoefiedLayer:
    stack, number = _key(entry)
    place, router = f"{stack}.{number}", entry["router"]
    labels_F, centres_ED = np.array(entry["labels"], dtype=np.int32), arrays[f"{place}.centres_ED"]
    if len(centres_ED) != entry["n_experts"] or labels_F.max() + 1 != entry["n_experts"]:
        raise ValueError(
            f"{place}: {len(centres_ED)} centres, {labels_F.max() + 1} labels, {entry['n_experts']} experts"
        )
    trained = None
    if router is not None:
        trained = MlpRouter(
            arrays[f"{place}.input_ED"],
            arrays[f"{place}.output_EE"],
            float(router["mass_kept"]),
            float(router["share"]),
        )
    return MoefiedLayer(stack, number, labels_F, centres_ED, trained)
