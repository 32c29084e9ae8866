"""A run whose process ends at any of its calls of the store, before or after the call took effect, then goes on."""

import faulty_calls
import pytest
import store_demo

from modularity.store import create_run, verify_store
from modularity.store import space as space_module

STRIDE = 7


class Crash(BaseException):
    """Stands for the end of the process: nothing in the package may catch it."""


class CrashingCalls(faulty_calls.FaultyCalls):
    """Ends at one writing call, counted from 1, before it or after it took effect."""

    def __init__(self, call, after):
        super().__init__(lambda name, path, number: None)
        self._call, self._after = call, after

    def __getattr__(self, name):
        original = super().__getattr__(name)
        if name != "put":
            return original

        def put(*arguments, **options):
            if not self._after and self.n_calls.get(name, 0) + 1 == self._call:
                raise Crash
            result = original(*arguments, **options)
            if self._after and self.n_calls[name] == self._call:
                raise Crash
            return result

        return put


def job(uri):
    run = store_demo.create_demo(uri)
    for item in store_demo.items():
        if not run.is_done(item):
            store_demo.capture_item(run, item)
    for layer in range(store_demo.N_LAYERS):
        for start in (0, 100):
            if not run.is_done(store_demo.WorkItem.of("predict", function="demo", layer=layer, start=start)):
                store_demo.predict_item(run, layer, start)
    return run


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_no_moment_is_a_bad_one(run, tmp_path, monkeypatch, after):
    monkeypatch.setattr("modularity.store.arrays.parallel_map", in_order)
    monkeypatch.setattr("modularity.store.groups.parallel_map", in_order)
    expected = run.content_hash()
    n_crashes = 0
    for call in range(1 + after, 1000, STRIDE):
        uri = tmp_path / f"run-{call}"
        with monkeypatch.context() as patched:
            patched.setattr(space_module, "obstore", CrashingCalls(call, after))
            try:
                job(uri)
                break
            except Crash:
                n_crashes += 1
        resumed = job(uri)
        assert resumed.content_hash() == expected, call
        assert verify_store(resumed).ok, call
    assert n_crashes > 4


def in_order(function, values, n_threads):
    return [function(value) for value in values]


def test_a_run_whose_manifest_is_lost_goes_on_from_the_one_as_created(run):
    before = run.content_hash()
    run.update(state="running", notes={"seen": 1})
    run.space.delete("run.json")
    again = create_run(run.uri, store_demo.manifest())
    assert again.manifest.identity == run.manifest.identity
    assert again.content_hash() == before
