"""The planted languages: rules kept and broken, nothing that a single word gives away, sides, streams."""

from itertools import islice

import numpy as np
import pytest

from modularity.data import language_words as lexicon
from modularity.data.languages import (
    LONGEST,
    SHORTEST,
    Sentence,
    keeps_rule,
    make_sentence,
    other_sense,
    sentences,
)
from modularity.errors import InputError

STREAM = list(islice(sentences(seed=4), 6000))
each_language = pytest.mark.parametrize("language", lexicon.LANGUAGES)


def of(language: str) -> list[Sentence]:
    return [sentence for sentence in STREAM if sentence.language == language]


@each_language
def test_the_right_word_keeps_the_rule_and_the_wrong_one_breaks_it(language: str) -> None:
    for sentence in of(language):
        assert keeps_rule(language, sentence.probe())
        assert not keeps_rule(language, sentence.probe(kept=False))


@pytest.mark.parametrize(
    ("language", "kept", "broken"),
    [
        ("agreement", "so wolf now axe mova", "so wolf now axe movo"),
        ("brackets", "open lend now return", "open lend now shut"),
        ("brackets", "open lend return lock free", "open lend return lock shut"),
        ("counting", "knock lull drip beat knock one", "knock lull drip beat knock two"),
        ("relations", "ada lives oslo", "ada lives lima"),
        ("senses", "water goal shore bank mud", "water goal shore bank vault"),
    ],
)
def test_rules_by_hand(language: str, kept: str, broken: str) -> None:
    assert keeps_rule(language, kept)
    assert not keeps_rule(language, broken)


def test_shares_are_equal_and_lengths_alike() -> None:
    counts = np.array([len(of(language)) for language in lexicon.LANGUAGES])
    assert np.all(abs(counts - 1200) < 4 * np.sqrt(6000 * 0.2 * 0.8))
    lengths = [np.mean([sentence.critical + 1 for sentence in of(language)]) for language in lexicon.LANGUAGES]
    assert np.ptp(lengths) < 0.45  # counting is a little longer: up to nine words of its own
    assert all(SHORTEST <= s.critical + 1 <= LONGEST + 1 for s in STREAM)
    assert max(len(s.words) for s in STREAM) <= LONGEST + 3


@each_language
def test_no_single_word_tells_the_language(language: str) -> None:
    here = np.array([sentence.language == language for sentence in STREAM])
    word_sets = [set(sentence.words) for sentence in STREAM]
    for word in lexicon.WORDS:
        present = np.array([word in words for words in word_sets])
        auroc = 0.5 + abs(present[here].mean() - present[~here].mean()) / 2
        assert auroc < 0.76, word


@each_language
def test_right_and_wrong_words_are_alike_without_their_context(language: str) -> None:
    """The best guess from the word alone: how often each word is right among its uses as right or wrong word."""
    found = of(language)
    right, wrong = [s.words[s.critical] for s in found], [s.alternative for s in found]
    best = sum(max(right.count(word), wrong.count(word)) for word in set(right + wrong))
    assert best / (2 * len(found)) < 0.56


def test_core_words_stand_everywhere_equally_often() -> None:
    shares = np.array(
        [[sum(s.words.count(w) for s in of(language)) for w in lexicon.CORE] for language in lexicon.LANGUAGES]
    )
    shares = shares / shares.sum(axis=1, keepdims=True)
    assert np.all(abs(shares - 1 / len(lexicon.CORE)) < 0.02)


def test_words_belong_to_one_list_and_objects_to_two_names() -> None:
    assert len(set(lexicon.WORDS)) == len(lexicon.WORDS)
    for relation, facts in lexicon.FACTS.items():
        objects = list(facts.values())
        assert {objects.count(word) for word in lexicon.RELATIONS[relation][1]} == {2}


def test_a_stream_is_that_of_its_seed() -> None:
    assert list(islice(sentences(seed=4), 50)) == STREAM[:50]
    assert list(islice(sentences(seed=5), 50)) != STREAM[:50]


def test_the_sides_share_no_text() -> None:
    held_out = list(islice(sentences(seed=4, side="held_out"), 500))
    assert all(sentence.held_out for sentence in held_out)
    assert not any(sentence.held_out for sentence in STREAM)
    assert not {s.probe() for s in held_out} & {s.probe() for s in STREAM}
    assert 0.05 < np.mean([make_sentence("senses", np.random.default_rng(i)).held_out for i in range(2000)]) < 0.15


def test_the_other_sense_differs_in_cues_and_follower_only() -> None:
    for sentence in of("senses")[:200]:
        other = other_sense(sentence)
        assert keeps_rule("senses", other.probe())
        assert not keeps_rule("senses", other.probe(kept=False))
        assert {sentence.topic, other.topic} == set(lexicon.SENSES[sentence.group])
        assert sum(a != b for a, b in zip(sentence.words, other.words)) == 3
        assert other_sense(other) == sentence
        assert other.held_out == sentence.held_out


def test_a_group_only() -> None:
    found = islice(sentences(seed=0, languages=("relations",), group="fruit"), 30)
    assert {sentence.group for sentence in found} == {"fruit"}


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="language 'latin' is not planted; expected one of agreement, brackets"):
        make_sentence("latin", np.random.default_rng(0))
    with pytest.raises(InputError, match="language 'latin' is not planted"):
        keeps_rule("latin", "ada lives oslo")
    with pytest.raises(InputError, match=r"group='owner' in the languages .*: expected one of home, fruit, animal"):
        next(sentences(seed=0, languages=("relations",), group="owner"))
    with pytest.raises(InputError, match="a sentence of 'counting' has no senses"):
        other_sense(of("counting")[0])
