"""Planted structure is found, by the neurons and the expert that were planted; shuffled labels show nothing."""

from pathlib import Path

import numpy as np
import pytest
import tiny_jobs

from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION


@pytest.mark.parametrize("word", ["river", "stone"])
def test_planted_neurons_are_the_best_and_keep_their_value(planted_run: Run, word: str) -> None:
    (best,) = tiny_jobs.rows_of(planted_run, "best_neurons", subfunction=word, layer=0)
    assert best["neuron"] in tiny_jobs.PLANTED[word]
    assert best["polarity"] == 1
    assert best["ap_evaluation"] > 0.99
    assert best["normalised_low"] > 0.95
    assert best["q_value"] < 0.05
    assert best["p_value_max"] == pytest.approx(1 / 41)
    results = planted_run.results("words").sel(subfunction=word, layer=0)
    order = np.argsort(-results["score"].values, kind="stable")[:20]
    assert set(order.tolist()) == set(tiny_jobs.PLANTED[word])


@pytest.mark.parametrize("word", ["river", "stone"])
def test_the_planted_expert_is_found_and_functional(planted_run: Run, word: str) -> None:
    experts = planted_run.results(PARTITION)["expert"].sel(partition="balanced", layer=0).values
    members = {int(experts[neuron]) for neuron in tiny_jobs.PLANTED[word]}
    assert len(members) == 1
    rows = tiny_jobs.rows_of(planted_run, "expert_counts", subfunction=word, layer=0, partition="balanced")
    (functional,) = [row for row in rows if row["functional"]]
    assert {functional["expert"]} == members
    assert (functional["count"], functional["size"]) == (20, 20)
    (summary,) = tiny_jobs.rows_of(
        planted_run, "functional_experts", subfunction=word, layer=0, partition="balanced", top_fraction=0.125
    )
    assert summary["degree"] == pytest.approx(8.0)


def test_only_partitions_by_the_weights_gather_the_planted_neurons(planted_run: Run) -> None:
    for method, gathers in (("balanced", True), ("unbalanced", True), ("random", False), ("shuffled", False)):
        for null in ("shuffled experts", "permuted labels"):
            (row,) = tiny_jobs.rows_of(
                planted_run, "modularity_tests", null=null,
                function="words", partition=method, layer=ALL_LAYERS, figure="concentration", top_fraction=0.125,
            )  # fmt: skip
            assert (row["p_value"] < 0.03) == gathers, (method, null)


def test_the_curve_stands_out_of_its_null(planted_run: Run) -> None:
    row = tiny_jobs.rows_of(planted_run, "function_curve", function="words", layer=0)[0]
    assert row["p_value_all_layers"] == pytest.approx(1 / 41)
    assert row["normalised_evaluation"] > 0.98 > row["null_high"]


@pytest.fixture(scope="module")
def shuffled_run(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Six functions over the same texts, each with its labels shuffled within the sub-functions in its own way."""
    folder = tmp_path_factory.mktemp("shuffled")
    rows = tiny_jobs.word_rows(100)
    functions = []
    for seed in range(6):
        generator = np.random.default_rng(seed)
        labels = np.concatenate([generator.permutation(np.arange(100) % 2) for _ in range(2)])
        shuffled = [{**row, "label": int(label)} for row, label in zip(rows, labels)]
        path = tiny_jobs.write_rows(folder / f"shuffled{seed}.jsonl", shuffled)
        columns = {"id": "id", "subfunction": "subfunction"}
        functions.append({"name": f"shuffled{seed}", "source": str(path), "columns": columns})
    config = tiny_jobs.job(
        planted,
        functions,
        analyses=["predictivity", "experts"],
        predictivity={"neurons_per_item": 160},
        experts={"methods": ["balanced"], "sensitivity": [0.125]},
    )
    return tiny_jobs.run(config, folder / "run")


def test_shuffled_labels_leave_no_significant_neuron(shuffled_run: Run) -> None:
    """Neurons depend on each other, so their p-values are judged by sub-function: 12 of them."""
    lowest, means = [], []
    for function in shuffled_run.functions():
        results = shuffled_run.results(function)
        lowest += results["q_value"].values.min(axis=(1, 2)).tolist()
        means.append(float(results["p_value"].values.mean()))
    assert sum(q < 0.05 for q in lowest) <= 1, lowest
    assert 0.35 < np.mean(means) < 0.65, means


def test_shuffled_labels_leave_the_curves_within_their_null(shuffled_run: Run) -> None:
    rows = shuffled_run.table("function_curve").to_pylist()
    every = {row["function"]: row["p_value_all_layers"] for row in sorted(rows, key=lambda r: -r["p_value_all_layers"])}
    assert sum(p < 0.05 for p in every.values()) <= 1, every
    assert abs(np.mean([row["normalised_evaluation"] for row in rows])) < 0.15


def test_shuffled_labels_leave_no_functional_expert_in_most_layers(shuffled_run: Run) -> None:
    rows = shuffled_run.table("functional_experts").to_pylist()
    assert len(rows) == 24
    assert sum(row["n_functional"] > 0 for row in rows if row["layer"] == 1) <= 2


def test_shuffled_labels_leave_the_experts_within_permuted_labels(shuffled_run: Run) -> None:
    """By layer; the functions are over the same texts, so few of the 12 tests are independent of each other."""
    rows = tiny_jobs.rows_of(shuffled_run, "modularity_tests", null="permuted labels", figure="concentration")
    p_values = [row["p_value"] for row in rows if row["layer"] != ALL_LAYERS]
    assert len(p_values) == 12
    assert sum(p <= 0.05 for p in p_values) <= 2, p_values
