"""Tables of experts against counts by hand, SciPy's distributions, and the partition in the store."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import false_discovery_control, hypergeom

from modularity.experts import Rule, functional_family
from modularity.pipelines.permuted_lists import permuted_top
from modularity.stats import better_polarity, permute_labels, polarity_scales, ranking_scores
from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION

RUNS = [("finished", "words", 8), ("finished", "topics", 8), ("paper_run", "topics", 8), ("uneven", "words", 10)]


class Case:
    """One function of a run with what the tables are computed from."""

    def __init__(self, run: Run, function: str, n_experts: int, *, paper: bool) -> None:
        self.run, self.function, self.n_experts, self.paper = run, function, n_experts, paper
        results, partition = run.results(function), run.results(PARTITION)
        self.layers = results["layer"].values.tolist()
        self.widths = results["width"].values.tolist()
        self.subfunctions = results["subfunction"].values.tolist()
        self.methods = partition["partition"].values.tolist()
        self.score_SLF = results["score"].values
        self.expert_MLF = partition["expert"].values

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        return tiny_jobs.rows_of(self.run, table, function=self.function, **where)

    def top(self, subfunction: str, layer: int, fraction: float) -> list[int]:
        index = self.layers.index(layer)
        width = self.widths[index]
        values_F = self.score_SLF[self.subfunctions.index(subfunction), index, :width]
        return np.argsort(-values_F, kind="stable")[: max(1, int(fraction * width))].tolist()

    def labels(self, method: str, layer: int) -> np.ndarray:
        index = self.layers.index(layer)
        return self.expert_MLF[self.methods.index(method), index, : self.widths[index]]


@pytest.fixture(params=RUNS, ids=lambda param: f"{param[0]}-{param[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    name, function, n_experts = request.param
    return Case(request.getfixturevalue(name), function, n_experts, paper=name == "paper_run")


def test_counts_are_those_of_the_top_neurons(case: Case) -> None:
    rows = case.rows("expert_counts")
    keys = [(row["partition"], row["layer"], row["subfunction"], row["expert"]) for row in rows]
    assert keys == list(product(case.methods, case.layers, case.subfunctions, range(case.n_experts)))
    for row in rows:
        labels_F = case.labels(row["partition"], row["layer"])
        top = case.top(row["subfunction"], row["layer"], 0.125)
        assert row["k"] == len(top)
        assert row["count"] == int((labels_F[top] == row["expert"]).sum())
        assert row["size"] == int((labels_F == row["expert"]).sum())
        assert row["expected"] == pytest.approx(row["k"] * row["size"] / len(labels_F))
        tail = hypergeom.sf(row["count"] - 1, len(labels_F), row["size"], row["k"])
        assert row["p_value"] == pytest.approx(tail)


def test_counts_of_a_layer_sum_to_the_top_neurons(case: Case) -> None:
    sums: dict[tuple[Any, ...], int] = {}
    for row in case.rows("expert_counts"):
        key = (row["partition"], row["layer"], row["subfunction"], row["k"])
        sums[key] = sums.get(key, 0) + row["count"]
    assert all(total == key[-1] for key, total in sums.items())


def test_experts_are_functional_by_the_rule_of_the_variant(case: Case) -> None:
    for method in case.methods:
        rows = case.rows("expert_counts", partition=method)
        q_values = false_discovery_control([row["p_value"] for row in rows])
        np.testing.assert_allclose([row["q_value"] for row in rows], q_values, rtol=1e-9)
        for row, q_value in zip(rows, q_values):
            assert row["functional"] == (row["p_value"] <= 0.001 if case.paper else q_value <= 0.05)


def test_proportion_and_degree_follow_from_the_counts(case: Case) -> None:
    rows = case.rows("functional_experts")
    keys = [(row["partition"], row["top_fraction"], row["layer"], row["subfunction"]) for row in rows]
    assert keys == list(product(case.methods, (0.05, 0.125), case.layers, case.subfunctions))
    for row in case.rows("functional_experts", top_fraction=0.125):
        same = {name: row[name] for name in ("partition", "layer", "subfunction")}
        functional = [found for found in case.rows("expert_counts", **same) if found["functional"]]
        assert row["n_functional"] == len(functional)
        assert row["proportion"] == pytest.approx(len(functional) / case.n_experts)
        ratios = [found["count"] / found["expected"] for found in functional]
        assert row["degree"] == pytest.approx(np.mean(ratios) if ratios else 0.0)


def test_tests_speak_of_the_means_over_subfunctions_and_layers(case: Case) -> None:
    for row in case.rows("modularity_tests"):
        same = {name: row[name] for name in ("partition", "top_fraction")}
        where = same if row["layer"] == ALL_LAYERS else same | {"layer": row["layer"]}
        observed = [found[row["figure"]] for found in case.rows("functional_experts", **where)]
        assert row["observed"] == pytest.approx(np.mean(observed))
        assert 1 / (41 if row["null"] == "permuted labels" else 101) <= row["p_value"] <= 1
        assert row["n_cells"] == 2 * case.n_experts * (len(case.layers) if row["layer"] == ALL_LAYERS else 1)
        assert row["null_low"] <= row["null_high"]
        assert row["n_subfunctions"] == 2
    by_null = {"permuted labels": (0.125,), "shuffled experts": (0.05, 0.125)}
    for null, fractions in by_null.items():
        rows = case.rows("modularity_tests", null=null)
        assert {row["top_fraction"] for row in rows} == set(fractions)
        assert len(rows) == 3 * (1 + len(case.layers)) * len(fractions) * len(case.methods)


def lists_by_hand(case: Case, seed: int = 0, n_permutations: int = 40) -> list[np.ndarray]:
    """For each layer the top neurons under permuted labels (N, S, k), ranked without blocks."""
    coordinates = case.run.coordinates(case.function)
    chosen_R = np.ones(len(coordinates["selection"]), bool) if case.paper else coordinates["selection"].astype(bool)
    tops = []
    for layer, width in zip(case.layers, case.widths):
        activations_RF = case.run.read_activations(case.function, tiny_jobs.NEURONS, layer=layer)[:, :width]
        lists = []
        for labels_R in coordinates["label"]:
            rows = np.flatnonzero(chosen_R & (labels_R >= 0))
            permuted_NR = permute_labels(
                labels_R[rows] == 1,
                n_permutations=n_permutations, seed=seed, clusters_R=coordinates["cluster"][rows],
            )  # fmt: skip
            scales = polarity_scales(permuted_NR, rule="larger" if case.paper else "standardised")
            values_NF = better_polarity(ranking_scores(activations_RF[rows], permuted_NR), scales).score_SF
            lists.append(np.argsort(-values_NF.astype(np.float32), axis=1, kind="stable")[:, : int(0.125 * width)])
        tops.append(np.stack(lists, axis=1))
    return tops


def test_the_null_of_permuted_labels_is_that_of_ranking_everything_anew(case: Case) -> None:
    tops = lists_by_hand(case)
    stored = case.run.results(case.function)
    for index, top_NSK in enumerate(tops):
        np.testing.assert_array_equal(permuted_top(stored, index, top_NSK.shape[2]), top_NSK)
    rule = Rule(alpha=0.001) if case.paper else Rule(fdr=0.05)
    for method in case.methods:
        labels_LF = [case.labels(method, layer) for layer in case.layers]
        draws = [
            functional_family([top_NSK[n] for top_NSK in tops], labels_LF, rule=rule, n_experts=case.n_experts)
            for n in range(40)
        ]
        for figure in ("proportion", "degree", "concentration"):
            null_N = np.array([getattr(draw, f"{figure}_LS").mean() for draw in draws])
            [row] = case.rows(
                "modularity_tests", partition=method, null="permuted labels", figure=figure, layer=ALL_LAYERS
            )
            assert row["null_mean"] == pytest.approx(null_N.mean(), abs=1e-12)
            assert row["null_high"] == pytest.approx(np.quantile(null_N, 0.95), abs=1e-12)
            assert row["p_value"] == pytest.approx((1 + (null_N >= row["observed"] - 1e-12).sum()) / 41)
        counts_NLSE = np.stack([draw.counts_LSE for draw in draws])
        for row in case.rows("expert_counts", partition=method):
            place = (case.layers.index(row["layer"]), case.subfunctions.index(row["subfunction"]), row["expert"])
            assert row["p_labels"] == pytest.approx((1 + (counts_NLSE[:, *place] >= row["count"]).sum()) / 41)
        for row in case.rows("function_experts", partition=method):
            null_N = counts_NLSE[:, case.layers.index(row["layer"]), :, row["expert"]].sum(axis=1)
            assert row["p_labels"] == pytest.approx((1 + (null_N >= row["count"]).sum()) / 41)
