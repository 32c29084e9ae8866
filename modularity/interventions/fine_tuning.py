"""Few-shot fine-tuning of the FFN output matrices and routers of a mixture model, answers read from label words.

Source: Zhang et al. 2023, arXiv 2305.18390, Table 3: Switch-base-16, 128 examples, Adam with rate 2e-4, batches of 16,
evaluated every 4 steps; what is trained are the FFN output matrices and the routers of the encoder from layer 8 up. The
best checkpoint on the validation examples is kept; whoever calls measures it on examples of its own.

The loss is the cross-entropy over the label words, the classes of the read-out, or over the whole vocabulary as in the
released code; no loss for balanced routing is added. There the model is also trained to write a sentinel before the
label word, and the label is read after it; here the position that is read is the first one.

This stands beside `restricted_routing` and the read-out, which it is combined with, and not in `tuning`, the room of
parameters that are added to frozen models.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from modularity.data import example_batch
from modularity.errors import InputError, NumericError
from modularity.interventions.forward import Forward
from modularity.interventions.measure import LabelTask, batch_logits, batch_vocabulary_logits, measure_task
from modularity.interventions.routing import routers
from modularity.interventions.scores import TaskScores
from modularity.models import HeadModel, LoadedModel
from modularity.types import StackName

Loss = Literal["words", "vocabulary"]


@dataclass(frozen=True)
class FineTuning:
    """How a model is fine-tuned; the defaults are the paper's."""

    n_epochs: int = 100
    learning_rate: float = 2e-4
    """Of Adam."""
    batch_size: int = 16
    evaluate_every: int = 4
    """Steps between two checkpoints; the last step is one, too."""
    evaluates_first: bool = False
    """Count the steps between checkpoints from step 1, as the released code: steps 1, 5, 9 … instead of 4, 8, 12 …"""
    loss: Loss = "words"
    """Cross-entropy of the right label word among the label words, or among all tokens."""
    dropout: bool = True
    """Train with the dropout and router noise of the model's config."""
    seed: int = 0
    """Of the order of examples, of dropout and noise."""

    def __post_init__(self) -> None:
        """InputError with every value that is out of range."""
        problems = [
            f"{name} is {getattr(self, name)}: expected {expected}"
            for name, expected, is_right in (
                ("n_epochs", "at least 1", self.n_epochs >= 1),
                ("learning_rate", "more than 0", self.learning_rate > 0),
                ("batch_size", "at least 1", self.batch_size >= 1),
                ("evaluate_every", "at least 1", self.evaluate_every >= 1),
                ("seed", "at least 0", self.seed >= 0),
            )
            if not is_right
        ]
        if problems:
            raise InputError(problems)

    def n_steps(self, n_examples: int) -> int:
        """Steps of a whole training on so many examples."""
        return self.n_epochs * -(-n_examples // self.batch_size)

    def evaluates(self, step: int, n_steps: int) -> bool:
        """Whether the model after this step, from 1, is a checkpoint."""
        return step == n_steps or (step - self.evaluates_first) % self.evaluate_every == 0

    def n_evaluations(self, n_examples: int) -> int:
        """Checkpoints of a whole training, the untrained model among them."""
        n_steps = self.n_steps(n_examples)
        return 1 + sum(self.evaluates(step, n_steps) for step in range(1, n_steps + 1))


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after some steps."""

    step: int
    """0 is the untrained model."""
    loss: float
    """Mean loss of the steps since the checkpoint before; NaN at step 0."""
    validation: TaskScores


@dataclass(frozen=True, eq=False)
class FineTuned:
    """Course of a training."""

    checkpoints: tuple[Checkpoint, ...]
    chosen: Checkpoint
    """The best validation accuracy after step 0, the earliest of equals."""


def trainable_parameters(
    model: LoadedModel, stack: StackName, *, first_layer: int, layers: Sequence[int] | None = None
) -> dict[str, nn.Parameter]:
    """FFN output matrices, of dense layers and of all experts, and router weights, by name in the base model.

    Parameters
    ----------
    model : a loaded model
    stack : stack of the layers
    first_layer : the first layer that is trained; all above it are, too
    layers : these layers only; None = all from `first_layer`

    Raises
    ------
    InputError
        The stack has no such layer.
    """
    n_layers = model.sites.n_layers(stack)
    if not 0 <= first_layer < n_layers:
        raise InputError(f"first_layer={first_layer}: the {stack} has layers 0 to {n_layers - 1}")
    chosen = range(first_layer, n_layers) if layers is None else layers
    names = {name for layer in chosen for name in _output_names(model, stack, layer)}
    prefixes = tuple(f"{each.path}." for each in routers(model) if each.stack == stack and each.layer in chosen)
    return {
        name: parameter
        for name, parameter in model.module.named_parameters()
        if name in names or name.startswith(prefixes)
    }


@contextmanager
def fine_tuned(
    model: HeadModel,
    training: LabelTask,
    validation: LabelTask,
    parameters: Mapping[str, nn.Parameter],
    settings: FineTuning,
    *,
    examples_N: np.ndarray | None = None,
    tokens_per_batch: int = 8192,
) -> Iterator[FineTuned]:
    """Within this context the model has the weights of the best checkpoint; afterwards its own again, bit for bit.

    Deterministic for a seed, on one machine and device with one number of threads. Within `restricted_routing` tokens
    are routed to the allowed experts only, in training and evaluation.

    Parameters
    ----------
    model : the model, in eval mode afterwards
    training : examples to learn from
    validation : examples by which the checkpoint is chosen
    parameters : what is trained, float32, for example `trainable_parameters`; everything else is frozen
    settings : how
    examples_N : int array, examples of `training` to use; None = all
    tokens_per_batch : size of a batch of validation examples

    Raises
    ------
    InputError
        Nothing to train, or a parameter that is not float32.
    NumericError
        The loss is not finite; the message says at which step.
    """
    _check_parameters(parameters)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    rows_N = np.arange(training.tokens.n_examples) if examples_N is None else np.asarray(examples_N, dtype=np.int64)
    devices = [model.base.device] if model.base.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(settings.seed)
            checkpoints, best = _train(model, training, validation, parameters, settings, rows_N, tokens_per_batch)
        chosen = max(checkpoints[1:], key=lambda each: (each.validation.accuracy, -each.step))
        _set(parameters, best)
        yield FineTuned(tuple(checkpoints), chosen)
    finally:
        _set(parameters, before)
        for parameter in parameters.values():
            parameter.requires_grad_(False)
            parameter.grad = None
        model.module.eval()


def _train(
    model: HeadModel,
    training: LabelTask,
    validation: LabelTask,
    parameters: Mapping[str, nn.Parameter],
    settings: FineTuning,
    rows_N: np.ndarray,
    tokens_per_batch: int,
) -> tuple[list[Checkpoint], dict[str, torch.Tensor]]:
    """All checkpoints, and the weights of the best one after step 0."""
    optimiser = torch.optim.Adam([each.requires_grad_(True) for each in parameters.values()], lr=settings.learning_rate)
    forward = Forward(model.module, model.base)
    checkpoints = [Checkpoint(0, float("nan"), measure_task(model, validation, tokens_per_batch=tokens_per_batch))]
    best: dict[str, torch.Tensor] = {}
    best_accuracy, losses = -1.0, []
    n_steps = settings.n_steps(len(rows_N))
    for step, rows_B in enumerate(_batches(rows_N, settings), start=1):
        losses.append(_step(model, training, rows_B, forward, optimiser, settings))
        if not np.isfinite(losses[-1]):
            raise NumericError(
                f"fine-tuning on task {training.name!r}: the loss is {losses[-1]} at step {step}; take a "
                f"learning_rate below {settings.learning_rate}"
            )
        if not settings.evaluates(step, n_steps):
            continue
        scores = measure_task(model, validation, tokens_per_batch=tokens_per_batch)
        checkpoints.append(Checkpoint(step, float(np.mean(losses)), scores))
        losses = []
        if scores.accuracy > best_accuracy:
            best_accuracy = scores.accuracy
            best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    return checkpoints, best


def _step(
    model: HeadModel,
    task: LabelTask,
    rows_B: np.ndarray,
    forward: Forward,
    optimiser: torch.optim.Optimizer,
    settings: FineTuning,
) -> float:
    """One step of the optimiser; the loss before it. The model is in eval mode afterwards."""
    batch = example_batch(task.tokens, rows_B, pad_id=model.base.pad_id)
    model.module.train(settings.dropout)
    over_words = settings.loss == "words"
    with torch.enable_grad():
        logits_of = batch_logits if over_words else batch_vocabulary_logits
        logits_BC = logits_of(model, task, batch, forward.differentiable).float()
        gold_B = task.gold_E[rows_B] if over_words else task.word_ids_C[task.gold_E[rows_B]]
        loss = functional.cross_entropy(logits_BC, torch.from_numpy(gold_B).to(logits_BC.device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    model.module.eval()
    return float(loss.detach())


def _batches(rows_N: np.ndarray, settings: FineTuning) -> Iterator[np.ndarray]:
    """Examples of every step: each epoch in another random order."""
    generator = np.random.default_rng(settings.seed)
    for _ in range(settings.n_epochs):
        order_N = generator.permutation(rows_N)
        for start in range(0, len(order_N), settings.batch_size):
            yield order_N[start : start + settings.batch_size]


def _output_names(model: LoadedModel, stack: StackName, layer: int) -> list[str]:
    """Names of the FFN output matrices of one layer."""
    (layout,) = (each for each in model.sites.architecture.stacks if each.stack == stack)
    place, experts = f"{layout.blocks}.{layer}", layout.experts
    if experts is None or model.sites.expert_weights(stack, layer) is None:
        return [f"{place}.{layout.ffn_out}.weight"]
    if experts.kind == "fused":
        return [f"{place}.{experts.experts}.down_proj"]
    module = model.module.get_submodule(f"{place}.{experts.experts}")
    return [f"{place}.{experts.experts}.{name}.{experts.expert_out}.weight" for name, _ in module.named_children()]


def _check_parameters(parameters: Mapping[str, nn.Parameter]) -> None:
    other = {str(each.dtype).removeprefix("torch.") for each in parameters.values()} - {"float32"}
    if not parameters or other:
        raise InputError(
            f"{len(parameters)} parameters to train{', some of them ' + ', '.join(sorted(other)) if other else ''}: "
            "expected at least one, all float32; load the model with dtype float32"
        )


def _set(parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
