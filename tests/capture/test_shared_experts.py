"""Neurons of a shared expert as rows: every real token, whatever the router chose; the forward stops after the last."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from modularity.capture import Capturer
from modularity.errors import SiteError
from modularity.types import Site

# name -> (path of the shared expert in a block, sparse layers)
MODELS = {"qwen2_moe": ("mlp.shared_expert", (0, 2)), "deepseek_v3": ("mlp.shared_experts", (1, 2))}
LENGTHS = [5, 9, 1, 7]
SHARED, ROUTED = Site("decoder", "shared_expert.neurons"), Site("decoder", "ffn.neurons")


def capture(model, batch, sites, **options):
    capturer = Capturer(model, sites, **options)
    out = {
        site: np.full((4, len(shape.layers), *shape.unit_shape), 7, np.float32)
        for site, shape in capturer.shapes.items()
    }
    capturer.capture([batch], out, reduction="mean")
    return out


def plain(model, batch, name):
    """Mean over the real tokens of what the weights of the shared expert make of its input, (B, L, F)."""
    path, layers = MODELS[name]
    seen = {}
    blocks = model.module.layers
    handles = [
        blocks[layer]
        .get_submodule(path)
        .register_forward_pre_hook(lambda _, args, layer=layer: seen.update({layer: args[0].clone()}))
        for layer in layers
    ]
    with torch.inference_mode():
        model.module(
            input_ids=torch.from_numpy(batch.input_ids_BT),
            attention_mask=torch.from_numpy(batch.attention_mask_BT).long(),
        )
    for handle in handles:
        handle.remove()
    rows = []
    for layer in layers:
        expert = blocks[layer].get_submodule(path)
        hidden_BTD = seen[layer].reshape(*batch.input_ids_BT.shape, -1).float()
        gate, up = expert.gate_proj.weight.float(), expert.up_proj.weight.float()
        neurons_BTF = (functional.silu(hidden_BTD @ gate.T) * (hidden_BTD @ up.T)).detach()
        rows.append([neurons_TF[:length].mean(0).numpy() for neurons_TF, length in zip(neurons_BTF, LENGTHS)])
    return np.array(rows).swapaxes(0, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_rows_are_means_over_every_real_token(tiny, batch_of, name, dtype):
    model, batch = tiny(name, dtype=dtype), batch_of(LENGTHS)
    expected = plain(model, batch, name)
    out = capture(model, batch, [SHARED])[SHARED]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=np.abs(expected).max() * tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_the_last_site_may_be_the_shared_or_the_routed_one(tiny, batch_of, name):
    model, batch = tiny(name), batch_of(LENGTHS)
    layers = MODELS[name][1]
    both = capture(model, batch, [SHARED, ROUTED], layers=layers)
    for site in (SHARED, ROUTED):
        np.testing.assert_array_equal(capture(model, batch, [site], layers=layers)[site], both[site])
    released = capture(model, batch, [SHARED, ROUTED], layers=layers, expert_variant="released")
    np.testing.assert_array_equal(released[SHARED], both[SHARED])
    assert not np.array_equal(released[ROUTED], both[ROUTED])


@pytest.mark.parametrize("name", MODELS)
def test_self_check_compares_with_the_output_of_the_shared_expert(tiny, batch_of, name):
    model, (path, _) = tiny(name), MODELS[name]
    down = model.module.layers[2].get_submodule(f"{path}.down_proj")
    handle = down.register_forward_hook(lambda _, args, output: 1.5 * output)
    with pytest.raises(SiteError, match=rf"shared_expert.neurons layer 2: .* differs from the output of .*{path}"):
        capture(model, batch_of(LENGTHS), [SHARED])
    handle.remove()
    capture(model, batch_of(LENGTHS), [SHARED])
