"""The sentences of a scan, and a scan as a section of the page of a run."""

from dataclasses import replace

import numpy as np
import pytest

from modularity.errors import InputError
from modularity.report import write_report
from modularity.report.figures import page_figures
from modularity.report.page import render_report
from modularity.report.scan_content import ScanContent, ScanFunction, Similarity, StepCurve
from modularity.report.scan_findings import scan_findings


def scan(p_value=0.01):
    def curve(first, last):
        value = np.array([first, 0.3, last])
        return StepCurve(
            value, value - 0.1, value + 0.1, *(np.full(3, 0.1) for _ in range(3)), np.array([1, 0.5, p_value])
        )

    def similarity(first, last):
        rho = np.array([first, last, np.nan])
        return Similarity(rho, rho - 0.05, rho + 0.05)

    likeness = {
        ("consecutive", level): similarity(*ends)
        for level, ends in {"experts": (0.2, 0.9), "neurons": (0.1, 0.7), "random partitions": (0.15, 0.8)}.items()
    }
    function = ScanFunction("senses", 4, 2, (0, 1, 1), curve(0.0, 0.6), None, None, likeness)
    return ScanContent(
        title="Emergence", uri="/runs/scan", state="finished", steps_T=np.array([0.0, 100, 2000]),
        functions=(function,), partition_of="step2000", failed=(), equal_parameters=(), notes=(),
        checkpoints=(("step0", "finished", "0"),), settings=(("variant", "corrected"),), created="2026",
    )  # fmt: skip


def test_sentences_name_both_ends_their_intervals_and_chance():
    neurons, settling = scan_findings(scan())
    assert "senses from 0.00 [−0.10, 0.10] to 0.60 [0.50, 0.70], p = 0.01" in neurons.text
    assert (neurons.strength, settling.strength) == ("supported", "descriptive")
    assert (
        "senses (n = 4): experts 0.20 [0.15, 0.25] → 0.90 [0.85, 0.95], neurons 0.10 [0.05, 0.15] → 0.70 [0.65, 0.75] "
        "and random groups 0.15 [0.10, 0.20] → 0.80 [0.75, 0.85]." in settling.text
    )


def test_chance_is_not_excluded_where_one_function_is_not_beyond_it():
    assert scan_findings(scan(p_value=0.2))[0].strength == "unsupported"
    shown = scan()
    weak = replace(shown.functions[0], name="weak", best=scan(p_value=0.03).functions[0].best)
    both = replace(shown, functions=(weak, replace(weak, name="other")))
    assert "p = 0.06" in scan_findings(both)[0].text
    assert scan_findings(both)[0].strength == "unsupported"


def test_a_scan_is_a_section_of_the_page_of_a_run(content):
    names = [figure.name for figure in page_figures(content)]
    with_scan = replace(content, scan=scan(), findings=(*content.findings, *scan_findings(scan())))
    figures = page_figures(with_scan)
    assert [figure.name for figure in figures] == [*names, "scan-predictivity", "scan-stabilisation"]
    html = render_report(with_scan)
    assert html.count('<section id="training">') == 1
    assert '<a href="#training">Training</a>' in html
    assert "figure-scan-stabilisation" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert 'id="training"' not in render_report(content)


def test_what_is_no_scan_is_refused(tiny_run, tmp_path):
    with pytest.raises(InputError, match=r"--scan .*: there is no checkpoint scan; expected the --out of"):
        write_report(tiny_run.uri, out=tmp_path / "a.html", scan=str(tmp_path))
