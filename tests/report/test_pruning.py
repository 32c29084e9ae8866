"""A pruning on the page: panels, bands and tables from plain values; sentences with their uncertainty."""

from dataclasses import replace

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.report import render_report
from modularity.report.figures import figures
from modularity.report.pruning import Curve, Pruning, PruningPlot, Written, pruning_plots
from modularity.report.run_pruning import _area_findings, _written_findings

SHARES = np.linspace(0.0, 1.0, 6)
KEPT = np.array([0.5, 0.5, 0.5, 0.4, 0.3, 0.1])
GONE = np.array([0.4, 0.2, 0.1, 0.0, 0.0, 0.0])


def plot(pruned: str = "code", kept: str = "news") -> PruningPlot:
    random = tuple(Curve(f"random {n}", KEPT[0] * (1 - SHARES) + 0.01 * n, GONE[0] * (1 - SHARES)) for n in range(3))
    ends = {role: (curve - 0.05, curve + 0.05) for role, curve in (("kept", KEPT), ("pruned", GONE))}
    others = (Curve("std, iterative", KEPT - 0.1, GONE),)
    return PruningPlot(pruned, kept, SHARES, Curve("abs, iterative", KEPT, GONE), others, random, 3, ends)


def written(prompts_of: str) -> Written:
    return Written(
        "code", "news", prompts_of, (0.2, 0.1, 0.3), (0.8, 0.7, 0.9), (0.25, 0.2, 0.3), 0.0001, 0.0002, 0.05, 40, 19
    )


AREAS = (("code", "news", "abs", "top-1", "0.80", "0.10", "0.70", "0.05", "0.05"),)
SHOWN = Pruning((plot(),), (written("code"), written("news")), AREAS, ("code", "news"))


def test_there_are_three_figures_and_each_part_alone() -> None:
    assert [each.name for each in pruning_plots(SHOWN)] == [
        "pruning-trajectories", "pruning-diagonal", "pruning-continuations",
    ]  # fmt: skip
    assert [each.name for each in pruning_plots(replace(SHOWN, plots=()))] == ["pruning-continuations"]
    assert pruning_plots(Pruning((), (), (), ("code", "news"))) == []


def test_accuracies_stand_beside_the_random_band() -> None:
    trajectories, diagonal, _ = pruning_plots(SHOWN)
    kept, gone = trajectories.panels
    assert (kept.title, gone.title) == ("news, kept", "code, removed")
    assert kept.series[-1].y == pytest.approx(100 * KEPT)
    assert gone.series[-1].low == pytest.approx(100 * (GONE - 0.05))
    assert kept.bands[0].high == pytest.approx(100 * (KEPT[0] * (1 - SHARES) + 0.02))
    assert "step 3 (60.0 % of the neurons) for “code removed, news kept”" in trajectories.caption
    assert trajectories.rows[0] == ("code removed, news kept", "news", "0.0 %", "50.0 %", "45.0 % to 55.0 %", "51.0 %")
    (panel,) = diagonal.panels
    assert panel.series[-1].x == pytest.approx([0, 0, 0, 20, 40, 80])
    assert panel.series[-1].y == pytest.approx([0, 50, 75, 100, 100, 100])
    assert diagonal.rows == AREAS


def test_random_curves_on_the_diagonal_make_a_band_around_it() -> None:
    flat = tuple(Curve(f"random {n}", 1 - SHARES, 0.5 * (1 - SHARES)) for n in range(2))
    _, diagonal = pruning_plots(replace(SHOWN, plots=(replace(plot(), random=flat),), written=()))
    (band,) = diagonal.panels[0].bands
    assert band.low == pytest.approx(band.x)
    assert band.high == pytest.approx(band.x)


def test_without_accuracy_to_lose_there_is_no_diagonal() -> None:
    none, whole = Curve("abs, iterative", 0 * KEPT, GONE), plot("news", "code")
    nothing = replace(plot(), chosen=none, others=(), random=(none,))
    assert [each.name for each in pruning_plots(replace(SHOWN, plots=(nothing,), written=()))] == [
        "pruning-trajectories"
    ]
    _, diagonal = pruning_plots(replace(SHOWN, plots=(nothing, whole), written=()))
    assert [panel.title for panel in diagonal.panels] == ["news removed, code kept"]
    assert diagonal.rows == AREAS


def test_what_is_written_has_before_after_and_random() -> None:
    plots = pruning_plots(SHOWN)[-1]
    random, line = plots.panels[0].series
    assert line.y.tolist() == [0.2, 0.8]
    assert (random.low.tolist(), random.high.tolist()) == ([0.2], [0.3])
    assert plots.rows[0][1:] == ("code", "0.20 [0.10, 0.30]", "0.80 [0.70, 0.90]", "0.25 [0.20, 0.30]", "< 0.001",
                                 "< 0.001", "0.05")  # fmt: skip


def test_the_page_has_the_section_and_the_figures_are_files(content) -> None:
    shown = replace(content, pruning=SHOWN, sections=("pruning",))
    page = render_report(shown)
    assert '<section id="pruning">' in page
    assert "Whether one capability goes without the other" in page
    assert "trajectories that remove as many random units" in page
    assert {"pruning-trajectories", "pruning-diagonal", "pruning-continuations"} <= set(figures(shown))
    empty = render_report(replace(content, pruning=Pruning((), (), (), ("a", "b")), sections=("pruning",)))
    assert "No units were removed yet." in empty


def test_curves_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match="has 6 points, expected 3"):
        replace(plot(), share_N=SHARES[:3])


CHOICE = {
    "pruned": "code", "kept": "news", "ffn_share": 0.3, "gap": 0.6, "gap_low": 0.5, "gap_high": 0.7, "null_mean": 0.1,
    "p_value": 0.05,
    **{f"{role}_{what}_{when}": value for role in ("kept", "pruned") for what in ("top1", "loss")
       for when, value in (("before", 0.5), ("after", 0.4), ("random", 0.45))},
}  # fmt: skip
AREA = {
    "pruned": "code", "kept": "news", "measure": "top1", "chosen": True, "area": 0.8, "area_low": 0.7, "area_high": 0.9,
    "score": "abs", "schedule": "one_shot", "null_mean": 0.1, "null_low": 0.0, "null_high": 0.2, "n_random": 19,
    "p_value": 0.05, "q_value": 0.05,
}  # fmt: skip
TEST = {
    "pruned": "code", "kept": "news", "prompts_of": "code", "n_prompts": 40, "before": 0.2, "before_low": 0.1,
    "before_high": 0.3, "after": 0.8, "after_low": 0.7, "after_high": 0.9, "change": 0.6, "p_value": 0.001,
    "q_value": 0.002, "random_mean": 0.25, "p_random": 0.05, "judge_accuracy": 0.97, "judge_low": 0.9,
    "judge_high": 0.99, "n_judge_test": 80,
}  # fmt: skip


def test_sentences_have_uncertainty_null_and_verdict() -> None:
    (found,) = _area_findings([AREA], [CHOICE])
    assert found.strength == "supported"
    assert "separability 0.80 [0.70, 0.90] by abs (one-shot)" in found.text
    assert "as many random units 0.10 [0.00, 0.20] over 19 seeds" in found.text
    assert "news loses 20 % of its top-1 accuracy" in found.text
    assert next(_area_findings([AREA | {"q_value": 0.2}], [CHOICE])).strength == "unsupported"
    nothing = next(_area_findings([AREA | {"area": float("nan")}], [CHOICE]))
    assert nothing.strength == "descriptive"
    (change,) = _written_findings([TEST, TEST | {"prompts_of": "news"}])
    assert change.strength == "supported"
    assert "P(news) is 0.20 [0.10, 0.30] before and 0.80 [0.70, 0.90] after" in change.text
    assert "right on 97.0 % of 80 held-out pieces" in change.text
    assert next(_written_findings([TEST | {"p_random": 0.3}])).strength == "unsupported"
    assert next(_written_findings([TEST | {"change": -0.6}])).strength == "unsupported"
