"""Curves and maps of functional experts, against the tables they come from."""

import numpy as np
import pytest

from modularity.report.run_experts import expert_curves, expert_maps, sensitivity_curves
from modularity.report.run_tables import RunTables
from modularity.types import ALL_LAYERS


@pytest.fixture(scope="module")
def tables(tiny_run):
    return RunTables(tiny_run)


def test_curves_are_those_of_the_table_with_every_control(tiny_run, tables):
    [curve] = expert_curves(tiny_run, tables, "words")
    wanted = {"function": "words", "partition": "balanced", "top_fraction": 0.125}
    rows, by_labels = (
        [row for row in tables.rows("modularity_tests", figure="degree", null=null, **wanted) if row["layer"] >= 0]
        for null in ("shuffled experts", "permuted labels")
    )
    assert curve.layers == (0, 1)
    np.testing.assert_array_equal(curve.degree_L, [row["observed"] for row in rows])
    assert [control.name for control in curve.controls] == [
        "permuted labels",
        "random partitions",
        "shuffled weights",
        "unbalanced k-means",
    ]
    np.testing.assert_array_equal(curve.controls[0].degree_L, [row["null_mean"] for row in by_labels])
    np.testing.assert_array_equal(curve.controls[1].degree_L, [row["null_mean"] for row in rows])
    assert (curve.k, curve.n_experts, curve.n_subfunctions, curve.alpha) == (20, 8, 2, 0.05)
    assert curve.proportion_L[0] > 0  # the planted neurons of layer 0 are experts


def test_the_test_counts_functional_cells_against_both_nulls(tiny_run, tables):
    [curve] = expert_curves(tiny_run, tables, "words")
    functional = [row["functional"] for row in tables.rows("expert_counts", function="words", partition="balanced")]
    assert (curve.test.n_functional, curve.test.n_cells) == (sum(functional), len(functional)) == (sum(functional), 32)
    wanted = {"function": "words", "partition": "balanced", "top_fraction": 0.125, "layer": ALL_LAYERS}
    for null, mean, p in (
        ("permuted labels", curve.test.mean_labels, curve.test.p_labels),
        ("shuffled experts", curve.test.mean_partitions, curve.test.p_partitions),
    ):
        [row] = tables.rows("modularity_tests", figure="proportion", null=null, **wanted)
        assert (mean, p) == (32 * row["null_mean"], row["p_value"])


def test_maps_count_the_top_neurons_of_each_expert(tiny_run, tables):
    maps = list(expert_maps(tiny_run, tables))
    assert [found.layer for found in maps] == [0, 1]
    for found in maps:
        assert found.count_SE.shape == (4, 8)
        np.testing.assert_array_equal(found.count_SE.sum(axis=1), found.k)
        np.testing.assert_allclose(found.expected_SE.sum(axis=1), found.k)
    first = maps[0]
    assert first.row_names == ("river", "stone", "night_or_day", "sky")
    planted = first.count_SE[:2].max(axis=1)
    assert (planted >= 19).all()  # of the 20 planted neurons
    assert first.functional_SE[[0, 1], first.count_SE[:2].argmax(axis=1)].all()


def test_sensitivity_is_over_the_fractions_of_the_config(tables):
    [curve] = sensitivity_curves(tables, "words")
    assert curve.fractions_Q.tolist() == [0.05, 0.125]
    assert curve.n_layers == 2
    rows = tables.rows(
        "modularity_tests",
        function="words",
        partition="balanced",
        layer=ALL_LAYERS,
        figure="proportion",
        null="shuffled experts",
    )
    assert sorted(row["observed"] for row in rows) == sorted(curve.proportion_Q.tolist())


def test_nothing_for_a_function_without_experts(tiny_run, tables):
    assert list(expert_curves(tiny_run, tables, "other")) == []
    assert list(sensitivity_curves(tables, "other")) == []
