"""Trained routers: planted routing learned, the same from the same seed, from real tokens only."""

import numpy as np
import pytest
import torch

from modularity.errors import DataError, InputError, NumericError
from modularity.experts import mass_kept, mlp_scores, oracle_scores, select_top
from modularity.interventions import (
    MoefiedLayer,
    RouterTraining,
    RoutingExamples,
    collect_routing,
    fit_router,
    moefy,
    selected_experts,
    train_routers,
)
from modularity.interventions.forward import Forward
from modularity.types import Site

N_EXPERTS = 8
IN_PROJECTION = {
    "opt": "decoder.layers.1.fc1",
    "t5": "encoder.block.1.layer.1.DenseReluDense.wi",
    "llama": "layers.1.mlp.gate_proj",
}


def planted(n_rows=2000, seed=0):
    """Inputs of which each activates the two experts of its signs; the centres do not show it."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(n_rows, 16)).astype(np.float32)
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    wanted = np.stack([(inputs[:, 0] > 0) * 2 + (inputs[:, 1] > 0), 4 + (inputs[:, 2] > 0) * 2 + (inputs[:, 3] > 0)])
    mass = 0.05 * rng.random((n_rows, N_EXPERTS)).astype(np.float32)
    mass[np.arange(n_rows), wanted] += 1
    centres = 0.1 * rng.normal(size=(N_EXPERTS, 16)).astype(np.float32)
    return MoefiedLayer("encoder", 0, np.arange(N_EXPERTS, dtype=np.int32), centres), RoutingExamples(inputs, mass)


def test_planted_routing_is_learned() -> None:
    layer, examples = planted()
    router = fit_router(layer, examples, training=RouterTraining(share=0.25))
    assert router.mass_kept > 0.7
    _, fresh = planted(seed=1)
    selected = select_top(mlp_scores(fresh.inputs_RD, router.input_ED, router.output_EE), 2)
    assert mass_kept(fresh.mass_RE, selected).mean > 0.7
    untrained = select_top(mlp_scores(fresh.inputs_RD, layer.centres_ED, np.eye(N_EXPERTS)), 2)
    assert mass_kept(fresh.mass_RE, untrained).mean < 0.4


def test_same_seed_same_router() -> None:
    layer, examples = planted(300)
    training = RouterTraining(n_epochs=3)
    first, again = (fit_router(layer, examples, training=training) for _ in range(2))
    assert (first.input_ED == again.input_ED).all()
    assert (first.output_EE == again.output_EE).all()
    other = fit_router(layer, examples, training=RouterTraining(n_epochs=3, seed=1))
    assert (first.input_ED != other.input_ED).any()


@pytest.mark.parametrize("name", ["opt", "t5", "llama"])
def test_examples_are_the_real_tokens(tiny, batch_of, name) -> None:
    model = tiny(name)
    stack = model.base.sites.stacks[0]
    labels = np.random.default_rng(0).permutation(24) % 6
    layers = moefy(model.base, {(stack, 1): labels})
    padded = collect_routing(model.base, layers, [batch_of([5, 7, 3])])[stack, 1]
    values, inputs = [], []
    (tap,) = model.base.sites.taps(Site(stack, "ffn.neurons"), [1])
    module = model.base.module.get_submodule(IN_PROJECTION[name])
    handles = [
        tap.attach(lambda seen: values.append(seen.reshape(-1, 24).numpy())),
        module.register_forward_pre_hook(lambda _, args: inputs.append(args[0].reshape(-1, 32).numpy())),
    ]
    for first, length in enumerate((5, 7, 3)):
        Forward(model.module, model.base)(batch_of([length], first=first))
    for handle in handles:
        handle.remove()
    np.testing.assert_allclose(padded.mass_RE, oracle_scores(np.concatenate(values), labels), rtol=1e-4, atol=1e-5)
    hidden = np.concatenate(inputs)
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    np.testing.assert_allclose(padded.inputs_RD, unit, rtol=1e-4, atol=1e-5)


def test_no_more_tokens_than_asked_for(tiny, batch_of) -> None:
    model = tiny("opt")
    layers = moefy(model.base, {("decoder", 0): np.arange(24) % 6, ("decoder", 1): np.arange(24) % 6})
    seen = []

    def batches():
        for number in range(9):
            seen.append(number)
            yield batch_of([10], first=number)

    found = collect_routing(model.base, layers, batches(), max_tokens=25)
    assert seen == [0, 1, 2]
    assert {len(each.inputs_RD) for each in found.values()} == {25}


def test_training_keeps_more_mass_of_a_model_than_an_untrained_router(tiny, batch_of, n_hooks) -> None:
    model = tiny("opt")
    layers = moefy(model.base, {("decoder", 0): np.arange(24) % 12})
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    trained = train_routers(model.base, layers, [batch_of([40] * 20, seed=1)])
    kept = {}
    for router in ("oracle", "mlp", "random"):
        with selected_experts(model.base, trained, share=0.25, router=router) as record:
            Forward(model.module, model.base)(batch_of([40] * 10))
        kept[router] = record.layers()["decoder", 0].mean
    assert kept["oracle"] > kept["mlp"] > kept["random"] + 0.5 * (kept["oracle"] - kept["random"])
    assert trained["decoder", 0].router.mass_kept == pytest.approx(kept["mlp"], abs=0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert n_hooks(model) == 0


def test_bad_input(tiny) -> None:
    with pytest.raises(InputError) as error:
        RouterTraining(share=0, n_epochs=0, held_out=1.0)
    assert "3 problems" in str(error.value)
    assert "share is 0: expected more than 0, at most 1" in str(error.value)
    layer, examples = planted(100)
    with pytest.raises(DataError, match="19 tokens, 19 with activation: expected at least 20"):
        fit_router(layer, RoutingExamples(examples.inputs_RD[:19], examples.mass_RE[:19]))
    with pytest.raises(DataError, match="100 tokens, 0 with activation"):
        fit_router(layer, RoutingExamples(examples.inputs_RD, 0 * examples.mass_RE))
    with pytest.raises(NumericError, match="the loss is nan in epoch 0; take a learning_rate below"):
        fit_router(layer, RoutingExamples(np.nan * examples.inputs_RD, examples.mass_RE))
    with pytest.raises(DataError, match="no batch to learn routing from"):
        model = tiny("opt").base
        train_routers(model, moefy(model, {("decoder", 0): np.arange(24) % 6}), [])
