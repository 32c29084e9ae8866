"""The one reader of plain texts: every kind of source gives the same texts, and every problem its file and line."""

import gzip
import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.data.functions import Pooling
from modularity.data.problems import Problems
from modularity.data.text_source import SourceText, TextColumns, read_texts, texts_fingerprint, unlabelled

ROWS = TextColumns()
TEXTS = ["one, two", 'three "four"', "five"]


def read(source: str, columns: TextColumns = ROWS) -> list[SourceText]:
    problems = Problems()
    found = read_texts(source, columns, problems)
    problems.raise_any()
    return found


def write(path: Path) -> Path:
    """The texts in the format of the ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": TEXTS}), path)
    elif path.suffix == ".csv":
        path.write_text("text\n" + "".join('"' + text.replace('"', '""') + '"\n' for text in TEXTS))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    else:
        path.write_text("\r\n".join(TEXTS) + "\r\n")
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet", "a.txt"])
def test_every_format_gives_the_same_texts(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    found = read(str(path), TextColumns(plain="lines"))
    assert [text.text for text in found] == TEXTS
    assert all(text.id == text.source and text.source.startswith(str(path)) for text in found)


def test_folders_are_read_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "prose").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("no")
    write(tmp_path / "prose" / "a.jsonl")
    (tmp_path / "prose" / "b.md").write_text("whole\nfile")
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "prose").iterdir():
        memory.pipe(f"/texts/prose/{path.name}", path.read_bytes())
    here, there = read(str(tmp_path)), read("memory://texts")
    memory.rm("/texts", recursive=True)
    assert [text.text for text in here] == [text.text for text in there] == [*TEXTS, "whole\nfile"]
    assert (there[-1].source, there[-1].category, there[-1].inside) == (
        "memory://texts/prose/b.md",
        "prose",
        "prose/b.md",
    )


def test_shipped_texts_have_the_same_places_on_every_machine() -> None:
    found = read("sample:texts")
    assert {text.source.partition("/")[0] for text in found} == {"sample:texts"}
    assert {text.category for text in found} == {"code", "news", "papers"}


def test_fingerprints_are_of_the_content() -> None:
    one, other = SourceText("a", "b", "", "a"), SourceText("a", "c", "", "a")
    assert texts_fingerprint([one]) != texts_fingerprint([other])
    assert unlabelled("f", [one], Pooling()).fingerprint != unlabelled("f", [other], Pooling()).fingerprint
