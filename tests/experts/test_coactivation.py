import sys

import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import adjusted_rand, coactivation_partition, coactivation_threshold
from modularity.experts.coactivation import _graph, _move_at_random, _move_least_lost

needs_metis = pytest.mark.skipif("not __import__('importlib').util.find_spec('pymetis')", reason="needs pymetis")


def planted_weights(n_neurons, n_experts, *, seed=0, noise=1.0, signal=4.0):
    """Poisson co-activations, more within planted blocks."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(n_neurons) % n_experts
    same = labels[:, None] == labels
    upper = np.triu(rng.poisson(noise + signal * same), 1)
    return (upper + upper.T).astype(np.float64), labels


@needs_metis
@pytest.mark.parametrize(("n_neurons", "n_experts"), [(96, 2), (192, 16), (384, 48)])
def test_planted_blocks_are_found_and_exactly_balanced(n_neurons, n_experts):
    weights, planted = planted_weights(n_neurons, n_experts)
    found = coactivation_partition(weights, n_experts)
    assert adjusted_rand(found.labels_F, planted) == 1.0
    assert found.labels_F.dtype == np.int32
    assert (np.bincount(found.labels_F) == n_neurons // n_experts).all()
    assert found.within_share > 1.5 * found.chance_within_share


@needs_metis
def test_released_variant_is_balanced_and_not_better():
    for seed in range(3):
        weights, _ = planted_weights(384, 48, seed=seed)
        released = coactivation_partition(weights, 48, variant="released", seed=seed)
        assert (np.bincount(released.labels_F) == 8).all()
        assert released.n_swaps == 0
        assert released.within_share < coactivation_partition(weights, 48, seed=seed).within_share


@needs_metis
def test_shares_are_those_of_the_pairs():
    weights, _ = planted_weights(48, 4)
    np.fill_diagonal(weights, 100.0)
    found = coactivation_partition(weights, 4)
    pairs = [(f, g) for f in range(48) for g in range(f)]
    within = sum(weights[f, g] for f, g in pairs if found.labels_F[f] == found.labels_F[g])
    assert found.within_share == pytest.approx(within / sum(weights[pair] for pair in pairs), rel=1e-12)
    assert found.chance_within_share == pytest.approx(4 * 12 * 11 / (48 * 47), rel=1e-12)
    assert found.n_edges == sum(weights[pair] >= found.threshold for pair in pairs)


@needs_metis
def test_within_share_is_at_chance_without_structure():
    weights, _ = planted_weights(96, 4, signal=0.0, noise=50.0)
    found = coactivation_partition(weights, 4)
    assert found.chance_within_share < found.within_share < 1.1 * found.chance_within_share


@needs_metis
def test_deterministic_and_the_scale_does_not_matter():
    weights, _ = planted_weights(120, 12, signal=0.7)
    found = {seed: coactivation_partition(weights, 12, seed=seed).labels_F for seed in (0, 3)}
    for scale in (1.0, 2.0**-20, 2.0**30):
        assert (coactivation_partition(weights * scale, 12, seed=3).labels_F == found[3]).all()
    assert (found[0] != found[3]).any()
    float32 = coactivation_partition(weights.astype(np.float32), 12, seed=3)
    assert (float32.labels_F == found[3]).all()


@needs_metis
def test_dead_neurons_and_single_experts():
    weights = np.zeros((12, 12))
    weights[:3, :3] = weights[3:6, 3:6] = 5
    found = coactivation_partition(weights, 4)
    assert np.bincount(found.labels_F).tolist() == [3, 3, 3, 3]
    assert found.n_isolated == 6
    assert found.within_share == 1.0
    assert (coactivation_partition(weights, 1).labels_F == 0).all()
    assert np.bincount(coactivation_partition(weights, 12).labels_F).tolist() == [1] * 12


def test_threshold_is_the_smallest_positive_decile():
    weights = np.zeros((6, 6))
    weights[np.triu_indices(6, 1)] = [0] * 9 + [2, 3, 4, 5, 6, 7]
    weights += weights.T
    # The 60 % quantile of 15 pairs lies at position 8.4, between the last 0 and 2.
    assert coactivation_threshold(weights) == pytest.approx(0.99 * 0.8, rel=1e-12)
    np.fill_diagonal(weights, 9)
    assert coactivation_threshold(weights) == pytest.approx(0.99 * 0.8, rel=1e-12)
    # Of 36 entries, 18 are 0: the 50 % quantile lies at position 17.5, between 0 and 2.
    assert coactivation_threshold(weights, variant="released") == pytest.approx(0.99 * 1.0, rel=1e-12)


def test_graph_drops_light_pairs_and_rounds_down():
    weights = np.array([[9, 1.0, 2.5], [1.0, 9, 0.4], [2.5, 0.4, 9]])
    graph = _graph(weights, 0.5).toarray()
    assert graph.tolist() == [[0, 2, 5], [2, 0, 0], [5, 0, 0]]


def test_surplus_goes_where_the_least_weight_is_lost():
    weights = np.zeros((6, 6), dtype=int)
    for f, g, weight in [(0, 1, 9), (0, 2, 4), (1, 2, 4), (2, 4, 3), (3, 0, 1), (3, 5, 2), (4, 5, 7)]:
        weights[f, g] = weights[g, f] = weight
    labels = np.array([0, 0, 0, 0, 1, 1], dtype=np.int32)
    graph = _graph(weights.astype(float), 1.0)
    # Neuron 3 gains: it loses 1 and wins 2.
    assert _move_least_lost(graph, labels, 2).tolist() == [0, 0, 0, 1, 1, 1]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1]
    drawn = {tuple(_move_at_random(labels, 2, np.random.default_rng(seed))) for seed in range(40)}
    assert len(drawn) == 4
    assert all(sum(new) == 3 for new in drawn)


def test_weights_follow_every_move():
    # 1 goes first (nothing lost), after which 0 has its partner in expert 1 and follows; 2 to 4 stay.
    weights = np.zeros((6, 6))
    for f, g, weight in [(0, 1, 3), (2, 3, 9), (3, 4, 9), (2, 4, 9), (0, 2, 2), (1, 5, 4)]:
        weights[f, g] = weights[g, f] = weight
    labels = np.array([0, 0, 0, 0, 0, 1], dtype=np.int32)
    assert _move_least_lost(_graph(weights, 1.0), labels, 2).tolist() == [1, 1, 0, 0, 0, 1]


def test_missing_partitioner_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(InputError, match=r"needs the graph partitioner pymetis .* pip install 'modularity\[graph\]'"):
        coactivation_partition(np.ones((4, 4)), 2)


def test_bad_weights():
    weights = np.ones((4, 4))
    with pytest.raises(DataError, match=r"shape \(4, 3\) and dtype float64: expected real numbers, neurons x neurons"):
        coactivation_partition(weights[:, :3], 2)
    with pytest.raises(InputError, match="4 neurons cannot be split into 3 experts"):
        coactivation_partition(weights, 3)
    with pytest.raises(DataError, match=r"all co-activations of 4 neurons are zero: .* count over more tokens"):
        coactivation_partition(np.eye(4), 2)
    weights[1, 3] = 2
    with pytest.raises(DataError, match=r"weights_FF\[1, 3\] is 2.0, \[3, 1\] is 1.0: expected the same weight"):
        coactivation_partition(weights, 2)
    weights[2, 0] = -1
    with pytest.raises(DataError, match=r"weights_FF\[2, 0\] is -1.0: expected co-activations"):
        coactivation_partition(weights, 2)
