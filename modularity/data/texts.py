"""Texts in categories: read from a folder (one sub-folder for each category), from rows of a file, or as shipped.

The texts of the similarity study (NickyP and Fowler 2022: news, papers of machine learning, code) are long, and a
category is a property of a whole text: so positions of one text are never independent, and statistics take texts as
their units. The shipped texts are our own: `samples/README.md`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

import fsspec
from pydantic import Field, field_validator, model_validator

from modularity.config import Config
from modularity.data.files import SAMPLE, SourceFile, open_file
from modularity.data.function_part import Format
from modularity.data.problems import LISTED
from modularity.data.readers import read_rows
from modularity.errors import InputError
from modularity.types import content_digest

SHIPPED = f"{SAMPLE}texts"


def positions_of(text: str) -> tuple[int, ...]:
    """Positions that `start:stop:step` names as a slice does: `475:512:4` is 475, 479, …, 511; `-4:0` is -4, …, -1.

    Raises
    ------
    InputError
        The text is not of this form, or names no position.
    """
    parts = text.split(":")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] < 1):
        raise InputError(f"positions={text!r}: expected start:stop or start:stop:step with a step from 1 up, 475:512:4")
    found = tuple(range(*numbers))
    if not found:
        raise InputError(f"positions={text!r} names no position: the first must be below the second number")
    return found


class TextsConfig(Config):
    """Texts in categories, the length to which they are cut, and the positions that become rows."""

    source: str = Field(default=SHIPPED, min_length=1)
    """A folder with one sub-folder of text files for each category; a file of rows (JSONL, CSV, Parquet …) or a
    `sample:<name>`; `sample:texts` are the shipped texts."""
    format: Format | None = None
    """Format of a file of rows; None: by its ending."""
    text_column: str = "text"
    """Column of a file of rows that holds the text."""
    category_column: str = "category"
    """Column of a file of rows that holds the category."""
    id_column: str | None = None
    """Column with the name of each text; None: its place in the file."""
    categories: tuple[str, ...] | None = Field(default=None, min_length=2)
    """Categories to use, in this order; None: all, in the order of their names."""
    per_category: int | None = Field(default=None, ge=2)
    """At most so many texts of each category, the first ones; None: all."""
    length: int = Field(default=512, ge=1)
    """Tokens that every text is cut to, special tokens counted."""
    positions: str | tuple[int, ...] = "475:512:4"
    """Token positions that become rows: `start:stop:step`, or a list; negative ones count from the end."""
    too_short: Literal["error", "leave_out"] = "error"
    """What to do with texts of fewer tokens than `length`: refuse with a list of them, or leave them out and count."""

    @field_validator("positions", mode="before")
    @classmethod
    def _not_a_number(cls, value: Any) -> Any:
        """YAML 1.1 takes an unquoted 1:6 for a number of base 60, which is 66."""
        if isinstance(value, int):
            raise ValueError(  # noqa: TRY004 - pydantic turns a ValueError into a message
                "one number; YAML reads an unquoted 1:6 as 66: quote it ('\"1:6\"'), or give a list [1, 2]"
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            positions = self.position_list()
        except InputError as error:
            raise ValueError(str(error)) from None
        problems = []
        outside = [p for p in positions if not -self.length <= p < self.length]
        if outside:
            problems.append(f"positions {outside} lie outside of texts of length={self.length} tokens")
        elif len({p % self.length for p in positions}) < len(positions):
            problems.append(f"positions={self.positions!r} name a token twice")
        if self.categories is not None and len(set(self.categories)) < len(self.categories):
            problems.append(f"categories={list(self.categories)} name a category twice")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def position_list(self) -> tuple[int, ...]:
        """The positions as numbers; InputError where the text names none."""
        return positions_of(self.positions) if isinstance(self.positions, str) else self.positions


@dataclass(frozen=True)
class CategoryText:
    """One text with its category."""

    id: str
    """Unique among the texts."""
    text: str
    category: str
    source: str
    """File, or `file:line`, where it stands."""


def load_texts(config: TextsConfig) -> tuple[CategoryText, ...]:
    """All texts of the wanted categories, ordered by category and then as in the source.

    Raises
    ------
    InputError
        With every problem: unreadable files, rows without text or category, repeated ids or texts, wanted categories
        that are missing, fewer than two categories, fewer than two texts in a category.
    """
    problems: list[str] = []
    found = list(_read(config, problems))
    known = sorted({text.category for text in found})
    wanted = known if config.categories is None else list(config.categories)
    missing = [name for name in wanted if name not in known]
    if missing:
        problems.append(f"categories {missing} are not in {config.source!r}; it has {', '.join(known) or 'none'}")
    kept = [text for name in wanted for text in found if text.category == name]
    problems += _repeated(kept)
    counts = Counter(text.category for text in kept)
    problems += [
        f"category {name!r} has {counts[name]} text in {config.source!r}; expected at least 2, so that two texts of it "
        "can be compared"
        for name in wanted
        if name in known and counts[name] < 2
    ]
    if len(wanted) < 2 and not missing:
        problems.append(f"{config.source!r} has the categories {wanted}; expected two or more")
    if problems:
        raise InputError(problems)
    return tuple(kept)


def _read(config: TextsConfig, problems: list[str]) -> Iterator[CategoryText]:
    if config.source == SHIPPED:
        yield from _read_folder(shipped_folder(), "sample:texts", problems)
        return
    if not config.source.startswith(SAMPLE):
        try:
            system, path = fsspec.core.url_to_fs(str(Path(config.source).expanduser()) if "://" not in config.source
                                                 else config.source)  # fmt: skip
            is_folder = system.isdir(path)
        except Exception as error:  # unknown protocol, package of the protocol missing, no connection
            problems.append(f"texts.source={config.source!r} cannot be opened ({type(error).__name__}: {error})")
            return
        if is_folder:
            yield from _read_folder(config.source, config.source.rstrip("/"), problems)
            return
    try:
        rows = read_rows(open_file(config.source), config.format)
    except InputError as error:
        problems.extend(error.problems)
        return
    problems.extend(rows.problems)
    yield from _rows_as_texts(config, rows.columns, list(zip(rows.values, rows.places)), problems)


def shipped_folder() -> str:
    """Folder of the texts in categories that ship with the package."""
    return str(resources.files("modularity.data") / "samples" / "texts")


def _read_folder(folder: str, place: str, problems: list[str]) -> Iterator[CategoryText]:
    system, root = fsspec.core.url_to_fs(folder)
    for entry in sorted(system.ls(root, detail=True), key=lambda each: each["name"]):
        category = entry["name"].rstrip("/").rpartition("/")[2]
        if category.startswith("."):
            continue
        if entry["type"] != "directory":
            problems.append(f"{place}/{category} stands in no category: put it into the sub-folder of its category")
            continue
        for file in sorted(system.ls(entry["name"], detail=True), key=lambda each: each["name"]):
            name = file["name"].rpartition("/")[2]
            if name.startswith("."):
                continue
            shown = f"{place}/{category}/{name}"
            if file["type"] == "directory":
                problems.append(f"{shown} is a folder in a folder of texts: expected text files only")
                continue
            try:
                text = SourceFile(shown, None, system, file["name"]).read().decode("utf-8")
            except InputError as error:
                problems.extend(error.problems)
            except UnicodeDecodeError as error:
                problems.append(f"{shown} is not UTF-8 text ({error.reason} at byte {error.start}); convert it")
            else:
                if text.strip():
                    yield CategoryText(f"{category}/{name}", text, category, shown)
                else:
                    problems.append(f"{shown} is empty; remove it")


def _rows_as_texts(
    config: TextsConfig, columns: list[str], rows: list[tuple[dict[str, Any], str]], problems: list[str]
) -> Iterator[CategoryText]:
    wanted = {config.text_column: "text_column", config.category_column: "category_column"}
    if config.id_column is not None:
        wanted[config.id_column] = "id_column"
    missing = [name for name in wanted if name not in columns]
    if missing:
        problems.extend(
            f"{config.source!r} has no column {name!r}, but {', '.join(map(repr, columns))}: set texts.{wanted[name]}"
            for name in missing
        )
        return
    bad = []
    for values, place in rows:
        text, category = values.get(config.text_column), values.get(config.category_column)
        if not isinstance(text, str) or not text.strip() or category is None or not str(category).strip():
            bad.append(f"{place}: text or category is missing or empty")
            continue
        name = place if config.id_column is None else str(values.get(config.id_column))
        yield CategoryText(name, text, str(category), place)
    problems.extend(bad[:LISTED])
    if len(bad) > LISTED:
        problems.append(f"{config.source}: and {len(bad) - LISTED} more rows without text or category")


def _repeated(texts: list[CategoryText]) -> list[str]:
    """Two rows of one text would make any similarity look like one of categories."""
    first: dict[str, CategoryText] = {}
    ids: Counter[str] = Counter(text.id for text in texts)
    problems = [f"id {name!r} is used by {count} texts; give each its own" for name, count in ids.items() if count > 1]
    repeats = []
    for text in texts:
        other = first.setdefault(content_digest(text.text), text)
        if other is not text:
            repeats.append(f"{text.source} has the same text as {other.source}; remove one of them")
    more = [f"and {len(repeats) - LISTED} more repeated texts"] if len(repeats) > LISTED else []
    return problems + repeats[:LISTED] + more
