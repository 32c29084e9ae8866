"""Texts in categories as tokens of one length, and their controls: random tokens, and the same tokens in random order.

A control keeps the length, the categories, the positions and the special tokens of every text. Random tokens are drawn
uniformly from the ordinary vocabulary: what similarity is left comes from positions and from the special tokens.
Shuffled tokens keep what words a text has: what goes beyond is due to their order.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from modularity.data.functions import Example, FunctionData, Pooling
from modularity.data.positions import LISTED
from modularity.data.text_source import SourceText, texts_fingerprint
from modularity.data.texts import TextsConfig, first_of_each
from modularity.data.token_batch import TokenTable
from modularity.data.tokenise import Tokenizer, tokenise
from modularity.errors import InputError
from modularity.types import content_digest

TEXTS = "texts"
Control = Literal["random_tokens", "shuffled_tokens"]


class Vocabulary(Protocol):
    """What the random tokens need to know of a tokenizer."""

    all_special_ids: list[int]

    def __len__(self) -> int:
        """Number of tokens."""


@dataclass(frozen=True, eq=False)
class CutTexts:
    """Texts of one length, or a control of them."""

    function: FunctionData
    """The texts as examples; its sub-functions are the categories, each against the rest."""
    table: TokenTable
    """Tokens and rows; rows are ordered by text, then as the positions are declared."""
    n_whole_E: np.ndarray
    """int64: tokens of each text before it was cut."""
    notes: tuple[str, ...] = ()
    """What was left out, with counts."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories."""
        return self.function.subfunctions

    @property
    def category_E(self) -> np.ndarray:
        """int64: number of the category of each text."""
        return np.argmax(self.function.labels_SE, axis=0)


def cut_texts(texts: Sequence[SourceText], tokenizer: Tokenizer, config: TextsConfig) -> CutTexts:
    """Cut texts to the wanted length and take the declared positions as rows.

    Raises
    ------
    InputError
        Texts are too short (each is listed, up to 20, then counted), or, where these are left out, fewer than two
        texts of a category remain.
    """
    whole = tokenise(_function(texts, config), tokenizer, max_tokens=None, pooling=Pooling(kind="mean"))
    long_E = whole.lengths_E >= config.length
    notes: list[str] = []
    if not long_E.all():
        short = [(text, int(n)) for text, n, is_long in zip(texts, whole.lengths_E, long_E) if not is_long]
        if config.too_short == "error":
            raise InputError(_too_short(short, config))
        notes.append(f"{len(short)} of {len(texts)} texts have fewer than {config.length} tokens and were left out")
    long = np.flatnonzero(long_E).tolist()
    chosen = [long[place] for place in first_of_each([texts[index] for index in long], config.per_category)]
    n_more = int(long_E.sum()) - len(chosen)
    if n_more:
        notes.append(f"{n_more} texts beyond the first {config.per_category} of their category were not used")
    kept = [texts[index] for index in chosen]
    counts = Counter(text.category for text in kept)
    few = [name for name in dict.fromkeys(text.category for text in texts) if counts[name] < 2]
    if few:
        raise InputError(
            [f"category {name!r} has {counts[name]} texts of {config.length} tokens or more; expected at least 2: "
             "lower texts.length, or give longer texts" for name in few]
        )  # fmt: skip
    if len(set(counts.values())) > 1:
        notes.append(f"categories differ in size: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    function = _function(kept, config)
    return CutTexts(
        function, tokenise(function, tokenizer, max_tokens=config.length), whole.lengths_E[chosen], tuple(notes)
    )


def _too_short(short: Sequence[tuple[SourceText, int]], config: TextsConfig) -> list[str]:
    remedy = "give a longer text, lower texts.length, or set texts.too_short=leave_out"
    found = [f"{text.source}: {n} tokens, expected at least {config.length}; {remedy}" for text, n in short[:LISTED]]
    if len(short) > LISTED:
        found.append(f"and {len(short) - LISTED} more texts of fewer than {config.length} tokens")
    return found


def _function(texts: Sequence[SourceText], config: TextsConfig) -> FunctionData:
    categories = tuple(dict.fromkeys(text.category for text in texts))
    number_E = np.array([categories.index(text.category) for text in texts])
    examples = tuple(Example(text.id, text.text, None, None, None, text.source, text.fingerprint) for text in texts)
    return FunctionData(
        name=TEXTS,
        kind="other",
        subfunctions=categories,
        examples=examples,
        labels_SE=(number_E == np.arange(len(categories))[:, None]).astype(np.int8),
        selection_E=np.ones(len(texts), bool),
        cluster_E=np.arange(len(texts), dtype=np.int32),
        fingerprint=texts_fingerprint(texts),
        pooling=Pooling(kind="positions", positions=config.position_list()),
    )


def control_texts(texts: CutTexts, control: Control, vocabulary: Vocabulary, *, n_ids: int, seed: int) -> CutTexts:
    """The same texts with other tokens at every place that holds an ordinary token.

    Parameters
    ----------
    texts : as cut
    control : `random_tokens`, or `shuffled_tokens`, within each text
    vocabulary : the tokenizer
    n_ids : rows of the model's input embedding; no drawn token is beyond
    seed : seed of the draws

    Raises
    ------
    InputError
        The vocabulary has no ordinary token.
    """
    special = set(vocabulary.all_special_ids)
    table = texts.table
    generator = np.random.default_rng([seed, ("random_tokens", "shuffled_tokens").index(control)])
    ids = table.token_ids.copy()
    is_ordinary = ~np.isin(ids, sorted(special))
    if control == "random_tokens":
        ids[is_ordinary] = generator.choice(_ordinary(special, min(n_ids, len(vocabulary))), size=is_ordinary.sum())
    else:
        for start, stop in zip(table.offsets_E1[:-1], table.offsets_E1[1:]):
            places = start + np.flatnonzero(is_ordinary[start:stop])
            ids[places] = generator.permutation(ids[places])
    digest = hashlib.sha256(f"{table.fingerprint} {control}".encode() + ids.tobytes()).hexdigest()[:16]
    return CutTexts(
        replace(texts.function, name=control, fingerprint=content_digest([texts.function.fingerprint, control, seed])),
        replace(table, token_ids=ids.astype(np.int32), fingerprint=digest),
        texts.n_whole_E,
    )


def _ordinary(special: Collection[int], n_ids: int) -> np.ndarray:
    ordinary = np.array([token for token in range(n_ids) if token not in special], dtype=np.int32)
    if not len(ordinary):
        raise InputError(f"the vocabulary of {n_ids} tokens has special tokens only; random tokens need ordinary ones")
    return ordinary
