"""The page of a tight pass from plain values: figures, tooltips, missing parts, escaping."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from modularity.report.content import Finding, Provenance
from modularity.report.run_tight_pass import _notes, _rank_finding
from modularity.report.tight_pass import LOWEST, LayerLine, SpectrumLine, TightPass, tight_pass_plots
from modularity.report.tight_pass_page import render_tight_pass, tight_pass_figures

LAYERS = (0, 1, 2)
SHARES_X = np.array([0.1, 0.5, 0.9])


def line(kind: str, measure: str, condition: str, height: float) -> LayerLine:
    mean_L = height + np.arange(3.0)
    return LayerLine(kind, measure, condition, mean_L, mean_L - 0.5, mean_L + 0.5)


@pytest.fixture
def content() -> TightPass:
    lines = [
        line(kind, measure, condition, height)
        for kind in ("ffn", "attention")
        for measure in ("rank", "stable_rank")
        for condition, height in (("model", 3), ("random_weights", 6), ("bound", 9))
    ]
    spectra = [
        SpectrumLine("ffn", layer, condition, np.array([-0.5, -2, LOWEST]), np.full(3, LOWEST), np.zeros(3))
        for layer in LAYERS
        for condition in ("model", "random_weights")
    ]
    return TightPass(
        title="Tight passes in <b>tiny</b>", model="tiny", stack="decoder", layers=LAYERS, width=16, n_texts=4,
        n_tokens=20, created="now", state="finished", lines=tuple(lines), spectra=tuple(spectra), shares_X=SHARES_X,
        methods=(("FFN", "exact"),), findings=(Finding("FFN: few directions.", "supported", "FFN", "directions"),),
        notes=("a note",), provenance=Provenance(groups=()),
    )  # fmt: skip


def test_figures_show_every_line_and_value(content: TightPass) -> None:
    directions, spectra = tight_pass_plots(content)
    assert [panel.title for panel in directions.panels] == [
        "FFN: rank", "FFN: stable rank", "attention: rank", "attention: stable rank"
    ]  # fmt: skip
    assert len({panel.row for panel in directions.panels}) == 4  # ranks and stable ranks have scales of their own
    assert len(directions.rows) == len(content.lines) * len(LAYERS)
    assert ("FFN", "rank", "model", "0", "3.00", "[2.50, 3.50]") in directions.rows
    main = next(series for series in directions.panels[0].series if series.style == "line")
    assert main.tips[1][:2] == ("layer 1 · rank per token", "model 4.00 [3.50, 4.50]")
    assert [panel.title for panel in spectra.panels] == ["layer 0", "layer 1", "layer 2"]
    assert all(len(panel.bands) == 1 for panel in spectra.panels)


def test_the_page_is_whole_and_escaped(content: TightPass) -> None:
    page = render_tight_pass(content)
    assert "<b>tiny</b>" not in page
    assert "&lt;b&gt;tiny" in page
    for part in ("Beyond chance", "a note", 'id="figure-directions"', 'id="figure-spectra-ffn"', "Figure 2"):
        assert part in page
    assert set(tight_pass_figures(content)) == {"directions", "spectra-ffn"}


def test_an_unfinished_run_has_a_page(content: TightPass) -> None:
    page = render_tight_pass(replace(content, lines=(), spectra=(), findings=(), methods=()))
    assert page.count("This was not computed yet.") == 2
    assert "No numbers to draw findings from." in page


def test_sub_blocks_that_pass_nothing_have_no_sentence() -> None:
    """As in a model from which all neurons, or all heads, were pruned."""
    ffn = {"control": "model", "sub_block": "ffn", "rank": 0.0, "rank_bound": 0, "rank_float32": 0.0}
    assert list(_rank_finding([ffn])) == []
    silent = {"method": "matrix_free", "largest": 0.0, "largest_residual": 0.0, "reproduction_error": 0.0}
    notes = {"texts": [{"n_cut": 0}] * 6}
    manifest = SimpleNamespace(notes=notes, config={"max_tokens": 8, "with_norm": True}, state="finished")
    (note,) = _notes(SimpleNamespace(manifest=manifest), [silent])
    assert note.startswith("Sub-blocks in float64 differ")


def test_one_text_has_no_interval(content: TightPass) -> None:
    alone = replace(content.lines[0], low_L=np.full(3, np.nan), high_L=np.full(3, np.nan))
    (plot, *_) = tight_pass_plots(replace(content, lines=(alone,), n_texts=1))
    assert {row[-1] for row in plot.rows} == {"–"}
