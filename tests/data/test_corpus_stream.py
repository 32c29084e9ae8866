"""Texts, tokens and batches of a corpus: the same for any ranges, counted, and never all at once in memory."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.data import StreamConfig, StreamCounts, estimate_tokens, index_corpus, stream_batches, stream_tables
from modularity.data import corpus_stream as module
from modularity.data.corpus_stream import reading_bytes, stream_texts
from modularity.errors import InputError

WORDS = ("a", "bb", "ccc", "dddd")


class Words:
    """A tokenizer of single words, with one special token in front, as far as the stream uses one."""

    is_fast, mask_token_id, eos_token_id = True, None, None

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        return 1

    def __call__(self, text: list[str], text_pair: Any = None, **options: Any) -> dict[str, list[list[int]]]:
        limit = options.get("max_length") if options.get("truncation") else None
        ids = [[1, *(len(word) + 1 for word in each.split())][:limit] for each in text]
        special = [[True] + [False] * (len(each) - 1) for each in ids]
        return {"input_ids": ids} | (
            {"special_tokens_mask": special} if options.get("return_special_tokens_mask") else {}
        )


def texts_of(n: int) -> list[str]:
    generator = np.random.default_rng(n)
    return [" ".join(generator.choice(WORDS, size=1 + number % 9)) for number in range(n)]


def write(path: Path, texts: list[str]) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=40)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts))
    else:
        path.write_text("\n".join(texts))
    return str(path)


def corpus(source: object, **changes: object) -> StreamConfig:
    return StreamConfig.model_validate({"name": "pile", "source": source, **changes})


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
@pytest.mark.parametrize("range_bytes", [1, 300, 10**6])
def test_any_ranges_give_every_text_once(tmp_path: Path, name: str, range_bytes: int) -> None:
    texts = texts_of(300)
    index = index_corpus(corpus(write(tmp_path / name, texts)), range_bytes=range_bytes)
    for n_parts in (1, 3):
        found = [each for part in index.parts(n_parts) for each in stream_texts(index, part, StreamCounts())]
        assert found == list(enumerate(texts))


def test_batches_hold_every_token_under_the_number_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_TEXTS", 16)
    texts = texts_of(100)
    texts[7] = " "
    index = index_corpus(corpus(write(tmp_path / "a.jsonl", texts)), range_bytes=500)
    counts, found = StreamCounts(), {}
    for part in index.parts(3):
        tables = stream_tables(index, part, Words(), counts, max_tokens=6)
        for batch in stream_batches(tables, tokens_per_batch=40, pad_id=0):
            for row, ids, real in zip(batch.row_ids.tolist(), batch.input_ids_BT, batch.attention_mask_BT):
                assert row not in found
                found[row] = ids[real].tolist()
    expected = {row: [1, *(len(word) + 1 for word in text.split())][:6] for row, text in enumerate(texts) if row != 7}
    assert found == expected
    n_long = sum(len(text.split()) > 5 for text in texts)
    assert (counts.n_rows, counts.n_texts, counts.n_empty, counts.n_truncated) == (100, 99, 1, n_long)
    assert counts.n_tokens == sum(map(len, expected.values()))


def test_bad_rows_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'{"text": "a"}',
        b"",
        b'{"text": 3}',
        b"{",
        b'{"body": "a"}',
        b'{"text": "caf\xe9"}',
        b"[1]",
        b'{"text": "b"}',
    ]
    path.write_bytes(b"\n".join(lines))
    index = index_corpus(corpus(str(path)))
    with pytest.raises(
        InputError, match=r"corpus 'pile': .*a.jsonl:3: text=3 is int, expected text.* bad_rows=leave_out"
    ):
        list(stream_texts(index, (0, 1), StreamCounts()))
    counts = StreamCounts()
    index = index_corpus(corpus(str(path), bad_rows="leave_out"))
    assert [text for _, text in stream_texts(index, (0, 1), counts)] == ["a", "b"]
    assert (counts.n_rows, counts.n_empty, counts.bad.total()) == (8, 1, 5)
    assert set(counts.bad) == {"text of another type", "not JSON", "no text", "not UTF-8", "no object"}
    assert counts.first_bad.endswith("a.jsonl:3: text=3 is int, expected text")


def test_texts_without_a_token_that_counts_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", ["a bb", "\u200b", "ccc"])
    words = Words()
    original = words.__call__
    Zero = type(
        "Zero", (Words,), {"__call__": lambda self, text, *a, **o: original([t.strip("\u200b") for t in text], **o)}
    )
    counts = StreamCounts()
    index = index_corpus(corpus(path, skip_special=True))
    ((rows, table),) = stream_tables(index, (0, 1), Zero(), counts, max_tokens=9)
    assert (rows.tolist(), table.n_tokens, counts.n_empty) == ([0, 2], 5, 1)
    assert table.pool_mask is not None
    assert table.pool_mask.sum() == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_file_that_changed_after_it_was_indexed_is_noticed(tmp_path: Path, name: str) -> None:
    texts = texts_of(100)
    index = index_corpus(corpus(write(tmp_path / name, texts)), range_bytes=500)
    write(tmp_path / name, [*texts[:-1], "x" * len(texts[-1])])
    assert len(list(stream_texts(index, (0, 1), StreamCounts()))) > 0  # its first range is as it was
    with pytest.raises(InputError, match=rf"{name}' has changed since the corpus was indexed"):
        list(stream_texts(index, (0, len(index.ranges)), StreamCounts()))


def test_the_estimate_says_how_sure_it_is(tmp_path: Path) -> None:
    texts = texts_of(3000)
    index = index_corpus(corpus(write(tmp_path / "a.jsonl", texts)), range_bytes=2000)
    found = estimate_tokens(index, Words(), max_tokens=7)
    true = sum(min(7, 1 + len(text.split())) for text in texts)
    assert found.n_sampled == 256
    assert found.low < true < found.high
    assert found.high - found.low < 0.2 * true
    assert 0.1 < found.truncated_share < 0.6
    assert "an estimate from 256 rows" in found.text()
    with pytest.raises(InputError, match="none of 3 sampled rows holds a text"):
        estimate_tokens(index_corpus(corpus(write(tmp_path / "b.txt", [" ", "", " "]))), Words(), max_tokens=7)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_CHARACTERS", 2**13)
    for name in ("corpus_index", "corpus_stream"):
        monkeypatch.setattr(f"modularity.data.{name}.READ_BYTES", 2**13)
    line = json.dumps({"text": "a bb ccc dddd " * 20}) + "\n"
    peaks = []
    for n_lines in (150, 1500):
        path = tmp_path / f"{n_lines}.jsonl"
        path.write_text(line * n_lines)
        tracemalloc.start()
        index = index_corpus(corpus(str(path)), range_bytes=2**16)
        for _ in stream_batches(
            stream_tables(index, (0, len(index.ranges)), Words(), StreamCounts(), max_tokens=64),
            tokens_per_batch=512,
            pad_id=0,
        ):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < reading_bytes(index)
