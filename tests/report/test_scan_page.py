"""The page of a scan from synthetic values: axes, panels, escaping, nothing loaded; and in a browser."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from modularity.report.scan_content import SHOWN_LEVELS, ScanContent, ScanFunction, Similarity, StepCurve
from modularity.report.scan_figures import is_log_spaced, scan_plots, step_axis
from modularity.report.scan_page import render_scan, scan_figures

STEPS = np.array([0, 1, 4, 16, 64, 256, 1000, 4000], dtype=np.float64)
NASTY = "<img src=x onerror=window.hacked=1>{{7*7}}</script>"


def step_curve(rng, top, *, ends=True):
    value = top / (1 + np.exp(3 - np.arange(len(STEPS)))) + rng.normal(0, 0.01, len(STEPS))
    null = np.full(len(STEPS), 0.12)
    side = 0.05 if ends else np.nan
    return StepCurve(value, value - side, value + side, null, null - 0.02, null + 0.03, np.full(len(STEPS), 0.005))


def function(name, rng):
    similarity = {}
    for comparison in ("consecutive", "final", "reliability"):
        for level, top in zip(SHOWN_LEVELS, (0.95, 0.8, 0.7)):
            rho = top * (1 - np.exp(-0.5 * np.arange(1, len(STEPS) + 1)))
            if comparison == "consecutive":
                rho[-1] = np.nan
            similarity[comparison, level] = Similarity(rho, rho - 0.05, rho + 0.04)
    curves = (step_curve(rng, 0.7), step_curve(rng, 0.2, ends=False), step_curve(rng, 3, ends=False))
    return ScanFunction(name, 3, 12, tuple(range(len(STEPS))), *curves, similarity)


@pytest.fixture(scope="session", name="content")
def _content():
    rng = np.random.default_rng(0)
    return ScanContent(
        title="Emergence of modularity over 8 checkpoints of owner/model",
        uri="/runs/scan",
        state="finished",
        steps_T=STEPS,
        functions=(function("semantic", rng), function("task", rng)),
        partition_of="step4000",
        failed=(("step9", "Traceback\nModelError: weights are missing"),),
        equal_parameters=(("step0", "step1"),),
        notes=("step1:step8:log9: 9 revisions asked for, 4 different ones are nearest",),
        checkpoints=tuple((f"step{int(step)}", "finished", "0123456789abcdef") for step in STEPS),
        settings=(("variant", "corrected"), ("label permutations", "200")),
        created="2026-11-22T20:00:00+00:00",
    )


class Words(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.words, self.skipped = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skipped = tag if tag in ("script", "style") else 0

    def handle_endtag(self, tag):
        self.skipped = 0

    def handle_data(self, data):
        if not self.skipped:
            self.words.append(data)


def parse(html):
    words = Words()
    words.feed(html)
    return words


def test_the_axis_is_logarithmic_where_steps_are():
    assert is_log_spaced(STEPS)
    assert not is_log_spaced(np.arange(0, 10_000, 1000.0))
    assert not is_log_spaced(np.array([0, 10, 100.0]))
    axis, places = step_axis(STEPS)
    assert axis.label == "training step (logarithmic)"
    assert places[:4].tolist() == [-1, 0, 2, 4]
    assert axis.labels == ("0", "1", "4", "16", "64", "256", "1k", "4k")
    axis, places = step_axis(np.array([0, 5000.0, 10_000]))
    assert (axis.label, places.tolist()) == ("training step", [0, 5000, 10_000])


def test_plots_and_their_values(content):
    best, experts, similarity = scan_plots(content)
    assert [len(plot.panels) for plot in (best, experts, similarity)] == [2, 4, 6]
    assert best.rows[1][:3] == ("semantic", "1", "1")
    assert "experts are those of step4000 at every step" in experts.caption
    line = similarity.panels[0].series[-1]
    assert line.style == "line"
    assert [series.style for series in similarity.panels[0].series] == ["null", "control1", "line"]
    assert line.tips[0][1].startswith("experts 0.37 [0.32, 0.41]")
    assert np.isnan(line.y[-1])
    assert all(len(row) == len(plot.headers) for plot in (best, experts, similarity) for row in plot.rows)


def test_the_page_is_whole_and_loads_nothing(content):
    html = render_scan(content)
    page = parse(html)
    text = "".join(page.words)
    for words in (
        "step9 failed: ModelError: weights are missing",
        "step0 and step1 have the same parameters",
        "9 revisions asked for",
        "Figure 3. What settles first",
        "modularity status /runs/scan",
    ):
        assert words in text, words
    assert not re.search(r"\b(nan|None|inf)\b", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"} <= set(ids)
    assert not re.search(r"https?://|@import|url\(", html.replace("http://www.w3.org/2000/svg", ""))
    assert render_scan(content) == html
    assert list(scan_figures(content)) == ["scan-predictivity", "scan-experts", "scan-stabilisation"]


def test_text_from_data_is_escaped(content):
    nasty = replace(
        content,
        title=NASTY,
        functions=(replace(content.functions[0], name=NASTY),),
        failed=((NASTY, NASTY),),
        notes=(NASTY,),
        checkpoints=((NASTY, NASTY, NASTY),),
    )
    page = parse(render_scan(nasty))
    assert "img" not in [tag for tag, _ in page.tags]
    assert [a.get("type") for tag, a in page.tags if tag == "script"].count(None) == 1


def test_without_experts_and_halves(content):
    missing = StepCurve(*(np.full(len(STEPS), np.nan) for _ in range(7)))
    bare = [
        replace(
            each,
            proportion=missing,
            degree=missing,
            similarity={key: value for key, value in each.similarity.items() if key == ("consecutive", "neurons")},
        )
        for each in content.functions
    ]
    html = render_scan(
        replace(content, functions=tuple(bare), partition_of=None, failed=(), equal_parameters=(), notes=())
    )
    assert "This was not computed in this scan." in html
    assert "What to know first" not in html


@pytest.fixture(scope="module")
def address(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "report.html"
    path.write_text(render_scan(content), encoding="utf-8")
    return path.as_uri()


@pytest.mark.browser
def test_in_a_browser(open_page, tip_over):
    page = open_page()
    assert page.locator("figure .wide svg").count() == 3
    drawing = page.locator("figure#figure-scan-predictivity .wide svg")
    x, y = drawing.get_attribute("data-points").split()[3].split(",")
    assert tip_over(page, drawing, float(x), float(y)).startswith("semantic · step 16\nnormalised AP ")
    narrow = open_page(width=375)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 375
