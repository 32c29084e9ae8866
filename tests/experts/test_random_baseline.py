from itertools import combinations

import numpy as np
import pytest
from scipy.stats import hypergeom

from modularity.errors import InputError
from modularity.experts import functional_experts, hypergeometric_critical_count, random_partition_baseline


# The degree is a mean over the functional experts. The .0237 quoted for Switch is the expected sum over them, which
# differs in the fourth digit because two experts are functional at once now and then; for T5 both round to .0249.
@pytest.mark.parametrize(
    ("n_neurons", "k", "critical", "attained", "degree", "summed"),
    [(3072, 30, 8, 3.57e-4, 0.02490, 0.0249), (49152, 491, 49, 9.04e-4, 0.02364, 0.0237)],
)
def test_golden_values_of_t5_and_switch(n_neurons, k, critical, attained, degree, summed):
    baseline = random_partition_baseline(n_neurons, 16, k)
    assert baseline.critical_count == critical
    assert baseline.attained_size == baseline.proportion == pytest.approx(attained, abs=5e-7)
    assert baseline.degree == pytest.approx(degree, abs=5e-6)
    counts = np.arange(critical, k + 1)
    expected_sum = 16 * (hypergeom.pmf(counts, n_neurons, n_neurons // 16, k) * counts).sum() / (k / 16)
    assert expected_sum == pytest.approx(summed, abs=5e-5)
    assert baseline.degree < expected_sum


@pytest.mark.parametrize(
    ("n_neurons", "n_experts", "k", "alpha"), [(12, 3, 5, 0.2), (12, 4, 6, 0.3), (10, 5, 4, 0.4), (9, 3, 9, 0.5)]
)
def test_equals_the_mean_over_all_lists(n_neurons, n_experts, k, alpha):
    labels = np.repeat(np.arange(n_experts), n_neurons // n_experts)
    results = [functional_experts(list(top), labels, alpha=alpha) for top in combinations(range(n_neurons), k)]
    baseline = random_partition_baseline(n_neurons, n_experts, k, alpha=alpha)
    assert baseline.proportion == pytest.approx(np.mean([r.proportion for r in results]), rel=1e-12, abs=1e-15)
    assert baseline.degree == pytest.approx(np.mean([r.degree for r in results]), rel=1e-12, abs=1e-15)
    assert baseline.any_functional == pytest.approx(np.mean([r.proportion > 0 for r in results]), rel=1e-12, abs=1e-15)
    assert baseline.critical_count == results[0].critical_count


def test_agrees_with_sampling_for_t5_at_a_larger_alpha():
    alpha, n_draws = 0.05, 40_000
    counts = np.random.default_rng(0).multivariate_hypergeometric([192] * 16, 30, size=n_draws)
    critical, _ = hypergeometric_critical_count(3072, 192, 30, alpha=alpha)
    functional = counts >= critical
    degree = (counts * functional).sum(axis=1) / np.maximum(functional.sum(axis=1), 1) / 1.875
    baseline = random_partition_baseline(3072, 16, 30, alpha=alpha)
    assert baseline.degree == pytest.approx(degree.mean(), abs=4 * degree.std() / np.sqrt(n_draws))
    assert baseline.any_functional == pytest.approx(functional.any(axis=1).mean(), abs=0.01)
    assert baseline.proportion == pytest.approx(functional.mean(), abs=0.001)


def test_never_functional():
    assert random_partition_baseline(8, 8, 3).degree == 0.0
    assert random_partition_baseline(8, 1, 3).attained_size == 0.0


def test_bad_numbers():
    with pytest.raises(InputError, match="k is 0: expected 1 to 16, the number of neurons"):
        random_partition_baseline(16, 4, 0)
    with pytest.raises(InputError, match="16 neurons cannot be split into 3 experts"):
        random_partition_baseline(16, 3, 2)
    with pytest.raises(InputError, match="alpha is 2: expected a value between 0 and 1"):
        random_partition_baseline(16, 4, 2, alpha=2)
