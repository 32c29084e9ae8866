"""What a training will take: parameters, checkpoints, bytes, time; the time is measured on a few steps."""

import time
from dataclasses import dataclass

import torch

from modularity.data.language_tokenizer import TOKEN_IDS, tokenizer_files
from modularity.pretraining.config import PretrainConfig, checkpoint_steps
from modularity.pretraining.corpus import MAX_TOKENS, training_corpus
from modularity.pretraining.modules import build_module
from modularity.pretraining.training import batch_of, cpu_threads, make_optimiser, train_step, training_device

_N_TIMED = 4
_N_SENTENCES = 2000


@dataclass(frozen=True)
class PretrainPlan:
    """Size and cost of a training."""

    n_parameters: int
    steps: int
    """Optimiser steps."""
    checkpoints: tuple[int, ...]
    """Steps that are saved."""
    checkpoint_bytes: int
    """Weights and tokenizer of one checkpoint."""
    state_bytes: int
    """What an interrupted training keeps beside the checkpoints."""
    n_tokens: int
    """Tokens read in all steps, about."""
    seconds: float
    """Of the steps on this device, by measurement; saving and evaluation come on top."""

    def text(self) -> str:
        """The plan in lines."""
        total = self.checkpoint_bytes * len(self.checkpoints)
        return "\n".join(
            [
                f"model        {self.n_parameters:,} parameters, vocabulary of {len(TOKEN_IDS)} tokens",
                f"steps        {self.steps:,}, about {self.n_tokens:,} tokens",
                f"checkpoints  {len(self.checkpoints)}: {', '.join(map(str, self.checkpoints))}",
                f"on disk      {total / 1e6:.1f} MB ({self.checkpoint_bytes / 1e6:.2f} MB each), "
                f"{self.state_bytes / 1e6:.1f} MB more while it runs",
                f"time         about {self.seconds / 60:.1f} minutes for the steps, by {_N_TIMED} steps just now",
            ]
        )


def plan_pretraining(config: PretrainConfig) -> PretrainPlan:
    """Plan of a training; builds the model and times a few steps, and writes nothing.

    Raises
    ------
    ModelError
        The device does not exist.
    """
    device = training_device(config)
    module = build_module(config).to(device).train()
    n_parameters = sum(parameter.numel() for parameter in module.parameters())
    few = config.replace(n_sentences=max(min(config.n_sentences, _N_SENTENCES), config.batch_sentences))
    corpus = training_corpus(few)
    optimiser = make_optimiser(module, config)
    with cpu_threads(config.n_threads):
        train_step(module, optimiser, batch_of(corpus, 0, few), 0, config)
        began = time.perf_counter()
        total = torch.zeros((), device=device)
        for step in range(1, 1 + _N_TIMED):
            total += train_step(module, optimiser, batch_of(corpus, step, few), step, config)
        total.item()  # waits for a GPU
        seconds = (time.perf_counter() - began) / _N_TIMED * config.steps
    value_bytes = 4 if config.saved_dtype == "float32" else 2
    files = tokenizer_files("start", max_tokens=MAX_TOKENS)
    return PretrainPlan(
        n_parameters=n_parameters,
        steps=config.steps,
        checkpoints=checkpoint_steps(config),
        checkpoint_bytes=value_bytes * n_parameters + sum(len(content) for content in files.values()),
        state_bytes=12 * n_parameters,
        n_tokens=int((corpus.inputs_NT != 0).sum() / len(corpus) * config.batch_sentences * config.steps),
        seconds=seconds,
    )
