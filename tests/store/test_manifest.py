import json
import re

import pytest
from store_demo import manifest

from modularity.errors import IdentityError, StoreError
from modularity.store.manifest import Manifest, check_same_run, differing_keys, parse_manifest


def test_round_trip():
    recorded = manifest(notes={"matmul": "default"}, items_planned={"capture": 3})
    assert parse_manifest(recorded.to_bytes(), "run.json") == recorded
    assert recorded.created.endswith("+00:00")


def test_the_order_of_keys_is_kept():
    """Sub-functions come in the order in which contrasts and parts are declared."""
    labels = {"neutral": 1, "entailment": 2}
    read = parse_manifest(manifest(config={"labels": labels}).to_bytes(), "run.json")
    assert list(read.config["labels"]) == ["neutral", "entailment"]


def test_every_difference_is_listed_with_both_values():
    old = manifest()
    new = manifest(
        config={"capture": {"dtype": "float16"}, "functions": [{"name": "demo"}, {"name": "more"}]},
        identity={"model": "tiny", "parameter_hash": "def"},
    )
    with pytest.raises(IdentityError) as caught:
        check_same_run(old, new, "/runs/a")
    assert str(caught.value) == (
        "the run at /runs/a was made from something else:\n"
        '  identity.parameter_hash: recorded "abc", now "def"\n'
        '  config.capture.dtype: recorded "float32", now "float16"\n'
        "  config.capture.layers: recorded null, now absent\n"
        '  config.functions.1.name: recorded absent, now "more"\n'
        "choose another --out for the new run, or set these values back to resume the recorded one"
    )


def test_other_job_is_refused_and_versions_or_state_are_not():
    check_same_run(manifest(), manifest(versions={"torch": "3"}, state="failed"), "here")
    with pytest.raises(IdentityError, match="job: recorded 'demo_job', now 'other'"):
        check_same_run(manifest(), Manifest.of("other", config=manifest().config, identity=manifest().identity), "here")


def test_equal_mappings_do_not_differ():
    assert list(differing_keys({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]})) == []


def broken(**changes):
    return json.dumps({**json.loads(manifest().to_bytes()), **changes}).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "run.json is damaged, it is not JSON"),
        (b"[1]", "run.json is not the manifest of a run; name the folder that a job wrote with --out"),
        (broken(schema_version=99), "format version 99, this package reads up to 1; install a newer modularity"),
        (broken(state="lost"), "run.json is damaged at 'state'"),
        (broken(extra=1), "run.json is damaged at 'extra'"),
        (broken(config={"a": 1}), "was changed: its config does not match config_digest; restore it from a copy, or "),
        (
            broken(identity={"model": "tinz"}),
            "was changed: it does not match its digest; restore it from a copy, or delete",
        ),
    ],
)
def test_damaged_manifests(data, message):
    with pytest.raises(StoreError, match=re.escape(message)):
        parse_manifest(data, "run.json")
