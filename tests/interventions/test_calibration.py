"""Moments of neurons against NumPy."""

import numpy as np
import pytest
import torch

from modularity.errors import DataError, InputError
from modularity.interventions import neuron_moments
from modularity.interventions.forward import Forward
from modularity.types import Site

PATHS = {
    "opt": "decoder.layers.1.fc2",
    "t5": "encoder.block.1.layer.1.DenseReluDense.wo",
    "bert": "encoder.layer.1.output.dense",
}


@pytest.mark.parametrize("name", PATHS)
def test_moments_over_real_tokens(tiny, batch_of, n_hooks, name) -> None:
    model = tiny(name)
    batches = [batch_of([7, 4]), batch_of([5, 5, 3], seed=1)]
    seen = []
    handle = model.base.module.get_submodule(PATHS[name]).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].clone())
    )
    for batch in batches:
        Forward(model.base.module, model.base)(batch)
    handle.remove()
    values = np.concatenate(
        [value.reshape(-1, 24).numpy()[batch.attention_mask_BT.ravel()] for value, batch in zip(seen, batches)]
    ).astype(np.float64)
    found = neuron_moments(model.base, batches)
    assert found.mean_LF.shape == (2, 24)
    assert found.mean_LF[1] == pytest.approx(values.mean(axis=0))
    assert found.sd_LF[1] == pytest.approx(values.std(axis=0), abs=1e-9)
    assert (found.count_LF == 24).all()
    assert n_hooks(model) == 0


@pytest.mark.parametrize("name", ["switch", "olmoe"])
def test_neurons_of_experts_count_the_tokens_of_the_expert(tiny, batch_of, name) -> None:
    model, batch = tiny(name), batch_of([7, 4])
    stack = model.base.sites.stacks[0]
    layer = model.base.sites.sparse_layers(stack)[0]
    (tap,) = model.base.sites.taps(Site(stack, "ffn.neurons"), [layer])
    routed = []
    handle = tap.attach(routed.append)
    Forward(model.base.module, model.base)(batch)
    handle.remove()
    found = neuron_moments(model.base, [batch])
    dense, real = routed[0].dense()[0], torch.from_numpy(batch.attention_mask_BT.ravel())
    for expert in range(5):
        columns = slice(24 * expert, 24 * expert + 24)
        values = dense[real & routed[0].choices_NE[:, expert], columns].double().numpy()
        assert (found.count_LF[layer, columns] == len(values)).all()
        if len(values):
            assert found.mean_LF[layer, columns] == pytest.approx(values.mean(axis=0), abs=1e-5)
            assert found.sd_LF[layer, columns] == pytest.approx(values.std(axis=0), abs=1e-5)


def test_the_decoder_s_first_step(tiny, batch_of) -> None:
    found = neuron_moments(tiny("t5").base, [batch_of([5, 4, 3])], site=Site("decoder", "ffn.neurons"))
    assert (found.count_LF == 3).all()


def test_wrong_calls_are_refused(tiny, batch_of) -> None:
    model = tiny("t5").base
    with pytest.raises(InputError, match=r"expected ffn\.neurons"):
        neuron_moments(model, [], site=Site("encoder", "residual"))
    with pytest.raises(DataError, match="no batch"):
        neuron_moments(model, [])
