"""A corpus that is never in memory: indexed once into ranges of lines or row groups, which are read on their own.

The index holds where each range stands, its rows and a digest of its bytes. One pass makes it, whose memory does not
depend on the size of the corpus; of Parquet files only the column of the texts is read. A range that is read later is
compared with its digest, so that a file that has changed is noticed.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from modularity.config import Config
from modularity.data.files import SourceFile, files_below, id_prefixes
from modularity.data.problems import Problems
from modularity.data.readers import format_of_ending
from modularity.errors import InputError
from modularity.types import content_digest

StreamFormat = Literal["jsonl", "lines", "parquet"]
RANGE_BYTES = 2**20
"""Bytes of a range of lines, about; more where a corpus would have more than `MOST_RANGES` of them."""
MOST_RANGES = 10_000
READ_BYTES = 2**20
"""Bytes that are read at once."""
MOST_KNOWN = 8
"""Indexes that a process keeps: a scan asks for the same one for every checkpoint."""
_KNOWN: dict[tuple[str, int, tuple[str | None, ...]], "CorpusIndex"] = {}


class StreamConfig(Config):
    """Unlabelled texts that are read one range at a time, however many there are."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
    """Name in results and tables, other than those of the functions."""
    source: str | tuple[str, ...] = Field(min_length=1)
    """Files, folders, globs or fsspec URIs of JSONL, Parquet, or plain text with one text a line; several are read one
    after the other. Compressed files are not cut: each is read by one worker."""
    text: str = "text"
    """Column of JSONL and Parquet files that holds the text."""
    format: StreamFormat | None = None
    """Format of the files; None: by their endings, and `lines` where these say nothing."""
    skip_special: bool = False
    """Leave the special tokens that the tokenizer adds out of the statistics."""
    bad_rows: Literal["error", "leave_out"] = "error"
    """What to do with rows that hold no text, or cannot be read: fail with file and line, or leave out and count."""


@dataclass(frozen=True)
class CorpusFile:
    """One file of a corpus."""

    file: SourceFile
    format: StreamFormat
    first_row: int
    """Rows of the corpus before it."""


@dataclass(frozen=True)
class TextRange:
    """Lines or one row group of a file."""

    file: int
    """Index of the file."""
    start: int
    stop: int
    """Bytes [start, stop) of the decompressed file; of a Parquet file those of the column chunk."""
    group: int
    """Row group; -1: lines."""
    first_row: int
    """Rows of the corpus before it."""
    n_rows: int
    n_bytes: int
    """Decompressed."""
    digest: str
    """32 hexadecimal digits of the SHA-256 of its bytes."""


@dataclass(frozen=True)
class CorpusIndex:
    """Where the texts of a corpus are."""

    config: StreamConfig
    files: tuple[CorpusFile, ...]
    ranges: tuple[TextRange, ...]
    longest_bytes: int
    """Bytes of the longest line, or of the largest chunk of a Parquet column, which is read as a whole."""

    @property
    def n_rows(self) -> int:
        """Lines and rows, usable or not."""
        last = self.ranges[-1]
        return last.first_row + last.n_rows

    @property
    def n_bytes(self) -> int:
        """Decompressed bytes of all ranges."""
        return sum(each.n_bytes for each in self.ranges)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over everything that results depend on; the place of the files is not part of it."""
        config = self.config
        ranges = [[self.files[each.file].format, each.n_rows, each.digest] for each in self.ranges]
        return content_digest([config.text, config.skip_special, config.bad_rows, ranges])

    def parts(self, n_parts: int) -> list[tuple[int, int]]:
        """Ranges [first, last) of each part, about equally many bytes in each; fewer parts where there are few."""
        offsets = np.cumsum([0, *(each.n_bytes for each in self.ranges)])
        cuts = np.searchsorted(offsets, offsets[-1] * np.arange(1, n_parts) / n_parts).tolist()
        return list(pairwise(sorted({0, *cuts, len(self.ranges)})))

    def rows_of(self, part: tuple[int, int]) -> tuple[int, int]:
        """Rows [first, last) of a part."""
        last = self.ranges[part[1] - 1]
        return self.ranges[part[0]].first_row, last.first_row + last.n_rows

    def place(self, row: int) -> str:
        """`file:line` of a row; `file:row 3` in Parquet files (counted from 1)."""
        file, line = self._line(row)
        return f"{file.file.place}:{line}"

    def id(self, row: int) -> str:
        """The same without what depends on the place of the files: the name of an example."""
        file, line = self._line(row)
        return f"{self._prefixes[file.file.place]}:{line}"

    @cached_property
    def _prefixes(self) -> dict[str, str]:
        return id_prefixes([each.file.place for each in self.files])

    def _line(self, row: int) -> tuple[CorpusFile, str]:
        file = self.files[bisect_right(self.files, row, key=lambda each: each.first_row) - 1]
        number = row - file.first_row + 1
        return file, f"row {number}" if file.format == "parquet" else str(number)


def index_corpus(config: StreamConfig, *, range_bytes: int | None = None) -> CorpusIndex:
    """Read a corpus once, and note its ranges.

    Parameters
    ----------
    config : the corpus
    range_bytes : of a range of lines, about; None = `RANGE_BYTES`, or more for a large corpus

    Raises
    ------
    InputError
        With every file that is missing, unreadable, of another format, or without the column; no file holds a row.
    """
    problems = Problems("corpus")
    named = _named(config, problems)
    range_bytes = range_bytes or max(RANGE_BYTES, sum(_size(file) for file, _ in named) // MOST_RANGES)
    states = [_state(file) for file, _ in named]
    key = (config.digest(), range_bytes, tuple(states))
    if key in _KNOWN:
        return _KNOWN[key]
    files: list[CorpusFile] = []
    ranges: list[TextRange] = []
    longest = n_rows = 0
    for file, kind in named:
        first_row = n_rows
        try:
            scanned = _groups(file, config.text) if kind == "parquet" else _lines(file, range_bytes)
            for found in scanned:
                ranges.append(TextRange(len(files), found.start, found.stop, found.group, n_rows, found.n_rows,
                                        found.n_bytes, found.digest))  # fmt: skip
                n_rows += found.n_rows
                longest = max(longest, found.longest)
        except InputError as error:
            problems.add(config.name, "file", str(error))
        files.append(CorpusFile(file, kind, first_row))
    if not ranges and not problems.count():
        problems.add(config.name, "no row", f"source={config.source!r} holds no row; expected at least one text")
    problems.raise_any()
    index = CorpusIndex(config, tuple(files), tuple(ranges), longest)
    if None not in states:
        _KNOWN[key] = index
        if len(_KNOWN) > MOST_KNOWN:
            del _KNOWN[next(iter(_KNOWN))]
    return index


def _named(config: StreamConfig, problems: Problems) -> list[tuple[SourceFile, StreamFormat]]:
    """Files in the order of the source, with their formats."""
    found: list[tuple[SourceFile, StreamFormat]] = []
    for name in (config.source,) if isinstance(config.source, str) else config.source:
        try:
            files = files_below(name)
        except InputError as error:
            problems.add(config.name, "file", str(error))
            continue
        for file in files:
            kind = config.format or format_of_ending(file.path) or "lines"
            if kind in ("jsonl", "lines", "parquet"):
                found.append((file, kind))
                continue
            message = f"{file.place!r} is {kind}, which cannot be read in ranges; convert it to JSONL or Parquet"
            problems.add(config.name, "format", message)
    return found


def _state(file: SourceFile) -> str | None:
    """What changes with a file, such as its size and time; None where the file system does not tell."""
    try:
        return None if file.system is None else f"{file.place} {file.system.ukey(file.path)}"
    except Exception:  # as in `_size`
        return None


def _size(file: SourceFile) -> int:
    """Stored bytes, for the size of ranges; 0 where the file system does not tell, which reading will."""
    try:
        return 0 if file.system is None else int(file.system.size(file.path) or 0)
    except Exception:  # file systems raise classes of their own; opening the file tells the cause
        return 0


@dataclass
class _Range:
    """A range while it is read."""

    start: int
    stop: int
    n_rows: int = 0
    longest: int = 0
    n_bytes: int = 0
    digest: str = ""
    group: int = -1


def _lines(file: SourceFile, range_bytes: int) -> Iterator[_Range]:
    """Ranges of whole lines of a text file; a compressed one is a single range."""
    with file.opened() as stream:
        current, digest, open_line = _Range(0, 0), hashlib.sha256(), 0

        def finish() -> _Range:
            current.n_rows += open_line > 0  # the last line may lack its end
            current.n_bytes = current.stop - current.start
            current.digest = digest.hexdigest()[:32]
            return current

        while block := stream.read(READ_BYTES):
            while block:
                wanted = range_bytes - (current.stop - current.start)
                cut = -1
                if not file.is_compressed and wanted <= len(block):
                    cut = block.find(b"\n", max(wanted - 1, 0))
                piece, block = (block, b"") if cut < 0 else (block[: cut + 1], block[cut + 1 :])
                digest.update(piece)
                current.stop += len(piece)
                open_line = _count(piece, open_line, current)
                if cut >= 0:
                    yield finish()
                    current, digest = _Range(current.stop, current.stop), hashlib.sha256()
        if current.stop > current.start:
            yield finish()


def _count(piece: bytes, open_line: int, into: _Range) -> int:
    """Count the lines that end in a piece; bytes of the line that goes on after it."""
    ends = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord("\n"))
    if not len(ends):
        into.longest = max(into.longest, open_line + len(piece))
        return open_line + len(piece)
    into.n_rows += len(ends)
    left = len(piece) - 1 - int(ends[-1])
    into.longest = max(into.longest, open_line + int(ends[0]), left, int(np.diff(ends).max(initial=1)) - 1)
    return left


def _groups(file: SourceFile, column: str) -> Iterator[_Range]:
    """Row groups of a Parquet file, with the bytes of the column of texts."""
    with file.opened() as stream:
        table = open_parquet(stream, file.place)
        index = text_column(table, column, file.place)
        for group in range(table.metadata.num_row_groups):
            chunk = table.metadata.row_group(group).column(index)
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and chunk.dictionary_page_offset:
                start = min(start, chunk.dictionary_page_offset)
            stop, size = start + chunk.total_compressed_size, chunk.total_uncompressed_size
            n_rows = table.metadata.row_group(group).num_rows
            if n_rows:
                yield _Range(start, stop, n_rows, size, size, digest_of(stream, start, stop), group)


def digest_of(stream: Any, start: int, stop: int) -> str:
    """32 hexadecimal digits of the SHA-256 of bytes [start, stop); a stream that is shorter gives another digest."""
    digest = hashlib.sha256()
    stream.seek(start)
    while start < stop and (block := stream.read(min(READ_BYTES, stop - start))):
        digest.update(block)
        start += len(block)
    return digest.hexdigest()[:32]


def open_parquet(stream: Any, place: str) -> Any:
    """A Parquet file, of which the footer is read; InputError if it is none."""
    try:
        return pq.ParquetFile(stream)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{place!r} is not a readable parquet file ({str(error).splitlines()[0]})") from None


def text_column(table: Any, column: str, place: str) -> int:
    """Index of the leaf column with the texts; InputError if it is missing or holds no text."""
    names = list(table.schema_arrow.names)
    if column not in names:
        raise InputError(f"{place} has no column {column!r}, but {', '.join(map(repr, names))}: set text")
    kind = table.schema_arrow.field(column).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
        raise InputError(f"{place}: column {column!r} holds {kind}, expected text")
    leaves = [table.schema.column(index).path for index in range(len(table.schema))]
    return leaves.index(column)
