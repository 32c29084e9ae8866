"""Items taken over from another run: same bytes, same content; damaged sources are refused."""

import numpy as np
import pytest
import store_demo

from modularity.errors import StoreError
from modularity.store import reusable_items, table_from_columns, take_items, verify_store
from modularity.types import WorkItem


@pytest.fixture
def source(tmp_path):
    """A run whose capture items wrote no table, and one item that did."""
    run = store_demo.create_demo(tmp_path / "source")
    for item in store_demo.items():
        block = store_demo.values()[item.integer("start") : item.integer("stop")]
        run.commit(item, arrays=[run.write_activations("demo", store_demo.NEURONS, item.integer("start"), block)])
    table = table_from_columns({"x": [1]})
    item = WorkItem.of("summary")
    run.commit(item, tables=[run.write_table("rows", item, table)])
    return run


def committed(run):
    return [record.item for record in run.commits().values()]


def test_arrays_are_taken_and_tables_left(source, tmp_path):
    new = store_demo.create_demo(tmp_path / "new")
    items = reusable_items(new, source, committed(source))
    assert items == store_demo.items()
    for _ in range(2):
        take_items(new, source, items)
    assert verify_store(new).ok
    np.testing.assert_array_equal(new.read_activations("demo", store_demo.NEURONS), store_demo.values())
    record = new.commits()[items[0].id]
    assert record.content == source.commits()[items[0].id].content
    assert record.info["reused_from"] == source.uri


def test_a_taken_object_is_replaced_without_changing_the_source(source, tmp_path):
    new = store_demo.create_demo(tmp_path / "new")
    take_items(new, source, reusable_items(new, source, committed(source)))
    new.write_activations("demo", store_demo.NEURONS, 0, store_demo.values()[:96] + 1)
    assert verify_store(source).ok
    assert not verify_store(new).ok


def test_a_missing_or_shortened_object_is_refused(source, tmp_path):
    new = store_demo.create_demo(tmp_path / "new")
    items = reusable_items(new, source, committed(source))
    victim = source.commits()[items[0].id].objects[0].path
    source.space.write(victim, b"short")
    with pytest.raises(StoreError, match=r"is missing or has another size than recorded, so .* cannot be reused"):
        take_items(new, source, items)
    assert items[0].id not in new.committed_ids()
