"""Plain texts without labels, in two disjoint halves: what routers learn from and a language model is measured on.

They are read by the readers of functions; the result is a function without any sub-function.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
from pydantic import Field

from modularity.config import Config
from modularity.data.files import source_files
from modularity.data.function_part import Columns, Format, SourceHalves
from modularity.data.functions import Example, FunctionConfig, FunctionData, Half, Pooling
from modularity.data.problems import Problems, RowError
from modularity.data.readers import read_rows
from modularity.data.row_values import text_value
from modularity.errors import InputError
from modularity.types import canonical_json, content_digest


class HalvedTextsConfig(Config):
    """Texts without labels."""

    name: str = Field(default="texts", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    """Name in all tables."""
    source: str | tuple[str, ...] | SourceHalves
    """Path, glob, fsspec URI, a list of these, or one entry for each half; without halves each text is put into one by
    its hash, so that equally many are in both."""
    column: str = "text"
    """Column with the text."""
    format: Format | None = None
    """Format of the files; None = from the ending of each name."""
    seed: int = Field(default=0, ge=0)
    """Seed of the halves."""


def load_halved_texts(configs: Iterable[HalvedTextsConfig]) -> tuple[FunctionData, ...]:
    """Read and check texts.

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
    problems = Problems()
    found = [_load(config, problems) for config in configs]
    problems.raise_any()
    return tuple(each for each in found if each is not None)


def _load(config: HalvedTextsConfig, problems: Problems) -> FunctionData | None:
    read = _read(config, problems)
    if problems.count(config.name):
        return None
    by_text: dict[str, tuple[str, Half | None]] = {}
    dropped: Counter[str] = Counter()
    for text, place, half in read:
        if text not in by_text:
            by_text[text] = (place, half)
            continue
        dropped["repeated texts"] += 1
        if half == "evaluation":
            by_text[text] = (by_text[text][0], half)
    texts = list(by_text)
    selection_E = _halves(config, by_text)
    for half, size in (("selection", int(selection_E.sum())), ("evaluation", int((~selection_E).sum()))):
        if not size:
            problems.add(config.name, "empty half", f"no text is left in the {half} half; give more texts")
    if problems.count(config.name):
        return None
    examples = tuple(
        Example(place, text, None, None, None, place, _fingerprint(text)) for text, (place, _) in by_text.items()
    )
    return FunctionData(
        name=config.name,
        kind="other",
        subfunctions=(),
        examples=examples,
        labels_SE=np.zeros((0, len(texts)), np.int8),
        selection_E=selection_E,
        cluster_E=np.arange(len(texts), dtype=np.int32),
        fingerprint=content_digest([[e.fingerprint for e in examples], selection_E.tolist()]),
        pooling=Pooling(),
        notes=tuple(f"{config.name}: {count} left out: {reason}" for reason, count in sorted(dropped.items())),
    )


def _read(config: HalvedTextsConfig, problems: Problems) -> list[tuple[str, str, Half | None]]:
    """Text, place and declared half of every row."""
    opened = FunctionConfig(
        name=config.name, source=config.source, format=config.format, columns=Columns(text=config.column)
    )
    found = []
    for file in source_files(opened):
        try:
            if isinstance(file, InputError):
                raise file  # a name that leads nowhere is a problem like an unreadable file
            rows = read_rows(file, config.format, wanted=[config.column])
        except InputError as error:
            problems.add(config.name, "file", str(error))
            continue
        for message in rows.problems:
            problems.add(config.name, "unreadable row", message)
        if rows.values and config.column not in rows.columns:
            known = ", ".join(rows.columns)
            problems.add(config.name, "no column", f"{rows.place} has no column {config.column!r}; known are {known}")
            continue
        for values, place in zip(rows.values, rows.places):
            try:
                found.append((text_value(values, config.column), place, file.half))
            except RowError as error:
                problems.add(config.name, error.kind, f"{place}: {error}")
    return found


def _halves(config: HalvedTextsConfig, by_text: dict[str, tuple[str, Half | None]]) -> np.ndarray:
    """Whether each text is in the selection half: as declared, or the one half by their hashes."""
    declared = [half for _, half in by_text.values()]
    if any(half is not None for half in declared):
        return np.array([half == "selection" for half in declared], dtype=bool)
    keys = [hashlib.sha256(canonical_json([config.seed, "half", text]).encode()).hexdigest() for text in by_text]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    selection_E = np.zeros(len(keys), dtype=bool)
    selection_E[order[: len(keys) // 2]] = True
    return selection_E


def _fingerprint(text: str) -> str:
    """As that of examples with labels, so that equal texts are noticed."""
    return hashlib.sha256(canonical_json([text, None]).encode()).hexdigest()[:16]
