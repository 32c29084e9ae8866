"""Overlap tables against sets, SciPy's rank correlation and the exact distribution of shared neurons."""

import functools
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from scipy.stats import false_discovery_control, hypergeom, spearmanr

from modularity.pipelines.overlap_step import _label_null
from modularity.store import Run


class Case:
    """Top lists of all sub-functions of a run, by layer."""

    def __init__(self, run: Run) -> None:
        self.run = run
        results = {name: run.results(name) for name in run.functions()}
        first = next(iter(results.values()))
        self.layers, self.widths = first["layer"].values.tolist(), first["width"].values.tolist()
        self.names = [(name, str(sub)) for name, result in results.items() for sub in result["subfunction"].values]
        values_SLF = np.concatenate([result["score"].values for result in results.values()])
        self.values = [values_SLF[:, index, :width] for index, width in enumerate(self.widths)]
        self.k = [int(0.1 * width) for width in self.widths]

    def shared(self, index: int, a: int, b: int) -> int:
        lists = [set(np.argsort(-self.values[index][s], kind="stable")[: self.k[index]].tolist()) for s in (a, b)]
        return len(lists[0] & lists[1])

    def pair(self, row: dict[str, Any]) -> tuple[int, int]:
        return tuple(self.names.index((row[f"function_{x}"], row[f"subfunction_{x}"])) for x in "ab")  # type: ignore[return-value]


@pytest.fixture(params=["finished", "uneven"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.getfixturevalue(request.param))


def test_layers_hold_every_pair_once(case: Case) -> None:
    rows = case.run.table("overlap_layers").to_pylist()
    pairs = list(combinations(range(4), 2))
    assert [(row["layer"], case.pair(row)) for row in rows] == [
        (layer, pair) for layer in case.layers for pair in pairs
    ]
    for row in rows:
        index = case.layers.index(row["layer"])
        (a, b), k = case.pair(row), case.k[index]
        shared = case.shared(index, a, b)
        assert row["top_overlap"] == pytest.approx(shared / k)
        assert row["jaccard"] == pytest.approx(shared / (2 * k - shared))
        assert row["rank_correlation"] == pytest.approx(spearmanr(*case.values[index][[a, b]]).statistic)
        assert row["chance"] == pytest.approx(k / case.widths[index])


def test_pairs_are_means_over_layers_with_an_exact_p_value(case: Case) -> None:
    rows = case.run.table("overlap_subfunctions").to_pylist()
    layers = case.run.table("overlap_layers").to_pylist()
    null = np.ones(1)
    for k, width in zip(case.k, case.widths):
        null = np.convolve(null, hypergeom.pmf(np.arange(k + 1), width, k, k))
    for row in rows:
        same = [found for found in layers if case.pair(found) == case.pair(row)]
        for name in ("top_overlap", "jaccard", "rank_correlation", "chance"):
            assert row[name] == pytest.approx(np.mean([found[name] for found in same]))
        assert row["n_top"] == sum(case.k)
        assert row["n_common"] == sum(case.shared(index, *case.pair(row)) for index in range(2))
        assert row["p_value"] == pytest.approx(null[row["n_common"] :].sum())
    q_values = false_discovery_control([row["p_value"] for row in rows])
    np.testing.assert_allclose([row["q_value"] for row in rows], q_values)


def test_pairs_against_lists_of_permuted_labels(case: Case) -> None:
    """The stored lists of every permutation as sets, blocks merged by value; the observed lists are as long."""
    results = [case.run.results(name) for name in case.run.functions()]
    lengths = [min(k, results[0].sizes["rank"]) for k in case.k]

    order = ("subfunction", "layer", "permutation", ...)
    stored = [[result[name].transpose(*order).values for name in ("null_top_value", "null_top")] for result in results]

    @functools.cache
    def permuted(s: int, index: int, n: int) -> set[int]:
        values, neurons = (each[s % 2, index, n].ravel() for each in stored[s // 2])
        best = np.lexsort((np.where(neurons < 0, 10**6, neurons), -values))[: lengths[index]]
        return set(neurons[best].tolist())

    n_draws = results[0].sizes["permutation"]
    for row in case.run.table("overlap_subfunctions").to_pylist():
        a, b = case.pair(row)
        null = [sum(len(permuted(a, i, n) & permuted(b, i, n)) for i in range(2)) for n in range(n_draws)]
        observed = 0
        for values_SF, k in zip(case.values, lengths):
            lists = [set(np.argsort(-values_SF[s], kind="stable")[:k].tolist()) for s in (a, b)]
            observed += len(lists[0] & lists[1])
        assert row["n_top_labels"] == sum(lengths)
        assert row["overlap_labels"] == pytest.approx(np.mean(null) / sum(lengths))
        assert row["p_labels"] == pytest.approx((1 + sum(count >= observed for count in null)) / (1 + n_draws))


def test_without_lists_of_permuted_labels_there_is_no_such_p(case: Case) -> None:
    results = [case.run.results(name) for name in case.run.functions()]
    bare = [result.drop_dims("rank") for result in results]
    null = _label_null(bare, case.values, case.k)
    assert np.isnan(null.p_value_SS).all()
    assert null.n_top == 0


def test_functions_are_blocks_without_self_pairs(case: Case) -> None:
    pairs = case.run.table("overlap_subfunctions").to_pylist()
    rows = case.run.table("overlap_functions").to_pylist()
    first, second = case.run.functions()
    assert [(row["function_a"], row["function_b"]) for row in rows] == [
        (first, first),
        (first, second),
        (second, second),
    ]
    for row in rows:
        block = [
            p["top_overlap"]
            for p in pairs
            if (p["function_a"], p["function_b"]) == (row["function_a"], row["function_b"])
        ]
        assert len(block) == (1 if row["function_a"] == row["function_b"] else 4)
        assert row["top_overlap"] == pytest.approx(np.mean(block))
        assert row["chance"] == pytest.approx(pairs[0]["chance"])
        assert all(1 / 101 <= row[name] <= 1 for name in ("p_above", "p_below", "p_within_above_between"))
    within = [p["top_overlap"] for p in pairs if p["function_a"] == p["function_b"]]
    between = [p["top_overlap"] for p in pairs if p["function_a"] != p["function_b"]]
    assert rows[0]["within_minus_between"] == pytest.approx(np.mean(within) - np.mean(between))


def test_ties_at_the_edge_of_a_list_are_counted(finished: Run) -> None:
    (record,) = [record for record in finished.commits().values() if record.item.kind == "overlap"]
    assert record.info["boundary_ties"] >= 0
    assert tiny_jobs.rows_of(finished, "overlap_subfunctions", function_a="topics", function_b="topics")
