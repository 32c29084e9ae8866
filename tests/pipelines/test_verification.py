"""Verification: stored bytes against their records, and rows against the model; what is wrong is named."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_jobs

from modularity.pipelines import verify_run
from modularity.store import Run, open_run


@pytest.fixture
def copied(paper_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(paper_run.uri, tmp_path / "run")
    return open_run(tmp_path / "run")


@pytest.fixture
def restored(bert: Path, folder: Path) -> Iterator[None]:
    """Weights and data are put back after the test."""
    paths = [bert / "model.safetensors", folder / "topics.jsonl"]
    kept = [path.read_bytes() for path in paths]
    yield
    for path, data in zip(paths, kept):
        path.write_bytes(data)


def test_a_sound_run_agrees_with_its_model(paper_run: Run) -> None:
    report = verify_run(paper_run.uri, n_rows=5)
    assert report.problems == ()
    assert report.n_rows == 5
    assert report.n_items == len(paper_run.commits())
    assert report.largest_difference < 1e-5
    assert report.text().endswith("everything agrees")


def test_without_rows_the_model_is_not_needed(copied: Run, bert: Path, restored: None) -> None:
    (bert / "model.safetensors").write_bytes(b"gone")
    report = verify_run(copied.uri, n_rows=0)
    assert (report.n_rows, report.problems) == (0, ())


def test_a_flipped_byte_is_named(copied: Run) -> None:
    shard = next(path for path in sorted((Path(copied.uri) / "activations").rglob("c/*/*/*")) if path.is_file())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(bytes(data))
    report = verify_run(copied.uri, n_rows=2)
    name = str(shard.relative_to(copied.uri))
    assert any(name in problem and "does not match its recorded hash" in problem for problem in report.problems)
    assert report.text().endswith("problems")


def test_changed_weights_are_named(paper_run: Run, bert: Path, restored: None) -> None:
    tiny_jobs.save(bert, tiny_jobs.random_module(tiny_jobs.bert_config(), seed=9))
    (problem,) = verify_run(paper_run.uri).problems
    recorded = paper_run.manifest.identity["model"]["parameter_hash"]
    assert problem.startswith("the model's parameters have hash ")
    assert problem.endswith(f"recorded is {recorded}")


def test_changed_data_are_named(paper_run: Run, folder: Path, restored: None) -> None:
    path = folder / "topics.jsonl"
    path.write_text(path.read_text().replace("moon", "lamp", 1))
    report = verify_run(paper_run.uri)
    (problem,) = report.problems
    assert problem.startswith("the data of function 'topics' has fingerprint ")
    assert report.n_rows == 0


def test_missing_data_are_a_problem_and_not_a_crash(paper_run: Run, folder: Path, restored: None) -> None:
    (folder / "topics.jsonl").unlink()
    (problem,) = verify_run(paper_run.uri).problems
    assert problem.startswith("rows could not be recomputed: ")
    assert "topics.jsonl" in problem


def test_a_run_that_is_not_finished_is_checked_as_far_as_it_goes(copied: Run) -> None:
    copied.update(state="running")
    report = verify_run(copied.uri)
    assert report.problems == ("the run is running, not finished: its rows were not recomputed; rerun the job first",)
    assert report.n_items == len(copied.commits())
