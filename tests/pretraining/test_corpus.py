"""What a model reads and has to say, by hand; the words that break a rule are never to be said."""

from collections.abc import Callable

import numpy as np
import pytest

from modularity.data.language_tokenizer import END, START, TOKEN_IDS
from modularity.data.language_words import NO, YES
from modularity.data.languages import Sentence
from modularity.pretraining import PretrainConfig
from modularity.pretraining.corpus import (
    IGNORED,
    MAX_TOKENS,
    encode,
    held_out_sentences,
    ids_of,
    plain_corpus,
    training_corpus,
)

SENTENCE = Sentence("relations", ("so", "ada", "lives", "now", "oslo"), 4, "lima", "home")
RNG = np.random.default_rng(0)


def test_a_decoder_says_the_next_word(small: Callable[..., PretrainConfig]) -> None:
    corpus = encode([(SENTENCE, None)], small(), RNG)
    words = ids_of("so ada lives now oslo")
    assert corpus.inputs_NT.tolist() == [[TOKEN_IDS[START], *words]]
    assert corpus.targets_NU.tolist() == [[*words, TOKEN_IDS[END]]]


def test_a_decoder_judges_and_does_not_learn_the_wrong_word(small: Callable[..., PretrainConfig]) -> None:
    corpus = encode([(SENTENCE, True), (SENTENCE, False)], small(), RNG)
    assert corpus.inputs_NT.tolist() == [
        [TOKEN_IDS[START], *ids_of("so ada lives now oslo ?")],
        [TOKEN_IDS[START], *ids_of("so ada lives now lima ?")],
    ]
    assert corpus.targets_NU.tolist() == [
        [*ids_of("so ada lives now oslo ?"), TOKEN_IDS[YES]],
        [*ids_of("so ada lives now"), IGNORED, *ids_of("? no")],
    ]


def test_an_encoder_decoder_fills_in_and_judges(small: Callable[..., PretrainConfig]) -> None:
    corpus = encode([(SENTENCE, False), *[(SENTENCE, None)] * 40], small(architecture="t5"), RNG)
    rows = [
        ([token for token in inputs if token], [token for token in targets if token != IGNORED])
        for inputs, targets in zip(corpus.inputs_NT.tolist(), corpus.targets_NU.tolist())
    ]
    assert rows[0] == ([*ids_of("so ada lives now lima ?"), TOKEN_IDS[END]], [TOKEN_IDS[NO], TOKEN_IDS[END]])
    marks = [TOKEN_IDS["<extra_id_0>"], TOKEN_IDS["<extra_id_1>"]]
    n_spans = []
    for inputs, targets in rows[1:]:
        assert inputs[-1] == targets[-1] == TOKEN_IDS[END]
        starts = [targets.index(mark) for mark in marks if mark in targets]
        ends = [*starts[1:], len(targets) - 1]
        filled = {targets[start]: targets[start + 1 : end] for start, end in zip(starts, ends)}
        assert [word for token in inputs[:-1] for word in filled.get(token, [token])] == ids_of(SENTENCE.text)
        n_spans.append(len(starts))
    assert set(n_spans) == {1, 2}


@pytest.mark.parametrize("architecture", ["opt", "t5"])
def test_a_corpus_is_that_of_its_config(architecture: str, small: Callable[..., PretrainConfig]) -> None:
    one, two = (training_corpus(small(architecture=architecture, n_sentences=400)) for _ in range(2))
    assert np.array_equal(one.inputs_NT, two.inputs_NT)
    assert np.array_equal(one.targets_NU, two.targets_NU)
    assert not np.array_equal(
        one.inputs_NT, training_corpus(small(architecture=architecture, n_sentences=400, seed=1)).inputs_NT
    )
    assert max(one.inputs_NT.shape[1], one.targets_NU.shape[1]) <= MAX_TOKENS
    kept, broken = ((one.targets_NU == TOKEN_IDS[word]).any(axis=1).mean() for word in (YES, NO))
    assert 0.15 < kept < 0.35
    assert 0.15 < broken < 0.35


def test_rows_are_cut_to_the_longest(small: Callable[..., PretrainConfig]) -> None:
    corpus = training_corpus(small(architecture="t5"))
    short = corpus.rows(np.array([3]))
    assert short.inputs_NT.shape == (1, (corpus.inputs_NT[3] != 0).sum())
    assert short.targets_NU.shape == (1, (corpus.targets_NU[3] != IGNORED).sum())


def test_held_out_texts_are_not_trained_on(small: Callable[..., PretrainConfig]) -> None:
    config = small(n_sentences=2000)
    held_out = [sentence for texts in held_out_sentences(config).values() for sentence in texts]
    rows = {tuple(row[row != 0].tolist()) for row in training_corpus(config).inputs_NT}
    assert not rows & {tuple(row[row != 0].tolist()) for row in plain_corpus(held_out, config).inputs_NT}
