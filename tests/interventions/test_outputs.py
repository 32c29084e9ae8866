"""Predictions of a changed model against the whole one, by hand from logits."""

import numpy as np
import pytest
import torch

from modularity.data import token_batches, tokenise
from modularity.errors import NumericError
from modularity.interventions import compare_outputs, last_logits, moefy, positions_read, selected_experts
from modularity.interventions import outputs as outputs_module
from modularity.interventions.forward import Forward

N_EXPERTS = 6


@pytest.fixture
def table_of(function_of, word_tokenizer):
    texts = [" ".join(f"w{(7 * i + j) % 40}" for j in range(3 + i % 4)) for i in range(9)]
    return lambda: tokenise(function_of(texts, [0, 1] * 4 + [0]), word_tokenizer, max_tokens=None)


def layers_of(model):
    stack = model.base.sites.stacks[0]
    return moefy(model.base, {(stack, layer): np.arange(24) % N_EXPERTS for layer in (0, 1)})


def by_hand(model, table, text, layers):
    """Log-probabilities of one text on its own, whole and with selected experts, and its token ids."""
    (batch,) = token_batches(table, text, text + 1, tokens_per_batch=64, pad_id=0)
    forward = Forward(model.module, model.base)
    whole = forward(batch).logits[0].double().log_softmax(-1)
    with selected_experts(model.base, layers, share=0.3, router="oracle"):
        changed = forward(batch).logits[0].double().log_softmax(-1)
    return whole, changed, torch.from_numpy(batch.input_ids_BT[0])


@pytest.mark.parametrize(("name", "n_read"), [("opt", -1), ("bert", 0), ("t5", None)])
def test_values_are_those_of_single_texts(tiny, table_of, name, n_read) -> None:
    model, table = tiny(name), table_of()
    layers = layers_of(model)
    with selected_experts(model.base, layers, share=0.3, router="oracle") as record:
        found = compare_outputs(model, table, record, tokens_per_batch=24)
    expected = np.ones(9) if n_read is None else table.lengths_E + n_read
    assert positions_read(model.kind, table).tolist() == expected.tolist()
    for text in range(9):
        whole, changed, ids = by_hand(model, table, text, layers)
        read = slice(None, -1) if name == "opt" else slice(None)
        whole, changed = whole[read], changed[read]
        kl = (whole.exp() * (whole - changed)).sum(-1).mean()
        assert found.kl_N[text] == pytest.approx(float(kl), rel=1e-3, abs=1e-7)
        same = (whole.argmax(-1) == changed.argmax(-1)).double().mean()
        assert found.agreement_N[text] == pytest.approx(float(same))
        if name == "opt":
            for values, log in ((found.loss_N, changed), (found.whole_loss_N, whole)):
                assert values[text] == pytest.approx(float(-log.gather(1, ids[1:, None]).mean()), rel=1e-4)
    assert np.isnan(found.loss_N).all() == (name != "opt")
    assert (found.kl_N > 0).any()


def test_the_record_counts_only_the_changed_forwards(tiny, table_of) -> None:
    model, table = tiny("opt"), table_of()
    with selected_experts(model.base, layers_of(model), share=0.3, router="oracle") as record:
        compare_outputs(model, table, record)
    kept = record.layers()
    assert {layer.n_tokens for layer in kept.values()} == {table.n_tokens}
    assert [layer.neurons for layer in kept.values()] == [pytest.approx(2 / 6)] * 2
    assert not record.is_paused


def test_all_experts_change_nothing(tiny, table_of) -> None:
    model, table = tiny("opt"), table_of()
    with selected_experts(model.base, layers_of(model), share=1, router="random") as record:
        found = compare_outputs(model, table, record)
    assert found.kl_N.tolist() == [0.0] * 9
    assert found.agreement_N.tolist() == [1.0] * 9
    assert np.array_equal(found.loss_N, found.whole_loss_N)


def test_batches_are_smaller_where_the_vocabulary_is_large(tiny, table_of, monkeypatch) -> None:
    model, table = tiny("opt"), table_of()
    whole = last_logits(model, table, n_texts=5)
    assert whole.shape == (5, 48)
    monkeypatch.setattr(outputs_module, "LOGIT_VALUES", 48 * 7)
    np.testing.assert_allclose(last_logits(model, table, n_texts=5), whole, rtol=1e-4, atol=1e-5)
    logits = Forward(model.module, model.base)(next(token_batches(table, 3, 4, tokens_per_batch=64, pad_id=0))).logits
    np.testing.assert_allclose(whole[3], logits[0, -1].numpy(), rtol=1e-4, atol=1e-5)


def test_a_logit_that_is_not_finite_is_refused(tiny, table_of) -> None:
    model, table = tiny("opt"), table_of()
    with torch.no_grad():
        model.module.get_output_embeddings().weight[3] = float("inf")
    with (
        selected_experts(model.base, layers_of(model), share=0.3, router="oracle") as record,
        pytest.raises(NumericError, match="a logit is not finite"),
    ):
        compare_outputs(model, table, record)
    assert not record.is_paused
