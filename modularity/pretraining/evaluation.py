"""What a model has learnt of each language, on held-out minimal pairs: its loss, the rule, the verdict.

Rule: the right critical word has a higher logit than the wrong one, where the model has to say that word: at the word
before it (decoders), or in its place in a text with that word left out (encoder-decoders). Verdict: after the text and
a question mark, `yes` has a higher logit than `no` if and only if the rule is kept. Both have a chance of one half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from modularity.config import Config
from modularity.data.language_tokenizer import END, SENTINELS, START, TOKEN_IDS
from modularity.data.language_words import NO, QUESTION, YES
from modularity.data.languages import Sentence
from modularity.pretraining.config import PretrainConfig
from modularity.pretraining.corpus import IGNORED, Corpus, ids_of, plain_corpus
from modularity.pretraining.modules import forward_logits
from modularity.stats import wilson_interval

_BATCH = 512


class Accuracy(Config):
    """Share of right answers, with Wilson's interval."""

    share: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: int
    """Answers; chance is one half."""


class LanguageScore(Config):
    """How well one language is known."""

    loss: float
    """Mean cross-entropy of the tokens of held-out sentences, in nats; of encoder-decoders, of left-out spans."""
    rule: Accuracy
    """The right critical word above the wrong one."""
    verdict: Accuracy
    """`yes` for texts that keep the rule, `no` for those that break it; the two texts of a pair count apart."""


@dataclass(frozen=True)
class _Probe:
    """A text, the place of the answer, and two tokens to compare there."""

    inputs: list[int]
    place: int
    right: int
    wrong: int


def evaluate(
    module: nn.Module, held_out: Mapping[str, Sequence[Sentence]], config: PretrainConfig
) -> dict[str, LanguageScore]:
    """Scores of every language.

    Parameters
    ----------
    module : model with its head, of the architecture of `config`
    held_out : sentences of each language
    config : the training
    """
    was_training = module.training
    module.eval()
    with torch.inference_mode():
        scores = {
            name: LanguageScore(
                loss=_loss(module, plain_corpus(texts, config)),
                rule=_accuracy(module, [_rule_probe(text, config) for text in texts], config),
                verdict=_accuracy(
                    module, [_verdict_probe(text, kept, config) for text in texts for kept in (True, False)], config
                ),
            )
            for name, texts in held_out.items()
        }
    module.train(was_training)
    return scores


def _rule_probe(sentence: Sentence, config: PretrainConfig) -> _Probe:
    before = ids_of(" ".join(sentence.words[: sentence.critical]))
    right, wrong = TOKEN_IDS[sentence.words[sentence.critical]], TOKEN_IDS[sentence.alternative]
    if config.architecture == "opt":
        return _Probe([TOKEN_IDS[START], *before], len(before), right, wrong)
    after = ids_of(" ".join(sentence.words[sentence.critical + 1 :]))
    return _Probe([*before, TOKEN_IDS[SENTINELS[0]], *after, TOKEN_IDS[END]], 1, right, wrong)


def _verdict_probe(sentence: Sentence, kept: bool, config: PretrainConfig) -> _Probe:
    question = ids_of(f"{sentence.probe(kept=kept)} {QUESTION}")
    answers = (TOKEN_IDS[YES], TOKEN_IDS[NO]) if kept else (TOKEN_IDS[NO], TOKEN_IDS[YES])
    if config.architecture == "opt":
        return _Probe([TOKEN_IDS[START], *question], len(question), *answers)
    return _Probe([*question, TOKEN_IDS[END]], 0, *answers)


def _accuracy(module: nn.Module, probes: Sequence[_Probe], config: PretrainConfig) -> Accuracy:
    device = next(module.parameters()).device
    n_right = 0
    for start in range(0, len(probes), _BATCH):
        batch = probes[start : start + _BATCH]
        inputs = torch.zeros(len(batch), max(len(probe.inputs) for probe in batch), dtype=torch.int64)
        for row, probe in enumerate(batch):
            inputs[row, : len(probe.inputs)] = torch.tensor(probe.inputs)
        # The decoder is given its start and the first sentinel; its first place does not see the second.
        targets = torch.tensor([[TOKEN_IDS[SENTINELS[0]], TOKEN_IDS[END]]] * len(batch))
        logits = forward_logits(module, inputs.to(device), targets.to(device)).float().cpu()
        places = torch.tensor([probe.place for probe in batch])
        answers = logits[torch.arange(len(batch)), places]
        right = answers.gather(1, torch.tensor([[probe.right] for probe in batch]))
        wrong = answers.gather(1, torch.tensor([[probe.wrong] for probe in batch]))
        n_right += int((right > wrong).sum())
    interval = wilson_interval(n_right, len(probes))
    return Accuracy(share=interval.estimate, low=interval.low, high=interval.high, n=len(probes))


def _loss(module: nn.Module, corpus: Corpus) -> float:
    device = next(module.parameters()).device
    total, n_tokens = 0.0, 0
    for start in range(0, len(corpus), _BATCH):
        batch = corpus.rows(slice(start, start + _BATCH))
        targets = torch.from_numpy(batch.targets_NU).to(device, torch.int64)
        logits = forward_logits(module, torch.from_numpy(batch.inputs_NT).to(device, torch.int64), targets)
        losses = F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        total += float(losses.double().sum())
        n_tokens += int(np.count_nonzero(batch.targets_NU != IGNORED))
    return total / n_tokens
