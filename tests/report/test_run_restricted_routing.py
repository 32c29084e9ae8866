"""The page of a restricted-routing study against its tables; its findings in sentences."""

import sys
from pathlib import Path

import numpy as np
import pytest

from modularity.report import figures, headline_findings, render_report, report_content
from modularity.report.restricted_routing import STRATEGY_NAMES, learning_plot, strategy_plot
from modularity.report.run_restricted_routing import _findings

sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A study of the planted Switch."""
    import tiny_jobs
    import tiny_routing as tiny

    folder = tmp_path_factory.mktemp("routing-page")
    source = tiny_jobs.run(tiny.source_job(folder, tiny.checkpoint(folder / "m")), folder / "source")
    return tiny.run(tiny.config(source, epochs=1, evaluate_every=1), folder / "run")


def test_points_and_means_are_those_of_the_tables(run):
    study = report_content(run).tuning
    assert [task.name for task in study.tasks] == ["task0", "task1", "average"]
    rows = run.table("accuracy").to_pylist()
    for task in study.tasks[:2]:
        assert [each.strategy for each in task.strategies] == list(STRATEGY_NAMES)
        for each in task.strategies:
            of = [row for row in rows if (row["task"], row["strategy"]) == (task.name, each.strategy)]
            expected = [np.mean([row["accuracy"] for row in of if row["seed"] == seed]) for seed in (0, 1)]
            np.testing.assert_allclose(each.values_N, expected)
            assert each.mean == pytest.approx(np.mean(expected))
    for each in study.tasks[2].strategies:
        assert each.values_N.mean() == pytest.approx(each.mean)
    plot = strategy_plot(study)
    assert len(plot.rows) == 3 * 4
    assert "2 seeds, 2 random draws for each" in plot.caption
    assert "chosen on other, validation examples" in plot.caption


def test_the_course_is_the_mean_over_seeds_and_draws(run):
    study = report_content(run).tuning
    curve = run.table("tuning_curve").to_pylist()
    for each in study.tasks[0].strategies:
        np.testing.assert_array_equal(each.step_X, [0, 1, 2])
        of = [row for row in curve if (row["task"], row["strategy"]) == ("task0", each.strategy)]
        expected = [np.mean([row["accuracy"] for row in of if row["step"] == step]) for step in (0, 1, 2)]
        np.testing.assert_allclose(each.validation_X, expected)
    assert len(study.tasks[2].strategies[0].step_X) == 0
    plot = learning_plot(study)
    assert [panel.title for panel in plot.panels] == ["task0", "task1"]
    assert plot.axis.labels == ("0", "1", "2")
    assert len(plot.panels[0].series) == 5
    functional = study.tasks[0].strategies[2]
    assert plot.rows[2][:3] == ("task0", "functional", f"{100 * functional.validation_X[0]:.1f}")


def test_the_page_says_what_was_compared(run):
    content = report_content(run)
    page = render_report(content)
    assert 'id="routing"' in page
    assert "was not computed" not in page
    assert set(figures(content)) == {"strategies", "learning"}
    assert "does not say that they are equal" in page
    assert "Task task0: functional experts of 6 are layer 1: 2." in page
    found = headline_findings(content)
    assert [each.strength for each in found] == ["unsupported"] * 3
    assert found[0].text.startswith("average: trained with the functional experts only, accuracy is ")
    assert "with 2 seeds no p can be below 0.50" in found[0].text


def test_a_finding_names_the_tasks_that_differ():
    test = {"task": "a", "against": "original", "difference": -0.05, "low": -0.07, "high": -0.03, "p_value": 0.0078,
            "q_value": 0.0156, "smallest_p_value": 0.0078, "n_seeds": 8}  # fmt: skip
    tests = [test, {**test, "task": "b", "difference": 0.04}, {**test, "task": "c", "q_value": 0.4}]
    summary = [
        {"task": "a", "strategy": name, "mean": mean} for name, mean in (("functional", 0.7), ("original", 0.75))
    ]
    (found,) = _findings(summary, tests)
    assert found.strength == "supported"
    assert (
        "accuracy is 70.0 %, with all experts 75.0 %: a difference of −5.0 [−7.0, −3.0] points, p = 0.0078"
        in found.text
    )
    assert "Of 3 tasks, 1 (b) better and 1 (a) worse" in found.text
