"""How a base model is called: which stacks run, decoder input, padding on either side."""

import numpy as np
import pytest
import torch

from modularity.errors import DataError
from modularity.types import Site

ARCHITECTURES = ["opt", "gpt2", "gpt_neox", "bert", "roberta", "distilbert", "llama", "t5"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_side_and_batching_do_not_change_the_values(tiny, batch_of, name, run, neurons):
    model = tiny(name)
    lengths = [2, 5, 8]
    right, left = batch_of(lengths), batch_of(lengths, left=True)
    together, _ = run(model, [right], n_rows=3)
    mirrored, _ = run(model, [left], n_rows=3)
    single = []
    for example, length in enumerate(lengths):
        alone = batch_of([length], first_row=example)
        alone.input_ids_BT[:] = right.input_ids_BT[example, :length]
        single.append(alone)
    alone, stats = run(model, single, n_rows=3)
    site = neurons(model)
    np.testing.assert_allclose(mirrored[site], together[site], rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(alone[site], together[site], rtol=1e-4, atol=2e-5)
    assert stats.n_batches == 3


def test_only_the_encoder_of_t5_runs_for_encoder_sites(tiny, batch_of, run):
    model = tiny("t5")
    calls = []
    handle = model.module.decoder.register_forward_pre_hook(lambda *_: calls.append(1))
    run(model, [batch_of([4])], n_rows=1)
    assert not calls
    handle.remove()


def test_t5_decoder_starts_from_the_start_token(tiny, batch_of, run, neurons):
    model = tiny("t5")
    site = Site("decoder", "ffn.neurons")
    batch = batch_of([4, 6])
    out, _ = run(model, [batch], sites=[neurons(model), site], n_rows=2)
    seen = []
    handle = (
        model.module.decoder.block[1]
        .layer[2]
        .DenseReluDense.wo.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    )
    with torch.inference_mode():
        model.module(
            input_ids=torch.from_numpy(batch.input_ids_BT),
            attention_mask=torch.from_numpy(batch.attention_mask_BT).long(),
            decoder_input_ids=torch.ones(2, 1, dtype=torch.long),
        )
    handle.remove()
    np.testing.assert_array_equal(out[site][:, 1], seen[0][:, 0].numpy())
    assert out[neurons(model)].shape == out[site].shape == (2, 3, 48)


def test_t5_decoder_has_no_position_beyond_its_start_token(tiny, batch_of, run):
    model = tiny("t5")
    with pytest.raises(DataError, match=r"want positions 1, 2, 3, but this stack has 1 positions here; for a decoder"):
        run(model, [batch_of([4], pooled=False)], sites=[Site("decoder", "ffn.neurons")], n_rows=4, reduction=None)
