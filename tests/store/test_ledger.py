import json

import pytest

from modularity.errors import StoreError
from modularity.store.ledger import ArrayWrite, CommitRecord, Ledger, StoredObject, TableWrite, item_order, parse_commit
from modularity.store.space import open_space
from modularity.types import WorkItem

ITEM = WorkItem.of("capture", function="demo", start=0)


def record(digest="0" * 64, item=ITEM, **info):
    stored = StoredObject("activations/demo/a/c/0", digest, 10)
    table = TableWrite("rows", 3, StoredObject("tables/rows/x.parquet", "1" * 64, 5))
    return CommitRecord(item, (ArrayWrite("activations/demo/a", (0,), (4,), (stored,)),), (table,), info)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(open_space(tmp_path))


def test_round_trip(ledger):
    ledger.commit(record(seconds=1.5))
    assert Ledger(ledger.space).records() == {ITEM.id: record(seconds=1.5)}
    assert ledger.is_done(ITEM)
    assert ledger.ids() == {ITEM.id}


def test_second_commit_with_equal_content_gets_the_first_back(ledger):
    ledger.commit(record(seconds=1.0))
    assert ledger.commit(record(seconds=9.0)).info == {"seconds": 1.0}


def test_second_commit_with_other_content_is_an_error(ledger):
    ledger.commit(record())
    with pytest.raises(
        StoreError, match=r"was committed before with other content.*demo/a/c/0 has hash 000000000000, now 22222"
    ):
        ledger.commit(record("2" * 64))


def test_info_is_not_hashed_and_content_is(ledger):
    assert record(seconds=1).content_sha256 == record(seconds=2).content_sha256
    assert record().content_sha256 != record("2" * 64).content_sha256


def test_damaged_records_are_named(ledger):
    values = json.loads(record().to_bytes())
    values["content"]["tables"][0]["n_rows"] = 4
    with pytest.raises(StoreError, match=r"c\.json is damaged: it does not match its hashes; delete it and run"):
        parse_commit(json.dumps(values).encode(), "c.json")
    with pytest.raises(StoreError, match=r"c\.json is damaged \(JSONDecodeError"):
        parse_commit(b"{", "c.json")
    with pytest.raises(StoreError, match=r"c\.json is damaged \(KeyError: 'content'"):
        parse_commit(b"{}", "c.json")


def test_items_sort_by_number_not_text():
    items = [WorkItem.of("capture", start=start) for start in (96, 1000, 0)]
    assert [item["start"] for item in sorted(items, key=item_order)] == [0, 96, 1000]


def test_discard(ledger):
    ledger.commit(record())
    ledger.discard(ITEM.id)
    assert ledger.records() == {}
    with pytest.raises(StoreError, match="is not committed in"):
        ledger.discard(ITEM.id)
    with pytest.raises(StoreError, match="is not committed in"):
        ledger.record(ITEM.id)


def test_explain_names_the_item_that_wrote_an_object(ledger):
    ledger.commit(record())
    assert ITEM.id in str(ledger.explain("activations/demo/a/c/0", "gone"))
    assert "is not computed yet; run the job again to finish it" in str(
        ledger.explain("activations/demo/a/c/1", "gone")
    )


def test_content_hash_ignores_the_order_of_commits(tmp_path):
    other = WorkItem.of("capture", function="demo", start=4)
    one, two = Ledger(open_space(tmp_path / "1")), Ledger(open_space(tmp_path / "2"))
    for ledger, order in ((one, (ITEM, other)), (two, (other, ITEM))):
        for item in order:
            ledger.commit(record(item=item))
    assert one.content_sha256([("g", "1")]) == two.content_sha256([("g", "1")]) != two.content_sha256([("g", "2")])
