import numpy as np
import pytest

from modularity.experts import inertia, random_partition
from modularity.experts.exchange import Gram, refine, refine_blockwise, refine_weights


def unit_rows(n_neurons, n_dims, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n_neurons, n_dims))
    rows -= rows.mean(axis=0)
    return (rows / np.sqrt((rows**2).sum() / n_neurons)).astype(np.float32)


def best_swap(rows_FD, labels_F):
    """Largest fall of the inertia by a single swap, tried one by one."""
    before = inertia(rows_FD, labels_F)
    gains = [0.0]
    for i in range(len(labels_F)):
        for j in range(i):
            if labels_F[i] != labels_F[j]:
                swapped = labels_F.copy()
                swapped[[i, j]] = swapped[[j, i]]
                gains.append(before - inertia(rows_FD, swapped))
    return max(gains)


@pytest.mark.parametrize(("n_neurons", "n_experts", "n_dims"), [(24, 4, 3), (40, 2, 6), (36, 12, 5), (30, 3, 40)])
def test_no_single_swap_is_left(n_neurons, n_experts, n_dims):
    rows = unit_rows(n_neurons, n_dims)
    start = random_partition(n_neurons, n_experts, seed=1)
    assert best_swap(rows, start) > 1e-3
    labels, n_swaps, converged = refine(rows, start, n_experts, Gram.of(rows), rng=np.random.default_rng(0))
    assert converged
    assert n_swaps > 0
    assert best_swap(rows, labels) < 1e-4
    assert (np.bincount(labels) == n_neurons // n_experts).all()
    assert inertia(rows, labels) < inertia(rows, start)


def within(weights_FF, labels_F):
    same = labels_F[:, None] == labels_F
    np.fill_diagonal(same, False)
    return weights_FF[same].sum()


def test_no_swap_is_left_that_raises_the_weight_within_experts():
    weights = np.triu(np.random.default_rng(0).gamma(0.5, size=(30, 30)), 1) * 1e6
    weights += weights.T + 1e7 * np.eye(30)
    start = random_partition(30, 5, seed=1)
    labels, n_swaps, converged = refine_weights(weights, start, 5, rng=np.random.default_rng(0))
    assert converged
    assert n_swaps > 0
    assert within(weights, labels) > 1.2 * within(weights, start)
    for i in range(30):
        for j in range(i):
            swapped = labels.copy()
            swapped[[i, j]] = swapped[[j, i]]
            assert within(weights, swapped) < within(weights, labels) * (1 + 1e-6)


def test_start_is_left_alone_and_a_stable_one_comes_back():
    rows = unit_rows(60, 8)
    start = random_partition(60, 5, seed=2)
    kept = start.copy()
    gram = Gram.of(rows)
    labels, _, _ = refine(rows, start, 5, gram, rng=np.random.default_rng(0))
    assert (start == kept).all()
    again, n_swaps, converged = refine(rows, labels, 5, gram, rng=np.random.default_rng(9))
    assert (again == labels).all()
    assert (n_swaps, converged) == (0, True)


def test_identical_rows_never_swap():
    rows = np.zeros((12, 3), np.float32)
    start = random_partition(12, 3, seed=0)
    labels, n_swaps, converged = refine(rows, start, 3, Gram.of(rows), rng=np.random.default_rng(0))
    assert (labels == start).all()
    assert (n_swaps, converged) == (0, True)


def test_blocks_come_near_the_whole_and_stay_balanced():
    rows = unit_rows(360, 16)
    start = random_partition(360, 12, seed=3)
    whole, _, _ = refine(rows, start, 12, Gram.of(rows), rng=np.random.default_rng(0))
    blocks, n_swaps, converged = refine_blockwise(rows, start, 12, block_rows=100, rng=np.random.default_rng(0))
    assert converged
    assert n_swaps > 0
    assert (np.bincount(blocks) == 30).all()
    gained = (inertia(rows, start) - inertia(rows, blocks)) / (inertia(rows, start) - inertia(rows, whole))
    assert gained > 0.97


def test_blocks_that_run_out_of_rounds_say_so():
    rows = unit_rows(60, 4)
    start = random_partition(60, 6, seed=0)
    _, _, converged = refine_blockwise(rows, start, 6, block_rows=10, rng=np.random.default_rng(0), max_rounds=1)
    assert not converged
