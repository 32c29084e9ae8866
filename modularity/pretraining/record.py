"""What a training leaves in its folder: `training.json`, one Hugging Face folder for each checkpoint, and, until it is
finished, `state.safetensors`, from which it goes on.

The state holds weights and Adam's moments in float32 and the records of the checkpoints so far. Every file is written
beside its place and renamed, so that an interrupted training leaves a whole state or the one before.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging as transformers_logging

from modularity.config import Config
from modularity.data.language_tokenizer import save_tokenizer
from modularity.errors import IdentityError, InputError, StoreError
from modularity.pretraining.config import PretrainConfig, step_folder
from modularity.pretraining.corpus import MAX_TOKENS
from modularity.pretraining.evaluation import LanguageScore

RECORD, STATE = "training.json", "state.safetensors"


class CheckpointRecord(Config):
    """One saved checkpoint."""

    step: int
    folder: str
    training_loss: float | None
    """Mean training loss since the checkpoint before; None at step 0."""
    weights_sha256: str
    """Of `model.safetensors`."""
    languages: dict[str, LanguageScore]
    """Held-out scores of the weights as saved, by language."""


class TrainingRecord(Config):
    """Content of `training.json`."""

    schema_version: Literal[1] = 1
    state: Literal["running", "finished"]
    config: PretrainConfig
    config_digest: str
    versions: dict[str, str]
    """Of Python, torch, transformers and NumPy when the training began."""
    n_parameters: int
    vocabulary: int
    checkpoints: tuple[CheckpointRecord, ...] = ()


def read_record(folder: str | Path) -> TrainingRecord:
    """`training.json` of a training.

    Raises
    ------
    StoreError
        Missing, or not a record of this version.
    """
    path = Path(folder) / RECORD
    try:
        return TrainingRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError:
        raise StoreError(f"{str(path)!r} cannot be read; name the folder that a training was written to") from None
    except ValidationError as error:
        raise StoreError(
            f"{str(path)!r} is not the record of a training ({error.errors()[0]['msg']}); train into a new folder"
        ) from None


def write_record(folder: Path, record: TrainingRecord) -> None:
    """Write `training.json`, whole or not at all."""
    part = folder / f"{RECORD}.part"
    part.write_text(json.dumps(record.as_json(), indent=1) + "\n", encoding="utf-8")
    part.replace(folder / RECORD)


def check_folder(folder: Path, config: PretrainConfig) -> TrainingRecord | None:
    """The record of a training of the same config that is in the folder; None when the folder is empty or new.

    Raises
    ------
    InputError
        The folder holds other files.
    IdentityError
        It holds a training of another config.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; name a folder for the checkpoints")
    if not (folder / RECORD).exists():
        others = (
            sorted(path.name for path in folder.iterdir() if path.name != f"{RECORD}.part") if folder.exists() else []
        )
        if others:
            raise InputError(
                f"{str(folder)!r} holds files that are not of a training ({', '.join(others[:3])}); name a new folder"
            )
        return None
    record = read_record(folder)
    if record.config_digest != config.digest():
        then, now = record.config.as_json(), config.as_json()
        changed = [f"{key}: {then[key]!r} there, {now[key]!r} now" for key in now if then[key] != now[key]]
        raise IdentityError(
            f"{str(folder)!r} holds a training of another config ({'; '.join(changed)}); name a new folder, "
            "or repeat the command with its settings"
        )
    return record


def save_checkpoint(folder: Path, module: nn.Module, step: int, config: PretrainConfig) -> tuple[nn.Module, str]:
    """Save a checkpoint as a Hugging Face folder.

    Returns
    -------
    module : the model with its weights as saved, in float32
    weights_sha256 : of `model.safetensors`
    """
    saved: Any = copy.deepcopy(module).to(getattr(torch, config.saved_dtype))
    place = folder / step_folder(step)
    part = place.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    with _without_bars():
        saved.cpu().save_pretrained(part)
    save_tokenizer(part, "start" if config.architecture == "opt" else "end", max_tokens=MAX_TOKENS)
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
    sha256 = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    return saved.float().to(next(module.parameters()).device), sha256


@contextmanager
def _without_bars() -> Iterator[None]:
    """No progress bar of transformers for every checkpoint."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def save_state(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int, records: tuple[CheckpointRecord, ...]
) -> None:
    """Write the state from which the training goes on after `step`."""
    tensors = {}
    for name, parameter in module.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach().cpu().contiguous()
        for key, value in optimiser.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach().cpu().contiguous()
    part = folder / f"{STATE}.part"
    saved = json.dumps([record.as_json() for record in records])
    save_file(tensors, part, metadata={"step": str(step), "checkpoints": saved})
    part.replace(folder / STATE)


def load_state(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[int, tuple[CheckpointRecord, ...]] | None:
    """Put a saved state into the module and its optimiser; its step and records, or None if there is none.

    Raises
    ------
    StoreError
        The state is damaged.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(file.get_tensor(f"weight/{name}"))
                kept = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in file.keys()]  # noqa: SIM118
                for key in kept:
                    value = file.get_tensor(f"{key}/{name}")
                    optimiser.state[parameter][key] = value.to(parameter.device)
            metadata = file.metadata()
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise StoreError(f"{str(path)!r} is damaged ({error}); delete the folder and train again") from None
    records = tuple(CheckpointRecord.model_validate(record) for record in json.loads(metadata["checkpoints"]))
    return int(metadata["step"]), records
