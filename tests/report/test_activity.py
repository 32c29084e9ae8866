"""Firing rates and contexts of a page: every neuron in one bin, values of the run, texts escaped."""

from dataclasses import replace

import numpy as np
import pytest

from modularity.report import render_report
from modularity.report.activity import (
    RATE_NAMES,
    ActiveNeuron,
    Activity,
    Context,
    activity_finding,
    activity_grid,
    rate_bins,
)
from modularity.report.run_activity import _chosen


def test_every_neuron_is_in_the_bin_of_its_rate():
    rates = np.array([0, 1e-5, 1e-4, 1.1e-4, 1e-2, 0.1, 0.5, 0.51, 0.999, 1.0, np.nan])
    counts = {"0": 1, "≤.01": 2, "≤.1": 1, "≤1": 1, "≤10": 1, "≤50": 1, "<100": 2, "100": 1}
    assert dict(zip(RATE_NAMES, (rate_bins(rates) * 10).round().astype(int).tolist())) == counts
    assert (rate_bins(np.full(3, np.nan)) == 0).all()


def test_grid_and_finding_leave_out_what_a_narrower_layer_lacks():
    rate_LF = np.array([[0.0, 0.2, 0.4, 1.0], [0.6, 0.6, np.nan, np.nan]])
    each = Activity("pile", (0, 3), 1000, 0.0, rate_LF)
    grid = activity_grid(each)
    assert grid.row_names == ("layer 0", "layer 3")
    np.testing.assert_allclose(grid.value.sum(axis=1), 1)
    assert activity_finding(each).text == (
        "pile: 1 of 6 neurons never fire on 1,000 tokens; the median neuron fires on 50.0 % of them "
        "(of layer 0 on 30.0 %, of layer 3 on 60.0 %)."
    )
    assert activity_finding(Activity("pile", (0,), 10, 0.0)) is None


@pytest.mark.parametrize(("n_layers", "n_chosen"), [(2, 10), (40, 40), (100, 60)])
def test_neurons_that_stand_out_are_chosen_in_every_layer_within_a_limit(n_layers, n_chosen):
    score_LF = np.random.default_rng(0).normal(size=(n_layers, 50))
    score_LF[:, 7] = 9
    score_LF[0, 3] = np.nan
    chosen = _chosen(score_LF)
    assert len(chosen) == n_chosen
    assert (0, 3) not in chosen
    assert all((layer, 7) in chosen for layer in range(min(n_layers, 60)))


def test_contexts_are_escaped_on_the_page(content):
    hostile = Context(3.5, "<b>x", "<script>alert(1)</script> moon", "a.jsonl:4")
    neuron = ActiveNeuron(0, 5, 12.25, 0.01, (hostile,))
    each = Activity("<i>pile", (0,), 10, 0.0, np.array([[0.5, 0.0]]), (neuron,), is_peak=True)
    page = render_report(replace(content, activities=(each,), sections=(*content.sections, "activity")))
    assert "<script>alert" not in page
    assert "<i>pile" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; moon" in page
    assert "12.2" in page
