import numpy as np
import pytest

from modularity.errors import DataError
from modularity.report import ExpertMap, FunctionCurve, Heatmap


def test_lists_become_arrays_and_wrong_shapes_are_named():
    curve = FunctionCurve("task", (0, 1), [0.1, 0.2], [0, 0], [1, 1], [0, 0], [0, 0], 1, 8)
    assert curve.best_L.dtype == np.float64
    assert curve.selection_L is None
    with pytest.raises(DataError, match=r"FunctionCurve\.low_L has shape \(1,\), expected \(2,\)"):
        FunctionCurve("task", (0, 1), [0.1, 0.2], [0], [1, 1], [0, 0], [0, 0], 1, 8)


def test_rows_need_a_group_each():
    with pytest.raises(DataError, match=r"Heatmap\.row_groups has 1 entries, expected 2, one for each row"):
        Heatmap("x", "X", ("a", "b"), ("a",), (0,), [[1], [2]])


def test_expected_counts_may_be_one_row_for_all():
    each = ExpertMap(3, ("a", "b"), ("f", "f"), [[3, 0], [1, 2]], [1.5, 1.5], [[True, False], [False, False]], 3, 0.001)
    assert each.expected_SE.shape == (2, 2)
    with pytest.raises(DataError, match=r"ExpertMap\.functional_SE has shape \(1, 2\), expected \(2, 2\)"):
        ExpertMap(3, ("a", "b"), ("f", "f"), [[3, 0], [1, 2]], [1.5, 1.5], [[True, False]], 3, 0.001)


def test_functions_keep_the_order_in_which_they_were_given(content):
    assert content.function_order() == ("semantic", "knowledge", "task")
