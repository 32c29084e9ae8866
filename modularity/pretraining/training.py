"""Train a small model on the planted languages, and save it at every checkpoint step.

On a CPU the same config gives the same weights, also when the training was interrupted: sentences and their order come
from the seed and the step alone, and weights and Adam's moments are kept in float32. Kernels of a GPU may add in
another order from run to run.
"""

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from modularity.data.language_tokenizer import TOKEN_IDS
from modularity.errors import ModelError, NumericError
from modularity.pretraining.config import PretrainConfig, checkpoint_steps, step_folder
from modularity.pretraining.corpus import Corpus, held_out_sentences, training_corpus
from modularity.pretraining.evaluation import evaluate
from modularity.pretraining.modules import build_module, training_loss
from modularity.pretraining.record import (
    STATE,
    CheckpointRecord,
    TrainingRecord,
    check_folder,
    load_state,
    save_checkpoint,
    save_state,
    write_record,
)


@dataclass(frozen=True)
class Pace:
    """How far a training is, as handed to `progress` after every checkpoint."""

    step: int
    steps: int
    seconds: float
    """Since this process began to train."""
    seconds_left: float | None
    """As far as can be told; None before the first step."""
    checkpoint: CheckpointRecord


def pretrain(
    config: PretrainConfig, folder: str | Path, *, progress: Callable[[Pace], None] | None = None
) -> TrainingRecord:
    """Train as `config` says; a folder that holds an interrupted training of the same config goes on where it was.

    Parameters
    ----------
    config : the training
    folder : new folder, or that of the same training; gets `step00000000/ …` and `training.json`
    progress : called after every checkpoint

    Returns
    -------
    record : content of `training.json`; a finished training is returned as it is

    Raises
    ------
    InputError
        The folder holds something else.
    IdentityError
        The folder holds a training of another config.
    ModelError
        The device does not exist.
    NumericError
        The loss is not a number any more.
    StoreError
        The record or the state of the interrupted training is damaged.
    """
    folder = Path(folder)
    record = check_folder(folder, config)
    if record is not None and record.state == "finished":
        return record
    with cpu_threads(config.n_threads):
        session = _Session(config, folder)
        if record is None:
            folder.mkdir(parents=True, exist_ok=True)
            record = _new_record(config, session.module)
            write_record(folder, record)
        return session.run(record, progress or (lambda pace: None))


def _new_record(config: PretrainConfig, module: nn.Module) -> TrainingRecord:
    versions = {"python": platform.python_version()}
    return TrainingRecord(
        state="running",
        config=config,
        config_digest=config.digest(),
        versions=versions | {name: version(name) for name in ("torch", "transformers", "numpy")},
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        vocabulary=len(TOKEN_IDS),
    )


class _Session:
    """One training in memory: model, optimiser, data, and the checkpoints so far."""

    def __init__(self, config: PretrainConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder
        self._device = training_device(config)
        self.module = build_module(config).to(self._device).train()
        self._optimiser = make_optimiser(self.module, config)
        self._held_out = held_out_sentences(config)
        self._records: tuple[CheckpointRecord, ...] = ()

    def run(self, record: TrainingRecord, progress: Callable[[Pace], None]) -> TrainingRecord:
        step = -1
        state = load_state(self._folder, self.module, self._optimiser)
        if state is not None:
            step, self._records = state
        corpus = training_corpus(self._config)
        began, first = time.monotonic(), max(step, 0)
        for target in (saved for saved in checkpoint_steps(self._config) if saved > step):
            loss = self._train(corpus, range(max(step, 0), target))
            step = target
            self._save(record, step, loss)
            seconds = time.monotonic() - began
            left = seconds / (step - first) * (self._config.steps - step) if step > first else None
            progress(Pace(step, self._config.steps, seconds, left, self._records[-1]))
        finished = record.replace(state="finished", checkpoints=[each.as_json() for each in self._records])
        write_record(self._folder, finished)
        (self._folder / STATE).unlink(missing_ok=True)
        return finished

    def _train(self, corpus: Corpus, steps: range) -> float | None:
        """Mean loss of the steps."""
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for step in steps:
            total += train_step(self.module, self._optimiser, batch_of(corpus, step, self._config), step, self._config)
        mean = float(total) / len(steps) if len(steps) else None
        if mean is not None and not math.isfinite(mean):
            raise NumericError(
                f"the loss between the steps {steps.start} and {steps.stop} is {mean}; lower learning_rate="
                f"{self._config.learning_rate} or train in precision='float32'"
            )
        return mean

    def _save(self, record: TrainingRecord, step: int, loss: float | None) -> None:
        saved, sha256 = save_checkpoint(self._folder, self.module, step, self._config)
        checkpoint = CheckpointRecord(
            step=step,
            folder=step_folder(step),
            training_loss=loss,
            weights_sha256=sha256,
            languages=evaluate(saved, self._held_out, self._config),
        )
        self._records = (*self._records, checkpoint)
        save_state(self._folder, self.module, self._optimiser, step, self._records)
        write_record(self._folder, record.replace(checkpoints=[each.as_json() for each in self._records]))


def training_device(config: PretrainConfig) -> torch.device:
    """Device of a training; ModelError when torch does not see it."""
    device = torch.device(config.device)
    n_devices = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= n_devices:
        raise ModelError(f"device={config.device!r}: torch sees {n_devices} CUDA devices; use device='cpu'")
    return device


def make_optimiser(module: nn.Module, config: PretrainConfig) -> torch.optim.Optimizer:
    """AdamW, with weight decay on matrices only."""
    matrices = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in module.parameters() if parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": config.weight_decay}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def batch_of(corpus: Corpus, step: int, config: PretrainConfig) -> Corpus:
    """Sentences of a step: a slice of the epoch's order, which drops what does not fill a batch at its end."""
    n_batches = len(corpus) // config.batch_sentences
    epoch, number = divmod(step, n_batches)
    order = np.random.default_rng([config.seed, 3, epoch]).permutation(len(corpus))
    return corpus.rows(order[number * config.batch_sentences : (number + 1) * config.batch_sentences])


def learning_rate(step: int, config: PretrainConfig) -> float:
    """Rate of a step, counted from 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "none":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.learning_rate * (0.55 + 0.45 * math.cos(math.pi * done))


def train_step(
    module: nn.Module, optimiser: torch.optim.Optimizer, batch: Corpus, step: int, config: PretrainConfig
) -> torch.Tensor:
    """One optimiser step with gradients clipped at norm 1; the loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    device = next(module.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        loss = training_loss(module, batch, device)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    optimiser.step()
    return loss.detach()


@contextmanager
def cpu_threads(n_threads: int) -> Iterator[None]:
    """Threads of torch for a block, and those from before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
