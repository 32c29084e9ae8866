"""Figures of a perturbation, from values made up by hand."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.report.perturbation import (
    Dose,
    DoseLine,
    DosePanel,
    DropMatrix,
    RoutingMatrix,
    dose_plot,
    drop_caption,
    drop_grid,
    routing_caption,
)

TASKS = ("sst2", "mrpc")


def line(ranking, role, values):
    mean = np.array(values)
    return DoseLine(ranking, role, mean, mean - 0.1, mean + 0.1)


@pytest.fixture
def dose():
    panels = [
        DosePanel(task, measure, (line(task, "own", [1, 0.6]), line("random", "random", [1, 0.9])))
        for task in TASKS
        for measure in ("accuracy", "margin")
    ]
    return Dose("zero", np.array([0, 0.1]), tuple(panels), 1)


@pytest.fixture
def matrix():
    drop = np.array([[2.0, 0.1], [0.2, 3.0], [0.1, -0.2]])
    return DropMatrix("zero", 0.1, (*TASKS, "random"), TASKS, drop, drop - 0.1, drop + 0.1)


def test_a_panel_for_each_task_and_measure_with_its_own_line_in_front(dose):
    plot = dose_plot(dose, TASKS)
    assert [(panel.title, panel.row) for panel in plot.panels] == [
        ("sst2: accuracy", 0), ("mrpc: accuracy", 0), ("sst2: logit margin", 1), ("mrpc: logit margin", 1)
    ]  # fmt: skip
    assert [series.style for series in plot.panels[0].series] == ["null", "line"]
    assert plot.panels[0].series[-1].tips[1] == ("sst2 · 10.0 % of neurons", "sst2 0.600", "random 0.900")
    assert [style for style, _ in plot.legend] == ["line", "null"]
    assert plot.rows[1] == ("sst2", "accuracy", "sst2", "10.0 %", "0.600", "0.500 to 0.700")
    assert "1 seed" in plot.caption


def test_the_diagonal_is_marked(matrix):
    grid = drop_grid(matrix)
    assert grid.marked is not None
    assert grid.marked.tolist() == [[True, False], [False, True], [False, False]]
    assert "10.0 % of the neurons" in drop_caption(matrix)


def test_captions_say_what_the_control_is():
    routing = RoutingMatrix(TASKS, ("sst2",), np.zeros((1, 2)), np.ones((1, 2)), 50)
    assert "50 draws of as many other experts" in routing_caption(routing)


def test_shapes_are_checked(matrix):
    with pytest.raises(DataError, match=r"line 'random' of task 'sst2' has 3 points, expected 2"):
        Dose("zero", np.array([0, 0.1]), (DosePanel("sst2", "margin", (line("random", "random", [1, 1, 1]),)),), 1)
    with pytest.raises(DataError, match=r"drops have shape \(3, 2\), expected \(2, 2\)"):
        DropMatrix("zero", 0.1, TASKS, TASKS, matrix.drop_YS, matrix.low_YS, matrix.high_YS)
