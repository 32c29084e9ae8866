import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from modularity.data.files import open_file
from modularity.data.readers import Rows, file_format, read_rows

ROWS = [{"text": "one, two", "label": 1}, {"text": 'say "x"', "label": 0}]


def read(workdir: Path, name: str, content: str | bytes, **options: Any) -> Rows:
    (workdir / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(open_file(name), None, **options)


def test_jsonl_counts_blank_lines_and_keeps_line_separators_of_unicode(workdir: Path) -> None:
    rows = read(workdir, "a.jsonl", '{"text": "x"}\r\n\n{"text": "u\u2028v", "label": 1}')
    assert rows.values == [{"text": "x"}, {"text": "u\u2028v", "label": 1}]
    assert rows.places == ["a.jsonl:1", "a.jsonl:3"]
    assert rows.columns == ["text", "label"]


def test_jsonl_goes_on_after_a_bad_line(workdir: Path) -> None:
    rows = read(workdir, "a.jsonl", '{"text": "x"}\n{\n{"text": "y"}\nnull\n')
    assert [value["text"] for value in rows.values] == ["x", "y"]
    assert [problem.split(": ")[0] for problem in rows.problems] == ["a.jsonl:2", "a.jsonl:4"]


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_json_list_knows_the_line_of_each_row(workdir: Path, indent: int | None) -> None:
    rows = read(workdir, "a.json", "\n" + json.dumps([*ROWS, {"text": "a\nb", "list": [1, 2]}], indent=indent))
    assert [value["text"] for value in rows.values] == ["one, two", 'say "x"', "a\nb"]
    lines = {None: [2, 2, 2], 0: [3, 7, 11], 2: [3, 7, 11]}[indent]
    assert rows.places == [f"a.json:{line}" for line in lines]


def test_csv_with_quotes_newlines_and_a_byte_order_mark(workdir: Path) -> None:
    rows = read(workdir, "a.csv", '\ufefftext,label\n"one, two",1\n"two\nlines",0\n\n"say ""x""",0\n')
    assert [value["text"] for value in rows.values] == ["one, two", "two\nlines", 'say "x"']
    assert rows.places == ["a.csv:2", "a.csv:3", "a.csv:6"]
    assert rows.columns == ["text", "label"]


def test_tsv_takes_quotes_as_they_are(workdir: Path) -> None:
    rows = read(workdir, "a.tsv", 'text\tlabel\n"open\t1\nclose"\t0\n')
    assert [value["text"] for value in rows.values] == ['"open', 'close"']
    assert rows.places == ["a.tsv:2", "a.tsv:3"]


def test_parquet_arrow_file_and_arrow_stream(workdir: Path) -> None:
    table = pa.Table.from_pylist([{**row, "vector": [1.0, 2.0]} for row in ROWS])
    table = table.set_column(0, "text", table["text"].dictionary_encode())
    pyarrow.parquet.write_table(table, workdir / "a.parquet")
    pyarrow.feather.write_feather(table, workdir / "a.feather")
    with pa.OSFile(str(workdir / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "a.feather", "a.arrow"):
        rows = read_rows(open_file(name), None, wanted={"text", "label", "no such"})
        assert rows.values == ROWS
        assert rows.places == [f"{name}:row 1", f"{name}:row 2"]
        assert rows.columns == ["text", "label", "vector"]


def test_format_by_ending_or_as_declared() -> None:
    assert file_format("hf://datasets/glue/data/Train.PARQUET", None) == "parquet"
    assert file_format("x.ndjson.zst", None) == "jsonl"
    assert file_format("x.csv", "tsv") == "tsv"
