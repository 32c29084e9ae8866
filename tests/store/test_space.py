import math
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from obstore.exceptions import GenericError

from modularity.errors import InputError, StoreError, UnavailableError
from modularity.store import MissingObjectError, Space, open_space
from modularity.store.space import RETRIES


def exercise(space: Space):
    assert space.list() == ()
    assert space.is_empty()
    assert not space.exists("a/b.json")
    with pytest.raises(MissingObjectError, match=r"a/b\.json does not exist"):
        space.read("a/b.json")
    space.write("a/b.json", b"0123456789")
    space.write("a/c d+é.json", b"x")
    assert space.exists("a/b.json")
    assert bytes(space.read_range("a/b.json", 2, 5)) == b"234"
    assert bytes(space.read_tail("a/b.json", 3)) == b"789"
    assert space.list("a") == ("a/b.json", "a/c d+é.json")
    assert space.join("a").list() == ("b.json", "c d+é.json")
    assert space.list_folders() == ("a",)
    assert space.list("nothing") == ()
    assert space.sizes("a") == {"a/b.json": 10, "a/c d+é.json": 1}
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: space.create("commits/x.json", b"%d" % n), range(8)))
    assert sum(won) == 1
    assert space.read("commits/x.json") == b"%d" % won.index(True)
    assert pickle.loads(pickle.dumps(space)).read("a/b.json") == b"0123456789"
    space.delete("a/b.json")
    space.delete("a/b.json")
    assert not space.exists("a/b.json")


def test_local_folder(tmp_path):
    exercise(open_space(tmp_path / "new folder"))


def test_reading_creates_no_folder(tmp_path):
    space = open_space(tmp_path / "absent")
    assert not space.exists("x")
    assert space.is_empty()
    assert not (tmp_path / "absent").exists()


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"notes\.txt is a file, expected the folder of a run"):
        open_space(tmp_path / "notes.txt").is_empty()


def test_file_uri_and_relative_path_are_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_space("run x") == open_space(f"file://{tmp_path}/run%20x") == open_space(tmp_path / "run x")


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3://", "", "http://host/run"])
def test_unknown_place_is_refused(uri):
    with pytest.raises(InputError, match="is no place to keep a run: expected a local path"):
        open_space(uri)


@pytest.mark.parametrize("uri", ["a\0b", "runs/\udcff"])
def test_names_that_no_record_can_hold_are_refused(uri):
    with pytest.raises(InputError, match="holds a NUL or bytes that are not UTF-8") as caught:
        open_space(uri)
    str(caught.value).encode()


def test_credentials_in_the_uri_are_refused_and_not_repeated():
    with pytest.raises(InputError, match="holds a user name or password") as caught:
        open_space("s3://key:secret@bucket/run")
    assert "secret" not in str(caught.value)


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    def put(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modularity.store.space.obstore.put", put)
    with pytest.raises(UnavailableError, match="No space left on device; make room there and run the job again"):
        open_space(tmp_path).write("a", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="check the path and its permissions"):
        open_space(tmp_path / "run").write("x", b"")


def test_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoreError, match=r"writing .*run/x failed"):
        open_space(tmp_path / "run").write("x", b"")


@pytest.mark.parametrize(("seconds", "asked"), [(0, 4), (300, 1)])
def test_a_lost_answer_is_asked_for_again_as_long_as_a_store_is_asked(seconds, asked, monkeypatch):
    """Else a store that is down would be asked four times as long as is said."""
    calls = []

    def put(*arguments, **options):
        calls.append(options)
        raise GenericError("error sending request for url")

    monkeypatch.setattr("modularity.store.space.obstore.put", put)
    clock = SimpleNamespace(monotonic=lambda: seconds * len(calls))
    monkeypatch.setattr("modularity.store.space.time", clock)
    space = open_space("s3://bucket/run")
    monkeypatch.setattr(space, "_opened", lambda create: None)
    with pytest.raises(UnavailableError, match="run the job again when the store answers"):
        space.write("a", b"")
    assert len(calls) == asked


def test_a_store_is_asked_for_as_long_as_is_said():
    """Pauses as obstore draws them, on average in logarithms, reach the time before the retries are used up."""
    most, factor = RETRIES["backoff"]["max_backoff"].total_seconds(), RETRIES["backoff"]["base"] / math.e
    pauses = [min(most, 0.1 * factor**n) for n in range(min(60, RETRIES["max_retries"]))]
    assert sum(pauses) > RETRIES["retry_timeout"].total_seconds()
