"""Ranges of an indexed corpus as texts, tokens and batches: a block of texts is in memory at a time, never a range.

The number of an example is its row in the corpus. What is not used is counted: empty texts, texts without a token, and
rows that cannot be read. Texts that stand twice are used twice: nothing is compared with all others.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modularity.data.batches import token_batches
from modularity.data.corpus_index import (
    READ_BYTES,
    CorpusFile,
    CorpusIndex,
    StreamFormat,
    TextRange,
    digest_of,
    open_parquet,
    text_column,
)
from modularity.data.functions import Pooling
from modularity.data.problems import RowError
from modularity.data.row_values import text_value
from modularity.data.text_source import EMPTY, SourceText, unlabelled
from modularity.data.token_batch import TokenBatch, TokenTable
from modularity.data.tokenise import Tokenizer, tokenise
from modularity.errors import InputError

BLOCK_TEXTS = 1024
BLOCK_CHARACTERS = 2**20
"""A block of texts ends where it has as many texts, or more characters than this."""
N_SAMPLED_RANGES = 16
N_SAMPLED_TEXTS = 16
"""Texts of each sampled range behind an estimate."""
_BYTES_PER_CHARACTER = 80
"""Memory while a block is tokenised: the text, its tokens in Python lists, and what the tokenizer holds, about."""


@dataclass
class StreamCounts:
    """What became of the rows that were read."""

    n_rows: int = 0
    n_texts: int = 0
    """Texts that went on."""
    n_tokens: int = 0
    n_truncated: int = 0
    """Texts that lost their end."""
    n_empty: int = 0
    """Rows whose text is white space at most, or has no token that counts."""
    bad: Counter[str] = field(default_factory=Counter)
    """Rows that were left out, by what is wrong with them."""
    first_bad: str = ""
    """The first of them, with its place."""


@dataclass(frozen=True)
class TokenEstimate:
    """Tokens of a corpus, by a sample of its texts."""

    n_tokens: int
    low: int
    high: int
    """95 % interval, by the spread of the sampled rows."""
    n_sampled: int
    """Rows in the sample."""
    truncated_share: float
    """Share of the sampled texts that lose their end."""
    largest_id: int
    """Largest token id of the sample."""

    def text(self) -> str:
        """In words."""
        return (
            f"about {self.n_tokens:,} tokens, an estimate from {self.n_sampled:,} rows (95 % interval {self.low:,} to "
            f"{self.high:,}); about {self.truncated_share:.0%} of the texts lose their end"
        )


def reading_bytes(index: CorpusIndex) -> int:
    """Memory that reading and tokenising takes at its peak."""
    return _BYTES_PER_CHARACTER * (BLOCK_CHARACTERS + index.longest_bytes) + 2 * READ_BYTES


def stream_texts(index: CorpusIndex, part: tuple[int, int], counts: StreamCounts) -> Iterator[tuple[int, str]]:
    """Row and text of every usable row of a part, one after the other.

    Parameters
    ----------
    index : the corpus
    part : its ranges [first, last)
    counts : receives what became of the rows

    Raises
    ------
    InputError
        A file is not what it was when it was indexed, or a row is bad and the config says `error`.
    """
    for number in range(*part):
        each = index.ranges[number]
        kind = index.files[each.file].format
        for row, raw in enumerate(_raw_rows(index, each), each.first_row):
            counts.n_rows += 1
            try:
                text = _text(raw, kind, index.config.text)
            except RowError as error:
                _note_bad(index, row, error, counts)
            else:
                yield row, text


def _note_bad(index: CorpusIndex, row: int, error: RowError, counts: StreamCounts) -> None:
    if error.kind == EMPTY:
        counts.n_empty += 1
        return
    message = f"{index.place(row)}: {error}"
    if index.config.bad_rows == "error":
        raise InputError(
            f"corpus {index.config.name!r}: {message}; repair the row, or set bad_rows=leave_out to leave such rows out"
        )
    counts.bad[error.kind] += 1
    counts.first_bad = counts.first_bad or message


def _text(raw: Any, kind: StreamFormat, column: str) -> str:
    """Text of a line, or of a value of a Parquet column; RowError if there is none."""
    if kind == "parquet":
        return text_value({column: raw}, column)
    try:
        line = raw.decode("utf-8-sig").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8", f"byte {raw[error.start]:#04x} is not UTF-8; convert the file") from None
    if kind == "lines" or not line.strip():
        return text_value({column: line}, column)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError("not JSON", f"not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise RowError("no object", f"holds {type(value).__name__}, expected an object with named columns")
    return text_value(value, column)


def _raw_rows(index: CorpusIndex, each: TextRange) -> Iterator[Any]:
    """Lines of a range as bytes, or values of a row group; its digest is compared after the last."""
    file = index.files[each.file]
    with file.file.opened() as stream:
        if file.format != "parquet":
            yield from _lines(stream, file, each)
            return
        table = open_parquet(stream, file.file.place)
        text_column(table, index.config.text, file.file.place)
        if each.group >= table.metadata.num_row_groups or digest_of(stream, each.start, each.stop) != each.digest:
            raise _changed(file, each)
        groups = table.iter_batches(batch_size=BLOCK_TEXTS, row_groups=[each.group], columns=[index.config.text])
        for batch in groups:
            yield from batch.column(0).to_pylist()


def _lines(stream: Any, file: CorpusFile, each: TextRange) -> Iterator[bytes]:
    if each.start:
        stream.seek(each.start)
    digest, left, rest = hashlib.sha256(), each.n_bytes, b""
    while left and (block := stream.read(min(READ_BYTES, left))):
        digest.update(block)
        left -= len(block)
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    if rest:
        yield rest
    if digest.hexdigest()[:32] != each.digest:
        raise _changed(file, each)


def _changed(file: CorpusFile, each: TextRange) -> InputError:
    return InputError(
        f"{file.file.place!r} has changed since the corpus was indexed: its bytes {each.start:,} to {each.stop:,} are "
        "others; give the same file, or start another run"
    )


def stream_tables(
    index: CorpusIndex, part: tuple[int, int], tokenizer: Tokenizer, counts: StreamCounts, *, max_tokens: int
) -> Iterator[tuple[npt.NDArray[np.int64], TokenTable]]:
    """Tokens of a part, block by block, with the row of the corpus of each example.

    Parameters
    ----------
    index, part, counts : as of `stream_texts`
    tokenizer : a Hugging Face tokenizer
    max_tokens : texts are cut here, special tokens counted

    Raises
    ------
    InputError
        As `stream_texts`; or the tokenizer cannot do what the config asks for.
    """
    for block in _blocks(stream_texts(index, part, counts)):
        rows, table = _tokenised(block, index, tokenizer, max_tokens)
        counts.n_empty += len(block) - len(rows)
        if table is None:
            continue
        counts.n_texts += len(rows)
        counts.n_tokens += table.n_tokens
        counts.n_truncated += table.n_truncated
        yield np.array(rows, np.int64), table


def stream_batches(
    tables: Iterator[tuple[npt.NDArray[np.int64], TokenTable]], *, tokens_per_batch: int, pad_id: int
) -> Iterator[TokenBatch]:
    """Batches of blocks of tokens, whose `rows_B` are rows of the corpus; every text once."""
    for rows_E, table in tables:
        for batch in token_batches(table, 0, table.n_rows, tokens_per_batch=tokens_per_batch, pad_id=pad_id):
            yield replace(batch, rows_B=rows_E[batch.row_ids])


def estimate_tokens(index: CorpusIndex, tokenizer: Tokenizer, *, max_tokens: int) -> TokenEstimate:
    """Tokens of a corpus by a sample: the first texts of ranges that are spread over it.

    Raises
    ------
    InputError
        As `stream_tables`, for the rows of the sample; or none of them holds a text.
    """
    chosen = np.unique(np.linspace(0, len(index.ranges) - 1, N_SAMPLED_RANGES).round().astype(int)).tolist()
    counts, sampled = StreamCounts(), list[tuple[int, str]]()
    for number in chosen:
        before = counts.n_rows
        for text in stream_texts(index, (number, number + 1), counts):
            sampled.append(text)
            if counts.n_rows - before >= N_SAMPLED_TEXTS:
                break
    if not sampled:
        raise InputError(f"corpus {index.config.name!r}: none of {counts.n_rows} sampled rows holds a text")
    _, table = _tokenised(sampled, index, tokenizer, max_tokens, whole=True)
    assert table is not None
    lengths = np.zeros(counts.n_rows)
    lengths[: table.n_examples] = table.lengths_E  # rows without a text have no tokens
    mean = float(lengths.mean())
    error = 1.96 * float(lengths.std(ddof=1)) / len(lengths) ** 0.5 if len(lengths) > 1 else mean
    low, middle, high = (round(max(0.0, each) * index.n_rows) for each in (mean - error, mean, mean + error))
    return TokenEstimate(
        middle, low, high, counts.n_rows, table.n_truncated / table.n_examples, int(table.token_ids.max())
    )


def _blocks(texts: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    block: list[tuple[int, str]] = []
    size = 0
    for row, text in texts:
        block.append((row, text))
        size += len(text)
        if len(block) == BLOCK_TEXTS or size > BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _tokenised(
    block: Sequence[tuple[int, str]], index: CorpusIndex, tokenizer: Tokenizer, max_tokens: int, *, whole: bool = False
) -> tuple[list[int], TokenTable | None]:
    """Rows and tokens of the texts that have any; with `whole`, InputError unless at least one has."""
    pooling = Pooling(kind="mean", skip_special=index.config.skip_special)

    def table_of(some: Sequence[tuple[int, str]]) -> TokenTable:
        texts = [SourceText(str(row), text, "", index.place(row)) for row, text in some]
        return tokenise(unlabelled(index.config.name, texts, pooling), tokenizer, max_tokens=max_tokens)

    try:
        return [row for row, _ in block], table_of(block)
    except InputError:
        usable = [each for each in block if _has_tokens(each, table_of)]
        if not usable and whole:
            raise
    return [row for row, _ in usable], table_of(usable) if usable else None


def _has_tokens(text: tuple[int, str], table_of: Callable[[Sequence[tuple[int, str]]], TokenTable]) -> bool:
    try:
        table_of([text])
    except InputError:
        return False
    return True
