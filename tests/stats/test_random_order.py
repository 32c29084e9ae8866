from itertools import combinations

import numpy as np
import pytest
from scipy.stats import skew

from modularity.errors import DataError
from modularity.stats import random_order, ranking_scores


def test_moments_equal_those_of_all_orders():
    for n_rows in range(2, 10):
        for n_positive in range(1, n_rows):
            every = [
                np.mean([place / rank for place, rank in enumerate(ranks, 1)])
                for ranks in combinations(range(1, n_rows + 1), n_positive)
            ]
            found = random_order(n_positive, n_rows)
            assert found.mean == pytest.approx(np.mean(every), rel=1e-12)
            assert found.sd == pytest.approx(np.std(every), rel=1e-12)
            assert found.skewness == pytest.approx(skew(every), abs=1e-9)


def test_mean_equals_its_closed_form():
    for n_positive, n_rows in ((3, 40), (200, 400), (9000, 10_000)):
        harmonic = (1 / np.arange(1, n_rows + 1)).sum()
        expected = harmonic / n_rows + (n_positive - 1) * (n_rows - harmonic) / (n_rows * (n_rows - 1))
        assert random_order(n_positive, n_rows).mean == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_positive", [40, 120, 200, 360])
def test_moments_equal_those_of_random_neurons(n_positive):
    activations_RF = np.random.default_rng(0).standard_normal((400, 20_000)).astype(np.float32)
    ap_F = ranking_scores(activations_RF, (np.arange(400) < n_positive)[None]).ap_positive_SF[0]
    found = random_order(n_positive, 400)
    assert found.mean == pytest.approx(ap_F.mean(), abs=4 * found.sd / np.sqrt(20_000))
    assert found.sd == pytest.approx(ap_F.std(), rel=0.025)
    assert found.skewness == pytest.approx(skew(ap_F), abs=0.12)


def test_many_rows_keep_their_digits():
    # skewness falls as 1 / sqrt(rows); at 99.9 % of label 1 it stands beside a mean of .999
    small, large = random_order(9990, 10_000), random_order(99_900, 100_000)
    assert large.skewness * np.sqrt(10) == pytest.approx(small.skewness, rel=0.1)
    assert large.sd * np.sqrt(10) == pytest.approx(small.sd, rel=0.01)


def test_one_class_is_refused():
    for n_positive in (0, 7):
        with pytest.raises(DataError, match=f"{n_positive} of 7 rows have label 1: expected rows of both classes"):
            random_order(n_positive, 7)
