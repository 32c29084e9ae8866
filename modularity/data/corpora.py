"""Plain texts without labels: corpora of one category each, cut into disjoint parts, and texts in two halves.

`planted:NAME` makes held-out sentences of a planted language. Texts that stand twice are kept once; what stands in two
corpora belongs to neither, and all that is left out is counted. Reading is `text_source`.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from modularity.config import Config
from modularity.data.function_part import Format, SourceHalves
from modularity.data.functions import FunctionData, Half, Pooling
from modularity.data.language_words import LANGUAGES
from modularity.data.languages import sentences
from modularity.data.problems import Problems
from modularity.data.text_source import EMPTY, SourceText, TextColumns, read_texts, unlabelled
from modularity.errors import InputError
from modularity.types import canonical_json, content_digest

PLANTED = "planted:"
_SEED_OF_PLANTED = 7919
"""Seed of planted sentences: other draws than those of the functions and of the training of the shipped series."""
_MOST_DRAWS = 200
"""Sentences that are drawn at most for one that is wanted: a language has so many and no more."""


class CorpusConfig(Config):
    """Where the texts of one category are."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name of the category in all tables."""
    source: str | tuple[str, ...] = Field(min_length=1)
    """Files, folders, globs or URIs, or `planted:agreement` and its like; several are put together."""
    text: str = "text"
    """Column of tables that holds the text."""
    lines: bool = False
    """Files that are no tables hold one text a line; otherwise each is one text."""
    max_texts: int | None = Field(default=None, ge=1)
    """At most this many texts, drawn once and for all; None = all, and 2,000 sentences of each planted language."""
    seed: int = Field(default=0, ge=0)
    """Seed of that draw, and of planted sentences."""


@dataclass(frozen=True)
class Corpus:
    """The texts of one category."""

    name: str
    texts: tuple[str, ...]
    """Different texts, none of them blank, in the order of the source."""
    notes: tuple[str, ...]
    """What was left out and why, with counts."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all texts."""
        return content_digest([self.name, *self.texts])


def load_corpora(configs: Sequence[CorpusConfig]) -> tuple[Corpus, ...]:
    """Read corpora, each text in one of them only.

    Raises
    ------
    InputError
        Everything that is wrong with any of them: names, sources, rows without a text, corpora without texts.
    """
    problems = Problems("corpus")
    for name, count in Counter(config.name for config in configs).items():
        if count > 1:
            problems.add("", "name", f"{count} corpora are named {name!r}; give each its own name")
    left_out: list[Counter[str]] = [Counter() for _ in configs]
    found = [_distinct(config, problems, reasons) for config, reasons in zip(configs, left_out)]
    problems.raise_any()
    seen = Counter(text for texts in found for text in texts)
    corpora = []
    for config, texts, reasons in zip(configs, found, left_out):
        own = [text for text in texts if seen[text] == 1]
        reasons["also in another corpus"] += len(texts) - len(own)
        notes = tuple(
            f"{config.name}: {count:,} texts left out: {why}" for why, count in sorted(reasons.items()) if count
        )
        corpora.append(Corpus(config.name, tuple(own), notes))
    return tuple(corpora)


def split_texts(corpus: Corpus, shares: Mapping[str, float], *, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Disjoint parts of a corpus; the part of a text depends on its content, not on the other texts.

    Parameters
    ----------
    corpus : the texts
    shares : by name of a part, its share of the texts; together 1
    seed : another seed cuts differently

    Returns
    -------
    parts : the texts of each part, in an order that depends on their content only: the first of them are as good as
        drawn, from whichever source they come
    """
    names, edges = list(shares), np.cumsum(list(shares.values()))
    parts: dict[str, list[tuple[bytes, str]]] = {name: [] for name in names}
    for text in corpus.texts:
        digest = hashlib.sha256(f"{seed} {text}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        name = names[min(int(np.searchsorted(edges, place, side="right")), len(names) - 1)]
        parts[name].append((digest[8:], text))
    return {name: tuple(text for _, text in sorted(keyed)) for name, keyed in parts.items()}


def _distinct(config: CorpusConfig, problems: Problems, reasons: Counter[str]) -> dict[str, None]:
    """Different texts of all sources, in order, at most as many as the config allows."""
    sources = (config.source,) if isinstance(config.source, str) else config.source
    before = problems.count()
    texts: dict[str, None] = {}
    for text in _of_sources(sources, config, problems, reasons):
        if text.text in texts:
            reasons["repeated"] += 1
        texts[text.text] = None
    if not texts and problems.count() == before:
        problems.add(config.name, "no text", f"{', '.join(sources)} holds no text; expected at least one")
    if config.max_texts is None or len(texts) <= config.max_texts:
        return texts
    every = list(texts)
    kept = np.sort(np.random.default_rng(config.seed).permutation(len(every))[: config.max_texts])
    reasons[f"beyond max_texts={config.max_texts}"] += len(every) - len(kept)
    return dict.fromkeys(every[index] for index in kept)


def _of_sources(
    sources: Sequence[str], config: CorpusConfig, problems: Problems, reasons: Counter[str]
) -> Iterator[SourceText]:
    columns = TextColumns(text=config.text, settings=("text",) * 3, plain="lines" if config.lines else "whole")
    for source in sources:
        if source.startswith(PLANTED):
            try:
                yield from _planted(source.removeprefix(PLANTED), config)
            except InputError as error:
                problems.add(config.name, "planted", str(error))
            continue
        read = Problems("corpus")
        yield from read_texts(source, columns, read, owner=config.name)
        reasons["blank"] += read.take(config.name, EMPTY)
        problems.extend(read)


def _planted(language: str, config: CorpusConfig) -> Iterator[SourceText]:
    if language not in LANGUAGES:
        raise InputError(f"{PLANTED}{language}: no such language; expected one of {', '.join(LANGUAGES)}")
    wanted = config.max_texts or 2000
    seen: set[str] = set()
    for drawn, sentence in enumerate(
        sentences(seed=_SEED_OF_PLANTED + config.seed, languages=(language,), side="held_out")
    ):
        if drawn >= _MOST_DRAWS * wanted:
            raise InputError(
                f"{PLANTED}{language} gave {len(seen)} different sentences in {drawn} draws, {wanted} are wanted; "
                f"set max_texts={len(seen)} or less"
            )
        if sentence.text not in seen:
            seen.add(sentence.text)
            yield SourceText("", sentence.text, language, language)
        if len(seen) == wanted:
            return


class HalvedTextsConfig(Config):
    """Texts without labels."""

    name: str = Field(default="texts", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name in all tables."""
    source: str | tuple[str, ...] | SourceHalves
    """Path, folder, glob, fsspec URI, a list of these, or one entry for each half; without halves each text is put into
    one by its hash, so that equally many are in both."""
    column: str = "text"
    """Column with the text."""
    format: Format | None = None
    """Format of the files; None = from the ending of each name."""
    seed: int = Field(default=0, ge=0)
    """Seed of the halves."""


def load_halved_texts(configs: Iterable[HalvedTextsConfig]) -> tuple[FunctionData, ...]:
    """Read and check texts in two halves: what routers learn from, and what a language model is measured on.

    A repeated text is used once, and in the evaluation half where it stands in both; how many were dropped is in the
    notes.

    Parameters
    ----------
    configs : with different names

    Returns
    -------
    functions : without sub-functions, in the order of the configs

    Raises
    ------
    InputError
        Everything that is wrong with any of them: files, columns, rows (`file:line`), a half without a text.
    """
    problems = Problems("texts")
    found = [_halved(config, problems) for config in configs]
    problems.raise_any()
    return tuple(each for each in found if each is not None)


def _halved(config: HalvedTextsConfig, problems: Problems) -> FunctionData | None:
    columns = TextColumns(text=config.column, settings=("column",) * 3, format=config.format)
    read = read_texts(config.source, columns, problems, owner=config.name)
    if problems.count(config.name):
        return None
    by_text: dict[str, SourceText] = {}
    for text in read:
        first = by_text.setdefault(text.text, text)
        if text.half == "evaluation" != first.half:
            by_text[text.text] = replace(first, half=text.half)
    selection_E = _halves(config, [(text.text, text.half) for text in by_text.values()])
    for half, size in (("selection", int(selection_E.sum())), ("evaluation", int((~selection_E).sum()))):
        if not size:
            problems.add(config.name, "empty half", f"no text is left in the {half} half; give more texts")
    if problems.count(config.name):
        return None
    n_dropped = len(read) - len(by_text)
    function = unlabelled(config.name, list(by_text.values()), Pooling(), selection_E)
    return replace(function, notes=(f"{config.name}: {n_dropped} left out: repeated texts",) if n_dropped else ())


def _halves(config: HalvedTextsConfig, texts: Sequence[tuple[str, Half | None]]) -> np.ndarray:
    """Whether each text is in the selection half: as declared, or the one half by their hashes."""
    if any(half is not None for _, half in texts):
        return np.array([half == "selection" for _, half in texts], dtype=bool)
    keys = [hashlib.sha256(canonical_json([config.seed, "half", text]).encode()).hexdigest() for text, _ in texts]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    selection_E = np.zeros(len(keys), dtype=bool)
    selection_E[order[: len(keys) // 2]] = True
    return selection_E
