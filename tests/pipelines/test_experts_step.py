"""Tables of experts against counts by hand, SciPy's distributions, and the partition in the store."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import false_discovery_control, hypergeom

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
        self.predictivity_SLF = results["normalised"].values
        self.expert_MLF = partition["expert"].values

    def rows(self, table: str, **where: Any) -> list[dict[str, Any]]:
        return tiny_jobs.rows_of(self.run, table, function=self.function, **where)

    def top(self, subfunction: str, layer: int, fraction: float) -> list[int]:
        index = self.layers.index(layer)
        width = self.widths[index]
        values_F = self.predictivity_SLF[self.subfunctions.index(subfunction), index, :width]
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
        assert 1 / 101 <= row["p_value"] <= 1
        assert row["null_low"] <= row["null_high"]
        assert row["n_subfunctions"] == 2
    assert len(case.rows("modularity_tests")) == 3 * (1 + len(case.layers)) * 2 * len(case.methods)
