"""Sentences as arrays of token ids, with what is to be predicted: next words, left-out spans, verdicts.

Next word (Radford et al. 2018) for decoders. Of encoder-decoders (Raffel et al. 2020, arXiv 1910.10683, section 3.1.4)
15 % of the tokens are left out, in spans of three. Sentences are short here: two spans of one or two words are left out
of half of them, and of the others all that follows a random place, which teaches more of the rules in as many steps. A
judged sentence ends in a question mark, and its verdict is to be said; the word that breaks a rule is never a target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from modularity.data.language_tokenizer import END, PAD, SENTINELS, START, TOKEN_IDS
from modularity.data.language_words import LANGUAGES, NO, QUESTION, YES
from modularity.data.languages import Sentence, sentences
from modularity.pretraining.config import PretrainConfig

MAX_TOKENS = 32
"""Longest input of the models; no sentence with its marks is longer than 20 tokens."""
IGNORED = -100
_N_SPANS, _LONGEST_SPAN = 2, 2
_REST_SHARE = 0.5
Ids = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Corpus:
    """N texts, padded with 0; `targets_NU` are what is predicted at each place, -100 where nothing is."""

    inputs_NT: Ids
    """Tokens that a decoder reads, or an encoder."""
    targets_NU: Ids
    """Decoders: the next token of each place (U = T). Encoder-decoders: what the decoder writes."""
    next_word: bool
    """Whether the targets are those of a decoder."""

    def __len__(self) -> int:
        return len(self.inputs_NT)

    def rows(self, index: npt.NDArray[np.integer] | slice) -> "Corpus":
        """Some of the texts, cut to the longest of them."""
        inputs, targets = self.inputs_NT[index], self.targets_NU[index]
        n_inputs = int(np.flatnonzero((inputs != 0).any(axis=0))[-1]) + 1
        n_targets = n_inputs if self.next_word else int(np.flatnonzero((targets != IGNORED).any(axis=0))[-1]) + 1
        return Corpus(inputs[:, :n_inputs], targets[:, :n_targets], self.next_word)


def training_corpus(config: PretrainConfig) -> Corpus:
    """Training sentences of all languages, in equal shares; the same for a config."""
    generator = np.random.default_rng([config.seed, 1])
    texts = islice(sentences(seed=config.seed), config.n_sentences)
    return encode(_lessons(texts, config, generator), config, generator)


def plain_corpus(texts: Sequence[Sentence], config: PretrainConfig) -> Corpus:
    """The given sentences, none of them judged; what is left out of each is the same in every call."""
    return encode([(sentence, None) for sentence in texts], config, np.random.default_rng([config.seed, 2]))


def held_out_sentences(config: PretrainConfig) -> dict[str, list[Sentence]]:
    """Held-out sentences of each language."""
    return {
        name: list(islice(sentences(seed=config.seed, languages=(name,), side="held_out"), config.n_held_out))
        for name in LANGUAGES
    }


Lesson = tuple[Sentence, bool | None]
"""A sentence, and whether it is shown with its right word (verdict yes), its wrong one (no), or not judged (None)."""


def _lessons(texts: Iterator[Sentence], config: PretrainConfig, generator: np.random.Generator) -> list[Lesson]:
    draws = generator.random((config.n_sentences, 2)).tolist()
    return [
        (sentence, judged[1] < 0.5 if judged[0] < config.verdict_share else None)
        for sentence, judged in zip(texts, draws)
    ]


def encode(lessons: Sequence[Lesson], config: PretrainConfig, generator: np.random.Generator) -> Corpus:
    """Arrays of lessons, as the architecture of `config` reads them."""
    next_word = config.architecture == "opt"
    make = _next_word if next_word else _left_out
    pairs = [make(*lesson, generator) for lesson in lessons]
    n_inputs = max(len(inputs) for inputs, _ in pairs)
    n_targets = n_inputs if next_word else max(len(targets) for _, targets in pairs)
    inputs_NT = np.full((len(pairs), n_inputs), TOKEN_IDS[PAD], np.int16)
    targets_NU = np.full((len(pairs), n_targets), IGNORED, np.int16)
    for row, (inputs, targets) in enumerate(pairs):
        inputs_NT[row, : len(inputs)] = inputs
        targets_NU[row, : len(targets)] = targets
    return Corpus(inputs_NT, targets_NU, next_word)


def ids_of(text: str) -> list[int]:
    """Token ids of a text, without marks around it."""
    return [TOKEN_IDS[word] for word in text.split()]


def _next_word(sentence: Sentence, kept: bool | None, _: np.random.Generator) -> tuple[list[int], list[int]]:
    if kept is None:
        words = ids_of(sentence.text)
        return [TOKEN_IDS[START], *words], [*words, TOKEN_IDS[END]]
    question = ids_of(f"{sentence.probe(kept=kept)} {QUESTION}")
    words = [word if kept or place != sentence.critical else IGNORED for place, word in enumerate(question)]
    return [TOKEN_IDS[START], *question], [*words, _verdict(kept)]


def _left_out(sentence: Sentence, kept: bool | None, generator: np.random.Generator) -> tuple[list[int], list[int]]:
    if kept is not None:
        question = ids_of(f"{sentence.probe(kept=kept)} {QUESTION}")
        return [*question, TOKEN_IDS[END]], [_verdict(kept), TOKEN_IDS[END]]
    words = ids_of(sentence.text)
    *draws, rest, cut = generator.random(2 * _N_SPANS + 2).tolist()
    if rest < _REST_SHARE:
        place, mark = 1 + int(cut * (len(words) - 1)), TOKEN_IDS[SENTINELS[0]]
        return [*words[:place], mark, TOKEN_IDS[END]], [mark, *words[place:], TOKEN_IDS[END]]
    part = len(words) // _N_SPANS
    inputs: list[int] = []
    targets: list[int] = []
    done = 0
    for span in range(_N_SPANS):
        length = 1 + int(draws[2 * span] * _LONGEST_SPAN)
        last = len(words) if span == _N_SPANS - 1 else (span + 1) * part
        start = span * part + int(draws[2 * span + 1] * (last - span * part - length + 1))
        mark = TOKEN_IDS[SENTINELS[span]]
        inputs += [*words[done:start], mark]
        targets += [mark, *words[start : start + length]]
        done = start + length
    return [*inputs, *words[done:], TOKEN_IDS[END]], [*targets, TOKEN_IDS[END]]


def _verdict(kept: bool) -> int:
    return TOKEN_IDS[YES if kept else NO]
