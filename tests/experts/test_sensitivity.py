import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import functional_experts, top_fraction_sensitivity


def test_rows_for_the_fractions_of_card_a5():
    predictivity = np.random.default_rng(0).random(3072)
    labels = np.repeat(np.arange(16), 192)
    predictivity[:40] += 1.0
    rows = top_fraction_sensitivity(predictivity, labels)
    assert [row.fraction for row in rows] == [0.005, 0.01, 0.02, 0.05]
    assert [row.result.n_top for row in rows] == [15, 30, 61, 153]
    assert all(row.result.functional_E[0] for row in rows)
    top = np.argsort(-predictivity)[:30]
    assert rows[1].result.p_value_E.tolist() == functional_experts(top, labels).p_value_E.tolist()


def test_ties_go_to_the_lowest_index_and_at_least_one_neuron_is_taken():
    labels = np.repeat([0, 1], 5)
    half, least = top_fraction_sensitivity(np.ones(10), labels, fractions=(0.5, 0.001))
    assert half.result.counts_E.tolist() == [5, 0]
    assert least.result.counts_E.tolist() == [1, 0]


def test_bad_input():
    with pytest.raises(InputError, match=r"2 problems:\n  1. top fraction 0 is not in \(0, 1\]"):
        top_fraction_sensitivity([0.5, 0.6], [0, 1], fractions=(0, 0.5, 5))
    with pytest.raises(DataError, match=r"predictivity_F of shape \(2,\): expected one finite value per neuron"):
        top_fraction_sensitivity([0.5, np.nan], [0, 1])
    with pytest.raises(DataError, match="labels_F has 3 entries: expected 2"):
        top_fraction_sensitivity([0.5, 0.6], [0, 1, 1])
