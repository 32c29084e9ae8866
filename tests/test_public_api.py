"""The public functions on arrays: their signatures, and the golden numbers of the method cards.

T5-base has 3,072 neurons in 16 experts of a layer, Switch-base-16 49,152; the best 1 % are 30 and 491.
"""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import hypergeom, spearmanr
from sklearn.metrics import average_precision_score

from modularity import experts, neurons, stats

T5, SWITCH = (3072, 16, 30), (49_152, 16, 491)
REQUIRED, KEYWORD = inspect.Parameter.empty, inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("function", "positional", "keywords"),
    [
        (neurons.average_precision, ["activations_RF", "labels_SR"], {}),
        (neurons.top_neurons, ["predictivity_F", "k"], {}),
        (experts.balanced_kmeans, ["rows_FD", "n_experts"], {"n_restarts": 1, "seed": 0}),
        (experts.expert_predictivity, ["predictivity_F", "labels_F"], {}),
        (experts.functional_experts, ["top_indices", "labels_F"], {"alpha": 0.001}),
        (experts.random_partition_baseline, ["n_neurons", "n_experts", "k"], {"alpha": 0.001}),
        (stats.stabilisation, ["predictivity_TSF"], {}),
        (stats.dissociation_index, ["drop"], {"seed": 0}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signatures(function, positional, keywords) -> None:
    found = inspect.signature(function).parameters
    required = [name for name, each in found.items() if each.kind is not KEYWORD]
    assert required == positional
    assert all(found[name].default is REQUIRED for name in required)
    options = {name: each.default for name, each in found.items() if each.kind is KEYWORD}
    assert options | keywords == options
    assert REQUIRED not in options.values()


def test_neither_ray_nor_torch_is_imported() -> None:
    code = (
        "import sys, modularity.neurons, modularity.experts, modularity.stats;"
        "print({'ray', 'torch', 'transformers', 'zarr', 'duckdb', 'pymetis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_average_precision_is_that_of_scikit_learn_under_ties() -> None:
    rng = np.random.default_rng(0)
    activations = np.maximum(rng.integers(-3, 4, (60, 5)), 0).astype(np.float32)
    activations[:, 4] = 0
    labels = rng.random((3, 60)) < 0.4
    found = neurons.average_precision(activations, labels)
    expected = [[average_precision_score(label, values) for values in activations.T] for label in labels]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found[:, 4], labels.mean(axis=1), rtol=1e-12)
    by_hand = neurons.average_precision(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[True, False, True, False]]))
    assert by_hand[0, 0] == pytest.approx((1 + 2 / 3) / 2)


def test_floors_of_the_eight_tasks() -> None:
    # (positives, examples) with at most 1,000 for each original label: CoLA, MRPC, MNLI-a, RTE, SST-2, three balanced.
    counts = [(721, 1043), (279, 408), (1000, 3000), (146, 277), (444, 872)] + 3 * [(1000, 2000)]
    floors = [float(stats.floor((np.arange(n) < positives)[None])[0]) for positives, n in counts]
    assert [round(value, 3) for value in floors] == [0.691, 0.684, 0.667, 0.527, 0.509, 0.5, 0.5, 0.5]
    assert sum(floors) == pytest.approx(4.578, abs=5e-4)


def test_top_neurons_descending_with_ties_by_lowest_index() -> None:
    assert neurons.top_neurons(np.array([0.5, 0.9, 0.5, 0.9, 0.1]), 3).tolist() == [1, 3, 0]
    assert neurons.top_fraction_count(3072, 0.01) == 30
    assert neurons.top_fraction_count(49_152, 0.01) == 491


def test_balanced_kmeans_finds_planted_experts() -> None:
    rng = np.random.default_rng(0)
    planted = rng.permutation(96) % 8
    rows = experts.normalise_rows(4 * rng.normal(size=(8, 32))[planted] + rng.normal(size=(96, 32)))
    labels = experts.balanced_kmeans(rows, 8, n_restarts=2, seed=1)
    assert experts.adjusted_rand(labels, planted) == 1.0
    assert np.bincount(labels).tolist() == [12] * 8
    assert (experts.balanced_kmeans(rows, 8, initial_labels=planted) == planted).all()


def test_expert_predictivity_is_the_mean_of_members() -> None:
    assert experts.expert_predictivity([0.2, 0.4, 0.9, 0.5], [0, 1, 1, 0]).tolist() == [0.35, 0.65]
    labels = np.arange(3072) % 16
    assert experts.expert_predictivity(np.ones((8, 3072)), labels).shape == (8, 16)


@pytest.mark.parametrize(
    ("layer", "critical", "expected", "attained"), [(T5, 8, 1.875, 3.57e-4), (SWITCH, 49, 30.7, 9.04e-4)]
)
def test_functional_experts_at_the_critical_count(layer, critical, expected, attained) -> None:
    n_neurons, n_experts, k = layer
    size = n_neurons // n_experts
    labels = np.arange(n_neurons) // size
    for count in (critical - 1, critical):
        # `count` best neurons in expert 3, the others spread evenly.
        rest = np.array_split(np.arange(k - count), n_experts - 1)
        others = [e for e in range(n_experts) if e != 3]
        top = np.concatenate(
            [3 * size + np.arange(count), *(e * size + np.arange(len(part)) for e, part in zip(others, rest))]
        )
        found = experts.functional_experts(top, labels)
        assert found.critical_count == critical
        assert found.counts_E[3] == count
        assert found.counts_E.sum() == k
        assert found.expected_E[3] == pytest.approx(expected, abs=0.05)
        assert found.p_value_E[3] == pytest.approx(hypergeom.sf(count - 1, n_neurons, size, k), rel=1e-9)
        assert np.flatnonzero(found.functional_E).tolist() == ([3] if count == critical else [])
        assert found.degree == pytest.approx(critical * n_experts / k if count == critical else 0.0)
    assert found.attained_size_E[3] == pytest.approx(attained, rel=2e-3)
    assert found.p_value_E[3] == found.attained_size_E[3]


@pytest.mark.parametrize(("n_draws", "critical"), [(240, 29), (3928, 295)])
def test_critical_counts_of_functions(n_draws, critical) -> None:
    assert experts.binomial_critical_count(n_draws, 16)[0] == critical


@pytest.mark.parametrize(
    ("layer", "proportion", "degree", "ratio_sum"), [(T5, 3.57e-4, 0.0249, 0.0249), (SWITCH, 9.04e-4, 0.0236, 0.0237)]
)
def test_random_partition_baseline(layer, proportion, degree, ratio_sum) -> None:
    n_neurons, n_experts, k = layer
    found = experts.random_partition_baseline(*layer)
    assert found.proportion == pytest.approx(proportion, rel=2e-3)
    assert round(found.degree, 4) == degree
    # The card's number is the expected sum over functional experts, not divided by how many there are.
    size = n_neurons // n_experts
    counts = np.arange(found.critical_count, k + 1)
    summed = n_experts * (hypergeom.pmf(counts, n_neurons, size, k) * counts).sum() / (k / n_experts)
    assert round(summed, 4) == ratio_sum
    assert found.degree <= summed


def test_baseline_is_the_mean_over_random_partitions() -> None:
    exact = experts.random_partition_baseline(96, 8, 12, alpha=0.05)
    drawn = [
        experts.functional_experts(np.arange(12), experts.random_partition(96, 8, seed=seed), alpha=0.05)
        for seed in range(3000)
    ]
    assert np.mean([each.proportion for each in drawn]) == pytest.approx(exact.proportion, rel=0.15)
    assert np.mean([each.degree for each in drawn]) == pytest.approx(exact.degree, rel=0.15)


def test_stabilisation_of_consecutive_steps() -> None:
    rng = np.random.default_rng(0)
    predictivity = rng.integers(0, 9, (5, 2, 40)) / 9
    predictivity[1, 0] = 2 * predictivity[0, 0] + 1
    predictivity[2, 0] = -predictivity[1, 0]
    rho = stats.stabilisation(predictivity)
    assert rho.shape == (4, 2)
    assert rho[:2, 0] == pytest.approx([1.0, -1.0])
    expected = [[spearmanr(predictivity[t, s], predictivity[t + 1, s])[0] for s in range(2)] for t in range(4)]
    np.testing.assert_allclose(rho, expected, atol=1e-12)


def test_dissociation_index_by_hand() -> None:
    own = np.full((5, 4, 4), 0.1)
    own[:, range(4), range(4)] = 0.3
    own += 0.01 * np.random.default_rng(0).normal(size=own.shape)
    found = stats.dissociation_index(own, seed=0)
    diagonal = np.einsum("nii->", own) / 20
    off_diagonal = (own.sum() - np.einsum("nii->", own)) / 60
    assert found.index == pytest.approx(diagonal - off_diagonal)
    assert found.p_value == pytest.approx(1 / 24)
    # A strong ranking that hurts every task is no dissociation.
    strong = np.broadcast_to(np.array([0.1, 0.9, 0.2, 0.3])[:, None], (5, 4, 4))
    none = stats.dissociation_index(strong)
    assert none.index == pytest.approx(0.0, abs=1e-12)
    assert none.p_value == 1.0
