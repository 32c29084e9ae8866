"""Write a pruned model as a Hugging Face checkpoint that plain `from_pretrained` loads.

A configuration has one FFN width for all layers, so the width becomes the largest number of neurons that any layer
keeps: rows of the in-projections and columns of the out-projection of the other neurons are cut away, and in layers
that keep fewer, removed neurons fill up to the width with zero weights. Architectures whose configuration names no
single width keep their size, with zero weights. Attention coordinates keep their place, with zero columns of the
out-projection. The output bias of an FFN stays: it is there without neurons, too. Beside the checkpoint `pruning.json`
says what went.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from modularity.errors import InputError
from modularity.interventions.moefied_layers import FfnModules, ffn_modules
from modularity.interventions.pruning import Removed, UnitLayer, units_of
from modularity.models import HeadModel, LoadedModel
from modularity.models.identity import parameter_hash

PRUNING_FILE = "pruning.json"
_FORMAT, _VERSION = "modularity-pruned", 1
_WIDTH_SETTINGS = {
    "opt": "ffn_dim",
    "gpt2": "n_inner",
    "distilbert": "hidden_dim",
    "t5": "d_ff",
    "mt5": "d_ff",
}
"""Name of the FFN width in the configuration; `intermediate_size` where it is not here and the configuration has it."""


@dataclass(frozen=True)
class PrunedCheckpoint:
    """A checkpoint as it was written."""

    folder: Path
    width: int | None
    """FFN width of all layers; None where the architecture has no single one and weights are zero instead."""
    n_parameters: int
    """Of the base model, tied ones counted once."""
    n_parameters_before: int
    parameter_hash: str


def export_pruned(model: HeadModel | LoadedModel, removed: Removed, folder: str | Path) -> PrunedCheckpoint:
    """Write the model without the removed units; the model itself is the same afterwards.

    Parameters
    ----------
    model : with its LM head, or the base model alone; with its tokenizer, and not within `pruned`
    removed : for each kind bool over the units, as `units_of` numbers them
    folder : new, empty, or with a checkpoint that this function wrote: it is replaced

    Raises
    ------
    InputError
        The folder holds other things, the model has no tokenizer, or a mask does not fit.
    ModelError
        The model has experts of its own.
    """
    base = model.base if isinstance(model, HeadModel) else model
    target = Path(folder)
    if base.tokenizer is None:
        raise InputError(f"{base.identity.name!r} was wrapped without a tokenizer, which the checkpoint needs")
    if problem := place_problem(target):
        raise InputError(problem)
    units = units_of(base)
    kept = {(each.site.stack, each.layer): ~_out(removed, "ffn", each) for each in units["ffn"].layers}
    setting = _width_setting(base.hf_config)
    width = None if setting is None else max(1, *(int(kept_F.sum()) for kept_F in kept.values()))
    partial = target.with_name(target.name + ".partial")
    if partial.exists():
        shutil.rmtree(partial)
    with _changed(base, removed, kept, width, setting):
        model.module.save_pretrained(partial)  # type: ignore[operator]  # a method of every Hugging Face model
        found_hash = parameter_hash(base.module)
        n_parameters = sum(parameter.numel() for parameter in base.module.parameters())
    base.tokenizer.save_pretrained(partial)
    content = _content(base, removed, width, found_hash)
    (partial / PRUNING_FILE).write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return PrunedCheckpoint(target, width, n_parameters, base.identity.n_parameters, found_hash)


def place_problem(folder: Path) -> str | None:
    """Why a pruned checkpoint cannot be written to a folder; None where it can."""
    if folder.exists() and not folder.is_dir():
        return f"{str(folder)!r} is a file: name a folder for the checkpoint"
    if folder.exists() and any(folder.iterdir()) and not (folder / PRUNING_FILE).exists():
        return f"{str(folder)!r} is not empty and holds no pruned checkpoint: give a new one, nothing is overwritten"
    return None


def _width_setting(hf_config: Any) -> str | None:
    """Name of the single FFN width in a configuration."""
    name = _WIDTH_SETTINGS.get(hf_config.model_type, "intermediate_size")
    return name if hasattr(hf_config, name) else None


def _out(removed: Removed, kind: str, each: UnitLayer) -> np.ndarray:
    mask = removed.get(kind)  # type: ignore[call-overload]  # one of the two kinds
    return np.zeros(each.stop - each.start, bool) if mask is None else np.asarray(mask[each.span])


@contextmanager
def _changed(
    model: LoadedModel,
    removed: Removed,
    kept: Mapping[tuple[Any, int], np.ndarray],
    width: int | None,
    setting: str | None,
) -> Iterator[None]:
    """Within this context the model has the weights and the configuration of the checkpoint."""
    before: list[tuple[nn.Parameter, torch.Tensor]] = []
    old_width = None if setting is None else getattr(model.hf_config, setting)
    try:
        for key, kept_F in kept.items():
            _change_ffn(ffn_modules(model, key), kept_F, width, before)
        for each in units_of(model)["attention"].layers:
            out_F = _out(removed, "attention", each)
            if out_F.any():
                (tap,) = model.sites.taps(each.site, [each.layer])
                _zero_inputs(tap.module, out_F, before)
        if setting is not None:
            setattr(model.hf_config, setting, width)
        yield
    finally:
        for parameter, data in reversed(before):
            parameter.data = data
        if setting is not None:
            setattr(model.hf_config, setting, old_width)


def _change_ffn(
    modules: FfnModules, kept_F: np.ndarray, width: int | None, before: list[tuple[nn.Parameter, torch.Tensor]]
) -> None:
    """Zero the removed neurons of one FFN, then cut it to the width: kept neurons, filled up with removed ones."""
    output = modules.output.module
    for module in modules.inputs:
        _zero_outputs(module, ~kept_F, before)
    _zero_inputs(output, ~kept_F, before)
    if width is None or width == len(kept_F):
        return
    stays = np.sort(np.concatenate([np.flatnonzero(kept_F), np.flatnonzero(~kept_F)])[:width])
    index = torch.from_numpy(stays)
    for module in modules.inputs:
        _select(module.weight, _axis(module, rows=True), index, before)
        if module.bias is not None:
            _select(module.bias, 0, index, before)
    _select(output.weight, _axis(output, rows=False), index, before)


def _axis(module: nn.Module, *, rows: bool) -> int:
    """Axis of the outputs (`rows`) or inputs of a projection; GPT-2's Conv1D stores (in, out)."""
    return int(rows) if isinstance(module, Conv1D) else int(not rows)


def _zero_outputs(module: Any, out_F: np.ndarray, before: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    _zero(module.weight, _axis(module, rows=True), out_F, before)
    if module.bias is not None:
        _zero(module.bias, 0, out_F, before)


def _zero_inputs(module: Any, out_F: np.ndarray, before: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    _zero(module.weight, _axis(module, rows=False), out_F, before)


def _zero(parameter: Any, axis: int, out_F: np.ndarray, before: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    before.append((parameter, parameter.data))
    index = torch.from_numpy(np.flatnonzero(out_F)).to(parameter.device)
    parameter.data = parameter.data.index_fill(axis, index, 0.0)


def _select(parameter: Any, axis: int, index: torch.Tensor, before: list[tuple[nn.Parameter, torch.Tensor]]) -> None:
    before.append((parameter, parameter.data))
    parameter.data = parameter.data.index_select(axis, index.to(parameter.device)).contiguous()


def _content(model: LoadedModel, removed: Removed, width: int | None, found_hash: str) -> dict[str, Any]:
    units = units_of(model)
    layers = [
        {
            "kind": kind,
            "stack": each.site.stack,
            "layer": each.layer,
            "removed": np.flatnonzero(_out(removed, kind, each)).tolist(),
        }
        for kind in units
        for each in units[kind].layers
    ]
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "parameter_hash": found_hash,
        "ffn_width": width,
        "original": {
            "name": model.identity.name,
            "revision": model.identity.revision,
            "parameter_hash": model.identity.parameter_hash,
        },
        "layers": layers,
    }
