"""The page of a graph study against its tables; its verdicts in sentences."""

import sys
from pathlib import Path

import numpy as np
import pytest

from modularity.report import figures, headline_findings, render_report, report_content
from modularity.report.run_graph_modularity import _agreement, _agreement_findings

pytest.importorskip("graspologic_native")
sys.path.insert(0, str(Path(__file__).parent.parent / "pipelines"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    import tiny_graphs as tiny

    folder = tmp_path_factory.mktemp("graph-page")
    return tiny.run(tiny.config(model=tiny.model(tiny.checkpoint(folder / "bert"))), folder / "run")


@pytest.fixture(scope="module")
def content(run):
    return report_content(run)


def test_lines_are_those_of_the_table(content, run):
    rows = run.table("graph_tests").to_pylist()
    assert [(curve.method, curve.measure) for curve in content.graphs.curves] == [
        ("spectral", "ncut"), ("spectral", "modularity"), ("leiden", "modularity")
    ]  # fmt: skip
    for curve in content.graphs.curves:
        for null in curve.nulls:
            for index, layer in enumerate(curve.layers):
                key = (layer, curve.method, curve.measure, null.name)
                (row,) = [r for r in rows if (r["layer"], r["method"], r["measure"], r["null"]) == key]
                assert curve.observed_L[index] == row["observed"]
                assert null.low_L[index] == row["null_low"]
                assert null.q_value_L[index] == row["q_value"]


def test_findings_name_every_null_and_the_layers(content):
    spectral, leiden = headline_findings(content)
    assert spectral.strength == leiden.strength == "supported"
    assert spectral.text.startswith("weights, spectral: the layers have groups beyond every null. n-cut of 4 groups is")
    assert "null permuted" in spectral.text
    assert "null strengths" in spectral.text
    assert "p = 0.05, corrected 0.050, 0 of 2 layers" in spectral.text
    assert "no p is below 0.050" in leiden.text


def test_the_page_has_its_sections_and_figures_only(content):
    page = render_report(content)
    assert 'id="graphs"' in page
    assert 'id="predictivity"' not in page
    assert "was not computed" not in page
    assert "<dt>Examples</dt>" not in page
    assert set(figures(content)) == {"graph-modularity", "graph-ncut", "group-agreement"}


def rows_of_agreement(p_values):
    common = {"adjusted_mutual_information": 0.3, "null_sd": 0.01, "n_permutations": 100}
    return [
        {"layer": layer, "partition_a": "weights/leiden", "partition_b": experts, "adjusted_rand": value, "q_value": q}
        | common
        for layer, q in enumerate(p_values)
        for experts, value in (("balanced", 0.2 + layer), ("random", 0.0))
    ]


def test_agreement_is_the_mean_over_layers():
    matrix = _agreement(rows_of_agreement([0.01, 0.2]))
    assert (matrix.rows, matrix.columns) == (("weights/leiden",), ("weights/leiden", "balanced", "random"))
    np.testing.assert_allclose(matrix.value_YS, [[np.nan, 0.7, 0.0]])
    np.testing.assert_allclose(matrix.n_found_YS, [[np.nan, 1, 1]])
    (finding,) = _agreement_findings(rows_of_agreement([0.01, 0.2]))
    assert finding.strength == "unsupported"
    assert (
        "agree most with balanced: adjusted Rand index 0.700 on average, 0.200 to 1.200 over 2 layers" in finding.text
    )
    assert finding.text.endswith("chance 0 ± 0.010; random 0.000.")
