"""Resume, refusal, and races: several processes, and processes that are killed while they write."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import store_demo
from store_demo import NEURONS, create_demo, finish_demo, manifest

from modularity.errors import IdentityError, StoreError
from modularity.store import Run, content_hash, create_run, open_run, verify_store


def child(code, *arguments):
    folder = str(Path(__file__).parent)
    lines = (
        f"import sys; sys.path.insert(0, {folder!r})\nfrom store_demo import *\nfrom modularity.store import open_run\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", lines + code, *map(str, arguments)],
        cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_create_open_and_resume(tmp_path):
    created = create_run(tmp_path / "run", manifest())
    created.update(state="running", items_planned={"capture": 3}, notes={"a": 1})
    created.update(notes={"b": 2})
    resumed = create_run(tmp_path / "run", manifest(versions={"modularity": "0.2"}))
    assert resumed.manifest == open_run(tmp_path / "run").manifest
    assert resumed.manifest.state == "running"
    assert resumed.manifest.notes == {"a": 1, "b": 2}
    assert resumed.manifest.items_planned == {"capture": 3}
    created.update(state="finished")
    assert resumed.reload().state == "finished"


def test_another_identity_is_refused(run):
    with pytest.raises(IdentityError, match=r'identity.model: recorded "tiny", now "large"'):
        create_run(run.uri, manifest(identity={"model": "large", "parameter_hash": "abc"}))


def test_places_that_hold_no_run(tmp_path):
    with pytest.raises(StoreError, match=r"there is no run at .*: the place is missing or empty; check the address"):
        open_run(tmp_path / "absent")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("x")
    with pytest.raises(StoreError, match=r"other is no run: it has no run\.json; name the folder that a job wrote"):
        open_run(tmp_path / "other")
    with pytest.raises(
        StoreError, match=r"other is not empty and holds no run \(no run\.json\); choose an empty place"
    ):
        create_run(tmp_path / "other", manifest())


def test_damaged_manifest(run):
    run.space.write("run.json", b"{")
    with pytest.raises(StoreError, match=r"run\.json is damaged, it is not JSON"):
        open_run(run.uri)


def test_run_travels_to_another_process(run):
    assert isinstance(pickle.loads(pickle.dumps(run)), Run)
    process = child("print(len(open_run(sys.argv[1]).commits()))", run.uri)
    assert process.communicate(timeout=60)[0] == "7\n"


def test_content_hash_is_independent_of_order_time_and_interruption(run, tmp_path):
    first = create_demo(tmp_path / "second")
    store_demo.predict_item(first, 1, 100)
    store_demo.capture_item(first, store_demo.items()[2])
    # Killed here, after data of an item that was not committed.
    first.write_activations("demo", NEURONS, 0, store_demo.values()[:96] + 1)
    resumed = create_demo(tmp_path / "second")
    assert len(resumed.committed_ids()) == 2
    finish_demo(resumed)
    assert content_hash(resumed) == content_hash(run)
    assert verify_store(resumed).ok
    np.testing.assert_array_equal(resumed.read_activations("demo", NEURONS), store_demo.values())


def test_content_hash_sees_data_and_coordinates(run, tmp_path):
    assert create_demo(tmp_path / "empty").content_hash() != run.content_hash()
    other = create_run(tmp_path / "other", manifest())
    assert other.content_hash() != create_demo(tmp_path / "empty").content_hash()


def test_discarded_item_is_redone(run):
    before, item = run.content_hash(), store_demo.items()[1]
    run.discard(item.id)
    assert not run.is_done(item)
    store_demo.capture_item(run, item)
    assert run.content_hash() == before


def test_two_processes_share_the_items_and_race_for_each(run, tmp_path):
    shared = create_demo(tmp_path / "shared")
    processes = [child("finish_demo(open_run(sys.argv[1]))", shared.uri) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert shared.content_hash() == run.content_hash()
    assert verify_store(shared).ok


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_kill_while_writing_leaves_the_item_uncommitted(run, tmp_path, delay_s):
    shared = create_demo(tmp_path / "killed")
    code = (
        "run = open_run(sys.argv[1]); print('writing', flush=True)\n"
        "while True: run.write_activations('demo', NEURONS, 0, values()[:96])\n"
    )
    process = child(code, shared.uri)
    assert process.stdout.readline() == "writing\n"
    time.sleep(delay_s)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert shared.committed_ids() == frozenset()
    finish_demo(shared)
    assert shared.content_hash() == run.content_hash()
    assert verify_store(shared).ok
