"""Notes of a run name the function that they speak of."""

import shutil

import numpy as np

from modularity.report.run_notes import _few_arrangements, run_notes
from modularity.report.run_tables import RunTables
from modularity.store import open_run


def test_data_notes_and_truncation_are_told(tiny_run, tmp_path):
    shutil.copytree(tiny_run.uri, tmp_path / "run")
    run = open_run(str(tmp_path / "run"))
    run.update(notes={"data": ["words: 8 left out: cap of 4 per label (bat 6, seal 2)"], "truncated": {"topics": 1200}})
    found = list(run_notes(run, RunTables(run)))
    assert "words: 8 left out: cap of 4 per label (bat 6, seal 2)." in found
    assert "1,200 texts of function topics were longer than the limit and lost their end." in found


def test_a_run_without_remarks_has_none_on_arrangements(tiny_run):
    assert not any("arrangements" in note for note in run_notes(tiny_run, RunTables(tiny_run)))


def test_labels_that_cannot_be_permuted_are_told(tiny_run, monkeypatch):
    """Three clusters of 10, 20 and the other rows of a half, with constant labels: a single arrangement."""
    coordinates = dict(tiny_run.coordinates("words"))
    n_rows = len(coordinates["cluster"])
    cluster = np.digitize(np.arange(n_rows), [10, 30])
    coordinates |= {"selection": np.ones(n_rows), "cluster": cluster, "label": np.stack([cluster > 0, cluster > 1])}
    monkeypatch.setattr(type(tiny_run), "coordinates", lambda self, name: coordinates)
    tables = RunTables(tiny_run)
    tables.functions = ("words",)
    found = list(_few_arrangements(tiny_run, tables))
    assert len(found) == 2
    assert found[0] == (
        "words, sub-function river: its clusters allow 1 distinct arrangement of the labels, fewer than the 40 "
        "permutations drawn, so that no p-value of it is to be expected below 1.000."
    )
