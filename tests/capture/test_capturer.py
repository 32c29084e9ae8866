"""Captured rows against plain Hugging Face forwards, and everything that must be refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from modularity.capture import Capturer, CaptureStats
from modularity.errors import DataError, InputError
from modularity.store import bfloat16_from_bits
from modularity.types import Site

ARCHITECTURES = ["opt", "gpt2", "gpt_neox", "bert", "roberta", "distilbert", "llama", "t5"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plain(model, batch, path, n_layers=3):
    """What enters the out-projections in an ordinary forward: (layers, B, T, F), float32."""
    seen = {}
    module = model.module
    handles = [
        module.get_submodule(path.format(layer)).register_forward_pre_hook(
            lambda _, args, layer=layer: seen.__setitem__(layer, args[0].clone())
        )
        for layer in range(n_layers)
    ]
    inputs = {
        "input_ids": torch.from_numpy(batch.input_ids_BT),
        "attention_mask": torch.from_numpy(batch.attention_mask_BT).long(),
    }
    callee = module.get_encoder() if "encoder.block" in path else module
    with torch.inference_mode():
        callee(**inputs)
    for handle in handles:
        handle.remove()
    shape = batch.input_ids_BT.shape
    return torch.stack([seen[layer].reshape(*shape, -1) for layer in range(n_layers)]).float().numpy()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_token_level_rows_equal_a_plain_forward(tiny, batch_of, ffn_out, name, dtype, run, neurons, n_hooks):
    model = tiny(name, dtype=dtype)
    batch = batch_of([6, 6, 6], pooled=False)
    out, stats = run(model, [batch], n_rows=18, reduction=None)
    expected_LBTF = plain(model, batch, ffn_out[name])
    np.testing.assert_array_equal(out[neurons(model)], expected_LBTF.reshape(3, 18, -1).swapaxes(0, 1))
    assert (stats.n_examples, stats.n_rows, stats.n_tokens, stats.n_padded_tokens, stats.n_batches) == (
        3,
        18,
        18,
        18,
        1,
    )
    assert n_hooks(model) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["max", "mean"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pooled_rows_equal_pooling_of_a_plain_forward(tiny, batch_of, ffn_out, name, reduction, dtype, run, neurons):
    model = tiny(name, dtype=dtype)
    batch = batch_of([3, 6, 1], first_row=40)
    out, _ = run(model, [batch], n_rows=3, row_start=40, reduction=reduction)
    values_LBTF = plain(model, batch, ffn_out[name])
    for example, length in enumerate([3, 6, 1]):
        real_LTF = values_LBTF[:, example, :length]
        seen_LF = out[neurons(model)][example]
        if reduction == "max":
            np.testing.assert_array_equal(seen_LF, real_LTF.max(1))
        else:
            np.testing.assert_allclose(seen_LF, real_LTF.mean(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["opt", "llama", "bert"])
def test_all_sites_and_a_choice_of_layers(tiny, batch_of, name, run):
    model = tiny(name)
    batch = batch_of([4, 5])
    everything, _ = run(model, [batch], sites=list(model.sites.sites), n_rows=2)
    chosen, _ = run(model, [batch], sites=list(model.sites.sites), layers=[0, 2], n_rows=2)
    for site in model.sites.sites:
        np.testing.assert_array_equal(chosen[site], everything[site][:, [0, 2]])
    heads = Site(model.sites.stacks[0], "attention.heads")
    assert everything[heads].shape == (2, 3, 4, 8)
    assert everything[Site(heads.stack, "residual")].shape == (2, 4, 32)


def test_hidden_states_of_a_plain_forward_are_the_residual(tiny, batch_of, run):
    model = tiny("opt")
    batch = batch_of([5, 5], pooled=False)
    site = Site("decoder", "residual")
    out, _ = run(model, [batch], sites=[site], n_rows=10, reduction=None)
    with torch.inference_mode():
        states = model.module(torch.from_numpy(batch.input_ids_BT), output_hidden_states=True).hidden_states
    for depth in range(3):  # the last hidden state comes after the final norm
        np.testing.assert_array_equal(out[site][:, depth], states[depth].reshape(10, -1).numpy())


@pytest.mark.parametrize("storage", ["float32", "float16", "bfloat16"])
def test_rows_are_rounded_to_the_storage_dtype(tiny, batch_of, storage, run, neurons):
    model = tiny("opt")
    batch = batch_of([4, 7, 7, 2], pooled=False)
    exact, _ = run(model, [batch], n_rows=20, reduction=None)
    stored, _ = run(model, [batch], n_rows=20, reduction=None, dtype=storage)
    values = torch.from_numpy(exact[neurons(model)])
    expected = values.to(getattr(torch, storage)).float().numpy()
    seen = stored[neurons(model)]
    np.testing.assert_array_equal(bfloat16_from_bits(seen) if storage == "bfloat16" else seen, expected)


def test_ffn_chunks_are_put_together(tiny, batch_of, run, neurons):
    whole, chunked = tiny("bert"), tiny("bert", chunk_size_feed_forward=2)
    batch = batch_of([6, 4], pooled=False)
    expected, _ = run(whole, [batch], n_rows=10, reduction=None)
    seen, _ = run(chunked, [batch], n_rows=10, reduction=None)
    np.testing.assert_allclose(seen[neurons(whole)], expected[neurons(whole)], rtol=1e-5, atol=1e-6)


def test_t5_in_float16_delivers_the_dtype_of_its_float32_out_projection(tiny, batch_of, run, neurons):
    model = tiny("t5", dtype=torch.float16)
    for block in model.module.encoder.block:
        block.layer[1].DenseReluDense.wo.float()
    out, _ = run(dataclasses.replace(model, sites=type(model.sites)(model.module, model.sites.architecture)),
                 [batch_of([5])], n_rows=1)  # fmt: skip
    assert np.isfinite(out[neurons(model)]).all()


def test_forward_ends_after_the_last_wanted_layer(tiny, batch_of, run):
    model = tiny("opt")
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
        for index, block in enumerate(model.module.decoder.layers)
    ]
    run(model, [batch_of([4]), batch_of([4], first_row=1)], layers=[1], n_rows=2)
    assert calls == [0, 1, 0, 1]
    for handle in handles:
        handle.remove()


def test_last_out_projection_runs_only_for_the_self_check(tiny, batch_of, run):
    model = tiny("opt")
    calls = []
    handle = model.module.decoder.layers[2].fc2.register_forward_hook(lambda *_: calls.append(1))
    run(model, [batch_of([4], first_row=row) for row in range(3)], n_rows=3)
    handle.remove()
    assert len(calls) == 1


def test_narrower_layers_end_in_nan(tiny, batch_of, run, neurons):
    model = tiny("opt")
    block = model.module.decoder.layers[1]
    fc1, fc2 = nn.Linear(32, 20), nn.Linear(20, 32)
    block.fc1, block.fc2 = fc1, fc2
    pruned = dataclasses.replace(model, sites=type(model.sites)(model.module, model.sites.architecture))
    for storage in ("float32", "bfloat16"):
        out, _ = run(pruned, [batch_of([4, 4])], n_rows=2, dtype=storage)
        values = out[neurons(model)]
        values = bfloat16_from_bits(values) if storage == "bfloat16" else values
        assert np.isnan(values[:, 1, 20:]).all()
        assert np.isfinite(values[:, 1, :20]).all()
        assert np.isfinite(values[:, [0, 2]]).all()


def test_rows_must_be_delivered_exactly_once(tiny, batch_of, run, n_hooks):
    model = tiny("opt")
    with pytest.raises(DataError, match=r"1 of 3 rows were not delivered by any batch: 2"):
        run(model, [batch_of([4, 4])], n_rows=3)
    with pytest.raises(DataError, match=r"rows 1 are delivered twice"):
        run(model, [batch_of([4, 4]), batch_of([4], first_row=1)], n_rows=3)
    with pytest.raises(DataError, match=r"rows 2 are outside the work item's 0 to 1"):
        run(model, [batch_of([4, 4, 4])], n_rows=2)
    assert n_hooks(model) == 0


def test_output_arrays_are_checked(tiny, batch_of, neurons):
    model = tiny("opt")
    site = neurons(model)
    capturer = Capturer(model, [site], storage_dtype="bfloat16")
    batch = [batch_of([4])]
    with pytest.raises(DataError, match=r"has shape \(1, 2, 48\), expected \(1, 3, 48\)"):
        capturer.capture(batch, {site: np.zeros((1, 2, 48), np.uint16)}, reduction="max")
    with pytest.raises(DataError, match=r"dtype float32, but storage as bfloat16 needs uint16"):
        capturer.capture(batch, {site: np.zeros((1, 3, 48), np.float32)}, reduction="max")
    with pytest.raises(DataError, match=r"for no site, expected exactly decoder/ffn.neurons"):
        capturer.capture(batch, {}, reduction="max")
    read_only = np.zeros((1, 3, 48), np.uint16)
    read_only.flags.writeable = False
    with pytest.raises(DataError, match=r"is read-only; pass an array"):
        capturer.capture(batch, {site: read_only}, reduction="max")
    with pytest.raises(DataError, match=r"reduction=None, but the batch reduces"):
        capturer.capture(batch, {site: np.zeros((1, 3, 48), np.uint16)}, reduction=None)


def test_sites_and_mode_are_checked(tiny, batch_of, run, neurons):
    model = tiny("opt")
    site = neurons(model)
    with pytest.raises(InputError, match="only once"):
        Capturer(model, [site, site])
    with pytest.raises(InputError, match="at least one site"):
        Capturer(model, [])
    model.module.train()
    with pytest.raises(InputError, match=r"training mode.*model\.module\.eval|training mode.*eval\(\)"):
        run(model, [batch_of([4])], n_rows=1)


def test_hooks_leave_on_an_error_of_the_batches(tiny, batch_of, run, neurons, n_hooks):
    model = tiny("opt")

    def batches():
        yield batch_of([4])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, batches(), n_rows=2)
    assert n_hooks(model) == 0
    out, _ = run(model, [batch_of([4])], n_rows=1)
    assert np.isfinite(out[neurons(model)]).all()


def test_foreign_hooks_stay_and_the_model_still_computes_the_same(tiny, batch_of, run, n_hooks):
    model = tiny("llama")
    ids = torch.from_numpy(batch_of([5]).input_ids_BT)
    handle = model.module.layers[0].mlp.down_proj.register_forward_pre_hook(lambda *_: None)
    with torch.inference_mode():
        before = model.module(ids).last_hidden_state
        run(model, [batch_of([5])], n_rows=1)
        after = model.module(ids).last_hidden_state
    assert torch.equal(before, after)
    assert n_hooks(model) == 1
    handle.remove()


def test_stats_add_up():
    one = CaptureStats(1, 2, 3, 4, 5, 0.5, 1.0)
    assert one + one == CaptureStats(2, 4, 6, 8, 10, 1.0, 2.0)
