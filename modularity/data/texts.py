"""What jobs ask of texts: whole categories of long texts for comparisons, or single texts, for questions about each.

The texts of the similarity study (NickyP and Fowler 2022: news, papers of machine learning, code) are long, and a
category is a property of a whole text: so positions of one text are never independent, and statistics take texts as
their units. Reading is `text_source`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from modularity.config import Config
from modularity.data.function_part import Format
from modularity.data.problems import Problems
from modularity.data.text_source import SHIPPED, SourceText, TextColumns, read_texts
from modularity.errors import InputError


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


class PlainTextsConfig(Config):
    """Single texts, and how many of each category are taken."""

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


def load_plain_texts(config: PlainTextsConfig) -> tuple[SourceText, ...]:
    """Single texts, in the order of the source.

    Raises
    ------
    InputError
        With every file and row that cannot be read, texts that are empty, and names given twice.
    """
    problems = Problems()
    columns = TextColumns(text=config.text, category=config.category, id=config.id)
    found = read_texts(config.source, columns, problems)
    _check_ids(found, problems)
    if not found and not problems.count():
        problems.add("", "no text", f"texts.source={config.source!r} holds no text; expected at least one")
    problems.raise_any()
    return tuple(found[index] for index in first_of_each(found, config.per_category))


def first_of_each(texts: Sequence[SourceText], most: int | None) -> list[int]:
    """Indices of the first `most` texts of each category; None = of all texts."""
    counts: Counter[str] = Counter()
    kept = []
    for index, text in enumerate(texts):
        counts[text.category] += 1
        if most is None or counts[text.category] <= most:
            kept.append(index)
    return kept


def load_texts(config: TextsConfig) -> tuple[SourceText, ...]:
    """All texts of the wanted categories, ordered by category and then as in the source.

    Raises
    ------
    InputError
        With every problem: unreadable files, rows without text or category, repeated ids or texts, wanted categories
        that are missing, fewer than two categories, fewer than two texts in a category.
    """
    problems = Problems()
    found = list(_in_categories(config, problems))
    known = sorted({text.category for text in found})
    wanted = known if config.categories is None else list(config.categories)
    missing = [name for name in wanted if name not in known]
    if missing:
        message = f"categories {missing} are not in {config.source!r}; it has {', '.join(known) or 'none'}"
        problems.add("", "no category", message)
    kept = [text for name in wanted for text in found if text.category == name]
    _check_ids(kept, problems)
    _check_repeats(kept, problems)
    counts = Counter(text.category for text in kept)
    for name in wanted:
        if name in known and counts[name] < 2:
            problems.add(
                "",
                "one text",
                f"category {name!r} has {counts[name]} text in {config.source!r}; expected at least 2, so that two "
                "texts of it can be compared",
            )
    if len(wanted) < 2 and not missing:
        problems.add("", "one category", f"{config.source!r} has the categories {wanted}; expected two or more")
    problems.raise_any()
    return tuple(kept)


def _in_categories(config: TextsConfig, problems: Problems) -> Iterator[SourceText]:
    """Texts of rows, or of a folder in which every category is a folder of files."""
    columns = TextColumns(
        text=config.text_column,
        category=config.category_column,
        id=config.id_column,
        settings=("texts.text_column", "texts.category_column", "texts.id_column"),
        format=config.format,
        tables_in_folders=False,
    )
    for text in read_texts(config.source, columns, problems):
        depth = text.inside.count("/")
        if text.inside and depth == 0:
            place = f"{text.source} stands in no category: put it into the sub-folder of its category"
            problems.add("", "no category", place)
        elif depth > 1:
            place = text.source.rpartition("/")[0]
            problems.add("", "nested", f"{place} is a folder in a folder of texts: expected text files only")
        else:
            yield replace(text, id=text.inside) if text.inside else text


def _check_ids(texts: Sequence[SourceText], problems: Problems) -> None:
    for name, count in Counter(text.id for text in texts).items():
        if count > 1:
            problems.add("", "repeated ids", f"id {name!r} is used by {count} texts; give each its own")


def _check_repeats(texts: Sequence[SourceText], problems: Problems) -> None:
    """Two rows of one text would make any similarity look like one of categories."""
    first: dict[str, SourceText] = {}
    for text in texts:
        other = first.setdefault(text.fingerprint, text)
        if other is not text:
            message = f"{text.source} has the same text as {other.source}; remove one of them"
            problems.add("", "repeated texts", message)
