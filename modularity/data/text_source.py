"""Plain texts from any source: the one reader behind the texts in categories, of tight passes, corpora and routers.

A source is a file, a folder, a glob, an fsspec URI or a `sample:<name>`. Tables (`.jsonl`, `.csv`, `.parquet` …) give a
text a row; every other file is one text, or one a line. All problems have their file and line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import numpy as np

from modularity.data.files import SAMPLE, SourceFile, files_below
from modularity.data.function_part import Format, SourceHalves
from modularity.data.functions import Example, FunctionData, Half, Pooling
from modularity.data.problems import Problems, RowError
from modularity.data.readers import decode, format_of_ending, read_rows
from modularity.data.row_values import name_value, text_value
from modularity.errors import InputError
from modularity.types import content_digest

SHIPPED = f"{SAMPLE}texts"
"""The texts in categories that ship with the package, see `samples/README.md`."""
EMPTY = "empty text"
"""Kind of the problem that a text holds white space at most."""
Source = str | tuple[str, ...] | SourceHalves


@dataclass(frozen=True)
class SourceText:
    """One text."""

    id: str
    """What its column says, else `source`."""
    text: str
    category: str
    """What its column says; of plain files the name of their folder; empty: none."""
    source: str
    """File, or `file:line`, where it stands."""
    half: Half | None = None
    """The half that the source declares."""
    inside: str = ""
    """Path below the folder that was named."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over the text, the same as of a labelled example."""
        return text_fingerprint(self.text)


@dataclass(frozen=True)
class TextColumns:
    """Columns of tables, and how other files are read."""

    text: str = "text"
    category: str | None = None
    id: str | None = None
    settings: tuple[str, str, str] = ("texts.text", "texts.category", "texts.id")
    """Keys of the config that name these columns, for the messages."""
    format: Format | None = None
    """Format of the files; None: by their endings."""
    plain: Literal["whole", "lines"] = "whole"
    """Whether a file that is no table is one text, or one text a line."""
    tables_in_folders: bool = True
    """False: a file below a folder is a plain text, whatever its ending."""


def read_texts(source: Source, columns: TextColumns, problems: Problems, *, owner: str = "") -> list[SourceText]:
    """All texts of a source, in its order.

    Parameters
    ----------
    source : a name, several, or some for each half
    columns : how they are read
    problems : receives everything that is wrong: files that cannot be read, columns that are missing, rows without a
        text; texts that are empty have the kind `EMPTY`
    owner : whose problems they are
    """
    parts: list[tuple[Half | None, str | tuple[str, ...]]] = (
        [("selection", source.selection), ("evaluation", source.evaluation)]
        if isinstance(source, SourceHalves)
        else [(None, source)]
    )
    found: list[SourceText] = []
    for half, names in parts:
        for name in (names,) if isinstance(names, str) else names:
            try:
                files = shipped_files() if name == SHIPPED else files_below(name, half)
            except InputError as error:
                problems.add(owner, "file", str(error))
                continue
            for file in files:
                try:
                    found += _of_file(file, columns, problems, owner)
                except InputError as error:
                    problems.add(owner, "file", str(error))
    return found


def shipped_files() -> list[SourceFile]:
    """The shipped texts, whose places are `sample:texts/<category>/<name>` on every machine."""
    files = files_below(str(resources.files("modularity.data") / "samples" / "texts"))
    return [SourceFile(f"{SHIPPED}/{file.inside}", None, file.system, file.path, file.inside) for file in files]


def text_fingerprint(text: str) -> str:
    """16 hexadecimal digits over a text without a second segment."""
    return content_digest([text, None])


def texts_fingerprint(texts: Sequence[SourceText]) -> str:
    """Digest of names, categories and contents."""
    return content_digest([[text.id, text.category, text.fingerprint] for text in texts])


def unlabelled(name: str, texts: Sequence[SourceText], pooling: Pooling, selection_E: Any = None) -> FunctionData:
    """Texts as a function without sub-functions, which tokenisation takes.

    Parameters
    ----------
    name : of the function
    texts : its examples
    pooling : which tokens become rows
    selection_E : bool; None = all are in the selection half
    """
    selection_E = np.ones(len(texts), bool) if selection_E is None else selection_E
    examples = tuple(Example(t.id, t.text, None, None, None, t.source, t.fingerprint) for t in texts)
    return FunctionData(
        name=name,
        kind="other",
        subfunctions=(),
        examples=examples,
        labels_SE=np.zeros((0, len(texts)), np.int8),
        selection_E=selection_E,
        cluster_E=np.arange(len(texts), dtype=np.int32),
        fingerprint=content_digest([[e.fingerprint for e in examples], selection_E.tolist()]),
        pooling=pooling,
    )


def _of_file(file: SourceFile, columns: TextColumns, problems: Problems, owner: str) -> Iterator[SourceText]:
    is_table = columns.format is not None or format_of_ending(file.path) is not None
    if is_table and (columns.tables_in_folders or not file.inside):
        yield from _of_table(file, columns, problems, owner)
        return
    content = decode(file.read(), file.place)
    category = file.path.rpartition("/")[0].rpartition("/")[2]
    for place, text in _pieces(content, file.place, columns.plain):
        if text.strip():
            yield SourceText(place, text, category, place, file.half, file.inside)
        else:
            problems.add(owner, EMPTY, f"{place} is empty; remove it")


def _pieces(content: str, place: str, plain: Literal["whole", "lines"]) -> Iterator[tuple[str, str]]:
    if plain == "whole":
        yield place, content
        return
    lines = content.split("\n")
    for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
        yield f"{place}:{number}", line.removesuffix("\r")


def _of_table(file: SourceFile, columns: TextColumns, problems: Problems, owner: str) -> Iterator[SourceText]:
    wanted = {column: key for column, key in zip((columns.text, columns.category, columns.id), columns.settings)
              if column is not None}  # fmt: skip
    rows = read_rows(file, columns.format, wanted=list(wanted))
    for message in rows.problems:
        problems.add(owner, "unreadable row", message)
    missing = [column for column in wanted if column not in rows.columns]
    if rows.values and missing:
        known = ", ".join(map(repr, rows.columns))
        for column in missing:
            problems.add(
                owner, "no column", f"{rows.place} has no column {column!r}, but {known}: set {wanted[column]}"
            )
        return
    for values, place in zip(rows.values, rows.places):
        try:
            text = text_value(values, columns.text)
            category = "" if columns.category is None else name_value(values, columns.category, "category")
            name = place if columns.id is None else name_value(values, columns.id, "id")
        except RowError as error:
            problems.add(owner, error.kind, f"{place}: {error}")
            continue
        yield SourceText(name, text, category, place, file.half, file.inside)
