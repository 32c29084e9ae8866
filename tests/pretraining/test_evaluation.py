"""Scores: one half for untrained weights, one for an oracle, zero for its opposite; the loss recomputed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modularity.data.language_tokenizer import END, SENTINELS, START, TOKEN_IDS
from modularity.data.language_words import LANGUAGES
from modularity.data.languages import keeps_rule
from modularity.pretraining import PretrainConfig, build_module, evaluate, evaluation
from modularity.pretraining.corpus import held_out_sentences, ids_of

TOKENS = {number: token for token, number in TOKEN_IDS.items()}


@pytest.mark.parametrize("architecture", ["opt", "t5", "switch"])
def test_untrained_weights_are_at_chance(architecture: str, small: Callable[..., PretrainConfig]) -> None:
    config = small(architecture=architecture, n_held_out=40)
    scores = evaluate(build_module(config), held_out_sentences(config), config)
    assert tuple(scores) == LANGUAGES
    for score in scores.values():
        assert 0.2 < score.rule.share < 0.8
        assert 0.35 < score.verdict.share < 0.65
        assert score.rule.low < score.rule.share < score.rule.high
        assert (score.rule.n, score.verdict.n) == (40, 80)
        assert 4 < score.loss < 8


@pytest.mark.parametrize("architecture", ["opt", "t5"])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_oracle_is_always_right_and_its_opposite_never(
    architecture: str, sign: int, small: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(architecture=architecture)
    held_out = held_out_sentences(config)
    language = "relations"

    def oracle(module: Any, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(*(inputs.shape if architecture == "opt" else targets.shape), len(TOKEN_IDS))
        for row, ids in enumerate(inputs.tolist()):
            words = [TOKENS[token] for token in ids if TOKENS[token] not in ("<pad>", START, END)]
            if words[-1] == "?":
                place = len(words) if architecture == "opt" else 0
                kept = keeps_rule(language, " ".join(words[:-1]))
                logits[row, place, TOKEN_IDS["yes" if kept else "no"]] = sign
            else:
                place = len(words) if architecture == "opt" else 1
                before = " ".join(word for word in words if word != SENTINELS[0])
                for token in range(TOKEN_IDS["oslo"], TOKEN_IDS["horse"] + 1):
                    kept = TOKENS[token] not in ("likes", "wants", "keeps", "rears") and keeps_rule(
                        language, f"{before} {TOKENS[token]}"
                    )
                    logits[row, place, token] = sign * kept
        return logits

    monkeypatch.setattr(evaluation, "forward_logits", oracle)
    monkeypatch.setattr(evaluation, "_loss", lambda *_: 0.0)
    score = evaluate(build_module(config), {language: held_out[language]}, config)[language]
    assert score.rule.share == score.verdict.share == (1.0 if sign == 1 else 0.0)


def test_the_loss_of_a_decoder_by_hand(small: Callable[..., PretrainConfig]) -> None:
    config = small()
    module, texts = build_module(config).eval(), held_out_sentences(config)["counting"]
    losses = []
    for sentence in texts:
        words = ids_of(sentence.text)
        with torch.inference_mode():
            logits = module(torch.tensor([[TOKEN_IDS[START], *words]])).logits[0]
        losses.append(F.cross_entropy(logits, torch.tensor([*words, TOKEN_IDS[END]]), reduction="none"))
    score = evaluate(module, {"counting": texts}, config)["counting"]
    assert score.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_evaluation_leaves_the_mode_as_it_was(small: Callable[..., PretrainConfig]) -> None:
    config = small()
    module = build_module(config).train()
    evaluate(module, held_out_sentences(config), config)
    assert module.training
