"""Tables of one function over all layers, against small computations with NumPy, SciPy and scikit-learn."""

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import false_discovery_control
from sklearn.metrics import average_precision_score

from modularity.stats import PolarityRule, PolarityScale, polarity_scales
from modularity.store import Run

RUNS = [
    ("finished", "words"),
    ("finished", "topics"),
    ("paper_run", "topics"),
    ("uneven", "words"),
    ("uneven", "topics"),
]


def scale_of(coordinates: dict[str, np.ndarray], s: int, polarity: int, *, paper: bool) -> PolarityScale:
    """Scale of one polarity on the selection rows of a sub-function."""
    labels_R = coordinates["label"][s]
    chosen = (labels_R >= 0) & (paper | coordinates["selection"].astype(bool))
    rule: PolarityRule = "larger" if paper else "standardised"
    return polarity_scales(labels_R[None, chosen] == 1, rule=rule).part(0).of(polarity)


@pytest.fixture(params=RUNS, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[Run, str, bool]:
    """A run, one of its functions, and whether all rows are used for both."""
    name, function = request.param
    return request.getfixturevalue(name), function, name == "paper_run"


def test_q_values_are_benjamini_hochberg_over_the_neurons_of_all_layers(case: tuple[Run, str, bool]) -> None:
    results = case[0].results(case[1])
    for p_value_LF, q_value_LF in zip(results["p_value"].values, results["q_value"].values):
        real_LF = ~np.isnan(p_value_LF)
        np.testing.assert_allclose(q_value_LF[real_LF], false_discovery_control(p_value_LF[real_LF]), rtol=1e-12)
        assert np.isnan(q_value_LF[~real_LF]).all()


def test_best_neurons_are_chosen_and_reported_as_said(case: tuple[Run, str, bool]) -> None:
    run, function, paper = case
    results, coordinates = run.results(function), run.coordinates(function)
    layers = results["layer"].values.tolist()
    rows = tiny_jobs.rows_of(run, "best_neurons", function=function)
    names = results["subfunction"].values.tolist()
    assert [(row["subfunction"], row["layer"]) for row in rows] == [(name, layer) for name in names for layer in layers]
    for row in rows:
        s, index = names.index(row["subfunction"]), layers.index(row["layer"])
        width = row["n_neurons"]
        values_F = results["score"].values[s, index, :width]
        assert row["neuron"] == int(values_F.argmax())
        assert row["score_selection"] == values_F.max()
        place = (s, index, row["neuron"])
        assert row["normalised_selection"] == results["normalised"].values[place]
        assert row["ap_selection"] == results["predictivity"].values[place]
        floor = row["floor_selection"]
        assert row["ap_selection"] == pytest.approx(floor + (1 - floor) * row["normalised_selection"])
        assert row["p_value"] == results["p_value"].values[place]
        assert row["q_value"] == results["q_value"].values[place]
        null_N = results["null_max"].values[s, index].max(axis=0)
        assert row["p_value_max"] == pytest.approx((1 + (null_N >= values_F.max() - 1e-10).sum()) / (1 + len(null_N)))
        null_ap_N = scale_of(coordinates, s, row["polarity"], paper=paper).average_precision(null_N)
        assert row["null_max_mean"] == pytest.approx(null_ap_N.mean())
        assert row["null_max_high"] == pytest.approx(np.quantile(null_ap_N, 0.95))
        if paper:
            assert row["null_max_mean"] == pytest.approx(floor + (1 - floor) * null_N.mean())
        labels_R = coordinates["label"][s]
        reported = (labels_R >= 0) & (paper | ~coordinates["selection"].astype(bool))
        assert row["n_evaluation"] == reported.sum()
        share = (labels_R[reported] == 1).mean()
        assert row["chance_evaluation"] == pytest.approx(share if row["polarity"] == 1 else 1 - share)
        values_R = run.read_activations(function, tiny_jobs.NEURONS, layer=row["layer"])[:, row["neuron"]]
        wanted_R = labels_R[reported] == (row["polarity"] + 1) // 2
        value = average_precision_score(wanted_R, values_R[reported])
        assert row["ap_evaluation"] == pytest.approx(value, abs=1e-12)
        assert paper == (row["ap_evaluation"] == row["ap_selection"]) or value == 1
        chance = row["chance_evaluation"]
        assert row["normalised_evaluation"] == pytest.approx((value - chance) / (1 - chance))
        assert row["normalised_low"] <= row["normalised_evaluation"] <= row["normalised_high"] <= 1


def test_curves_are_means_over_subfunctions_against_their_null(case: tuple[Run, str, bool]) -> None:
    run, function, paper = case
    results, coordinates = run.results(function), run.coordinates(function)
    best = tiny_jobs.rows_of(run, "best_neurons", function=function)
    layers = results["layer"].values.tolist()
    curve = tiny_jobs.rows_of(run, "function_curve", function=function)
    assert [row["layer"] for row in curve] == layers
    null_LN = results["null_max"].values.max(axis=2).mean(axis=0)
    for index, row in enumerate(curve):
        of_layer = [found for found in best if found["layer"] == row["layer"]]
        assert row["n_subfunctions"] == len(of_layer) == 2
        assert row["normalised_evaluation"] == pytest.approx(np.mean([r["normalised_evaluation"] for r in of_layer]))
        selection = np.mean([(r["ap_selection"] - r["floor_selection"]) / (1 - r["floor_selection"]) for r in of_layer])
        assert row["normalised_selection"] == pytest.approx(selection)
        shown_SN = []
        for s, found in enumerate(of_layer):
            null_N = results["null_max"].values[s, index].max(axis=0)
            ap_N = scale_of(coordinates, s, found["polarity"], paper=paper).average_precision(null_N)
            shown_SN.append((ap_N - found["floor_selection"]) / (1 - found["floor_selection"]))
        shown_N = np.mean(shown_SN, axis=0)
        assert row["null_mean"] == pytest.approx(shown_N.mean())
        assert row["null_low"] == pytest.approx(np.quantile(shown_N, 0.05))
        assert row["null_high"] == pytest.approx(np.quantile(shown_N, 0.95))
        n, score = null_LN.shape[1], np.mean([r["score_selection"] for r in of_layer])
        assert row["score_selection"] == pytest.approx(score)
        assert row["p_value"] == pytest.approx((1 + (null_LN[index] >= score - 1e-10).sum()) / (1 + n))
        assert row["p_value_all_layers"] == pytest.approx((1 + (null_LN.max(axis=0) >= score - 1e-10).sum()) / (1 + n))
        assert row["p_value_all_layers"] >= row["p_value"]
        assert row["low"] <= row["normalised_evaluation"] <= row["high"] <= 1


def test_top_neurons_are_the_best_of_all_layers_in_order(case: tuple[Run, str, bool]) -> None:
    run, function, _ = case
    results = run.results(function)
    for s, name in enumerate(results["subfunction"].values.tolist()):
        rows = tiny_jobs.rows_of(run, "top_neurons", function=function, subfunction=name)
        assert [row["rank"] for row in rows] == [1, 2, 3, 4]
        values = np.nan_to_num(results["score"].values[s], nan=-99.0)
        order = np.argsort(-values.ravel(), kind="stable")[:4]
        places = [(results["layer"].values[flat // 160], flat % 160) for flat in order]
        assert [(row["layer"], row["neuron"]) for row in rows] == places
        assert [row["score_selection"] for row in rows] == values.ravel()[order].tolist()


def test_examples_stand_at_the_ends_of_their_neuron(case: tuple[Run, str, bool]) -> None:
    run, function, _ = case
    coordinates = run.coordinates(function)
    names = coordinates["subfunction"].tolist()
    for top in tiny_jobs.rows_of(run, "top_neurons", function=function):
        owned_R = np.flatnonzero(coordinates["label"][names.index(top["subfunction"])] >= 0)
        values_R = run.read_activations(function, tiny_jobs.NEURONS, layer=top["layer"])[:, top["neuron"]]
        for side, sign in (("highest", -1), ("lowest", 1)):
            keys = ("function", "subfunction", "layer", "neuron")
            rows = tiny_jobs.rows_of(run, "top_examples", side=side, **{key: top[key] for key in keys})
            expected = owned_R[np.argsort(sign * values_R[owned_R], kind="stable")[:3]]
            assert [row["rank"] for row in rows] == [1, 2, 3]
            assert [row["example_id"] for row in rows] == coordinates["example_id"][expected].tolist()
            assert [row["value"] for row in rows] == [float(value) for value in values_R[expected]]
