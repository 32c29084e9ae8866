"""How well a model predicts the tokens of plain texts: right answers and loss of every text, summed in float64.

Decoders: the next token. Masked language models: 15 % of the tokens, replaced by the mask token, drawn for each text by
its own content. Encoder-decoders with sentinel tokens (T5): the second half of each text, given the first half and
`<extra_id_0>`, which is how such models are asked to go on (Raffel et al. 2020, arXiv 1910.10683).

A token is right in the first k if fewer than k tokens have a higher logit; equal logits go to the lower token.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from modularity.data.batches import cut_batches
from modularity.errors import InputError, NumericError
from modularity.interventions.forward import naming_examples
from modularity.models import HeadModel
from modularity.models.heads import HeadKind
from modularity.types import StackName, content_digest

IGNORED = -100
SENTINEL = "<extra_id_0>"
MASKED_SHARE = 0.15
TOP_K = 10
N_QUOTED = 16
"""Tokens of a text that a message quotes."""


@dataclass(frozen=True)
class TokenText:
    """One text as a model reads it."""

    inputs: tuple[int, ...]
    """Tokens of the decoder, or of the encoder."""
    labels: tuple[int, ...]
    """What is to be said at each position of the last stack, -100 where nothing is."""
    targets: tuple[int, ...] = ()
    """Encoder-decoders: tokens that the decoder reads after its start token."""


@dataclass(frozen=True, eq=False)
class TokenTexts:
    """Texts of one kind of head, in order."""

    texts: tuple[TokenText, ...]
    n_truncated: int
    """Texts that lost their end."""
    n_dropped: int
    """Texts too short for a single prediction, which are left out."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all tokens."""
        return content_digest([[*text.inputs, IGNORED, *text.labels] for text in self.texts])

    @property
    def n_tokens(self) -> int:
        """Tokens that go through the model."""
        return sum(len(text.inputs) + len(text.targets) for text in self.texts)

    def first(self, n_tokens: int) -> "TokenTexts":
        """The first texts with at most so many tokens together, at least one."""
        kept, total = 0, 0
        for text in self.texts:
            total += len(text.inputs) + len(text.targets)
            if total > n_tokens and kept:
                break
            kept += 1
        return replace(self, texts=self.texts[:kept])

    def commonest(self, n: int) -> np.ndarray:
        """The `n` tokens that are most often to be said, int64 ascending; ties by lowest id."""
        said = np.array([label for text in self.texts for label in text.labels if label != IGNORED], dtype=np.int64)
        tokens, counts = np.unique(said, return_counts=True)
        return np.sort(tokens[np.argsort(-counts, kind="stable")[:n]])


@dataclass(frozen=True, eq=False)
class LanguageBatch:
    """Some texts, padded on the right."""

    text_B: np.ndarray
    """int64: number of each text among all."""
    arguments: Mapping[str, np.ndarray]
    """What the model is called with."""
    labels_BT: np.ndarray
    """int64: what is to be said at each position of the logits, -100 where nothing is."""
    real: Mapping[StackName, np.ndarray]
    """bool of shape (B, T) for each stack: positions that are no padding."""


def problems_of_head(kind: HeadKind, tokenizer: Any) -> list[str]:
    """What a tokenizer lacks for the texts of a model with this head."""
    if kind == "masked" and tokenizer.mask_token_id is None:
        return [f"{type(tokenizer).__name__} has no mask token, by which a masked language model is asked"]
    if kind == "seq2seq" and _sentinel(tokenizer) is None:
        return [
            f"{type(tokenizer).__name__} has no token {SENTINEL!r}: an encoder-decoder is asked to go on by a sentinel "
            "token; give a model of T5's kind, or a decoder"
        ]
    return []


def token_texts(kind: HeadKind, tokenizer: Any, texts: Sequence[str], *, max_tokens: int) -> TokenTexts:
    """Tokens of texts and what is to be predicted of them.

    Parameters
    ----------
    kind : head of the model
    tokenizer : its tokenizer; special tokens are those that it adds
    texts : any texts
    max_tokens : longer texts lose their end

    Raises
    ------
    InputError
        The tokenizer does not fit the kind, or no text is long enough.
    """
    problems = problems_of_head(kind, tokenizer)
    if problems:
        raise InputError(problems)
    make: Callable[[Any, list[int], str], TokenText | None] = {
        "causal": _next_tokens,
        "masked": _masked_tokens,
        "seq2seq": _second_half,
    }[kind]
    found, n_truncated, n_dropped = [], 0, 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=kind != "seq2seq", verbose=False)["input_ids"]
        if len(ids) > max_tokens:
            # The end goes as the tokenizer truncates, so that a special token at the end stays.
            options = {"truncation": True, "max_length": max_tokens, "verbose": False}
            ids = tokenizer(text, add_special_tokens=kind != "seq2seq", **options)["input_ids"]
            n_truncated += 1
        made = make(tokenizer, list(ids), text)
        n_dropped += made is None
        if made is not None:
            found.append(made)
    if not found:
        raise InputError(f"none of {len(texts)} texts has a token to predict; expected texts of two tokens or more")
    return TokenTexts(tuple(found), n_truncated, n_dropped)


def language_batches(
    kind: HeadKind, texts: TokenTexts, *, tokens_per_batch: int, pad_id: int, start_id: int | None = None
) -> Iterator[LanguageBatch]:
    """Batches of texts of like length, the longest first.

    Parameters
    ----------
    kind, texts : as from `token_texts`
    tokens_per_batch : limit on the padded size of a batch, both stacks counted
    pad_id, start_id : padding, and what the decoder of an encoder-decoder begins with
    """
    lengths = np.array([len(text.inputs) + len(text.targets) for text in texts.texts], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    for members in cut_batches(lengths[order], tokens_per_batch):
        chosen = order[members]
        yield _batch(kind, chosen, [texts.texts[index] for index in chosen], pad_id, start_id)


@dataclass(frozen=True, eq=False)
class PredictionCounts:
    """Predictions of every text; arrays of shape (n_texts,)."""

    n_tokens: np.ndarray
    """int64: predicted tokens."""
    n_top1: np.ndarray
    """int64: right at first place."""
    n_top10: np.ndarray
    """int64: right within the first ten."""
    n_uncommon: np.ndarray
    """int64: predicted tokens that are not among the commonest."""
    n_top1_uncommon: np.ndarray
    """int64: of these, right at first place."""
    loss: np.ndarray
    """float64: summed cross-entropy in nats."""


def count_predictions(
    model: HeadModel, texts: TokenTexts, common: np.ndarray, *, tokens_per_batch: int = 2048
) -> PredictionCounts:
    """Right predictions and loss of every text, of the model as it is now.

    Parameters
    ----------
    model : with its LM head, changed by hooks or not
    texts : as from `token_texts`, of the model's kind
    common : int64, the commonest tokens
    tokens_per_batch : size of a batch; logits of all its positions are held

    Raises
    ------
    NumericError
        The loss of a token is not finite; the message names its text.
    """
    n = len(texts.texts)
    found = {name: np.zeros(n, np.int64) for name in ("n_tokens", "n_top1", "n_top10", "n_uncommon", "n_top1_uncommon")}
    loss = np.zeros(n)
    is_common = torch.from_numpy(common).to(model.base.device)
    for batch in model_batches(model, texts, tokens_per_batch=tokens_per_batch):
        with torch.inference_mode():
            logits_BTV = run_batch(model, batch).float()
            labels_BT = torch.from_numpy(batch.labels_BT).to(logits_BTV.device)
            asked_BT = labels_BT != IGNORED
            logits_MV, gold_M = logits_BTV[asked_BT], labels_BT[asked_BT]
            rank_M = _ranks(logits_MV, gold_M)
            loss_M = F.cross_entropy(logits_MV, gold_M, reduction="none").double().cpu().numpy()
        text_M = np.repeat(batch.text_B, asked_BT.sum(1).cpu().numpy())
        _check_finite(model, texts, loss_M, text_M)
        uncommon_M = (~torch.isin(gold_M, is_common)).cpu().numpy()
        first_M, ten_M = (rank_M == 0).cpu().numpy(), (rank_M < TOP_K).cpu().numpy()
        for name, hits_M in (
            ("n_tokens", np.ones(len(text_M), bool)),
            ("n_top1", first_M),
            ("n_top10", ten_M),
            ("n_uncommon", uncommon_M),
            ("n_top1_uncommon", uncommon_M & first_M),
        ):
            found[name] += np.bincount(text_M[hits_M], minlength=n)
        loss += np.bincount(text_M, weights=loss_M, minlength=n)
    return PredictionCounts(**found, loss=loss)


def largest_difference(
    one: HeadModel, other: HeadModel, texts: TokenTexts, *, tokens_per_batch: int = 2048
) -> tuple[float, float, int]:
    """How far the logits of two models differ, wherever a token is to be predicted.

    Returns
    -------
    difference, largest, n_tokens : largest absolute difference, largest absolute logit of the first model, and at how
        many tokens they were compared

    Raises
    ------
    NumericError
        A logit is not finite.
    """
    difference, largest, n_tokens = 0.0, 0.0, 0
    with torch.inference_mode():
        for batch in model_batches(one, texts, tokens_per_batch=tokens_per_batch):
            asked_BT = torch.from_numpy(batch.labels_BT != IGNORED)
            left_MV, right_MV = (run_batch(model, batch).float().cpu()[asked_BT] for model in (one, other))
            if not (left_MV.isfinite().all() and right_MV.isfinite().all()):
                raise NumericError("a logit is not finite: the models cannot be compared; load them as float32")
            difference = max(difference, float((left_MV - right_MV).abs().max()))
            largest = max(largest, float(left_MV.abs().max()))
            n_tokens += int(asked_BT.sum())
    return difference, largest, n_tokens


def model_batches(model: HeadModel, texts: TokenTexts, *, tokens_per_batch: int) -> Iterator[LanguageBatch]:
    """Batches of texts for a model, with its padding and start token."""
    start = model.base.decoder_start_id if model.kind == "seq2seq" else None
    return language_batches(
        model.kind, texts, tokens_per_batch=tokens_per_batch, pad_id=model.base.pad_id, start_id=start
    )


def run_batch(model: HeadModel, batch: LanguageBatch) -> torch.Tensor:
    """Logits of a batch, (B, T, V), in the dtype of the model; without gradients only in inference mode."""
    with naming_examples(batch.text_B):
        logits_BTV: torch.Tensor = model.module(**_tensors(batch, model)).logits
    return logits_BTV


def run_base(model: HeadModel, batch: LanguageBatch) -> None:
    """Run the base model for the sake of its hooks: no logits, where the base model is a module of its own."""
    model.base.module(**_tensors(batch, model))


def _tensors(batch: LanguageBatch, model: HeadModel) -> dict[str, torch.Tensor]:
    device = model.base.device
    return {name: torch.from_numpy(values.astype(np.int64)).to(device) for name, values in batch.arguments.items()}


def sentinel_id(tokenizer: Any) -> int:
    """Id of the sentinel by which an encoder-decoder is asked to go on; InputError if there is none."""
    found = _sentinel(tokenizer)
    if found is None:
        raise InputError(problems_of_head("seq2seq", tokenizer))
    return found


def _sentinel(tokenizer: Any) -> int | None:
    found = tokenizer.convert_tokens_to_ids(SENTINEL)
    return None if found is None or found == getattr(tokenizer, "unk_token_id", None) else int(found)


def ends_with_eos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its end-of-text token after a text."""
    ids = tokenizer("a", verbose=False)["input_ids"]
    return bool(ids) and tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id


def _next_tokens(tokenizer: Any, ids: list[int], text: str) -> TokenText | None:
    return None if len(ids) < 2 else TokenText(tuple(ids), (*ids[1:], IGNORED))


def _masked_tokens(tokenizer: Any, ids: list[int], text: str) -> TokenText | None:
    special = set(tokenizer.all_special_ids)
    places = [place for place, token in enumerate(ids) if token not in special]
    if len(places) < 2:
        return None
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    n_masked = max(1, round(MASKED_SHARE * len(places)))
    chosen = set(np.random.default_rng(key).choice(places, n_masked, replace=False).tolist())
    inputs = tuple(tokenizer.mask_token_id if place in chosen else token for place, token in enumerate(ids))
    return TokenText(inputs, tuple(token if place in chosen else IGNORED for place, token in enumerate(ids)))


def _second_half(tokenizer: Any, ids: list[int], text: str) -> TokenText | None:
    if len(ids) < 2:
        return None
    cut, mark = len(ids) // 2, sentinel_id(tokenizer)
    end = (tokenizer.eos_token_id,) if ends_with_eos(tokenizer) else ()
    # The decoder reads its start, the sentinel and all but the last token; the sentinel itself is no prediction.
    return TokenText((*ids[:cut], mark, *end), (IGNORED, *ids[cut:]), (mark, *ids[cut:-1]))


def _batch(
    kind: HeadKind, text_B: np.ndarray, texts: Sequence[TokenText], pad_id: int, start_id: int | None
) -> LanguageBatch:
    ids_BT, real_BT = _padded([text.inputs for text in texts], pad_id)
    labels_BT, _ = _padded([text.labels for text in texts], IGNORED)
    arguments = {"input_ids": ids_BT, "attention_mask": real_BT}
    if kind != "seq2seq":
        stack: StackName = "decoder" if kind == "causal" else "encoder"
        return LanguageBatch(text_B, arguments, labels_BT, {stack: real_BT})
    assert start_id is not None
    decoder_BT, decoded_BT = _padded([(start_id, *text.targets) for text in texts], pad_id)
    arguments["decoder_input_ids"] = decoder_BT
    return LanguageBatch(text_B, arguments, labels_BT, {"encoder": real_BT, "decoder": decoded_BT})


def _padded(rows: Sequence[Sequence[int]], fill: int) -> tuple[np.ndarray, np.ndarray]:
    lengths_B = np.array([len(row) for row in rows])
    padded_BT = np.full((len(rows), int(lengths_B.max())), fill, dtype=np.int64)
    for index, row in enumerate(rows):
        padded_BT[index, : len(row)] = row
    return padded_BT, np.arange(padded_BT.shape[1]) < lengths_B[:, None]


def _check_finite(model: HeadModel, texts: TokenTexts, loss_M: np.ndarray, text_M: np.ndarray) -> None:
    """NumericError where a loss is not finite: its token would have rank 0, and so count as right."""
    bad = text_M[~np.isfinite(loss_M)]
    if len(bad):
        begin = model.base.tokenizer.decode(texts.texts[bad[0]].inputs[:N_QUOTED])
        raise NumericError(
            f"the loss of a token of text {bad[0]}, which begins {begin!r}, is not finite: the model leaves the range "
            "of its dtype there; load it as float32 (model.dtype), or leave the text out"
        )


def _ranks(logits_MV: torch.Tensor, gold_M: torch.Tensor) -> torch.Tensor:
    """Number of tokens before the right one, equal logits in the order of tokens."""
    gold_M1 = gold_M[:, None]
    own_M1 = logits_MV.gather(1, gold_M1)
    before = torch.arange(logits_MV.shape[1], device=logits_MV.device) < gold_M1
    return (logits_MV > own_M1).sum(1) + ((logits_MV == own_M1) & before).sum(1)
