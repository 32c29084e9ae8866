"""Predictivity in the store equals scikit-learn on the stored activations, in both variants and for narrow layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from sklearn.metrics import average_precision_score, roc_auc_score

from modularity.pipelines.predictivity_step import selection_half
from modularity.pipelines.restricted_routing_prepare import larger_precision
from modularity.stats import polarity_scales
from modularity.store import Run

NEURONS_CHECKED = (0, 7, 63, 64, 100, 159)


def check_against_scikit_learn(run: Run, function: str, *, layers: tuple[int, ...], paper: bool) -> None:
    results, coordinates = run.results(function), run.coordinates(function)
    chosen_R = np.ones(len(coordinates["selection"]), bool) if paper else coordinates["selection"].astype(bool)
    reported_R = chosen_R if paper else ~chosen_R
    for index, layer in enumerate(layers):
        activations_RF = run.read_activations(function, tiny_jobs.NEURONS, layer=layer).astype(np.float64)
        for s, labels_R in enumerate(coordinates["label"]):
            select, report = (np.flatnonzero(half_R & (labels_R >= 0)) for half_R in (chosen_R, reported_R))
            for neuron in (n for n in NEURONS_CHECKED if n < int(results["width"][index])):
                expected = scores_of(activations_RF[:, neuron], labels_R, select, report, paper=paper)
                for name, value in expected.items():
                    stored = results[name].values[s, index, neuron]
                    assert stored == pytest.approx(value, abs=1e-12), (name, s, layer, neuron)


def scores_of(
    values_R: np.ndarray, labels_R: np.ndarray, select: np.ndarray, report: np.ndarray, *, paper: bool
) -> dict[str, float]:
    """Scores of one neuron by scikit-learn and arithmetic."""
    by_label = [average_precision_score(labels_R[select] == label, values_R[select]) for label in (1, 0)]
    share = float((labels_R[select] == 1).mean())
    floors = [max(share, 1 - share)] * 2 if paper else [share, 1 - share]
    above = [(value - floor) / (1 - floor) for value, floor in zip(by_label, floors)]
    scales = polarity_scales(labels_R[None, select] == 1, rule="larger" if paper else "standardised").part(0)
    scores = [float(scale.score(value)) for scale, value in zip((scales.positive, scales.negative), by_label)]
    label = 1 if scores[0] >= scores[1] else 0
    agrees = [((values_R[rows] > values_R[select].mean()) == (labels_R[rows] == 1)).mean() for rows in (select, report)]
    return {
        "predictivity": by_label[1 - label],
        "polarity": 2 * label - 1,
        "normalised": above[1 - label],
        "score": max(scores),
        "predictivity_evaluation": average_precision_score(labels_R[report] == label, values_R[report]),
        "auroc": roc_auc_score(labels_R[select], values_R[select]),
        "auroc_evaluation": roc_auc_score(labels_R[report], values_R[report]),
        "accuracy": agrees[1] if agrees[0] >= 0.5 else 1 - agrees[1],
    }


@pytest.mark.parametrize("function", ["words", "topics"])
def test_scores_equal_scikit_learn_on_disjoint_halves(finished: Run, function: str) -> None:
    check_against_scikit_learn(finished, function, layers=(0, 1), paper=False)


def test_the_paper_variant_uses_all_rows_for_both(paper_run: Run) -> None:
    check_against_scikit_learn(paper_run, "topics", layers=(0, 1), paper=True)


def test_layers_of_different_width(uneven: Run) -> None:
    check_against_scikit_learn(uneven, "words", layers=(0, 2), paper=False)


def test_the_null_is_that_of_the_maximum_over_a_block(finished: Run) -> None:
    results = finished.results("words")
    null_SLBN = results["null_max"].values
    means_SLF, highest_SLF = results["null_mean"].values, results["null_sd"].values
    assert ((null_SLBN > 0) & (null_SLBN < 8)).all()  # about normal
    for block, (start, stop) in enumerate(((0, 64), (64, 128), (128, 160))):
        largest_mean = means_SLF[:, :, start:stop].max(axis=2)
        assert (null_SLBN[:, :, block].mean(axis=2) >= largest_mean - 1e-6).all()
    assert (highest_SLF > 0).all()
    p_value_SLF = results["p_value"].values
    assert ((p_value_SLF > 0) & (p_value_SLF <= 1)).all()


def test_halves_by_variant(finished: Run) -> None:
    coordinates = finished.coordinates("words")
    assert selection_half(coordinates, "paper") is None
    half_R = selection_half(coordinates, "corrected")
    assert half_R is not None
    assert (half_R.dtype, int(half_R.sum())) == (np.bool_, 140)


def test_no_lists_are_kept_where_no_experts_are_sought(
    bert: Path, functions: list[dict[str, Any]], finished: Run, tmp_path: Path
) -> None:
    run = tiny_jobs.run(tiny_jobs.job(bert, functions[1:], analyses=["predictivity"]), tmp_path / "run")
    results = run.results("topics")
    assert not {"null_top", "null_top_value"} & set(results.data_vars)
    np.testing.assert_array_equal(results["null_max"].values, finished.results("topics")["null_max"].values)


def test_the_papers_predictivity_is_the_larger_of_both_labels(finished: Run) -> None:
    found_SF = larger_precision(finished, "topics", tiny_jobs.NEURONS, 1, [1, 0])
    coordinates, stored = finished.coordinates("topics"), finished.results("topics")["predictivity"].values
    values_RF = finished.read_activations("topics", tiny_jobs.NEURONS, layer=1)
    for row, s in enumerate((1, 0)):
        labels_R = coordinates["label"][s]
        select = np.flatnonzero(coordinates["selection"].astype(bool) & (labels_R >= 0))
        for neuron in NEURONS_CHECKED:
            both = [average_precision_score(labels_R[select] == label, values_RF[select, neuron]) for label in (1, 0)]
            assert found_SF[row, neuron] == pytest.approx(max(both), abs=1e-12)
    assert found_SF.shape == (2, 160)
    assert (found_SF[0] > stored[1, 1] + 0.1).any()  # two of three texts have the label: polarities differ in scale
