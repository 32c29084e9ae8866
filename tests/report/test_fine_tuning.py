"""Fine-tuning on the page: means over draws and seeds, the sentence and the panel of a task, by hand."""

import numpy as np

from modularity.report.figures import plot_figure
from modularity.report.fine_tuning import fine_tuning_findings, fine_tuning_plot, fine_tunings


def rows():
    values = {"original": [0.7], "functional": [0.8], "others": [0.6], "random": [0.5, 0.7]}
    return [
        {
            "task": "nli",
            "strategy": strategy,
            "draw": draw,
            "seed": seed,
            "accuracy": value + 0.1 * seed,
            "majority": 0.5,
        }
        for seed in (0, 1)
        for strategy, of_draws in values.items()
        for draw, value in enumerate(of_draws)
    ]


def comparisons(p=0.04, smallest=0.01):
    head = {"task": "nli", "functional": 0.85, "other": 0.65, "difference": 0.2, "difference_low": 0.1,
            "difference_high": 0.3, "p_value": p, "q_value": p, "smallest_p_value": smallest, "n_seeds": 2}  # fmt: skip
    return [head | {"against": name, "measure": m} for m in ("accuracy", "mcc") for name in ("original", "others")]


def test_draws_of_a_seed_are_averaged_and_strategies_in_order() -> None:
    shown = fine_tunings(rows(), comparisons())
    assert shown is not None
    np.testing.assert_allclose(shown.tasks[0].accuracy_NX, [[0.7, 0.8, 0.6, 0.6], [0.8, 0.9, 0.7, 0.7]])
    assert len(shown.tests) == 2


def test_nothing_is_shown_before_the_test() -> None:
    assert fine_tunings(rows(), []) is None
    assert list(fine_tuning_findings(None)) == []


def test_the_sentence_names_the_difference_and_what_no_p_can_be_below() -> None:
    (found,) = fine_tuning_findings(fine_tunings(rows(), comparisons()))
    assert found.strength == "supported"
    assert "functional experts only, the accuracy is .850, with as many others .650" in found.text.replace("0.", ".")
    (found,) = fine_tuning_findings(fine_tunings(rows(), comparisons(p=0.5, smallest=0.5)))
    assert found.strength == "unsupported"
    assert "with 2 seeds no p-value can be below" in found.text


def test_the_figure_has_a_line_for_each_seed_their_mean_and_the_floor() -> None:
    shown = fine_tunings(rows(), comparisons())
    assert shown is not None
    plot = fine_tuning_plot(shown)
    assert [series.style for series in plot.panels[0].series] == ["null", "other", "other", "line"]
    assert plot_figure(plot).section == "routing"
    assert plot.rows[1][:3] == ("nli", "others", plot.rows[1][2])
