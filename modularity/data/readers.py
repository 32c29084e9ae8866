"""Read the rows of one file, whatever its format, with the line at which each row stands.

TSV is read as IANA defines it: no quoting, as in the files of GLUE. CSV follows RFC 4180. Both give text only.
"""

import csv
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from modularity.data.files import COMPRESSED, SourceFile
from modularity.data.function_part import Format
from modularity.errors import InputError

ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
LONGEST_CELL = 2**31 - 1
"""Characters of a CSV cell: the reader of Python stops at 131,072 otherwise."""


@dataclass
class Rows:
    """Rows of one file, and what is wrong with the others."""

    place: str
    """Name of the file in messages."""
    columns: list[str] = field(default_factory=list)
    """All columns, in the order of first appearance."""
    values: list[dict[str, Any]] = field(default_factory=list)
    """One mapping of column to value for each row."""
    places: list[str] = field(default_factory=list)
    """`file:line` of each row; `file:row 3` in Parquet and Arrow files (counted from 1)."""
    problems: list[str] = field(default_factory=list)
    """Rows that could not be read, with their place."""

    def add(self, value: dict[str, Any], line: int | str) -> None:
        """Append a row."""
        self.values.append(value)
        self.places.append(f"{self.place}:{line}")


def format_of_ending(place: str) -> Format | None:
    """Format that the ending of a name stands for, compressed or not; None where it says nothing."""
    name = place.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return next((found for ending, found in ENDINGS.items() if name.endswith(ending)), None)


def file_format(place: str, declared: Format | None) -> Format:
    """Format of a file, declared or by its ending; InputError when the ending says nothing."""
    found = declared or format_of_ending(place)
    if found is not None:
        return found
    raise InputError(
        f"the format of {place!r} does not follow from its ending; rename it (known: {', '.join(ENDINGS)}) "
        f"or set format to one of {', '.join(get_args(Format))}"
    )


def read_rows(
    file: SourceFile,
    declared: Format | None,
    *,
    wanted: Collection[str] | None = None,
    header: Sequence[str] | None = None,
) -> Rows:
    """All rows of a file.

    Parameters
    ----------
    file : where to read
    declared : format, or None to go by the ending
    wanted : columns to convert from Parquet and Arrow; None = all
    header : names of the columns of CSV and TSV files that have no header line

    Returns
    -------
    rows : with `problems` for rows that cannot be read

    Raises
    ------
    InputError
        The file is missing, unreadable, not of its format, or has no rows.
    """
    content = file.read()
    kind = file_format(file.path if file.system is None else file.place, declared)
    rows = Rows(file.place)
    if header is not None and kind not in ("csv", "tsv"):
        raise InputError(f"{file.place!r} is {kind}, which names its columns; remove header, or set format")
    if kind in ("parquet", "arrow"):
        _read_columnar(content, rows, kind, wanted)
    else:
        _read_text(decode(content, file.place), rows, kind, list(header or ()))
    if not rows.values and not rows.problems:
        raise InputError(f"{file.place!r} holds no rows; expected at least one labelled example")
    return rows


def read_json(file: SourceFile) -> Any:
    """Value of a small JSON file, such as label names; InputError if it is not JSON."""
    try:
        return json.loads(decode(file.read(), file.place))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file.place}:{getattr(error, 'lineno', 1)}: {_json_fault(error)}") from None


def _json_fault(error: ValueError | RecursionError) -> str:
    """What is wrong with a JSON text; besides its grammar, Python bounds digits of integers and depth of lists."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON ({error.msg}, column {error.colno})"
    cause = "lists or objects too deep in each other" if isinstance(error, RecursionError) else "too many digits"
    return f"JSON that cannot be read ({cause}); shorten it"


def decode(content: bytes, place: str) -> str:
    """UTF-8 text, without a byte order mark; InputError with the line of the first byte that is none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{place}:{line}: byte {content[error.start]:#04x} is not UTF-8; convert the file to UTF-8, "
            "or set format if it is not a text file"
        ) from None


def _read_text(text: str, rows: Rows, kind: Format, header: list[str]) -> None:
    if kind == "jsonl":
        _read_jsonl(text, rows)
    elif kind == "json":
        _read_json_list(text, rows)
    elif kind == "csv":
        _read_delimited(csv.reader(io.StringIO(text, newline=""), strict=True), rows, header)
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        _read_delimited(reader, rows, header)


def _note_columns(rows: Rows) -> None:
    seen: dict[str, None] = {}
    for value in rows.values:
        seen.update(dict.fromkeys(value))
    rows.columns = list(seen)


def _read_jsonl(text: str, rows: Rows) -> None:
    if text.lstrip().startswith("["):
        raise InputError(f"{rows.place!r} holds a JSON list, not one object per line; set format to json")
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.problems.append(f"{rows.place}:{number}: {_json_fault(error)}")
            continue
        _add_object(value, number, rows)
    _note_columns(rows)


def _read_json_list(text: str, rows: Rows) -> None:
    decoder = json.JSONDecoder()
    try:
        value = json.loads(text)
        if isinstance(value, dict) and value and all(isinstance(each, list) and each for each in value.values()):
            _read_by_label(value, rows)
            return
        if not isinstance(value, list):
            raise InputError(
                f"{rows.place!r} does not hold a JSON list of objects, nor such lists by label; one object per line is "
                "format jsonl"
            )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{rows.place}:{getattr(error, 'lineno', 1)}: {_json_fault(error)}") from None
    position = text.index("[") + 1
    line = 1 + text.count("\n", 0, position)
    while True:
        start = position
        while text[position] in " \t\r\n,":
            position += 1
        line += text.count("\n", start, position)
        if text[position] == "]":
            break
        value, end = decoder.raw_decode(text, position)
        _add_object(value, line, rows)
        line += text.count("\n", position, end)
        position = end
    _note_columns(rows)


def _read_by_label(lists: dict[str, list[Any]], rows: Rows) -> None:
    """Objects in a list for each label, as in the files of arXiv 2305.18390: the label becomes the column `label`."""
    for label, listed in lists.items():
        for number, value in enumerate(listed, 1):
            _add_object({"label": label, **value} if isinstance(value, dict) else value, f"{label} {number}", rows)
    _note_columns(rows)


def _add_object(value: Any, line: int | str, rows: Rows) -> None:
    if isinstance(value, dict):
        rows.add(value, line)
    else:
        rows.problems.append(
            f"{rows.place}:{line}: holds {type(value).__name__} {str(value)[:40]!r}, "
            "expected an object with named columns"
        )


def _read_delimited(reader: Any, rows: Rows, header: list[str]) -> None:
    named = "header, as declared" if header else "header"
    line = 1
    limit = csv.field_size_limit(LONGEST_CELL)
    try:
        for cells in reader:
            if not header:
                header = _header(cells, rows.place)
            elif cells and len(cells) != len(header):
                rows.problems.append(
                    f"{rows.place}:{line}: {len(cells)} cells, expected {len(header)} as in the {named} "
                    f"({', '.join(header)})"
                )
            elif cells:
                rows.add(dict(zip(header, cells)), line)
            line = reader.line_num + 1
    except csv.Error as error:
        rows.problems.append(f"{rows.place}:{line}: not valid CSV or TSV ({error})")
    finally:
        csv.field_size_limit(limit)
    rows.columns = header


def _header(cells: list[str], place: str) -> list[str]:
    _check_names(cells, f"{place}:1", "in the header")
    return cells


def _check_names(names: Sequence[str], place: str, where: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"{place}: column names {repeated} appear twice {where}")


def _read_columnar(content: bytes, rows: Rows, kind: Format, wanted: Collection[str] | None) -> None:
    buffer = pa.BufferReader(content)
    try:
        if kind == "parquet":
            table = pq.ParquetFile(buffer)
            rows.columns = list(table.schema_arrow.names)
            _check_names(rows.columns, rows.place, "in the file")
            table = table.read(columns=[name for name in rows.columns if wanted is None or name in wanted])
        else:
            table = _open_arrow(buffer)
            rows.columns = list(table.column_names)
            _check_names(rows.columns, rows.place, "in the file")
            table = table.select([name for name in rows.columns if wanted is None or name in wanted])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{rows.place!r} is not a readable {kind} file ({str(error).splitlines()[0]})") from None
    for number, value in enumerate(table.to_pylist(), 1):
        rows.add(value, f"row {number}")


def _open_arrow(buffer: Any) -> Any:
    """Table of an Arrow file (Feather) or stream (as the `datasets` library writes)."""
    try:
        return pa.ipc.open_file(buffer).read_all()
    except pa.ArrowInvalid:
        buffer.seek(0)
        return pa.ipc.open_stream(buffer).read_all()
