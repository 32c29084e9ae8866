"""Graphs of weights and of co-activation: edges by hand, rescaling keeps the function of a ReLU FFN."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.geometry.weight_graphs import (
    absolute_weights,
    coactivation_graph,
    ffn_graph,
    keep_heaviest,
    rescaled,
)


def test_the_graph_is_a_chain_of_two_blocks() -> None:
    inputs = np.array([[1.0, -2.0], [3.0, 0.0], [0.0, -1.0]])
    output = np.array([[0.5], [-4.0], [2.0]])
    graph = ffn_graph(absolute_weights([inputs], output))
    assert graph.weights_FX.tolist() == [[1, 2, 0.5], [3, 0, 4], [0, 1, 2]]
    assert (graph.n_nodes, graph.n_edges) == (6, 7)
    gated = ffn_graph(absolute_weights([inputs, -inputs], output))
    assert gated.weights_FX[:, :2].tolist() == [[2, 4], [6, 0], [0, 2]]


def test_rescaling_sets_mean_incoming_to_one_and_keeps_the_function() -> None:
    rng = np.random.default_rng(1)
    inputs, output, x = rng.normal(size=(6, 4)), rng.normal(size=(6, 3)), rng.normal(size=(5, 4))
    scaled_in, scaled_out = rescaled(absolute_weights([inputs], output))
    np.testing.assert_allclose(scaled_in.mean(axis=1), 1.0)
    signs_in, signs_out = np.sign(inputs), np.sign(output)
    before = np.maximum(x @ inputs.T, 0) @ output
    after = np.maximum(x @ (signs_in * scaled_in).T, 0) @ (signs_out * scaled_out)
    np.testing.assert_allclose(after, before, rtol=1e-12)
    gate, up, down = rescaled(absolute_weights([inputs, 2 * inputs], output))
    np.testing.assert_allclose((gate + up).mean(axis=1), 1.0)
    np.testing.assert_allclose(gate[:, :1] * down, np.abs(inputs[:, :1] * output))


def test_a_neuron_without_incoming_weight_stays() -> None:
    scaled_in, scaled_out = rescaled(absolute_weights([np.array([[0.0, 0.0], [2.0, 4.0]])], np.array([[5.0], [1.0]])))
    assert scaled_in.tolist() == [[0, 0], [2 / 3, 4 / 3]]
    assert scaled_out.tolist() == [[5], [3]]


def test_the_heaviest_are_kept_ties_by_lowest_index() -> None:
    matrix = np.array([[3.0, 1.0, 2.0], [2.0, 2.0, 0.5]])
    assert keep_heaviest(matrix, 0.5).tolist() == [[3, 0, 2], [2, 0, 0]]
    assert keep_heaviest(matrix, 1.0) is matrix
    assert np.count_nonzero(keep_heaviest(matrix, 0.34)) == 3  # 2.04 rounded up


def test_coactivation_is_relative_to_what_neurons_have_with_themselves() -> None:
    sums = np.array([[16.0, 4, 2, 0], [4, 4, 1, 0], [2, 1, 1, 0], [0, 0, 0, 0]])
    graph = coactivation_graph(sums, 1.0)
    assert graph.edges.toarray()[:3, :3] == pytest.approx(np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]))
    assert graph.strengths_V[3] == 0
    two = coactivation_graph(sums, 0.3)
    assert two.n_edges == 2
    assert two.edges.toarray()[0].tolist() == [0, 0.5, 0.5, 0]


def test_pairs_are_kept_alike_however_rows_are_cut(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    sums = rng.integers(0, 5, (40, 40))
    sums = sums + sums.T + 20 * np.eye(40, dtype=int)
    whole = coactivation_graph(sums, 0.2).edges.toarray()
    monkeypatch.setattr("modularity.geometry.weight_graphs._BLOCK_ROWS", 7)
    np.testing.assert_array_equal(coactivation_graph(sums, 0.2).edges.toarray(), whole)
    assert np.count_nonzero(whole) == 2 * 156


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: absolute_weights([np.ones((2, 3))], np.ones((4, 3))), r"\(2, 3\), \(4, 3\)\]: expected neurons x"),
        (lambda: absolute_weights([np.full((2, 3), np.nan)], np.ones((2, 3))), "6 weights are not finite"),
        (lambda: coactivation_graph(np.ones((2, 3)), 0.5), "expected neurons x neurons"),
        (lambda: coactivation_graph(np.eye(3), 0.5), "no two of 3 neurons are active together"),
        (lambda: coactivation_graph(np.eye(3) - 0.5, 0.5), "negative or not finite"),
    ],
)
def test_bad_values_are_refused(call, message) -> None:
    with pytest.raises(DataError, match=message):
        call()
