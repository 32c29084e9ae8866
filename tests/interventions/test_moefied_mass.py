"""Mass kept text by text, against the record of a running model and by hand."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.interventions import (
    RoutingExamples,
    collect_routing,
    ffn_flops,
    mass_by_text,
    moefy,
    rows_of_texts,
    selected_experts,
)
from modularity.interventions.forward import Forward

N_EXPERTS = 6


def one_layer(model, layer=0):
    stack = model.base.sites.stacks[0]
    (found,) = moefy(model.base, {(stack, layer): np.arange(24) % N_EXPERTS}).values()
    return found


@pytest.mark.parametrize("router", ["oracle", "parameter", "random"])
def test_tokens_of_all_texts_keep_what_the_record_counts(tiny, batch_of, router) -> None:
    model = tiny("opt")
    layer = one_layer(model)
    batch = batch_of([5, 7, 3])
    examples = collect_routing(model.base, {layer.key: layer}, [batch])[layer.key]
    text_R = rows_of_texts(model.base, layer.stack, [batch])
    assert np.bincount(text_R).tolist() == batch.attention_mask_BT.sum(axis=1)[np.argsort(batch.rows_B)].tolist()
    found = mass_by_text(layer, examples, text_R, 3, router=router, shares=(0.3, 1.0), seed=4)
    with selected_experts(model.base, {layer.key: layer}, share=0.3, router=router, seed=4) as record:
        Forward(model.module, model.base)(batch)
    counted = record.layers()[layer.key]
    mean = (found.kept_XN[0] * found.n_tokens_N).sum() / found.n_tokens_N.sum()
    assert mean == pytest.approx(counted.mean, rel=1e-5)
    assert found.neurons_X.tolist() == [pytest.approx(2 / 6), 1.0]
    assert counted.neurons == pytest.approx(2 / 6)
    np.testing.assert_allclose(found.kept_XN[1], 1.0)


def test_by_hand(tiny) -> None:
    layer = one_layer(tiny("opt"))
    mass_RE = np.array([[3, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 9, 0, 1]], np.float32)
    examples = RoutingExamples(np.zeros((4, 32), np.float32), mass_RE)
    found = mass_by_text(layer, examples, np.array([0, 0, 0, 2]), 4, router="oracle", shares=(1 / 6, 1 / 3))
    assert found.n_tokens_N.tolist() == [2, 0, 1, 0]
    np.testing.assert_allclose(found.kept_XN[0], [(3 / 4 + 1 / 6) / 2, np.nan, 0.9, np.nan])
    np.testing.assert_allclose(found.kept_XN[1], [(1 + 1 / 3) / 2, np.nan, 1.0, np.nan])


def test_bad_input(tiny) -> None:
    layer = one_layer(tiny("opt"))
    examples = RoutingExamples(np.zeros((4, 32), np.float32), np.zeros((4, 6), np.float32))
    with pytest.raises(DataError, match=r"text_R has shape \(3,\): expected \(4,\)"):
        mass_by_text(layer, examples, np.arange(3), 4, router="oracle", shares=(0.5,))
    with pytest.raises(DataError, match="no token has any activation"):
        mass_by_text(layer, examples, np.arange(4), 4, router="oracle", shares=(0.5,))


def test_a_decoder_has_one_row_for_each_text(tiny, batch_of) -> None:
    model = tiny("t5")
    batch = batch_of([5, 7, 3])
    assert rows_of_texts(model.base, "decoder", [batch]).tolist() == batch.rows_B.tolist()
    assert len(rows_of_texts(model.base, "encoder", [batch])) == 15


@pytest.mark.parametrize(("name", "n_inputs"), [("opt", 1), ("llama", 2)])
def test_operations_of_plain_and_gated_layers(tiny, name, n_inputs) -> None:
    model = tiny(name)
    layer, one = one_layer(model), 2 * 32 * 24
    assert ffn_flops(model.base, layer, "oracle", 0.5) == (one * (n_inputs + 0.5), one * (n_inputs + 1))
    assert ffn_flops(model.base, layer, "parameter", 0.5)[0] == one * (n_inputs + 1) * 0.5 + 2 * 6 * 32
    assert ffn_flops(model.base, layer, "mlp", 1.0)[0] == one * (n_inputs + 1) + 2 * 6 * (32 + 6)
