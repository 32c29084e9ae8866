"""Status: items, bytes and failures of a run as its store tells them."""

import json
import shutil
from pathlib import Path

import pytest

from modularity.errors import StoreError
from modularity.pipelines import run_status
from modularity.store import Run


def test_a_finished_run(finished: Run) -> None:
    status = run_status(finished.uri)
    assert (status.state, status.job, status.failure) == ("finished", "emergent_modularity", None)
    assert all(done == planned for done, planned in status.items.values())
    assert status.n_tokens == sum(finished.table("examples")["n_tokens"].to_pylist())
    paths = [stored.path for record in finished.commits().values() for stored in record.objects]
    assert status.n_bytes == sum((Path(finished.uri) / path).stat().st_size for path in paths)
    assert set(status.functions) == {"words", "topics"}
    text = status.text()
    assert "items     23/23: capture 3/3" in text
    assert "state     finished\n" in text
    assert "damage" not in text
    assert json.loads(json.dumps(status.as_json()))["items"]["overlap"] == [1, 1]


def test_missing_and_shortened_objects_are_told(finished: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished.uri, run)
    table = next((run / "tables" / "best_neurons").iterdir())
    table.unlink()
    shard = next(path for path in (run / "activations" / "words").rglob("c/*/*/*"))
    shard.write_bytes(shard.read_bytes()[:-1])
    status = run_status(str(run))
    assert len(status.damage) == 2
    assert f"{shard} of item capture-" in status.damage[0]
    assert status.damage[1].startswith(f"{table} of item summary-")
    assert status.damage[1].endswith(" is missing")
    assert f"and 1 more; `modularity verify {run}` lists all and what to do" in status.text()


def test_a_place_without_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no run at"):
        run_status(str(tmp_path / "nothing"))
