"""Texts of the words of the tiny models, a tokenizer with a sentinel, and what the tests of pruning share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from modularity.interventions.language_modelling import SENTINEL, TokenTexts, model_batches, run_batch, token_texts
from modularity.interventions.pruning import units_of
from modularity.models import HeadModel, wrap_head_model

Tiny = Callable[..., HeadModel]
TEXTS = ["w1 w2 w3 w4 w5 w6 w7", "w9 w3", "w4 w4 w4 w8 w9 w20 w21 w22 w23 w1", "w5 w6 w30", "w2 w1 w2 w1 w2 w1"]


def sentinel_tokenizer() -> Any:
    """As the tokenizer of words, with a sentinel and the end of a text, which it adds."""
    words = ["[PAD]", "[UNK]", "</s>", SENTINEL, *(f"w{number}" for number in range(44))]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>"
    )


def model_of(tiny: Tiny, name: str) -> HeadModel:
    """A tiny model, encoder-decoders with the sentinel tokenizer."""
    model = tiny(name)
    return model if model.kind != "seq2seq" else wrap_head_model(model.module, sentinel_tokenizer(), name="tiny")


def texts_of(model: HeadModel) -> TokenTexts:
    return token_texts(model.kind, model.base.tokenizer, TEXTS, max_tokens=9)


def logits(model: HeadModel) -> list[torch.Tensor]:
    """Of all texts, batch by batch."""
    with torch.inference_mode():
        return [run_batch(model, batch) for batch in model_batches(model, texts_of(model), tokens_per_batch=24)]


def some_removed(model: HeadModel) -> dict[Any, np.ndarray]:
    """About a third of all units."""
    return {
        kind: np.random.default_rng(seed).random(units.n) < 0.35
        for seed, (kind, units) in enumerate(units_of(model.base).items())
    }


@contextmanager
def nan_at(model: HeadModel, word: str) -> Iterator[None]:
    """The embedding of one word is NaN, as what leaves the range of a dtype becomes."""
    token = model.base.tokenizer.convert_tokens_to_ids(word)

    def spoil(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
        return out.masked_fill((args[0] == token)[..., None], torch.nan)

    handle = model.module.get_input_embeddings().register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()
