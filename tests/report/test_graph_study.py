"""Curves check their shapes; a scale without zero holds every value."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.report.graph_study import GraphCurve, GraphNull, GraphStudy, graph_plots
from modularity.report.lines import Panel, Series, y_range


def curve(graph: str, measure: str, n_layers: int = 3) -> GraphCurve:
    x = np.arange(n_layers, dtype=float)
    null = GraphNull("strengths", 10 + x, 9.9 + x, 10.1 + x, -x, np.full(n_layers, 0.5))
    return GraphCurve(graph, "spectral", measure, tuple(range(n_layers)), 9.95 + x, (null,), 50)


def test_a_row_of_panels_for_each_graph_and_a_plot_for_each_measure() -> None:
    study = GraphStudy(tuple(curve(graph, m) for graph in ("weights", "rescaled") for m in ("ncut", "modularity")))
    q, cut = graph_plots(study)
    assert (q.name, cut.name) == ("graph-modularity", "graph-ncut")
    assert [(panel.title, panel.row) for panel in cut.panels] == [("weights, spectral", 0), ("rescaled, spectral", 1)]
    assert cut.panels[0].series[-1].tips[1] == (
        "weights, spectral · layer 1", "n-cut 10.95", "strengths: 11.00, z −1.0, q 0.50"
    )  # fmt: skip
    assert len(cut.rows) == 6


def test_scales_without_zero_hold_every_value() -> None:
    x = np.arange(2.0)
    panel = Panel("t", "k0", (Series(x, np.array([10.4, 10.6]), "line"),), from_zero=False)
    low, high = y_range([panel])
    assert 10.3 < low < 10.4
    assert 10.6 < high < 10.7
    assert y_range([Panel("t", "k0", panel.series)])[0] == 0.0


def test_wrong_shapes_are_refused() -> None:
    good = curve("weights", "ncut")
    with pytest.raises(DataError, match=r"GraphCurve.observed_L has shape \(3,\), expected \(2,\)"):
        GraphCurve("weights", "spectral", "ncut", (0, 1), good.observed_L, good.nulls, 50)
    with pytest.raises(DataError, match=r"GraphNull.z_L has shape \(2,\), expected \(3,\)"):
        GraphNull("strengths", np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(2), np.zeros(3))
