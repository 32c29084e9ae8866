"""What the user says about a training: architecture, size, data, steps, checkpoints."""

from typing import Literal, Self

from pydantic import Field, model_validator

from modularity.config import Config


class PretrainConfig(Config):
    """One training of a small model on the planted languages; all models have ReLU neurons."""

    architecture: Literal["opt", "t5", "switch"] = "opt"
    """`opt`: a decoder, next word; `t5`: encoder and decoder, left-out spans; `switch`: as T5 with native experts."""
    n_layers: int = Field(default=3, ge=1)
    """Layers; of the encoder and of the decoder each."""
    width: int = Field(default=48, ge=2)
    """Residual width."""
    n_heads: int = Field(default=4, ge=1)
    """Attention heads of a layer."""
    n_neurons: int = Field(default=256, ge=1)
    """FFN neurons of a layer, of an expert in sparse layers."""
    n_experts: int = Field(default=4, ge=2)
    """Switch: experts of a sparse layer; every second layer is sparse."""
    expert_capacity: int = Field(default=8, ge=1)
    """Switch: tokens of a text that an expert takes at most."""
    n_sentences: int = Field(default=40_000, ge=10)
    """Training sentences; they are seen again in each epoch, in another order."""
    verdict_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of the sentences that are judged (`… ? yes`); half of these break their rule."""
    n_held_out: int = Field(default=200, ge=2)
    """Held-out minimal pairs of each language, for the losses and accuracies of every checkpoint."""
    steps: int = Field(default=2000, ge=2)
    """Optimiser steps."""
    batch_sentences: int = Field(default=128, ge=1)
    """Sentences in a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """AdamW's highest learning rate."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises from 0."""
    decay: Literal["none", "cosine"] = "cosine"
    """After the warm-up: constant, or a cosine down to a tenth."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decay of AdamW, of matrices only."""
    n_checkpoints: int = Field(default=13, ge=2)
    """Checkpoints: the untrained weights (step 0), then steps in equal ratios from `first_checkpoint` to `steps`."""
    first_checkpoint: int = Field(default=50, ge=1)
    """First checkpoint after the untrained weights."""
    saved_dtype: Literal["float16", "bfloat16", "float32"] = "float32"
    """Dtype of the checkpoints; training holds its weights in float32. Held-out numbers are of the weights as saved."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Dtype of matrix products while training."""
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda`, `cuda:0` …"""
    n_threads: int = Field(default=1, ge=1)
    """Threads of torch on the CPU; part of what makes a training reproducible."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of weights, sentences and their order."""

    @model_validator(mode="after")
    def _check_fit(self) -> Self:
        problems = []
        if self.width % (2 * self.n_heads):
            problems.append(f"width={self.width} is not a multiple of twice n_heads={self.n_heads}")
        if self.architecture == "switch" and self.n_layers < 2:
            problems.append(
                f"n_layers={self.n_layers}: Switch has a sparse layer in every second one; expected 2 or more"
            )
        if self.batch_sentences > self.n_sentences:
            problems.append(
                f"batch_sentences={self.batch_sentences} is more than n_sentences={self.n_sentences}; make more"
            )
        if self.first_checkpoint + self.n_checkpoints - 2 > self.steps:
            problems.append(
                f"n_checkpoints={self.n_checkpoints}: between first_checkpoint={self.first_checkpoint} and "
                f"steps={self.steps} there are not that many steps; ask for fewer checkpoints or more steps"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self


def checkpoint_steps(config: PretrainConfig) -> tuple[int, ...]:
    """Steps that are saved: 0, then `n_checkpoints - 1` steps in equal ratios, each at least one after the last."""
    n = config.n_checkpoints - 1
    first, last = config.first_checkpoint, config.steps
    ratios = [first * (last / first) ** (index / max(n - 1, 1)) for index in range(n)]
    steps = [0]
    for index, ratio in enumerate(ratios):
        latest = last - (n - 1 - index)
        steps.append(last if index == n - 1 else min(max(round(ratio), steps[-1] + 1), latest))
    return tuple(steps)


def step_folder(step: int) -> str:
    """Name of the folder of a checkpoint: `step00000010`."""
    return f"step{step:08d}"
