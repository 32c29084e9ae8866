"""How a model continues the beginnings of texts: greedy, or sampled from its own distribution.

Draws are made by the Gumbel-max rule from noise that belongs to a prompt and a place, so that a continuation depends on
the seed and on its own prompt, never on the batch; two models with one seed get the same noise. There is no key-value
cache: hooks that change a model see every position. A continuation ends with the end-of-text token; other special
tokens are never drawn, nor is the end before `n_least` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from modularity.errors import InputError, NumericError
from modularity.interventions.context import digest
from modularity.interventions.language_modelling import ends_with_eos, sentinel_id
from modularity.models import HeadModel
from modularity.models.heads import HeadKind

Decoding = Literal["greedy", "sample"]


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, and how the text goes on."""

    ids: tuple[int, ...]
    """Tokens that the model reads: special tokens at the beginning, then those of the text."""
    text: str
    """The beginning as text."""
    rest: str
    """What follows in the text, as long as a continuation at most."""


def make_prompts(
    kind: HeadKind, tokenizer: Any, texts: Sequence[str], *, n_prompt: int, n_new: int
) -> tuple[list[Prompt], int]:
    """Beginnings of texts, all of the same number of tokens.

    Parameters
    ----------
    kind : head of the model: `causal` or `seq2seq`
    tokenizer : its tokenizer
    texts : any texts; those of `n_prompt` tokens or fewer have no rest and are left out
    n_prompt, n_new : tokens of the beginning, special ones not counted, and of the rest

    Returns
    -------
    prompts, n_short : the prompts in order, and how many texts were too short

    Raises
    ------
    InputError
        The kind cannot go on with a text.
    """
    if kind == "masked":
        raise InputError("a masked language model does not go on with a text; leave continuations out")
    end: tuple[int, ...] = ()
    if kind == "seq2seq":
        end = (sentinel_id(tokenizer), *((tokenizer.eos_token_id,) if ends_with_eos(tokenizer) else ()))
    prompts, n_short = [], 0
    for text in texts:
        ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if len(ids) <= n_prompt:
            n_short += 1
            continue
        begin, rest = (tokenizer.decode(part) for part in (ids[:n_prompt], ids[n_prompt : n_prompt + n_new]))
        first = _first_tokens(kind, tokenizer, text, ids)
        prompts.append(Prompt((*first, *ids[:n_prompt], *end), begin, rest))
    return prompts, n_short


def continuations(
    model: HeadModel,
    prompts: Sequence[Prompt],
    *,
    n_new: int,
    n_least: int = 1,
    decoding: Decoding = "sample",
    temperature: float = 1.0,
    seed: int = 0,
    tokens_per_batch: int = 2048,
) -> list[str]:
    """What a model writes after each prompt, of the model as it is now.

    Parameters
    ----------
    model : with its LM head, changed by hooks or not
    prompts : from `make_prompts`, of one length
    n_new, n_least : most and fewest tokens of a continuation
    decoding, temperature : `greedy`, or `sample` from the softmax of logits / temperature
    seed : of the draws
    tokens_per_batch : positions of a batch; logits of all of them are held
    """
    longest = len(prompts[0].ids) + n_new
    size = max(1, tokens_per_batch // longest)
    written: list[str] = []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        writer = _Writer(model, part, n_least=n_least, temperature=temperature if decoding == "sample" else 0.0)
        written += writer.write(n_new, seed=seed)
    return written


class _Writer:
    """Continues one batch of prompts, token by token."""

    def __init__(self, model: HeadModel, prompts: Sequence[Prompt], *, n_least: int, temperature: float) -> None:
        self._model, self._n_least, self._temperature = model, n_least, temperature
        self._tokenizer, device = model.base.tokenizer, model.base.device
        self._prompt_BT = torch.tensor([prompt.ids for prompt in prompts], device=device)
        self._keys_B = [digest(prompt.ids) for prompt in prompts]
        self._eos = self._tokenizer.eos_token_id
        marks = {index for index, token in self._tokenizer.added_tokens_decoder.items() if token.special}
        banned = (marks | set(self._tokenizer.all_special_ids)) - {self._eos}
        if model.kind == "seq2seq":
            banned.add(sentinel_id(self._tokenizer))
        self._banned = torch.tensor(sorted(banned), dtype=torch.int64, device=device)

    def write(self, n_new: int, *, seed: int) -> list[str]:
        """Texts of up to `n_new` tokens."""
        device, n = self._prompt_BT.device, len(self._prompt_BT)
        new_BT = torch.empty((n, 0), dtype=torch.int64, device=device)
        ended_B = torch.zeros(n, dtype=torch.bool, device=device)
        fill = self._model.base.pad_id
        for place in range(n_new):
            logits_BV = self._last_logits(new_BT)
            logits_BV[:, self._banned] = -torch.inf
            if place < self._n_least and self._eos is not None:
                logits_BV[:, self._eos] = -torch.inf
            if self._temperature > 0:
                logits_BV = logits_BV / self._temperature + self._noise(logits_BV.shape[1], place, seed).to(device)
            token_B = logits_BV.argmax(1).masked_fill(ended_B, fill)
            if self._eos is not None:
                ended_B |= token_B == self._eos
            new_BT = torch.cat([new_BT, token_B[:, None]], dim=1)
            if bool(ended_B.all()):
                break
        return [self._text(row) for row in new_BT.tolist()]

    def _last_logits(self, new_BT: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            if self._model.kind == "causal":
                ids_BT = torch.cat([self._prompt_BT, new_BT], dim=1)
                logits_BTV = self._model.module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).logits
            else:
                begin = [self._model.base.decoder_start_id, sentinel_id(self._tokenizer)]
                begin_BT = torch.tensor([begin] * len(new_BT), device=new_BT.device)
                logits_BTV = self._model.module(
                    input_ids=self._prompt_BT,
                    attention_mask=torch.ones_like(self._prompt_BT),
                    decoder_input_ids=torch.cat([begin_BT, new_BT], dim=1),
                ).logits
        last_BV: torch.Tensor = logits_BTV[:, -1].double()
        bad = last_BV.isnan().any(1).nonzero()
        if len(bad):
            begin = self._tokenizer.decode(self._prompt_BT[bad[0, 0]])
            raise NumericError(
                f"after {begin!r} logits are NaN: the model leaves the range of its dtype; load it as float32"
            )
        return last_BV

    def _noise(self, n_tokens: int, place: int, seed: int) -> torch.Tensor:
        """Standard Gumbel noise of every prompt for one place, float64 (B, V)."""
        rows = [
            np.random.Generator(np.random.Philox(key=digest((seed, place, key)))).gumbel(size=n_tokens)
            for key in self._keys_B
        ]
        return torch.from_numpy(np.stack(rows))

    def _text(self, ids: list[int]) -> str:
        if self._eos is not None and self._eos in ids:
            ids = ids[: ids.index(self._eos)]
        text: str = self._tokenizer.decode(ids)
        return text


def _first_tokens(kind: HeadKind, tokenizer: Any, text: str, ids: list[int]) -> list[int]:
    """Special tokens that a decoder's tokenizer puts before a text, whose own tokens are `ids`."""
    if kind != "causal":
        return []
    whole: list[int] = list(tokenizer(text, verbose=False)["input_ids"])
    start = next((start for start in range(len(whole)) if whole[start : start + len(ids)] == ids), 0)
    return whole[:start]
