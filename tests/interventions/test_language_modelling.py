"""Predictions of plain texts by every kind of head: counts against a plain forward, whatever the batches."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_texts import TEXTS, model_of, nan_at, sentinel_tokenizer

from modularity.errors import InputError, NumericError
from modularity.interventions.language_modelling import (
    IGNORED,
    count_predictions,
    largest_difference,
    token_texts,
)
from modularity.models import HeadModel


@pytest.mark.parametrize("name", ["opt", "llama", "bert", "t5"])
def test_counts_are_those_of_a_plain_forward(tiny: Callable[..., HeadModel], name: str) -> None:
    model = model_of(tiny, name)
    texts = token_texts(model.kind, model.base.tokenizer, TEXTS, max_tokens=9)
    common = texts.commonest(2)
    found = count_predictions(model, texts, common, tokens_per_batch=16)
    for index, text in enumerate(texts.texts):
        arguments = {"input_ids": torch.tensor([text.inputs])}
        if model.kind == "seq2seq":
            arguments["decoder_input_ids"] = torch.tensor([[model.base.decoder_start_id, *text.targets]])
        with torch.no_grad():
            logits_TV = model.module(**arguments).logits[0].double()
        places = [place for place, label in enumerate(text.labels) if label != IGNORED]
        gold = [text.labels[place] for place in places]
        top = logits_TV[places].argsort(dim=1, descending=True, stable=True)
        hits = [[int(answer) for answer in row[:10]].index(want) if want in row[:10] else 10
                for row, want in zip(top, gold)]  # fmt: skip
        uncommon = [want not in common for want in gold]
        assert found.n_tokens[index] == len(gold)
        assert found.n_top1[index] == sum(hit == 0 for hit in hits)
        assert found.n_top10[index] == sum(hit < 10 for hit in hits)
        assert found.n_uncommon[index] == sum(uncommon)
        assert found.n_top1_uncommon[index] == sum(hit == 0 and rare for hit, rare in zip(hits, uncommon))
        expected = torch.nn.functional.cross_entropy(logits_TV[places], torch.tensor(gold), reduction="sum")
        assert found.loss[index] == pytest.approx(float(expected), rel=1e-5)


def test_what_is_asked_of_each_kind(tiny: Callable[..., HeadModel]) -> None:
    tokenizer = sentinel_tokenizer()
    (half,) = token_texts("seq2seq", tokenizer, ["w1 w2 w3 w4 w5"], max_tokens=9).texts
    assert half.inputs == (5, 6, 3, 2)
    assert half.targets == (3, 7, 8)
    assert half.labels == (IGNORED, 7, 8, 9)
    (causal,) = token_texts("causal", tokenizer, ["w1 w2"], max_tokens=9).texts
    assert (causal.inputs, causal.labels) == ((5, 6, 2), (6, 2, IGNORED))
    masked = token_texts("masked", tiny("bert").base.tokenizer, TEXTS, max_tokens=9)
    for text in masked.texts:
        asked = [place for place, label in enumerate(text.labels) if label != IGNORED]
        assert len(asked) == max(1, round(0.15 * len(text.inputs)))
        assert {text.inputs[place] for place in asked} == {4}
    again = token_texts("masked", tiny("bert").base.tokenizer, TEXTS[::-1], max_tokens=9)
    assert again.texts[::-1] == masked.texts


def test_cut_and_short_texts_are_counted_and_budgets_kept() -> None:
    texts = token_texts("causal", sentinel_tokenizer(), [*TEXTS, ""], max_tokens=5)
    assert (texts.n_truncated, texts.n_dropped, len(texts.texts)) == (3, 1, 5)
    assert {text.inputs[-1] for text in texts.texts} == {2}
    assert len(texts.first(8).texts) == 2
    assert len(texts.first(1).texts) == 1
    assert texts.first(10**6).fingerprint == texts.fingerprint != texts.first(1).fingerprint
    assert texts.commonest(1).tolist() == [2]


def test_equal_logits_go_to_the_lower_token(tiny: Callable[..., HeadModel]) -> None:
    model = tiny("opt", tie_word_embeddings=False)
    with torch.no_grad():
        model.module.lm_head.weight.zero_()
    texts = token_texts("causal", model.base.tokenizer, ["w1 w4 w5 w6", "w1 w2 w3"], max_tokens=9)
    found = count_predictions(model, texts, np.array([]), tokens_per_batch=64)
    assert found.n_top1.tolist() == [0, 0]
    assert found.n_top10.tolist() == [1, 2]  # tokens 9, 10, 11 and 7, 8
    assert found.loss == pytest.approx(found.n_tokens * np.log(48))


def test_difference_of_two_models(tiny: Callable[..., HeadModel]) -> None:
    one, other = tiny("opt"), tiny("opt")
    texts = token_texts("causal", one.base.tokenizer, TEXTS, max_tokens=9)
    assert largest_difference(one, other, texts)[0] == 0.0
    with torch.no_grad():
        other.module.get_output_embeddings().weight.mul_(1.5)
    difference, largest, n_tokens = largest_difference(one, other, texts)
    assert difference > 0.1
    assert largest > 0
    assert n_tokens == sum(len(text.split()) - 1 for text in TEXTS) - 1  # one text is cut


def test_tokenizers_that_do_not_fit_are_named(tiny: Callable[..., HeadModel]) -> None:
    with pytest.raises(InputError, match="has no token '<extra_id_0>'"):
        token_texts("seq2seq", tiny("opt").base.tokenizer, TEXTS, max_tokens=9)
    with pytest.raises(InputError, match="has no mask token"):
        token_texts("masked", sentinel_tokenizer(), TEXTS, max_tokens=9)
    with pytest.raises(InputError, match="none of 1 texts has a token to predict"):
        token_texts("causal", tiny("opt").base.tokenizer, ["w1"], max_tokens=9)


def test_a_text_on_which_the_model_gives_nan_is_named_and_not_counted_as_right(tiny: Callable[..., HeadModel]) -> None:
    model = model_of(tiny, "opt")
    texts = token_texts("causal", model.base.tokenizer, TEXTS, max_tokens=9)
    with nan_at(model, "w6"):
        with pytest.raises(NumericError, match=r"text 0, which begins 'w1 w2 w3.*load it as float32"):
            count_predictions(model, texts, texts.commonest(2), tokens_per_batch=16)
        with pytest.raises(NumericError, match="the models cannot be compared"):
            largest_difference(model, model, texts)
