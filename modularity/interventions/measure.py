"""The answer of a model, read from the logits of label words at one position of each example.

Encoder-decoder models: at the first step of the decoder (Zhang et al. 2023, arXiv 2305.18390); masked language models:
at the mask token; decoders: at the last token. The model's own head computes the logits, from that position alone: a
hook hands the output embedding only the position that is read, so that no logits of other positions are held.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from modularity.data import FunctionData, Pooling, TokenBatch, TokenTable, token_batches, tokenise
from modularity.errors import InputError
from modularity.interventions.forward import Forward
from modularity.interventions.scores import TaskScores, task_scores
from modularity.models import HeadModel


@dataclass(frozen=True, eq=False)
class LabelTask:
    """Examples with a right label each, and the words that stand for the labels."""

    name: str
    tokens: TokenTable
    """One row for each example, in order; which positions it pools does not matter."""
    gold_E: np.ndarray
    """int64 of shape (n_examples,): class of each example."""
    words: tuple[str, ...]
    """Label word of each class."""
    word_ids_C: np.ndarray
    """int64: token that is read for each class, all different."""
    example_ids: tuple[str, ...]
    """Name of each example."""


def label_task(
    function: FunctionData,
    tokenizer: Any,
    words: Sequence[str],
    *,
    subfunction: str | None = None,
    max_tokens: int | None = None,
    examples_E: np.ndarray | None = None,
    name: str | None = None,
) -> LabelTask:
    """Task of a function whose labels are answered by words.

    Parameters
    ----------
    function : its texts are given to the model as they are: a masked model needs the mask token in them, a decoder a
        text that the label word continues
    tokenizer : a Hugging Face tokenizer
    words : with two words, those for label 0 and label 1 of `subfunction`; with one word for each of three or more
        sub-functions, of which exactly one is 1 for an example, those for the sub-functions in order. As the model
        would continue: most decoders expect a space in front. The first token of a word is read
    subfunction : name; may be left out where there is one
    max_tokens : longer texts lose their end
    examples_E : bool array, examples to use (the evaluation half, say); None = all
    name : of the task; None = that of the function

    Raises
    ------
    InputError
        Two words begin with the same token, or a word has none; the sub-function is not known; words and sub-functions
        differ in number.
    """
    gold_E = _classes(function, len(words), subfunction)
    kept = np.flatnonzero((gold_E >= 0) & (True if examples_E is None else examples_E))
    chosen = _with_examples(function, kept)
    return LabelTask(
        name=function.name if name is None else name,
        tokens=tokenise(chosen, tokenizer, max_tokens=max_tokens, pooling=Pooling(kind="max")),
        gold_E=gold_E[kept],
        words=tuple(words),
        word_ids_C=label_token_ids(tokenizer, words),
        example_ids=tuple(example.id for example in chosen.examples),
    )


def label_token_ids(tokenizer: Any, words: Sequence[str]) -> np.ndarray:
    """First token of each word, int64; InputError where they do not tell the words apart."""
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    known = [token_ids[0] if len(token_ids) else None for token_ids in ids]
    unknown = getattr(tokenizer, "unk_token_id", None)
    if len(set(known)) < len(words) or len(words) < 2 or None in known or (unknown is not None and unknown in known):
        raise InputError(
            f"label words {list(words)} begin with the tokens {known}: expected two or more different, known tokens; "
            f"choose other words (decoders usually need a space in front)"
        )
    return np.array(known, dtype=np.int64)


def label_logits(model: HeadModel, task: LabelTask, *, tokens_per_batch: int = 8192) -> np.ndarray:
    """Logits of the label words of every example, float64 of shape (n_examples, n_classes).

    Parameters
    ----------
    model : a model with its LM head, changed or not
    task : examples and label words
    tokens_per_batch : examples times longest length of one batch

    Raises
    ------
    InputError
        An example of a masked model has not exactly one mask token; the message names it.
    """
    logits_EC = np.full((task.tokens.n_examples, len(task.word_ids_C)), np.nan)
    forward = Forward(model.module, model.base)
    pad_id = model.base.pad_id
    for batch in token_batches(task.tokens, 0, task.tokens.n_rows, tokens_per_batch=tokens_per_batch, pad_id=pad_id):
        assert batch.rows_B is not None
        logits_EC[batch.rows_B] = batch_logits(model, task, batch, forward).double().cpu().numpy()
    return logits_EC


def batch_logits(
    model: HeadModel, task: LabelTask, batch: TokenBatch, forward: Callable[[TokenBatch], Any]
) -> torch.Tensor:
    """Logits of the label words of the examples of one batch, (B, C), in the dtype of the model.

    Parameters
    ----------
    model, task : as in `label_logits`
    batch : examples of the task
    forward : calls the model: `Forward`, or its method that keeps gradients

    Raises
    ------
    InputError
        As `label_logits`.
    """
    logits_BV = batch_vocabulary_logits(model, task, batch, forward)
    return logits_BV[:, torch.from_numpy(task.word_ids_C).to(logits_BV.device)]


def batch_vocabulary_logits(
    model: HeadModel, task: LabelTask, batch: TokenBatch, forward: Callable[[TokenBatch], Any]
) -> torch.Tensor:
    """Logits of all tokens at the position that is read, (B, V); parameters and errors as `batch_logits`."""
    with _only_position(model.module, _positions(model, batch, task)):
        logits_B1V: torch.Tensor = forward(batch).logits
    return logits_B1V[:, 0]


def measure_task(model: HeadModel, task: LabelTask, *, tokens_per_batch: int = 8192) -> TaskScores:
    """Scores of a model on a task; parameters and errors as `label_logits` and `task_scores`."""
    return task_scores(label_logits(model, task, tokens_per_batch=tokens_per_batch), task.gold_E)


def _classes(function: FunctionData, n_words: int, subfunction: str | None) -> np.ndarray:
    """Class of every example, -1 where it has none."""
    if n_words == 2:
        if subfunction is None and len(function.subfunctions) == 1:
            (subfunction,) = function.subfunctions
        if subfunction not in function.subfunctions:
            raise InputError(
                f"sub-function {subfunction!r} of {function.name!r}: expected one of {', '.join(function.subfunctions)}"
            )
        return function.labels_SE[function.subfunctions.index(subfunction)].astype(np.int64)
    if n_words != len(function.subfunctions) or subfunction is not None:
        raise InputError(
            f"{n_words} label words for the {len(function.subfunctions)} sub-functions of {function.name!r}: expected "
            f"one for each, or two and the name of a sub-function"
        )
    is_one_SE = function.labels_SE == 1
    classes_E: np.ndarray = np.where(is_one_SE.sum(axis=0) == 1, is_one_SE.argmax(axis=0), -1)
    return classes_E


def _with_examples(function: FunctionData, kept: np.ndarray) -> FunctionData:
    if not len(kept):
        raise InputError(f"no example of {function.name!r} is left: expected some with a label among those chosen")
    return replace(
        function,
        examples=tuple(function.examples[index] for index in kept),
        labels_SE=function.labels_SE[:, kept],
        selection_E=function.selection_E[kept],
        cluster_E=function.cluster_E[kept],
    )


def _positions(model: HeadModel, batch: TokenBatch, task: LabelTask) -> np.ndarray:
    """Position that is read in each example of a batch."""
    if model.kind == "seq2seq":
        return np.zeros(batch.n_examples, dtype=np.int64)
    if model.kind == "causal":
        return batch.attention_mask_BT.shape[1] - 1 - batch.attention_mask_BT[:, ::-1].argmax(axis=1)
    mask_id = getattr(model.base.tokenizer, "mask_token_id", None)
    is_mask_BT = (batch.input_ids_BT == (-1 if mask_id is None else mask_id)) & batch.attention_mask_BT
    wrong_B = is_mask_BT.sum(axis=1) != 1
    if wrong_B.any():
        assert batch.rows_B is not None
        first = int(np.flatnonzero(wrong_B)[0])
        example = int(batch.rows_B[first])
        cut = ", whose text was cut off at its end" if task.tokens.truncated_E[example] else ""
        raise InputError(
            f"example {task.example_ids[example]!r} of task {task.name!r}{cut} has {is_mask_BT[first].sum()} mask "
            f"tokens (id {mask_id}): expected exactly one, where the label word stands"
        )
    return is_mask_BT.argmax(axis=1)


@contextmanager
def _only_position(module: Any, positions_B: np.ndarray) -> Iterator[None]:
    """The output embedding gets one position of each example."""

    def pick(embedding: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = args[0]
        positions = torch.from_numpy(positions_B).to(hidden_BTD.device)
        picked_B1D = hidden_BTD[torch.arange(len(positions), device=hidden_BTD.device), positions][:, None]
        return (picked_B1D, *args[1:])

    handle = module.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        handle.remove()
