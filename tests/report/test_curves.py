import re
from dataclasses import replace

import numpy as np

from modularity.report import ExpertControl
from modularity.report.curves import curve_plot, expert_plot, function_expert_plot, sensitivity_plot
from modularity.report.figures import NARROW_PX
from modularity.report.lines import line_figure
from modularity.report.palette import figure_css
from modularity.report.svg import FIGURE_CSS, text_width


def styles(panel):
    return [series.style for series in panel.series]


def test_predictivity_has_the_null_the_other_functions_and_its_band(content):
    plot = curve_plot(content)
    assert [panel.title for panel in plot.panels] == ["semantic", "knowledge", "task"]
    assert styles(plot.panels[0]) == ["other", "other", "null", "line", "open"]
    assert plot.panels[0].bands[0].high is content.curves[0].null_high_L
    assert len({panel.colour for panel in plot.panels}) == 3
    curve = content.curves[1]
    expected = [
        f"{value[4]:.2f}" for value in (curve.best_L, curve.low_L, curve.high_L, curve.null_L, curve.null_high_L)
    ]
    assert plot.rows[12 + 4] == ("knowledge", "4", *expected)


def test_predictivity_without_optional_parts(content):
    curve = replace(content.curves[0], selection_L=None, null_low_L=None, p_value_L=None)
    plot = curve_plot(replace(content, curves=(curve,)))
    assert styles(plot.panels[0]) == ["null", "line"]
    assert plot.panels[0].bands[0].low is curve.null_L
    assert [style for style, _ in plot.legend] == ["line", "null", "band"]
    assert len(plot.panels[0].series[1].tips[0]) == 3


def test_experts_in_per_cent_and_degree_with_controls_in_one_style_each(content):
    plot = expert_plot(content)
    assert [panel.title for panel in plot.panels[2:4]] == ["task: proportion", "semantic: degree"]
    assert styles(plot.panels[0]) == ["null", "control1", "line"]
    assert np.allclose(plot.panels[0].series[-1].y, 100 * content.expert_curves[0].proportion_L)
    assert np.allclose(plot.panels[3].series[-1].y, content.expert_curves[0].degree_L)
    tip = plot.panels[0].series[-1].tips[0]
    assert tip[0] == "semantic · layer 0"
    assert tip[2] == "random partition 0.0357 %"


def test_four_controls_have_a_dash_and_a_colour_each(content):
    names = ("permuted labels", "random partitions", "shuffled weights", "unbalanced k-means")
    controls = tuple(ExpertControl(name, *[np.zeros(12)] * 2) for name in names)
    curves = (replace(content.expert_curves[0], controls=controls),)
    plot = expert_plot(replace(content, expert_curves=curves, function_expert_curves=()))
    assert styles(plot.panels[0]) == ["null", "control1", "control2", "control3", "line"]
    assert plot.legend == (("line", "experts"), *zip(styles(plot.panels[0]), names))
    for css in (FIGURE_CSS + figure_css(dark=False), FIGURE_CSS + figure_css(dark=True)):
        rules = {style: re.findall(rf"\.{style}{{([^}}]*)}}", css) for style in styles(plot.panels[0])[:4]}
        dashes = [re.search(r"stroke-dasharray:([\d. ]+)", ";".join(found)).group(1) for found in rules.values()]
        colours = [re.search(r"stroke:([^;]+)", ";".join(found)).group(1) for found in rules.values()]
        assert len(set(dashes)) == len(set(colours)) == 4


def test_the_legend_of_four_controls_fits_a_phone(content):
    names = ("permuted labels", "random partitions", "shuffled weights", "unbalanced k-means")
    legend = (("line", "experts"), *(("null", name) for name in names), ("null", "a control with a long name " * 3))
    panels, axis = expert_plot(content).panels[:1], expert_plot(content).axis
    drawn = str(line_figure("n", "T", "D", panels, axis, width=NARROW_PX, legend=legend)[0])
    placed = re.findall(r'<text x="([\d.]+)" y="[\d.]+" class="muted">([^<]+)<', drawn)
    assert len(placed) == 7
    assert all(float(x) + text_width(label) <= NARROW_PX for x, label in placed)


def test_a_control_that_one_function_lacks_keeps_its_style(content):
    lacking = replace(content.expert_curves[0], controls=(ExpertControl("shuffled weights", *[np.zeros(12)] * 2),))
    plot = expert_plot(replace(content, expert_curves=(content.expert_curves[1], lacking)))
    assert styles(plot.panels[1]) == ["control1", "line"]
    assert plot.rows[-1][-2:] == ("–", "0")


def test_whole_functions_are_drawn_like_their_sub_functions(content):
    plot = function_expert_plot(content)
    assert (plot.name, plot.section) == ("experts-functions", "experts")
    assert [panel.title for panel in plot.panels[2:4]] == ["task: proportion", "semantic: degree"]
    assert np.allclose(plot.panels[4].series[-1].y, content.function_expert_curves[1].degree_L)
    assert len(plot.rows) == 36


def test_top_neurons_that_were_raised_to_one_say_so(content):
    curve = replace(content.sensitivity[0], k_Q=[1, 1, 2, 5], asked_Q=[0.5, 1.2, 2.4, 6.0])
    plot = sensitivity_plot(replace(content, sensitivity=(curve,)))
    assert [row[2] for row in plot.rows] == ["1 (raised from 0.50)", "1", "2", "5"]
    assert plot.panels[0].series[-1].tips[0][0] == "semantic · top 0.5 %: 1 (raised from 0.50) of each layer’s neurons"


def test_sensitivity_on_a_logarithmic_axis(content):
    plot = sensitivity_plot(content)
    assert plot.axis.logarithmic
    assert plot.axis.labels == ("0.5", "1", "2", "5")
    assert plot.panels[0].series[-1].tips[1] == (
        "semantic · top 1.0 %",
        "proportion 2.00 %",
        "random partition 0.0357 %",
    )
