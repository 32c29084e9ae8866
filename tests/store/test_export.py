import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.errors import InputError
from modularity.store import table_bytes, table_text, write_table_file

TABLE = pa.table({"id": ["ä", 'with "quote"'], "value": [1.5, float("nan")], "n": pa.array([1, None])})


def test_csv_and_json_text():
    assert table_text(TABLE, "csv") == '"id","value","n"\n"ä",1.5,1\n"with ""quote""",nan,\n'
    assert json.loads(table_text(TABLE, "json")) == [
        {"id": "ä", "value": 1.5, "n": 1},
        {"id": 'with "quote"', "value": None, "n": None},
    ]
    assert json.loads(table_text(TABLE.slice(0, 0), "json")) == []


def test_lists_structs_and_bytes_are_json_texts_in_csv():
    table = pa.table({"n": [1, 2], "l": [[1, 2], None], "s": [{"a": float("nan")}, {"a": 1.5}], "b": [b"\xff", b""]})
    assert table_text(table, "csv").splitlines() == [
        '"n","l","s","b"',
        '1,"[1, 2]","{""a"": null}","""ff"""',
        '2,,"{""a"": 1.5}",""""""',
    ]
    assert json.loads(table_text(table, "json")) == [
        {"n": 1, "l": [1, 2], "s": {"a": None}, "b": "ff"},
        {"n": 2, "l": None, "s": {"a": 1.5}, "b": ""},
    ]


def test_files_by_their_ending(tmp_path):
    assert pq.read_table(write_table_file(TABLE, tmp_path / "t.parquet")).drop(["value"]).equals(TABLE.drop(["value"]))
    assert write_table_file(TABLE, tmp_path / "t.CSV").read_bytes() == table_bytes(TABLE, "csv")
    assert write_table_file(TABLE, tmp_path / "t.txt", format="json").read_text() == table_text(TABLE, "json")


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(
        InputError, match=r"t\.txt' ends in none of \.parquet, \.csv, \.json; rename it or give a format"
    ):
        write_table_file(TABLE, tmp_path / "t.txt")
    with pytest.raises(InputError, match="format='parquet' is binary and needs a file"):
        table_text(TABLE, "parquet")
    with pytest.raises(InputError, match="format='xml' is not known; expected one of parquet, csv, json"):
        table_bytes(TABLE, "xml")
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\); choose another file"):
        write_table_file(TABLE, tmp_path / "no/t.csv")
