"""Experts of whole functions: numbers by hand, the rule of each variant, and the tables of runs recomputed."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import binom, false_discovery_control

from modularity.experts import Rule
from modularity.pipelines.config import ExpertsConfig
from modularity.pipelines.function_experts import function_level_rows
from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION

FIGURES = ("proportion", "degree", "concentration")


def by_hand(rule: Rule) -> dict[str, list[dict[str, Any]]]:
    """Layers 3 and 7 of 12 neurons in 3 experts; in layer 3 expert 0 holds 5 of 6 entries, in layer 7 each holds 2."""
    tops = [np.array([[0, 1], [0, 2], [0, 11]]), np.array([[0, 4], [8, 1], [5, 9]])]
    config = ExpertsConfig(n_experts=3, top_fraction=0.17, alpha=0.02, n_permutations=2000)
    labels = [np.repeat([0, 1, 2], 4)] * 2
    return function_level_rows("words", "balanced", [3, 7], tops, labels, config=config, rule=rule)


def test_experts_by_hand() -> None:
    rows = by_hand(Rule(alpha=0.02))["function_experts"]
    assert [(row["layer"], row["expert"]) for row in rows] == list(product((3, 7), range(3)))
    assert [row["count"] for row in rows] == [5, 0, 1, 2, 2, 2]
    assert {(row["size"], row["n_top"], row["expected"]) for row in rows} == {(4, 6, 2.0)}
    # Binomial (6, 1/3) in 729ths: at least 5, 0, 1, 2.
    assert [729 * row["p_binomial"] for row in rows] == pytest.approx([13, 729, 665, 473, 473, 473])
    assert [row["functional_at_alpha"] for row in rows] == [True, False, False, False, False, False]
    assert [row["functional"] for row in rows] == [row["functional_at_alpha"] for row in rows]


def test_proportion_and_degree_by_hand() -> None:
    rows = {(row["figure"], row["layer"]): row for row in by_hand(Rule(alpha=0.02))["function_modularity"]}
    assert list(rows) == list(product(FIGURES, (ALL_LAYERS, 3, 7)))
    assert [rows["proportion", layer]["observed"] for layer in (3, 7, ALL_LAYERS)] == pytest.approx([1 / 3, 0, 1 / 6])
    assert [rows["degree", layer]["observed"] for layer in (3, 7, ALL_LAYERS)] == pytest.approx([2.5, 0, 1.25])
    counts = [(rows["degree", layer]["n_functional"], rows["degree", layer]["n_experts"]) for layer in (3, 7, -1)]
    assert counts == [(1, 3), (0, 3), (1, 6)]
    assert [rows["degree", layer]["n_top"] for layer in (3, 7, ALL_LAYERS)] == [6, 6, 12]
    # Chance: the expert of neuron 0 also gets two or three of the three others; in layer 7 six neurons fill an expert
    # never beyond 4 of 6 (p 73/729), so none is functional in any shuffled partition. Those count as 0.
    assert rows["proportion", 3]["null_mean"] == pytest.approx(25 / 165 / 3, rel=0.2)
    assert rows["degree", 3]["null_mean"] == pytest.approx((24 * 2.5 + 1 * 3) / 165, rel=0.2)
    assert rows["degree", 7]["null_mean"] == 0
    assert rows["degree", ALL_LAYERS]["null_mean"] == pytest.approx(rows["degree", 3]["null_mean"] / 2)
    assert rows["degree", 3]["p_value"] == pytest.approx(25 / 165, rel=0.2)
    assert rows["degree", 7]["p_value"] == 1.0


def test_corrected_experts_follow_from_the_permutation_p() -> None:
    tables = by_hand(Rule(fdr=0.4))
    q_values = false_discovery_control([row["p_permutation"] for row in tables["function_experts"]])
    assert [row["q_permutation"] for row in tables["function_experts"]] == pytest.approx(q_values)
    # p is 25 / 165 / 3 = .05 for expert 0 of layer 3, the least of six: q is about .3.
    assert [row["functional"] for row in tables["function_experts"]] == [True] + [False] * 5
    strict = by_hand(Rule(fdr=0.1))["function_modularity"]
    assert {row["observed"] for row in strict if row["figure"] != "concentration"} == {0.0}


@pytest.mark.parametrize(("name", "function"), [("finished", "words"), ("paper_run", "topics"), ("uneven", "words")])
def test_tables_of_a_run(name: str, function: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    results, partition = run.results(function), run.results(PARTITION)
    rows = tiny_jobs.rows_of(run, "function_experts", function=function)
    layers, methods = results["layer"].values.tolist(), partition["partition"].values.tolist()
    for row in rows:
        width = int(results["width"].sel(layer=row["layer"]))
        values_SF = results["score"].sel(layer=row["layer"]).values[:, :width]
        labels_F = partition["expert"].sel(partition=row["partition"], layer=row["layer"]).values[:width]
        pooled = [n for values_F in values_SF for n in np.argsort(-values_F, kind="stable")[: int(0.125 * width)]]
        assert row["n_top"] == len(pooled)
        assert row["count"] == int((labels_F[pooled] == row["expert"]).sum())
        tail = binom.sf(row["count"] - 1, len(pooled), row["size"] / width)
        assert row["p_binomial"] == pytest.approx(tail)
        assert row["functional_at_alpha"] == (tail <= 0.001)
        paper = name == "paper_run"
        assert row["functional"] == (row["functional_at_alpha"] if paper else row["q_permutation"] <= 0.05)
    figures = tiny_jobs.rows_of(run, "function_modularity", function=function)
    keys = [(row["partition"], row["figure"], row["layer"]) for row in figures]
    assert keys == list(product(methods, FIGURES, (ALL_LAYERS, *layers)))
    for figure in (row for row in figures if row["figure"] != "concentration"):
        same = [
            row for row in rows
            if row["partition"] == figure["partition"] and figure["layer"] in (ALL_LAYERS, row["layer"])
        ]  # fmt: skip
        assert figure["n_functional"] == sum(row["functional"] for row in same)
        each = [[row for row in same if row["layer"] == layer] for layer in layers]
        ratios = [[row["count"] / row["expected"] for row in found if row["functional"]] for found in each if found]
        degrees = [float(np.mean(found)) if found else 0.0 for found in ratios]
        assert figure["n_experts"] == len(same)
        proportion = figure["n_functional"] / len(same)
        assert figure["observed"] == pytest.approx(np.mean(degrees) if figure["figure"] == "degree" else proportion)


def test_a_planted_expert_serves_its_function(planted_run: Run) -> None:
    """Twenty planted neurons of one expert for each of two sub-functions, in layer 0; the lists hold 20 each."""
    rows = tiny_jobs.rows_of(planted_run, "function_experts", function="words", partition="balanced", layer=0)
    assert sum(row["functional"] for row in rows) == 2
    where = {"function": "words", "figure": "degree", "layer": 0}
    (found,) = tiny_jobs.rows_of(planted_run, "function_modularity", partition="balanced", **where)
    assert found["observed"] == pytest.approx(4.0)
    assert found["p_value"] == pytest.approx(1 / 101)
    (control,) = tiny_jobs.rows_of(planted_run, "function_modularity", partition="random", **where)
    assert control["observed"] == 0
