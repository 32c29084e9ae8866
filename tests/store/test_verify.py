import json

import pytest
import store_demo

from modularity.store import verify_store

SHARD = "activations/demo/encoder/ffn.neurons/c/1/0/0"


def test_intact_run(run):
    report = verify_store(run)
    assert report.ok
    assert (report.n_items, report.n_checked, report.n_objects) == (7, 7, 17)
    assert report.n_bytes == sum(stored.n_bytes for record in run.commits().values() for stored in record.objects)
    assert str(report).endswith("MB read: all as recorded")


def test_sample(run):
    assert verify_store(run, sample=2).n_checked == 2
    assert verify_store(run, sample=100).n_checked == 7


def flip(run, path, position=60):
    data = bytearray(run.space.read(path))
    data[position] ^= 1
    run.space.write(path, bytes(data))


def edit(run, path, change):
    document = json.loads(run.space.read(path))
    change(document)
    run.space.write(path, json.dumps(document).encode())


RECORD = f"commits/{store_demo.items()[1].id}.json"
GROUP = "activations/demo/encoder"


@pytest.mark.parametrize(
    ("damage", "path", "message"),
    [
        (
            lambda run: flip(run, SHARD),
            SHARD,
            "does not match its recorded hash; restore it, or delete commits/capture-",
        ),
        (lambda run: run.space.delete(SHARD), SHARD, "is missing; restore it, or delete commits/capture-"),
        (lambda run: run.space.write(SHARD, run.space.read(SHARD)[:100]), SHARD, r"hash \(100 bytes instead of"),
        (lambda run: flip(run, RECORD), RECORD, "is damaged"),
        (lambda run: flip(run, f"{GROUP}/example_id/c/0"), f"{GROUP}/example_id", "example_id is damaged"),
        (lambda run: run.space.delete(f"{GROUP}/label/c/0/0"), f"{GROUP}/label", "label/c/0/0 does not exist; delete"),
        (
            lambda run: edit(run, f"{GROUP}/ffn.neurons/zarr.json", lambda d: d["shape"].__setitem__(0, 96)),
            f"{GROUP}/ffn.neurons",
            "ffn.neurons/zarr.json does not match its recorded hash; delete activations/demo/encoder/zarr.json and run",
        ),
        (
            lambda run: edit(
                run, f"{GROUP}/zarr.json", lambda d: d["attributes"]["modularity:content"]["attributes"].clear()
            ),
            GROUP,
            "does not match its own digest",
        ),
        (lambda run: run.space.write(f"{GROUP}/zarr.json", b"{"), GROUP, "zarr.json"),
    ],
)
def test_every_kind_of_damage_is_found_and_named(run, damage, path, message):
    damage(run)
    report = verify_store(run)
    assert not report.ok
    assert [problem.path for problem in report.problems] == [path]
    assert message.replace("\\", "") in report.problems[0].message
    assert "1 problems" in str(report)
