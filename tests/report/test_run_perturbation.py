"""The page of a perturbation against its tables; its verdict in a sentence."""

import sys
from pathlib import Path

import numpy as np
import pytest

from modularity.report import figures, headline_findings, render_report, report_content
from modularity.report.run_perturbation import _sentence

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A perturbation of the planted OPT with true double dissociation."""
    import tiny_jobs
    import tiny_perturbation as tiny

    folder = tmp_path_factory.mktemp("perturbation-page")
    source = tiny_jobs.run(tiny.source_job(folder, tiny.checkpoint(folder / "m", shared=False)), folder / "source")
    return tiny.run(tiny.config(source, noises=["zero"], rankings=["single", "matched", "random"]), folder / "run")


@pytest.fixture(scope="module")
def content(run):
    return report_content(run)


def test_matrix_and_lines_are_those_of_the_table(content, run):
    [dose], [matrix] = content.perturbation.doses, content.perturbation.matrices
    rows = {(row["ranking"], row["task"]): row for row in run.table("perturbation").to_pylist()
            if row["kind"] in ("single", "none")}  # fmt: skip
    for task in matrix.tasks:
        place = matrix.rankings.index("task1"), matrix.tasks.index(task)
        assert matrix.drop_YS[place] == rows["task1", task]["drop_margin"]
    assert matrix.rankings[:4] == matrix.tasks
    panel = next(panel for panel in dose.panels if (panel.task, panel.measure) == ("task2", "accuracy"))
    own = next(line for line in panel.lines if line.role == "own")
    np.testing.assert_array_equal(own.mean_X, [rows["none", "task2"]["accuracy"], rows["task2", "task2"]["accuracy"]])
    assert [line.role for line in panel.lines].count("other") == 3
    assert [line.ranking for line in panel.lines if line.role == "matched"] == ["matched task2"]


def test_the_verdict_is_a_finding(content):
    [finding] = headline_findings(content)
    assert finding.strength == "supported"
    assert finding.text.startswith("zero: a double dissociation; the neurons of each task are needed for this task")
    assert "25.0 % of the neurons" in finding.text
    assert "p = 0.042" in finding.text


def test_the_page_has_only_its_sections(content):
    page = render_report(content)
    assert 'id="perturbation"' in page
    assert 'id="sensitivity"' not in page
    assert "was not computed" not in page
    assert set(figures(content)) == {"dose-zero", "drops-zero"}


def test_few_tasks_cannot_show_anything_and_the_sentence_says_so():
    row = {
        "verdict": "not shown", "n_tasks": 3, "smallest_p_value": 1 / 6, "strength": 0.1, "diagonal": 1.0,
        "off_diagonal": 0.2, "matched": float("nan"), "index": 0.8, "low": 0.7, "high": 0.9, "p_value": 1 / 6,
        "q_value": 1 / 6,
    }  # fmt: skip
    text = _sentence("shuffle", row)
    assert text.startswith("shuffle: it was not shown that the neurons of a task are needed for this task more")
    assert text.endswith("corrected over noises and strengths 0.17; with 3 tasks no p can be below 0.17.")
