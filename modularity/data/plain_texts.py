"""Unlabelled texts: one in each row of a file, or one in each plain file of a folder.

For questions that are asked of single texts, such as the spectrum of a Jacobian. A text may have a category, which is a
column of its row, or the name of the folder that its file lies in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from modularity.config import Config
from modularity.data.files import SourceFile, source_files
from modularity.data.functions import FunctionConfig
from modularity.data.readers import ENDINGS, read_rows
from modularity.errors import InputError
from modularity.types import content_digest

PLAIN_ENDINGS = (".txt", ".md", ".rst", ".py")
"""Endings of files that are one text each."""


class TextsConfig(Config):
    """Where texts are, and how many are taken."""

    source: str | tuple[str, ...] = Field(min_length=1)
    """Files with rows (JSONL, JSON, CSV, TSV, Parquet, Arrow) or plain text, folders of them, globs, URIs, or
    `sample:<name>`; one or several."""
    text: str = "text"
    """Column with the text."""
    category: str | None = None
    """Column with the category; None: the name of the folder for plain files, no category for rows."""
    id: str | None = None
    """Column with a unique name; None: `file:line`, and for plain files the path."""
    per_category: int | None = Field(default=None, ge=1)
    """At most this many texts of each category, the first ones; None: all."""


@dataclass(frozen=True)
class PlainText:
    """One text."""

    id: str
    text: str
    category: str = ""
    """Empty: none."""


def read_texts(config: TextsConfig) -> tuple[PlainText, ...]:
    """All texts, in the order of the source.

    Raises
    ------
    InputError
        With every file and row that cannot be read, texts that are empty, and names given twice.
    """
    problems: list[str] = []
    found: list[PlainText] = []
    for file in _files(config, problems):
        try:
            found += _of_file(file, config, problems)
        except InputError as error:
            problems += error.problems
    seen: set[str] = set()
    for text in found:
        if text.id in seen:
            problems.append(f"two texts are named {text.id!r}; give each its own name in the column `id`")
        seen.add(text.id)
        if not text.text.strip():
            problems.append(f"text {text.id!r} is empty; remove it")
    if not found and not problems:
        problems.append(f"texts.source={config.source!r} holds no text; known endings: {_known()}")
    if problems:
        raise InputError(problems)
    return tuple(_limited(found, config.per_category))


def texts_fingerprint(texts: tuple[PlainText, ...]) -> str:
    """Digest of names, categories and contents."""
    return content_digest([[text.id, text.category, text.text] for text in texts])


def _known() -> str:
    return ", ".join((*PLAIN_ENDINGS, *ENDINGS))


def _files(config: TextsConfig, problems: list[str]) -> Iterator[SourceFile]:
    names: list[str] = []
    for name in (config.source,) if isinstance(config.source, str) else config.source:
        folder = Path(name).expanduser()
        if "://" not in name and folder.is_dir():
            inside = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*PLAIN_ENDINGS, *ENDINGS))
            if not inside:
                problems.append(f"folder {name!r} holds no texts; known endings: {_known()}")
            names += map(str, inside)
        else:
            names.append(name)
    if not names:
        return
    for file in source_files(FunctionConfig.model_construct(source=tuple(names))):
        if isinstance(file, InputError):
            problems += file.problems
        else:
            yield file


def _of_file(file: SourceFile, config: TextsConfig, problems: list[str]) -> list[PlainText]:
    if file.system is not None and file.place.lower().endswith(PLAIN_ENDINGS):
        try:
            content = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{file.place!r} is not UTF-8 (byte {error.start}); convert it") from None
        return [PlainText(file.place, content, Path(file.place).parent.name)]
    rows = read_rows(file, None)
    problems += rows.problems
    wanted = [name for name in (config.text, config.category, config.id) if name is not None]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise InputError(
            f"{file.place!r} has no column {', '.join(map(repr, missing))}; it has {', '.join(rows.columns)}. Name "
            "them with texts.text, texts.category and texts.id"
        )
    return [_of_row(row, place, config, problems) for row, place in zip(rows.values, rows.places, strict=True)]


def _of_row(row: dict[str, Any], place: str, config: TextsConfig, problems: list[str]) -> PlainText:
    text = row.get(config.text)
    if not isinstance(text, str):
        problems.append(f"{place}: {config.text}={text!r} is no text")
        text = "-"
    name = place if config.id is None else str(row.get(config.id))
    return PlainText(name, text, "" if config.category is None else str(row.get(config.category)))


def _limited(texts: list[PlainText], per_category: int | None) -> Iterator[PlainText]:
    counts: dict[str, int] = {}
    for text in texts:
        counts[text.category] = counts.get(text.category, 0) + 1
        if per_category is None or counts[text.category] <= per_category:
            yield text
