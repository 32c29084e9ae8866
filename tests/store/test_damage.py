"""Damage to any file of a run: found by `verify`, named with what to do, and mended by doing just that."""

import random
import re

import pytest
import store_demo

from modularity.errors import StoreError
from modularity.store import open_run, verify_store
from modularity.store.groups import missing_metadata

KINDS = {
    "manifest": r"run\.json",
    "manifest as created": r"run\.created\.json",
    "root": r"zarr\.json",
    "parents": r"activations/(demo/)?zarr\.json|results/zarr\.json",
    "group": r"(activations/demo/encoder|results/demo)/zarr\.json",
    "array": r"(activations/demo/encoder/ffn\.neurons|results/demo/(predictivity|polarity))/zarr\.json",
    "shard": r"activations/demo/encoder/ffn\.neurons/c/.*",
    "chunk": r"results/demo/(predictivity|polarity)/c/.*",
    "coordinate": r"(activations/demo/encoder|results/demo)/([a-z_]+|ffn\.neurons\.width)/(zarr\.json|c/.*)",
    "record": r"commits/.*\.json",
    "table": r"tables/rows/.*\.parquet",
}


def kind_of(path):
    return next(kind for kind, pattern in KINDS.items() if re.fullmatch(pattern, path))


def flipped(data, draw):
    position = draw.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << draw.randrange(8)]) + data[position + 1 :]


def test_a_changed_bit_of_any_file_is_found(run):
    """One random bit of each file; the damage is undone by hand before the next."""
    draw, space = random.Random(3), run.space
    for path in space.list():
        data = space.read(path)
        damaged = flipped(data, draw)
        space.write(path, damaged)
        try:
            problems = verify_store(open_run(run.uri)).problems
        except StoreError as error:  # of the manifest, without which nothing is known
            problems = [error]
        assert problems, (path, damaged)
        space.write(path, data)
    assert verify_store(run).ok


def told_to_delete(message):
    return re.search(r"delete (?:it|(\S+)) and run the job again", message)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_message_advises_mends_the_run_and_redoes_no_more(kind, run, monkeypatch):
    before, draw = run.content_hash(), random.Random(1)
    path = draw.choice([path for path in run.space.list() if kind_of(path) == kind])
    data = run.space.read(path)
    run.space.write(path, data[: len(data) // 2])
    try:
        (problem,) = verify_store(open_run(run.uri)).problems
        message = problem.message
    except StoreError as error:
        message = str(error)
    assert re.sub(r"/zarr\.json$|/c/[0-9/]+$" if kind == "coordinate" else r"/zarr\.json$", "", path) in message
    run.space.delete(told_to_delete(message)[1] or path)
    assert missing_metadata(run.space) or kind not in ("root", "parents", "group", "array", "coordinate")
    done = []
    for name in ("capture_item", "predict_item"):
        original = getattr(store_demo, name)
        monkeypatch.setattr(store_demo, name, lambda *a, original=original: done.append(a) or original(*a))
    again = redo(run.uri)
    assert len(done) == (1 if kind in ("shard", "chunk", "record", "table") else 0)
    assert again.content_hash() == before
    assert verify_store(open_run(run.uri)).ok


def redo(uri):
    """The job again: it makes what is missing of the metadata, and the items that are not recorded."""
    run = store_demo.create_demo(uri)
    for item in store_demo.items():
        if not run.is_done(item):
            store_demo.capture_item(run, item)
    for layer in range(store_demo.N_LAYERS):
        for start in (0, 100):
            if not run.is_done(store_demo.WorkItem.of("predict", function="demo", layer=layer, start=start)):
                store_demo.predict_item(run, layer, start)
    return run


def test_reading_finds_damaged_metadata_and_coordinates(run):
    group = "activations/demo/encoder"
    for path in (f"{group}/zarr.json", f"{group}/ffn.neurons/zarr.json", f"{group}/layer/c/0"):
        data = run.space.read(path)
        run.space.write(path, data.replace(b'"layer"', b'"lazer"') if path.endswith("json") else data[:-1])
        with pytest.raises(StoreError, match=rf"{group}.*delete {group}/zarr\.json and run the job again"):
            open_run(run.uri).read_activations("demo", store_demo.NEURONS, layer=0)
        run.space.write(path, data)
