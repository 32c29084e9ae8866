"""How far a changed model's predictions are from those of the whole one, text by text.

For every position that is read: the Kullback-Leibler divergence of the changed from the whole model's distribution over
the vocabulary, whether both have the same most likely token, and in causal models the loss of the next token under
both. Causal models are read where the text has a next token, masked models at every real token, encoder-decoder models
at the first step of the decoder.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modularity.data import TokenBatch, TokenTable, token_batches
from modularity.errors import NumericError
from modularity.interventions.forward import Forward
from modularity.interventions.moefied import SelectionRecord
from modularity.models import HeadModel
from modularity.models.heads import HeadKind

LOGIT_VALUES = 2**26
"""Logits of one batch: batches are made smaller where the vocabulary is large."""
_ROWS = 256
"""Positions that are compared at a time in float64."""
Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OutputComparison:
    """Means over the positions of each text; NaN for a text without one."""

    kl_N: Float64
    """Divergence in nats, 0 where nothing changes."""
    agreement_N: Float64
    """Share of positions with the same most likely token, ties by lowest index."""
    loss_N: Float64
    """Cross-entropy of the next token in nats, changed model; NaN in other than causal models."""
    whole_loss_N: Float64
    """The same of the whole model."""


def positions_read(kind: HeadKind, table: TokenTable) -> NDArray[np.int64]:
    """Positions of each text that `compare_outputs` reads: int64 array of shape (n_texts,)."""
    if kind == "seq2seq":
        return np.ones(table.n_examples, dtype=np.int64)
    return table.lengths_E - 1 if kind == "causal" else table.lengths_E


def compare_outputs(
    model: HeadModel, table: TokenTable, record: SelectionRecord, *, tokens_per_batch: int = 8192
) -> OutputComparison:
    """Predictions with selected experts against those of the whole model; to be called within `selected_experts`.

    Every batch is run twice, the first time with the record paused.

    Parameters
    ----------
    model : a model with its LM head, whose base is changed
    table : texts with one row each
    record : what `selected_experts` gave
    tokens_per_batch : texts times longest length of one batch, at most; fewer for large vocabularies

    Raises
    ------
    NumericError
        A logit is not finite.
    """
    found = {field.name: np.full(table.n_examples, np.nan) for field in fields(OutputComparison)}
    forward = Forward(model.module, model.base)
    budget = _budget(model, tokens_per_batch)
    for batch in token_batches(table, 0, table.n_rows, tokens_per_batch=budget, pad_id=model.base.pad_id):
        assert batch.rows_B is not None
        read_BT, next_BT = _read(model.kind, batch)
        record.is_paused = True
        try:
            whole_PV = _picked(forward(batch).logits, read_BT)
        finally:
            record.is_paused = False
        changed_PV = _picked(forward(batch).logits, read_BT)
        next_P = None if next_BT is None else torch.from_numpy(next_BT[read_BT]).to(whole_PV.device)
        text_P = np.repeat(np.arange(batch.n_examples), read_BT.sum(axis=1))
        counts_B = np.bincount(text_P, minlength=batch.n_examples)
        for name, values_P in _compared(whole_PV, changed_PV, next_P).items():
            sums_B = np.bincount(text_P, values_P, minlength=batch.n_examples)
            means_B = np.full(batch.n_examples, np.nan)
            np.divide(sums_B, counts_B, out=means_B, where=counts_B > 0)
            found[name][batch.rows_B] = means_B
    return OutputComparison(**found)


def last_logits(model: HeadModel, table: TokenTable, *, n_texts: int, tokens_per_batch: int = 8192) -> NDArray[Any]:
    """Logits at the last position that is read of each of the first texts: float32 array of shape (texts, vocabulary).

    Parameters
    ----------
    model : a model with its LM head, changed or not
    table : texts with one row each
    n_texts : at most so many
    tokens_per_batch : as in `compare_outputs`

    Raises
    ------
    NumericError
        A logit is not finite.
    """
    n_texts = min(n_texts, table.n_rows)
    forward = Forward(model.module, model.base)
    found: dict[int, NDArray[np.float32]] = {}
    budget = _budget(model, tokens_per_batch)
    for batch in token_batches(table, 0, n_texts, tokens_per_batch=budget, pad_id=model.base.pad_id):
        assert batch.rows_B is not None
        last_B = batch.attention_mask_BT.sum(axis=1) - 1
        if model.kind == "seq2seq":
            last_B = np.zeros_like(last_B)
        logits_BV = forward(batch).logits[torch.arange(batch.n_examples), torch.from_numpy(last_B)]
        _check_finite(logits_BV)
        found.update(zip(batch.rows_B.tolist(), logits_BV.float().cpu().numpy()))
    return np.stack([found[text] for text in range(n_texts)])


def _budget(model: HeadModel, tokens_per_batch: int) -> int:
    """Tokens of a batch whose logits are held whole."""
    n_words = int(model.module.get_output_embeddings().weight.shape[0])  # type: ignore[operator]
    return max(1, min(tokens_per_batch, LOGIT_VALUES // n_words))


def _read(kind: HeadKind, batch: TokenBatch) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
    """Positions that are read, and in causal models the token that follows each."""
    if kind == "seq2seq":
        return np.ones((batch.n_examples, 1), dtype=bool), None
    if kind == "masked":
        return batch.attention_mask_BT, None
    has_next_BT = np.zeros_like(batch.attention_mask_BT)
    has_next_BT[:, :-1] = batch.attention_mask_BT[:, :-1] & batch.attention_mask_BT[:, 1:]
    return has_next_BT, np.roll(batch.input_ids_BT, -1, axis=1)


def _picked(logits_BTV: torch.Tensor, read_BT: NDArray[np.bool_]) -> torch.Tensor:
    return logits_BTV[torch.from_numpy(read_BT).to(logits_BTV.device)]


def _compared(whole_PV: torch.Tensor, changed_PV: torch.Tensor, next_P: torch.Tensor | None) -> dict[str, Float64]:
    """Values of every position, by name in `OutputComparison`."""
    parts: dict[str, list[torch.Tensor]] = {"kl_N": [], "agreement_N": []}
    if next_P is not None:
        parts |= {"loss_N": [], "whole_loss_N": []}
    for start in range(0, len(whole_PV), _ROWS):
        whole, changed = (logits[start : start + _ROWS].double() for logits in (whole_PV, changed_PV))
        _check_finite(whole, changed)
        log_whole, log_changed = whole.log_softmax(1), changed.log_softmax(1)
        parts["kl_N"].append((log_whole.exp() * (log_whole - log_changed)).sum(1).clamp_min(0.0))
        parts["agreement_N"].append((_first_largest(whole) == _first_largest(changed)).double())
        if next_P is not None:
            at = next_P[start : start + _ROWS, None]
            parts["loss_N"].append(-log_changed.gather(1, at)[:, 0])
            parts["whole_loss_N"].append(-log_whole.gather(1, at)[:, 0])
    return {name: torch.cat(values).cpu().numpy() if values else np.zeros(0) for name, values in parts.items()}


def _check_finite(*logits: torch.Tensor) -> None:
    if not all(bool(torch.isfinite(each).all()) for each in logits):
        raise NumericError("a logit is not finite: the model leaves the range of its dtype; load it as float32")


def _first_largest(logits: torch.Tensor) -> torch.Tensor:
    """Index of the largest of each row, the lowest among equals."""
    places = torch.arange(logits.shape[1], device=logits.device)
    return torch.where(logits == logits.amax(1, keepdim=True), places, logits.shape[1]).amin(1)
