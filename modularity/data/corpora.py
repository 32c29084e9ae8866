"""Plain texts of one category (code, news, one language), without labels, cut into disjoint parts.

A source is a file, a folder, a glob or a URI: tables (`.jsonl`, `.csv`, `.parquet` …) give one text a row, every other
file is one text, or with `lines` one text a line. `planted:NAME` makes held-out sentences of a planted language. Texts
that stand twice are kept once; what stands in two corpora belongs to neither, and all that is left out is counted.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import fsspec
import numpy as np
from pydantic import Field

from modularity.config import Config
from modularity.data.files import SourceFile, open_file
from modularity.data.language_words import LANGUAGES
from modularity.data.languages import sentences
from modularity.data.readers import ENDINGS, read_rows
from modularity.errors import InputError
from modularity.types import content_digest

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
    problems = [
        f"{count} corpora are named {name!r}; give each its own name"
        for name, count in Counter(config.name for config in configs).items()
        if count > 1
    ]
    found: list[dict[str, None]] = []
    left_out: list[Counter[str]] = []
    for config in configs:
        reasons: Counter[str] = Counter()
        try:
            found.append(_distinct(config, reasons))
        except InputError as error:
            problems += [f"corpus {config.name!r}: {problem}" for problem in error.problems]
        left_out.append(reasons)
    if problems:
        raise InputError(problems)
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


def _distinct(config: CorpusConfig, reasons: Counter[str]) -> dict[str, None]:
    """Different texts of all sources, in order, at most as many as the config allows."""
    sources = (config.source,) if isinstance(config.source, str) else config.source
    problems: list[str] = []
    texts: dict[str, None] = {}
    for source in sources:
        try:
            for text in _texts(source, config):
                if not text.strip():
                    reasons["blank"] += 1
                elif text in texts:
                    reasons["repeated"] += 1
                else:
                    texts[text] = None
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    if not texts:
        raise InputError(f"{', '.join(sources)} holds no text; expected at least one")
    if config.max_texts is None or len(texts) <= config.max_texts:
        return texts
    every = list(texts)
    kept = np.sort(np.random.default_rng(config.seed).permutation(len(every))[: config.max_texts])
    reasons[f"beyond max_texts={config.max_texts}"] += len(every) - len(kept)
    return dict.fromkeys(every[index] for index in kept)


def _texts(source: str, config: CorpusConfig) -> Iterator[str]:
    if source.startswith(PLANTED):
        yield from _planted(source.removeprefix(PLANTED), config)
        return
    for file in _files(source):
        if _is_table(file.path):
            yield from _column(file, config)
        else:
            try:
                text = file.read().decode("utf-8")
            except UnicodeDecodeError as error:
                raise InputError(f"{file.place!r} is not UTF-8 ({error}); convert it, or leave it out") from None
            yield from text.splitlines() if config.lines else (text,)


def _planted(language: str, config: CorpusConfig) -> Iterator[str]:
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
            yield sentence.text
        if len(seen) == wanted:
            return


def _files(source: str) -> list[SourceFile]:
    """Files of a source in order; those below a folder where it is one, hidden ones left out."""
    try:
        system, path = fsspec.core.url_to_fs(os.path.expanduser(source))
        names = sorted(system.find(path)) if system.isdir(path) else sorted(system.glob(path)) if "*" in source else []
    except Exception as error:  # file systems raise classes of their own
        raise InputError(f"{source!r} cannot be opened ({type(error).__name__}: {error}); check the path") from error
    if not names:
        return [open_file(source)]
    return [
        SourceFile(f"{source}: {os.path.basename(name)}", None, system, name)
        for name in names
        if not os.path.basename(name).startswith(".") and system.isfile(name)
    ]


def _is_table(path: str) -> bool:
    name = path.lower()
    for ending in (".gz", ".bz2", ".xz", ".zst"):
        name = name.removesuffix(ending)
    return name.endswith(tuple(ENDINGS))


def _column(file: SourceFile, config: CorpusConfig) -> list[str]:
    rows = read_rows(file, None)
    problems = list(rows.problems)
    texts = []
    for value, place in zip(rows.values, rows.places):
        text = value.get(config.text)
        if isinstance(text, str):
            texts.append(text)
        else:
            known = ", ".join(rows.columns)
            problems.append(f"{place}: column {config.text!r} holds {text!r}, expected a text; columns are {known}")
    if problems:
        shown = problems[:20]
        raise InputError([*shown, f"and {len(problems) - 20} more"] if len(problems) > 20 else shown)
    return texts
