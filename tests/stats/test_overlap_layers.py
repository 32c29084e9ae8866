"""The p-value of a total over layers: one layer is hypergeometric, several are right by simulation."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.stats import overlap_p_values
from modularity.stats.overlap_layers import n_shared, total_overlap_p_values


def test_one_layer_is_the_hypergeometric_tail() -> None:
    counts = np.arange(9)
    np.testing.assert_allclose(total_overlap_p_values(counts, [8], [40]), overlap_p_values(counts, 8, 40), rtol=1e-10)


def test_several_layers_agree_with_simulation() -> None:
    generator = np.random.default_rng(0)
    sizes = [(6, 30), (8, 50), (4, 20)]
    totals = sum(generator.hypergeometric(k, n - k, k, 200_000) for k, n in sizes)
    p_values = total_overlap_p_values(np.arange(10), [k for k, _ in sizes], [n for _, n in sizes])
    simulated = [(totals >= count).mean() for count in range(10)]
    np.testing.assert_allclose(p_values, simulated, atol=4e-3)
    assert p_values[0] == 1.0


@pytest.mark.parametrize(
    ("counts", "k", "n", "message"),
    [
        ([0], [2], [5, 5], "1 list lengths for 2 layers"),
        ([0], [6], [5], "expected 1 to all of a layer"),
        ([3], [2], [5], "totals from 3 to 3: expected 0 to 2"),
    ],
)
def test_what_cannot_be_is_refused(counts: list[int], k: list[int], n: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        total_overlap_p_values(np.array(counts), k, n)


def test_shared_neurons_by_hand_and_as_sets() -> None:
    top_NSK = np.array([[[0, 1, 2], [2, 1, 5], [3, 4, -1]], [[5, 4, 3], [0, 1, 2], [3, 5, 4]]])
    assert n_shared(top_NSK, 6).tolist() == [[[3, 2, 0], [2, 3, 0], [0, 0, 2]], [[3, 0, 3], [0, 3, 0], [3, 0, 3]]]
    generator = np.random.default_rng(1)
    lists = np.stack([generator.choice(50, 8, replace=False) for _ in range(12)]).reshape(3, 4, 8)
    expected = [[[len(set(a) & set(b)) for b in draw] for a in draw] for draw in lists.tolist()]
    np.testing.assert_array_equal(n_shared(lists, 50), expected)
