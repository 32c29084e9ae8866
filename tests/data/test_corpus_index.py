"""The index of a corpus: ranges that cover every row once, whatever the format and the size of a range."""

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.data import StreamConfig, index_corpus
from modularity.data.files import SourceFile
from modularity.errors import InputError

TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(200)]


def corpus(source: object, **changes: object) -> StreamConfig:
    return StreamConfig.model_validate({"name": "pile", "source": source, **changes})


def jsonl(path: Path, texts: list[str] = TEXTS) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


@pytest.mark.parametrize("range_bytes", [1, 7, 100, 1000, 10**6])
def test_ranges_cover_every_line_once(tmp_path: Path, range_bytes: int) -> None:
    content = (tmp_path / "a.jsonl", tmp_path / "b.txt")
    jsonl(content[0])
    content[1].write_bytes(b"one\n\ntwo\r\nlast without an end")
    index = index_corpus(corpus([str(path) for path in content]), range_bytes=range_bytes)
    assert index.n_rows == len(TEXTS) + 4
    assert index.n_bytes == sum(path.stat().st_size for path in content)
    row = 0
    for each in index.ranges:
        piece = content[each.file].read_bytes()[each.start : each.stop]
        assert (each.first_row, each.n_rows) == (
            row,
            len(piece.rstrip(b"\n").split(b"\n")) if piece.strip(b"\n") else 1,
        )
        row += each.n_rows
    longest = max(len(line) for path in content for line in path.read_bytes().split(b"\n"))
    assert index.longest_bytes == longest
    assert [index.place(row).rpartition("/")[2] for row in (0, 199, 200, 203)] == [
        "a.jsonl:1", "a.jsonl:200", "b.txt:1", "b.txt:4",
    ]  # fmt: skip


def test_parts_hold_about_equal_bytes(tmp_path: Path) -> None:
    index = index_corpus(corpus(jsonl(tmp_path / "a.jsonl")), range_bytes=100)
    parts = index.parts(4)
    sizes = [sum(each.n_bytes for each in index.ranges[slice(*part)]) for part in parts]
    assert sum(sizes) == index.n_bytes
    assert max(sizes) - min(sizes) < 300
    rows = [index.rows_of(part) for part in parts]
    assert [first for first, _ in rows][1:] == [last for _, last in rows][:-1]
    assert len(index_corpus(index.config).parts(4)) == 1  # one range cannot be cut


def test_row_groups_and_compressed_files(tmp_path: Path) -> None:
    table = pa.table({"n": range(200), "text": TEXTS})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=30)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(Path(jsonl(tmp_path / "b.jsonl")).read_bytes()))
    (tmp_path / "b.jsonl").unlink()
    index = index_corpus(corpus(str(tmp_path)), range_bytes=100)
    assert [each.n_rows for each in index.ranges] == [30] * 6 + [20, 200]
    assert (index.place(31), index.id(31)) == (f"{tmp_path}/a.parquet:row 32", "a.parquet:row 32")


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    one = index_corpus(corpus(jsonl(tmp_path / "a.jsonl")))
    memory = fsspec.filesystem("memory")
    memory.pipe("/elsewhere.jsonl", (tmp_path / "a.jsonl").read_bytes())
    there = index_corpus(corpus("memory://elsewhere.jsonl"))
    memory.rm("/elsewhere.jsonl")
    assert there.fingerprint == one.fingerprint
    other = index_corpus(corpus(jsonl(tmp_path / "b.jsonl", [*TEXTS[:-1], "other"])))
    assert other.fingerprint != one.fingerprint
    assert index_corpus(corpus(str(tmp_path / "a.jsonl"), skip_special=True)).fingerprint != one.fingerprint


def test_a_corpus_is_read_once_while_its_files_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = jsonl(tmp_path / "a.jsonl")
    index = index_corpus(corpus(source))
    opened = []
    original = SourceFile.opened
    monkeypatch.setattr(SourceFile, "opened", lambda file: opened.append(file) or original(file))
    assert index_corpus(corpus(source)) is index
    assert opened == []
    jsonl(tmp_path / "a.jsonl", [*TEXTS, "one more"])
    assert index_corpus(corpus(source)).n_rows == index.n_rows + 1
    assert len(opened) == 1


def test_every_file_that_cannot_be_indexed_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not")
    (tmp_path / "table.csv").write_text("text\na\n")
    names = ["numbers.parquet", "other.parquet", "broken.parquet", "table.csv", "absent.jsonl"]
    with pytest.raises(InputError) as refused:
        index_corpus(corpus([str(tmp_path / name) for name in names]))
    found = "\n".join(refused.value.problems)
    for part in (
        "corpus 'pile': ", "column 'text' holds int64, expected text", "no column 'text', but 'body'",
        "not a readable parquet file", "table.csv' is csv, which cannot be read in ranges",
        "absent.jsonl' does not exist",
    ):  # fmt: skip
        assert part in found
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="holds no row"):
        index_corpus(corpus(str(tmp_path / "empty.txt")))
