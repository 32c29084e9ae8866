"""Neurons of experts as rows: routing respected token by token, padding left out, drops counted, two variants."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from modularity.capture import Capturer, CaptureStats
from modularity.capture.routed import pool_routed
from modularity.errors import DataError, InputError, SiteError
from modularity.models import RoutedNeurons
from modularity.models.expert_layers import ExpertWeights
from modularity.types import Site

NAMES = ["switch", "mixtral", "olmoe", "qwen3_moe", "qwen2_moe"]
LENGTHS = [5, 9, 1, 7]


def ffn_of(model, stack, layer):
    if model.identity.architecture == "switch_transformers":
        return getattr(model.module, stack).block[layer].layer[-1].mlp
    return model.module.layers[layer].mlp


def plain(model, batch):
    """Of an ordinary forward, by sparse layer: neurons of all experts (B, T, E, f) and choices (B, T, E)."""
    stack = model.sites.stacks[0]
    seen = {}
    handles = []
    for layer in model.sites.sparse_layers(stack):
        keep = lambda _, args, layer=layer: seen.update({layer: [value.clone() for value in args]})  # noqa: E731
        handles.append(ffn_of(model, stack, layer).experts.register_forward_pre_hook(keep))
    callee = model.module.get_encoder() if stack == "encoder" else model.module
    with torch.inference_mode():
        callee(
            input_ids=torch.from_numpy(batch.input_ids_BT),
            attention_mask=torch.from_numpy(batch.attention_mask_BT).long(),
        )
    for handle in handles:
        handle.remove()
    shape = batch.input_ids_BT.shape
    return {layer: _by_hand(ffn_of(model, stack, layer).experts, args, shape) for layer, args in seen.items()}


def _by_hand(experts, args, shape):
    hidden_ND, selected, _ = args
    if hasattr(experts, "gate_up_proj"):
        gate_up_NEF = torch.einsum("nd,efd->nef", hidden_ND, experts.gate_up_proj)
        gate_NEF, up_NEF = gate_up_NEF.chunk(2, dim=-1)
        neurons_NEF = functional.silu(gate_NEF) * up_NEF
        choices_NE = functional.one_hot(selected, len(experts.gate_up_proj)).sum(1)
    else:
        weights_EFD = torch.stack([expert.wi.weight for expert in experts.values()])
        neurons_NEF = torch.relu(torch.einsum("nd,efd->nef", hidden_ND, weights_EFD))
        choices_NE = selected.sum(1)
    return neurons_NEF.float().unflatten(0, shape).numpy(), choices_NE.unflatten(0, shape).numpy().astype(bool)


def expected_pool(neurons_TEF, active_TE, kind):
    """Maximum or mean over the active tokens, 0 without any; loops on purpose."""
    pooled_EF = np.zeros(neurons_TEF.shape[1:])
    for expert in range(active_TE.shape[1]):
        if active_TE[:, expert].any():
            values = neurons_TEF[active_TE[:, expert], expert]
            pooled_EF[expert] = values.max(0) if kind == "max" else values.mean(0)
    return pooled_EF.reshape(-1)


def capture(model, batches, n_rows, *, layers=None, reduction="max", sites=("ffn.neurons",), **options):
    stack = model.sites.stacks[0]
    capturer = Capturer(model, [Site(stack, name) for name in sites], layers=layers, **options)
    out = {
        site: np.full((n_rows, len(shape.layers), *shape.unit_shape), 7, np.float32)
        for site, shape in capturer.shapes.items()
    }
    stats = capturer.capture(batches, out, reduction=reduction)
    return {site.name: values for site, values in out.items()}, stats


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("variant", ["corrected", "released"])
@pytest.mark.parametrize("reduction", ["max", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_pooled_rows_are_over_the_tokens_of_each_expert(tiny, batch_of, name, reduction, variant, dtype):
    model = tiny(name, dtype=dtype)
    batch = batch_of(LENGTHS)
    layers = model.sites.sparse_layers(model.sites.stacks[0])
    out, _ = capture(model, [batch], 4, layers=layers, reduction=reduction, expert_variant=variant)
    n_missing = 0
    for index, (neurons_BTEF, choices_BTE) in enumerate(plain(model, batch).values()):
        for example, length in enumerate(LENGTHS):
            active_TE = choices_BTE[example, :length]
            n_missing += (~active_TE.any(0)).sum()
            if variant == "released":
                active_TE = np.ones_like(active_TE)
            expected_F = expected_pool(neurons_BTEF[example, :length], active_TE, reduction)
            seen_F = out["ffn.neurons"][example, index]
            scale = np.abs(expected_F).max() * TOLERANCE[dtype]
            np.testing.assert_allclose(seen_F, expected_F, rtol=TOLERANCE[dtype], atol=scale)
    assert n_missing


@pytest.mark.parametrize("name", NAMES)
def test_choices_tell_a_stored_zero_from_a_missing_value(tiny, batch_of, name):
    model = tiny(name)
    batch = batch_of(LENGTHS)
    sites = ("ffn.neurons", "router.choices", "router.probabilities")
    layers = model.sites.sparse_layers(model.sites.stacks[0])
    out, _ = capture(model, [batch], 4, layers=layers, sites=sites)
    n_experts = out["router.choices"].shape[-1]
    neurons_RLEF = out["ffn.neurons"].reshape(4, len(layers), n_experts, -1)
    assert set(np.unique(out["router.choices"])) == {0, 1}
    assert not neurons_RLEF[out["router.choices"] == 0].any()
    if name != "switch":  # a ReLU neuron may be 0 for every token
        assert neurons_RLEF[out["router.choices"] == 1].any(-1).all()
    assert (out["router.probabilities"] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_token_level_rows_follow_the_routing(tiny, batch_of, name, monkeypatch):
    from modularity.capture import selection

    monkeypatch.setattr(selection, "_ROUTED_ROWS", 5)
    model = tiny(name)
    batch = batch_of(LENGTHS, pooled=False)
    n_rows = sum(LENGTHS)
    layers = model.sites.sparse_layers(model.sites.stacks[0])
    sites = ("ffn.neurons", "router.choices", "router.probabilities")
    out, stats = capture(model, [batch], n_rows, layers=layers, reduction=None, sites=sites)
    n_dropped = 0
    for index, (neurons_BTEF, choices_BTE) in enumerate(plain(model, batch).values()):
        choices_RE = choices_BTE[batch.attention_mask_BT]
        expected_RF = (neurons_BTEF * choices_BTE[..., None])[batch.attention_mask_BT].reshape(n_rows, -1)
        np.testing.assert_allclose(out["ffn.neurons"][:, index], expected_RF, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(out["router.choices"][:, index], choices_RE)
        n_dropped += int((~choices_RE.any(1)).sum())
        np.testing.assert_allclose(out["router.probabilities"][:, index].sum(1), 1, rtol=1e-5)
    assert (stats.n_routed, stats.n_dropped) == (n_rows * len(layers), n_dropped)
    assert (n_dropped > 0) == (name == "switch")


def test_drops_of_real_tokens_are_counted_once_for_each_layer(tiny, batch_of):
    model = tiny("switch")
    with torch.no_grad():  # every token prefers one expert, which admits two of a sequence
        for layer in (1, 3):
            ffn_of(model, "encoder", layer).router.classifier.weight.zero_()
    batch = batch_of(LENGTHS)
    for sites in (("ffn.neurons",), ("router.choices",), ("ffn.neurons", "router.choices")):
        _, stats = capture(model, [batch], 4, layers=(1, 3), sites=sites)
        assert stats.n_routed == 2 * sum(LENGTHS)
        assert stats.n_dropped == 2 * (3 + 7 + 0 + 5)
    _, stats = capture(model, [batch], 4, layers=(1,), expert_variant="released")
    assert (stats.n_routed, stats.n_dropped) == (sum(LENGTHS), 15)
    _, stats = capture(model, [batch], 4, sites=("residual",))
    assert (stats.n_routed, stats.n_dropped) == (0, 0)
    both = stats + CaptureStats(1, 1, 1, 1, 1, 0.0, 0.0, n_routed=6, n_dropped=2)
    assert (both.n_routed, both.n_dropped) == (6, 2)


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_depend_on_padding(tiny, batch_of, name):
    model = tiny(name)
    stack = model.sites.stacks[0]
    sites = ("ffn.neurons", "router.choices")
    layers = model.sites.sparse_layers(stack)
    together = batch_of(LENGTHS)
    out, stats = capture(model, [together], 4, layers=layers, sites=sites)
    alone = []
    for row, length in enumerate(LENGTHS):
        ids = together.input_ids_BT[row : row + 1, :length]
        mask = np.ones_like(ids, dtype=bool)
        alone.append(
            dataclasses.replace(
                together, input_ids_BT=ids, attention_mask_BT=mask, pool_mask_BT=mask, n_tokens=length,
                rows_B=np.array([row]), is_padded=False,
            )
        )  # fmt: skip
    single, single_stats = capture(model, alone, 4, layers=layers, sites=sites)
    for site in sites:
        np.testing.assert_allclose(out[site], single[site], rtol=1e-3, atol=1e-4 * np.abs(single[site]).max())
    assert (stats.n_routed, stats.n_dropped) == (single_stats.n_routed, single_stats.n_dropped)


def test_a_pool_mask_restricts_the_tokens(tiny, batch_of):
    model = tiny("olmoe")
    batch = batch_of([6, 6])
    mask = np.zeros((2, 6), dtype=bool)
    mask[0, [1, 4]] = mask[1, 5] = True
    out, stats = capture(model, [dataclasses.replace(batch, pool_mask_BT=mask)], 2, layers=(2,))
    neurons_BTEF, choices_BTE = plain(model, batch)[2]
    for example in range(2):
        expected_F = expected_pool(neurons_BTEF[example], choices_BTE[example] & mask[example][:, None], "max")
        np.testing.assert_allclose(out["ffn.neurons"][example, 0], expected_F, rtol=1e-5, atol=1e-6)
    assert stats.n_routed == 12  # drops are of the model, whatever is pooled


@pytest.mark.parametrize(("name", "widths"), [("switch", (16, 64, 16, 64)), ("qwen3_moe", (96, 48, 96))])
def test_dense_and_sparse_layers_together(tiny, batch_of, name, widths):
    model = tiny(name)
    sites = ("ffn.neurons", "router.choices")
    out, _ = capture(model, [batch_of(LENGTHS)], 4, sites=sites)
    for layer, width in enumerate(widths):
        assert np.isfinite(out["ffn.neurons"][:, layer, :width]).all()
        assert np.isnan(out["ffn.neurons"][:, layer, width:]).all()
    sparse = model.sites.sparse_layers(model.sites.stacks[0])
    assert out["router.choices"].shape[1] == len(sparse) < len(widths)
    only, _ = capture(model, [batch_of(LENGTHS)], 4, layers=sparse)
    np.testing.assert_array_equal(only["ffn.neurons"], out["ffn.neurons"][:, list(sparse)])
    with pytest.raises(InputError, match="the layers with experts"):
        capture(model, [batch_of(LENGTHS)], 4, layers=[0, 1], sites=sites)


def test_decoder_experts_of_switch(tiny, batch_of):
    model = tiny("switch")
    site = Site("decoder", "ffn.neurons")
    capturer = Capturer(model, [site], layers=[1])
    out = {site: np.full((4, 1, 64), 7, np.float32)}
    stats = capturer.capture([batch_of(LENGTHS)], out, reduction="max")
    assert (out[site] != 0).reshape(4, 4, 16).any(-1).sum(1).tolist() == [1, 1, 1, 1]  # one position, one expert
    assert (stats.n_routed, stats.n_dropped) == (4, 0)


def test_self_check_compares_with_the_output_of_the_experts(tiny, batch_of):
    for name in NAMES:
        model = tiny(name)
        stack = model.sites.stacks[0]
        layer = model.sites.sparse_layers(stack)[-1]
        experts = ffn_of(model, stack, layer).experts
        handle = experts.register_forward_hook(lambda _, args, output: 1.5 * output)
        with pytest.raises(
            SiteError, match=rf"{stack}/ffn.neurons layer {layer}: .* differs from the output of .*experts"
        ):
            capture(model, [batch_of(LENGTHS)], 4)
        handle.remove()
        capture(model, [batch_of(LENGTHS)], 4)
        assert not experts._forward_hooks
        assert not experts._forward_pre_hooks


class Doubles(ExpertWeights):
    """Two experts of two neurons: the hidden state, and minus twice it."""

    n_experts, width, residual_width = 2, 2, 2
    input_dtype = dtype = torch.float32

    def neurons(self, expert, hidden_MD):
        return hidden_MD if expert == 0 else -2 * hidden_MD

    project = input_weights = output_weights = routing = None


def test_pooling_by_hand():
    hidden_ND = torch.tensor([[1.0, -5], [2, -4], [3, 0], [9, 9]])
    choices_NE = torch.tensor([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=torch.bool)
    values = RoutedNeurons(Doubles(), hidden_ND, choices_NE, choices_NE.float(), n_examples=2)
    counted_BT = torch.tensor([[True, True], [True, False]])
    assert values.shape == (2, 2, 4)
    assert pool_routed(values, counted_BT, kind="max").tolist() == [[2, -4, -4, 8], [0, 0, -6, 0]]
    assert pool_routed(values, counted_BT, kind="mean").tolist() == [[1.5, -4.5, -4, 8], [0, 0, -6, 0]]
    released = dataclasses.replace(values, variant="released")
    assert pool_routed(released, counted_BT, kind="max").tolist() == [[2, -4, -2, 10], [3, 0, -6, 0]]


def test_examples_without_a_position_are_still_refused(tiny, batch_of):
    batch = batch_of([3, 3])
    mask = np.array([[True] * 3, [False] * 3])
    with pytest.raises(DataError, match="rows 1 have no position to pool over"):
        capture(tiny("olmoe"), [dataclasses.replace(batch, pool_mask_BT=mask)], 2)
