"""Planted languages: five small formal languages, so that what a model has to learn from them is known.

| language | what a sentence is | the rule |
|---|---|---|
| agreement | two nouns of different classes and a verb | the verb has the form of the first noun's class |
| brackets | nested pairs of words | what was opened last is closed first |
| counting | words that count, words that do not, a number | the number is the count modulo three |
| relations | a name, a relation, an object | the object is the one that the facts give to the name |
| senses | words of a topic, an ambiguous word, what follows it | it follows from the word in the sense of that topic |

Core words, shared by all languages, are scattered over every sentence. Each sentence has one critical word, which the
words before it determine, and a wrong word for the same place; in no language does the wrong word show without its
context, because each is right elsewhere as often. A sentence is for training or held out by a hash of its core words
and their places, so that a sentence, its violation and its other sense are on the same side.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from modularity.data import language_words as lexicon
from modularity.errors import InputError

Side = Literal["training", "held_out"]
SHORTEST, LONGEST = 8, 10
"""Words of a sentence up to its critical word; brackets go on until all are closed."""
_HELD_OUT_OF_256 = 26
_N_DRAWS = 48


@dataclass(frozen=True)
class Sentence:
    """A sentence that keeps the rule of its language, and the word that would break it."""

    language: str
    words: tuple[str, ...]
    critical: int
    """Place of the word that the words before it determine."""
    alternative: str
    """Word that breaks the rule in that place."""
    group: str
    """The relation, the ambiguous word; elsewhere the language."""
    topic: str = ""
    """Senses: topic of the sentence."""

    def probe(self, *, kept: bool = True) -> str:
        """The text up to the critical word, with the right word there or (`kept=False`) the wrong one."""
        last = self.words[self.critical] if kept else self.alternative
        return " ".join((*self.words[: self.critical], last))

    @property
    def text(self) -> str:
        """The whole sentence."""
        return " ".join(self.words)

    @property
    def held_out(self) -> bool:
        """Whether the sentence is kept out of training (about one in ten is)."""
        pattern = " ".join(word if word in _CORE else "_" for word in self.words[: self.critical])
        return hashlib.sha256(f"{self.language} {pattern}".encode()).digest()[0] < _HELD_OUT_OF_256


_CORE = frozenset(lexicon.CORE)


class _Draws:
    """Draws for one sentence, from one call of the generator: a sentence costs the same number of random values."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._values = iter(generator.random(_N_DRAWS).tolist())

    def below(self, n: int) -> int:
        """Whole number from 0 to n - 1."""
        return int(next(self._values) * n)

    def one(self, words: Sequence[str]) -> str:
        """One of the words."""
        return words[self.below(len(words))]

    def some(self, words: Sequence[str], n: int) -> list[str]:
        """`n` different words, in random order."""
        left = list(words)
        return [left.pop(self.below(len(left))) for _ in range(n)]


@dataclass(frozen=True)
class _Content:
    """What a sentence says, without its core words; the last word is the critical one."""

    words: list[str]
    alternative: str
    group: str
    topic: str = ""
    after: tuple[str, ...] = ()
    """What follows the critical word in the whole sentence."""


def _agreement(draws: _Draws) -> _Content:
    right, wrong = draws.some(list(lexicon.NOUNS), 2)
    stem = draws.one(lexicon.STEMS)
    nouns = [draws.one(lexicon.NOUNS[right]), draws.one(lexicon.NOUNS[wrong])]
    return _Content([*nouns, stem + right], stem + wrong, "agreement")


def _brackets(draws: _Draws) -> _Content:
    """Two or three kinds; cut at a closing word with another bracket open."""
    kinds = draws.some([str(kind) for kind in range(len(lexicon.BRACKETS))], 2 + draws.below(2))
    pairs = [lexicon.BRACKETS[int(kind)] for kind in kinds]
    words, open_now = [pairs[0][0], pairs[1][0]], [pairs[0], pairs[1]]
    if len(pairs) == 3:
        if draws.below(2):  # a ( b ( b ) c ( … : the second is closed before the third opens
            words.append(open_now.pop()[1])
        words.append(pairs[2][0])
        open_now.append(pairs[2])
    right = open_now.pop()
    wrong = open_now[draws.below(len(open_now))]
    after = tuple(pair[1] for pair in reversed(open_now))
    return _Content([*words, right[1]], wrong[1], "brackets", after=after)


def _counting(draws: _Draws) -> _Content:
    count, n_decoys = 1 + draws.below(6), draws.below(3)
    words = [draws.one(lexicon.TICKS) for _ in range(count)]
    for _ in range(n_decoys):
        words.insert(draws.below(len(words) + 1), draws.one(lexicon.DECOYS))
    right = count % 3
    wrong = (right + 1 + draws.below(2)) % 3
    return _Content([*words, lexicon.NUMBERS[right]], lexicon.NUMBERS[wrong], "counting")


def _relations(draws: _Draws) -> _Content:
    relation = draws.one(list(lexicon.RELATIONS))
    verbs, objects = lexicon.RELATIONS[relation]
    name = draws.one(lexicon.NAMES)
    right = lexicon.FACTS[relation][name]
    wrong = draws.one([word for word in objects if word != right])
    return _Content([name, draws.one(verbs), right], wrong, relation)


def _senses(draws: _Draws) -> _Content:
    """Two cues of the topic and one of a topic that the word does not have, in any order."""
    word = draws.one(list(lexicon.SENSES))
    followers = lexicon.SENSES[word]
    topic, other = draws.some(list(followers), 2)
    strange = draws.one([name for name in lexicon.CUES if name not in followers])
    cues = draws.some(lexicon.CUES[topic], 2)
    cues.insert(draws.below(3), draws.one(lexicon.CUES[strange]))
    return _Content([*cues, word, followers[topic]], followers[other], word, topic)


_MAKERS: dict[str, Callable[[_Draws], _Content]] = {
    "agreement": _agreement,
    "brackets": _brackets,
    "counting": _counting,
    "relations": _relations,
    "senses": _senses,
}


def make_sentence(language: str, generator: np.random.Generator) -> Sentence:
    """One sentence of a language, for training or held out as its core words have it.

    Raises
    ------
    InputError
        Not one of `LANGUAGES`.
    """
    if language not in _MAKERS:
        raise InputError(f"language {language!r} is not planted; expected one of {', '.join(_MAKERS)}")
    draws = _Draws(generator)
    content = _MAKERS[language](draws)
    length = SHORTEST + draws.below(LONGEST - SHORTEST + 1)
    n_core = max(length - len(content.words), 2)
    slots: list[list[str]] = [[] for _ in content.words]
    for _ in range(n_core):
        slots[draws.below(len(slots))].append(draws.one(lexicon.CORE))
    words: list[str] = []
    for core, word in zip(slots, content.words):
        words += [*core, word]
    return Sentence(
        language, (*words, *content.after), len(words) - 1, content.alternative, content.group, content.topic
    )


def sentences(
    *, seed: int, languages: Sequence[str] = lexicon.LANGUAGES, side: Side = "training", group: str | None = None
) -> Iterator[Sentence]:
    """An endless stream of sentences, mixed in equal shares, the same for a seed.

    Parameters
    ----------
    seed : seed of the stream
    languages : which languages to mix
    side : `training`, or `held_out`: no sentence of one side has the core words of one of the other side
    group : only sentences of this relation or ambiguous word; None = all

    Raises
    ------
    InputError
        A language or a group that does not exist.
    """
    _check_group(languages, group)
    generator = np.random.default_rng([seed, int(side == "held_out")])
    while True:
        sentence = make_sentence(languages[int(generator.random() * len(languages))], generator)
        if sentence.held_out == (side == "held_out") and group in (None, sentence.group):
            yield sentence


def _check_group(languages: Sequence[str], group: str | None) -> None:
    known = {
        "relations": tuple(lexicon.RELATIONS),
        "senses": tuple(lexicon.SENSES),
    }
    groups = [name for language in languages for name in known.get(language, (language,))]
    if not languages or (group is not None and group not in groups):
        raise InputError(
            f"group={group!r} in the languages {list(languages)}: expected one of {', '.join(groups) or 'none'}"
        )


def other_sense(sentence: Sentence) -> Sentence:
    """The sentence with the cues of the other topic of its ambiguous word, and what then follows.

    Raises
    ------
    InputError
        A sentence of another language than `senses`.
    """
    if sentence.language != "senses":
        raise InputError(f"a sentence of {sentence.language!r} has no senses; expected one of 'senses'")
    followers = lexicon.SENSES[sentence.group]
    (other,) = set(followers) - {sentence.topic}
    exchanged = dict(zip(lexicon.CUES[sentence.topic], lexicon.CUES[other]))
    exchanged[followers[sentence.topic]] = followers[other]
    return replace(
        sentence,
        words=tuple(exchanged.get(word, word) for word in sentence.words),
        alternative=followers[sentence.topic],
        topic=other,
    )


def keeps_rule(language: str, probe: str) -> bool:
    """Whether a text up to its critical word keeps the rule of its language: an independent reading of the rule.

    Parameters
    ----------
    language : one of `LANGUAGES`
    probe : as `Sentence.probe` gives it

    Raises
    ------
    InputError
        Not one of `LANGUAGES`.
    """
    if language not in _READERS:
        raise InputError(f"language {language!r} is not planted; expected one of {', '.join(_READERS)}")
    return _READERS[language]([word for word in probe.split() if word not in _CORE])


def _agreement_kept(words: list[str]) -> bool:
    return words[0] in lexicon.NOUNS[words[-1][-1]]


def _brackets_kept(words: list[str]) -> bool:
    closes = {pair[1]: pair[0] for pair in lexicon.BRACKETS}
    open_now: list[str] = []
    for word in words:
        if word not in closes:
            open_now.append(word)
        elif not open_now or open_now.pop() != closes[word]:
            return False
    return True


def _counting_kept(words: list[str]) -> bool:
    return sum(word in lexicon.TICKS for word in words) % 3 == lexicon.NUMBERS.index(words[-1])


def _relations_kept(words: list[str]) -> bool:
    name, verb, found = words
    (relation,) = (relation for relation, (verbs, _) in lexicon.RELATIONS.items() if verb in verbs)
    return lexicon.FACTS[relation][name] == found


def _senses_kept(words: list[str]) -> bool:
    *cues, word, follower = words
    topic = {name: topic for topic, name in lexicon.SENSES[word].items()}[follower]
    return sum(cue in lexicon.CUES[topic] for cue in cues) == 2


_READERS: dict[str, Callable[[list[str]], bool]] = {
    "agreement": _agreement_kept,
    "brackets": _brackets_kept,
    "counting": _counting_kept,
    "relations": _relations_kept,
    "senses": _senses_kept,
}
