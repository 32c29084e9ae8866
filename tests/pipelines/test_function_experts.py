"""Experts of whole functions: numbers by hand, the rule of each variant, and the tables of runs recomputed."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import binom, false_discovery_control

from modularity.experts import Rule, concentration_index
from modularity.pipelines.config import ExpertsConfig
from modularity.pipelines.function_experts import function_level_rows
from modularity.pipelines.permuted_lists import permuted_top
from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION, PERMUTED_LABELS, SHUFFLED_EXPERTS

FIGURES = ("proportion", "degree", "concentration")


# Best neurons by permutation, layer, sub-function, expert. Entries of layer 3: 6 0 0, 5 1 0, 2 2 2 and 2 2 2.
PERMUTED_NLSE = np.array(
    [
        [[[2, 0, 0], [2, 0, 0], [2, 0, 0]], [[2, 0, 0], [0, 2, 0], [0, 0, 2]]],
        [[[2, 0, 0], [2, 0, 0], [1, 1, 0]], [[2, 0, 0], [0, 2, 0], [0, 0, 2]]],
        [[[1, 1, 0], [1, 0, 1], [0, 1, 1]], [[2, 0, 0], [0, 2, 0], [0, 0, 2]]],
        [[[1, 1, 0], [1, 0, 1], [0, 1, 1]], [[2, 0, 0], [0, 2, 0], [0, 0, 2]]],
    ]
)


def by_hand(rule: Rule) -> dict[str, list[dict[str, Any]]]:
    """Layers 3 and 7 of 12 neurons in 3 experts; in layer 3 expert 0 holds 5 of 6 entries, in layer 7 each holds 2."""
    tops = [np.array([[0, 1], [0, 2], [0, 11]]), np.array([[0, 4], [8, 1], [5, 9]])]
    config = ExpertsConfig(n_experts=3, top_fraction=0.17, alpha=0.02, n_permutations=2000)
    labels = [np.repeat([0, 1, 2], 4)] * 2
    return function_level_rows("words", "balanced", [3, 7], tops, labels, PERMUTED_NLSE, config=config, rule=rule)


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
    every = by_hand(Rule(alpha=0.02))["function_modularity"]
    rows = {(row["figure"], row["layer"]): row for row in every if row["null"] == SHUFFLED_EXPERTS}
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


@pytest.mark.parametrize("rule", [Rule(alpha=0.02), Rule(fdr=0.4)], ids=str)
def test_permuted_labels_by_hand(rule: Rule) -> None:
    every = by_hand(rule)["function_modularity"]
    rows = {(row["figure"], row["layer"]): row for row in every if row["null"] == PERMUTED_LABELS}
    assert list(rows) == list(product(FIGURES, (ALL_LAYERS, 3, 7)))
    # Functional is an expert with 5 or 6 of 6 entries: degrees 3, 2.5, 0, 0 against 2.5.
    assert rows["degree", 3]["observed"] == 2.5
    assert rows["degree", 3]["null_mean"] == 5.5 / 4
    assert rows["degree", 3]["p_value"] == 3 / 5
    assert rows["proportion", 3]["null_mean"] == pytest.approx(1 / 6)
    assert rows["degree", ALL_LAYERS]["p_value"] == 3 / 5
    assert rows["degree", 7]["null_mean"] == 0
    # Concentration needs no rule: 6 0 0 is above 5 0 1, and 5 1 0 equals it.
    assert rows["concentration", 3]["p_value"] == 3 / 5


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
    assert keys == [
        (method, *key) for method in methods for _ in range(2) for key in product(FIGURES, (ALL_LAYERS, *layers))
    ]
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


@pytest.mark.parametrize(("name", "function"), [("finished", "topics"), ("paper_run", "topics")])
def test_the_null_of_permuted_labels_pools_the_permuted_lists(
    name: str, function: str, request: pytest.FixtureRequest
) -> None:
    run: Run = request.getfixturevalue(name)
    results, partition = run.results(function), run.results(PARTITION)
    layers = results["layer"].values.tolist()
    for method in partition["partition"].values.tolist():
        for index, layer in enumerate(layers):
            width = int(results["width"].values[index])
            labels_F = partition["expert"].sel(partition=method, layer=layer).values[:width]
            counts_NE = np.stack(
                [
                    np.bincount(labels_F[top_SK.ravel()], minlength=8)
                    for top_SK in permuted_top(results, index, width // 8)
                ]
            )
            sizes_E = np.bincount(labels_F, minlength=8)
            where = {"function": function, "partition": method, "layer": layer, "null": PERMUTED_LABELS}
            expected = {"concentration": concentration_index(counts_NE, sizes_E)}
            if name == "paper_run":
                tail_NE = binom.sf(counts_NE - 1, counts_NE[0].sum(), sizes_E / width)
                expected["proportion"] = (tail_NE <= 0.001).mean(axis=1)
            for figure, null_N in expected.items():
                [row] = tiny_jobs.rows_of(run, "function_modularity", figure=figure, **where)
                assert row["null_mean"] == pytest.approx(null_N.mean())
                n_above = (null_N >= row["observed"] - 1e-10).sum()
                assert row["p_value"] == pytest.approx((1 + n_above) / (1 + len(null_N)))


def test_a_planted_expert_serves_its_function(planted_run: Run) -> None:
    """Twenty planted neurons of one expert for each of two sub-functions, in layer 0; the lists hold 20 each."""
    rows = tiny_jobs.rows_of(planted_run, "function_experts", function="words", partition="balanced", layer=0)
    assert sum(row["functional"] for row in rows) == 2
    where = {"function": "words", "figure": "degree", "layer": 0, "null": SHUFFLED_EXPERTS}
    (found,) = tiny_jobs.rows_of(planted_run, "function_modularity", partition="balanced", **where)
    assert found["observed"] == pytest.approx(4.0)
    assert found["p_value"] == pytest.approx(1 / 101)
    (control,) = tiny_jobs.rows_of(planted_run, "function_modularity", partition="random", **where)
    assert control["observed"] == 0
