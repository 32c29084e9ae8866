import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_demo import capture_item, create_demo, items

from modularity.errors import InputError, StoreError
from modularity.store import table_from_columns
from modularity.types import WorkItem


def test_rows_come_in_the_order_of_the_items(run):
    table = run.table("rows")
    assert run.tables() == ("rows",)
    assert table["example_id"].to_pylist() == [f"e{i}" for i in range(250)]


def test_only_committed_rows_are_seen(tmp_path):
    run = create_demo(tmp_path / "run")
    run.write_table("rows", items()[0], pa.table({"x": [1]}))
    assert run.tables() == ()
    with pytest.raises(InputError, match=r"table 'rows' does not exist in .*; tables: none yet"):
        run.table("rows")


def test_bytes_are_the_same_however_the_table_was_made(run):
    item = WorkItem.of("x")
    whole = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)]).replace_schema_metadata({"pandas": "something"})
    assert run.write_table("t", item, whole).object == run.write_table("t", item, pieces).object


def test_file_metadata_and_hash(run):
    item = items()[0]
    write = run.commits()[item.id].tables[0]
    assert write.object.sha256 == hashlib.sha256(run.space.read(write.object.path)).hexdigest()
    metadata = pq.read_schema(f"{run.uri}/{write.object.path}").metadata
    assert metadata[b"modularity:item"].decode() == item.id
    assert metadata[b"modularity:config"].decode() == run.manifest.config_digest
    assert len(metadata[b"modularity:schema"]) == 16


def test_damage_names_file_and_item(run):
    path = run.commits()[items()[1].id].tables[0].object.path
    run.space.write(path, run.space.read(path)[:-1])
    with pytest.raises(
        StoreError, match=rf"{path}: the file is damaged: its hash does not match, although item {items()[1].id}"
    ):
        run.table("rows")
    run.space.delete(path)
    with pytest.raises(StoreError, match=rf"{path}: the file is missing, although item"):
        run.table("rows")


def test_one_schema_per_table(run):
    item = WorkItem.of("later")
    run.commit(item, tables=[run.write_table("rows", item, pa.table({"example_id": [1]}))])
    with pytest.raises(StoreError, match=r"has the columns example_id int64, .* has example_id string, start int64"):
        run.table("rows")


def test_name_must_work_in_sql(run):
    with pytest.raises(InputError, match="table 'top-neurons' cannot be named in SQL"):
        run.write_table("top-neurons", items()[0], pa.table({"x": [1]}))


def test_capture_twice_is_the_same(run):
    assert capture_item(run, items()[2]) == run.commits()[items()[2].id]


def test_table_from_plain_columns():
    table = table_from_columns({"name": ["a", None], "n": [1, 2], "value": [0.5, None]})
    assert [str(kind) for kind in table.schema.types] == ["string", "int64", "double"]
    assert table.to_pydict() == {"name": ["a", None], "n": [1, 2], "value": [0.5, None]}
