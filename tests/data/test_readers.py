import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from modularity.data.files import open_file
from modularity.data.readers import Rows, file_format, read_rows
from modularity.errors import InputError

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


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_may_be_very_long(name: str, workdir: Path) -> None:
    long = "x" * 200_000
    (workdir / name).write_text(f"text,label\n{long},1\n".replace(",", "," if name == "a.csv" else "\t"))
    limit = csv.field_size_limit()
    assert read_rows(open_file(name), None).values == [{"text": long, "label": "1"}]
    assert csv.field_size_limit() == limit


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


def test_rows_in_lists_by_label(load: Any, workdir: Path) -> None:
    """The task files of the released code of arXiv 2305.18390: `data/task/TASK/validation.json`."""
    lists = {"0": [{"sentence": f"a{n}"} for n in range(4)], "1": [{"sentence": f"b{n}"} for n in range(4)]}
    (workdir / "validation.json").write_text(json.dumps(lists))
    function = load(source="validation.json", columns={"text": "sentence"})
    assert function.labels_SE.tolist() == [[0] * 4 + [1] * 4]
    assert [e.id for e in function.examples[3:5]] == ["validation.json:0 4", "validation.json:1 1"]
    (workdir / "mixed.json").write_text(json.dumps(lists | {"2": ["a"]}))
    with pytest.raises(InputError, match=r"mixed.json:2 1: holds str 'a', expected an object"):
        load(source="mixed.json", columns={"text": "sentence"})


def test_columns_of_files_without_header(load: Any, workdir: Path) -> None:
    """The triples of the released code of arXiv 2305.18390: relation, label, fold, text; only fold 0 is used."""
    lines = [f"P{n % 2}\tlabel{n // 2 % 2}\t{fold}\ttext {n} {fold}" for fold in "01" for n in range(16)]
    (workdir / "triples.txt").write_text("\n".join(lines) + "\n")
    config = {
        "source": "triples.txt", "format": "tsv", "header": ["relation", "label", "fold", "text"],
        "keep": {"fold": ["0"]}, "columns": {"subfunction": "relation"}, "labels": "two",
    }  # fmt: skip
    function = load(**config)
    assert (function.subfunctions, function.n_examples) == (("P0", "P1"), 16)
    assert function.examples[0].source == "triples.txt:1"
    assert function.labels_SE[0].tolist() == [0, -1, 1, -1] * 4
    assert function.notes == ("demo: 16 left out: rows with another fold than 0",)
    with pytest.raises(InputError, match=r"triples.txt:1: 4 cells, expected 2 as in the header, as declared \(a, text"):
        load(**config | {"header": ["a", "text"], "keep": {}, "columns": {}})
    with pytest.raises(InputError, match=r"no column 'part' \(asked for in keep\)"):
        load(**config | {"keep": {"part": ["0"]}})
    with pytest.raises(InputError, match=r"header=\['a', 'a'\] names a column twice"):
        load(**config | {"header": ["a", "a"]})
    (workdir / "rows.jsonl").write_text('{"text": "a", "label": 1}\n')
    with pytest.raises(InputError, match=r"'rows.jsonl' is jsonl, which names its columns; remove header"):
        load(source="rows.jsonl", header=["text", "label"])
