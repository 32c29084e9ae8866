"""Curves of whole functions, against the table that they come from."""

import numpy as np

from modularity.report.run_function_experts import function_expert_curves
from modularity.report.run_tables import RunTables
from modularity.types import PERMUTED_LABELS as LABELS
from modularity.types import SHUFFLED_EXPERTS as EXPERTS


def test_a_curve_is_that_of_the_table(tiny_run):
    [curve] = function_expert_curves(tiny_run, RunTables(tiny_run), "words")
    rows = {
        (row["null"], row["partition"], row["figure"], row["layer"]): row
        for row in tiny_run.table("function_modularity").to_pylist()
        if row["function"] == "words"
    }
    assert (curve.function, curve.layers, curve.n_subfunctions, curve.n_experts) == ("words", (0, 1), 2, 8)
    assert curve.k == 20
    for figure, values in (("proportion", curve.proportion_L), ("degree", curve.degree_L)):
        np.testing.assert_array_equal(
            values, [rows[EXPERTS, "balanced", figure, layer]["observed"] for layer in (0, 1)]
        )
    assert [control.name for control in curve.controls] == [
        "permuted labels", "random partitions", "shuffled weights", "unbalanced k-means"
    ]  # fmt: skip
    labels, random, shuffled, _ = curve.controls
    np.testing.assert_array_equal(
        random.degree_L, [rows[EXPERTS, "balanced", "degree", i]["null_mean"] for i in (0, 1)]
    )
    np.testing.assert_array_equal(labels.degree_L, [rows[LABELS, "balanced", "degree", i]["null_mean"] for i in (0, 1)])
    np.testing.assert_array_equal(
        shuffled.degree_L, [rows[EXPERTS, "shuffled", "degree", i]["observed"] for i in (0, 1)]
    )
    assert curve.p_value == rows[LABELS, "balanced", "degree", -1]["p_value"]
    assert curve.p_partitions == rows[EXPERTS, "balanced", "degree", -1]["p_value"]
    assert curve.criterion == "permutation test, false discovery rate 5% over experts and layers"


def test_a_function_that_was_not_computed_has_no_curve(tiny_run):
    assert list(function_expert_curves(tiny_run, RunTables(tiny_run), "unknown")) == []
