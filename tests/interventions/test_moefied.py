"""Selected experts, proven by recomputing FFNs from weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from modularity.capture import Reducer, ReductionConfig
from modularity.errors import DataError, InputError
from modularity.experts import adjusted_rand, coactivation_partition, random_partition
from modularity.interventions import label_task, measure_task, moefy, selected_experts, selection_sweep, train_routers
from modularity.interventions.forward import Forward
from modularity.types import Site

N_EXPERTS = 6
PROVEN = ("opt", "t5", "llama")
DENSE = (*PROVEN, "flan-t5", "gpt2", "gpt_neox", "gemma2", "bert", "roberta", "distilbert")
FFN = {
    "opt": "model.decoder.layers.{}",
    "t5": "encoder.block.{}.layer.1.DenseReluDense",
    "llama": "model.layers.{}.mlp",
}


def partition_of(model, layers=(0, 1), seed=0):
    rng = np.random.default_rng(seed)
    stack = model.base.sites.stacks[0]
    return {(stack, layer): rng.permutation(24) % N_EXPERTS for layer in layers}


def ffn_by_hand(state, name, layer, hidden, keep):
    """Output of an FFN from the state dict; `keep(values, hidden)` gives the mask of neurons."""
    place = FFN[name].format(layer)
    if name == "opt":
        values = functional.relu(functional.linear(hidden, state[f"{place}.fc1.weight"], state[f"{place}.fc1.bias"]))
        out, bias = state[f"{place}.fc2.weight"], state[f"{place}.fc2.bias"]
    elif name == "t5":
        values = functional.relu(functional.linear(hidden, state[f"{place}.wi.weight"]))
        out, bias = state[f"{place}.wo.weight"], None
    else:
        gate = functional.silu(functional.linear(hidden, state[f"{place}.gate_proj.weight"]))
        values = gate * functional.linear(hidden, state[f"{place}.up_proj.weight"])
        out, bias = state[f"{place}.down_proj.weight"], None
    return functional.linear(values * keep(values, hidden), out, bias)


def run_recorded(model, name, layer, batch):
    """Input of the FFN and output of its out-projection in one forward, rows by position, and the logits."""
    place = FFN[name].format(layer)
    modules = dict(model.module.named_modules())
    first = modules[f"{place}.{ {'opt': 'fc1', 't5': 'wi', 'llama': 'gate_proj'}[name] }"]
    last = modules[f"{place}.{ {'opt': 'fc2', 't5': 'wo', 'llama': 'down_proj'}[name] }"]
    seen = {}
    handles = [
        first.register_forward_hook(lambda _, args, out: seen.update(hidden=args[0].flatten(0, -2).clone())),
        last.register_forward_hook(lambda _, args, out: seen.update(output=out.flatten(0, -2).clone())),
    ]
    logits = Forward(model.module, model.base)(batch).logits
    for handle in handles:
        handle.remove()
    return seen["hidden"], seen["output"], logits


def chosen_by_hand(router, layer, state, values, hidden, n):
    """Mask of neurons, from the definitions of the routers, one token after the other."""
    unit = functional.normalize(hidden, dim=-1)
    scores = np.zeros((len(values), N_EXPERTS))
    for row in range(len(values)):
        for expert in range(N_EXPERTS):
            members = torch.from_numpy(layer.labels_F == expert)
            if router == "oracle":
                scores[row, expert] = values[row, members].abs().sum()
            elif router == "parameter":
                scores[row, expert] = -torch.linalg.norm(unit[row] - torch.from_numpy(layer.centres_ED[expert]))
            else:
                hidden_E = torch.tanh(torch.from_numpy(layer.router.input_ED) @ unit[row])
                scores[row, expert] = torch.from_numpy(layer.router.output_EE[expert]) @ hidden_E
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return torch.from_numpy((layer.labels_F[None, :, None] == best[:, None, :]).any(axis=2))


@pytest.mark.parametrize("name", PROVEN)
@pytest.mark.parametrize("router", ["oracle", "parameter", "mlp"])
def test_ffns_are_those_of_the_selected_experts_by_hand(tiny, batch_of, name, router) -> None:
    model = tiny(name)
    batch = batch_of([5, 7, 3], left=name == "opt")
    layers = moefy(model.base, partition_of(model))
    if router == "mlp":
        layers = train_routers(model.base, layers, [batch_of([9] * 6, seed=1)])
    state = model.module.state_dict()
    plain = Forward(model.module, model.base)(batch).logits
    for layer in layers.values():
        with selected_experts(model.base, layers, share=0.3, router=router):
            hidden, output, logits = run_recorded(model, name, layer.layer, batch)
        assert layer.n_selected(0.3) == 2
        expected = ffn_by_hand(
            state, name, layer.layer, hidden, lambda v, h, layer=layer: chosen_by_hand(router, layer, state, v, h, 2)
        )
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits, plain)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("router", ["oracle", "parameter", "random"])
def test_all_experts_selected_is_exactly_the_model(tiny, batch_of, n_hooks, name, router) -> None:
    model = tiny(name)
    batch = batch_of([5, 7, 3])
    plain = Forward(model.module, model.base)(batch).logits
    with selected_experts(model.base, moefy(model.base, partition_of(model)), share=1, router=router) as record:
        assert torch.equal(Forward(model.module, model.base)(batch).logits, plain)
    assert {layer.total for layer in record.layers().values()} == {1.0}
    assert n_hooks(model) == 0


def test_layers_that_are_not_named_stay_whole(tiny, batch_of) -> None:
    model = tiny("opt")
    batch = batch_of([6, 6])
    state = model.module.state_dict()
    layers = moefy(model.base, partition_of(model, layers=(0,)))
    with selected_experts(model.base, layers, share=0.2, router="oracle"):
        hidden, output, _ = run_recorded(model, "opt", 1, batch)
    torch.testing.assert_close(output, ffn_by_hand(state, "opt", 1, hidden, lambda v, h: 1), rtol=1e-4, atol=1e-5)


def test_both_stacks_of_an_encoder_decoder(tiny, batch_of) -> None:
    model = tiny("flan-t5")
    labels = np.arange(24) % N_EXPERTS
    layers = moefy(model.base, {("encoder", 1): labels, ("decoder", 0): labels})
    with selected_experts(model.base, layers, share=0.5, router="oracle") as record:
        Forward(model.module, model.base)(batch_of([5, 7]))
    assert {key: layer.n_tokens for key, layer in record.layers().items()} == {("encoder", 1): 12, ("decoder", 0): 2}


def test_mass_kept_by_hand_without_padding_and_whatever_the_batches(tiny, batch_of) -> None:
    model = tiny("t5")
    layers = moefy(model.base, partition_of(model, layers=(0,)))
    (layer,) = layers.values()
    values = []
    tap = model.base.sites.taps(Site("encoder", "ffn.neurons"), [0])[0]
    for first, length in enumerate((5, 7, 3)):
        handle = tap.attach(lambda seen: values.append(seen[0].numpy()))
        Forward(model.module, model.base)(batch_of([length], first=first))
        handle.remove()
    mass_RE = np.abs(np.concatenate(values)) @ np.eye(N_EXPERTS)[layer.labels_F]
    kept_R = np.sort(mass_RE, axis=1)[:, -2:].sum(axis=1)
    for batches in ([batch_of([5, 7, 3])], [batch_of([5]), batch_of([7, 3], first=1)]):
        with selected_experts(model.base, layers, share=0.3, router="oracle") as record:
            for batch in batches:
                Forward(model.module, model.base)(batch)
        found = record.layers()["encoder", 0]
        assert found.n_tokens == 15
        assert found.total == pytest.approx(kept_R.sum() / mass_RE.sum(), rel=1e-5)
        assert found.mean == pytest.approx((kept_R / mass_RE.sum(axis=1)).mean(), rel=1e-5)


def test_the_oracle_keeps_more_mass_than_any_router_and_the_random_one_is_at_chance(tiny, batch_of) -> None:
    model = tiny("llama")
    layers = moefy(model.base, {("decoder", layer): np.arange(24) // 2 for layer in (0, 1)})
    kept = {}
    for router in ("oracle", "parameter", "random"):
        with selected_experts(model.base, layers, share=0.25, router=router) as record:
            Forward(model.module, model.base)(batch_of([40] * 20))
        kept[router] = np.mean([layer.mean for layer in record.layers().values()])
    assert kept["oracle"] > kept["parameter"] > kept["random"]
    assert kept["random"] == pytest.approx(0.25, abs=0.05)


def test_sweep_of_shares_and_routers(tiny, function_of, word_tokenizer) -> None:
    model = tiny("t5")
    texts = [" ".join(f"w{(7 * i + j) % 40}" for j in range(6)) for i in range(12)]
    task = label_task(function_of(texts, [0, 1] * 6), word_tokenizer, ("w20", "w21"))
    layers = moefy(model.base, partition_of(model))
    points = selection_sweep(model, layers, task, shares=(0.2, 1), routers=("oracle", "random"))
    assert [(point.router, point.share) for point in points] == [
        ("oracle", 0.2), ("oracle", 1), ("random", 0.2), ("random", 1),
    ]  # fmt: skip
    assert points[0].selected == pytest.approx(2 / 6)
    assert points[1].accuracy_kept == points[3].accuracy_kept == 1.0
    assert points[1].mass_kept == 1.0
    assert points[0].mass_kept > points[2].mass_kept
    assert points[1].scores == measure_task(model, task)
    assert points[0].as_row()["router"] == "oracle"
    assert points[0].as_row()["n"] == 12


def test_bad_input(tiny, batch_of, n_hooks) -> None:
    model = tiny("opt")
    layers = moefy(model.base, partition_of(model))
    with (
        pytest.raises(InputError, match=r"share is 1\.5: expected more than 0"),
        selected_experts(model.base, layers, share=1.5),
    ):
        pass
    with pytest.raises(InputError, match="has no trained router"), selected_experts(model.base, layers, share=0.5):
        pass
    with selected_experts(model.base, layers, share=0.5, router="oracle") as record:
        pass
    with pytest.raises(DataError, match="no token had any activation in decoder 0, decoder 1"):
        record.layers()
    with (
        pytest.raises(InputError, match="runs without input_ids"),
        selected_experts(model.base, layers, share=0.5, router="oracle"),
    ):
        model.module(inputs_embeds=torch.zeros(1, 3, 32))
    assert n_hooks(model) == 0


@pytest.mark.skipif("not __import__('importlib').util.find_spec('pymetis')", reason="needs pymetis")
def test_experts_by_co_activation_of_a_live_model_keep_the_mass(tiny, batch_of) -> None:
    model = tiny("t5")
    planted = np.random.default_rng(3).permutation(24) % N_EXPERTS
    weight = model.module.encoder.block[0].layer[1].DenseReluDense.wi.weight
    with torch.no_grad():
        directions = torch.from_numpy(np.random.default_rng(4).normal(size=(N_EXPERTS, 32)).astype(np.float32))
        weight.copy_(directions[planted] + 0.2 * weight)
    site = Site("encoder", "ffn.neurons")
    kinds = ReductionConfig(kinds=("co_activation",), co_activation="groups")
    batches = [batch_of([40] * 20, seed=seed) for seed in range(2)]
    reduced = Reducer(model.base, [site], kinds, layers=[0]).reduce(batches, reduction="max")
    found = coactivation_partition(reduced.of(site, 0)["co_activation"].result(), N_EXPERTS)
    assert adjusted_rand(found.labels_F, planted) == 1.0
    kept = {}
    for name, labels in (("found", found.labels_F), ("random", random_partition(24, N_EXPERTS, seed=0))):
        layers = moefy(model.base, {("encoder", 0): labels})
        with selected_experts(model.base, layers, share=0.3, router="oracle") as record:
            Forward(model.module, model.base)(batch_of([40] * 10, seed=9))
        kept[name] = record.layers()["encoder", 0].mean
    assert kept["found"] > kept["random"] + 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("name", PROVEN)
def test_selection_on_a_gpu_is_that_on_a_cpu(tiny, batch_of, name) -> None:
    model, batch = tiny(name), batch_of([5, 7, 3])
    layers = train_routers(model.base, moefy(model.base, partition_of(model)), [batch_of([9] * 6, seed=1)])
    logits = {}
    for device in ("cpu", "cuda"):
        model.module.to(device)
        for router in ("oracle", "parameter", "mlp", "random"):
            with selected_experts(model.base, layers, share=0.3, router=router):
                logits[device, router] = Forward(model.module, model.base)(batch).logits.cpu()
    for router in ("oracle", "parameter", "mlp", "random"):
        torch.testing.assert_close(logits["cuda", router], logits["cpu", router], rtol=1e-2, atol=1e-3)
    trained = train_routers(model.base, layers, [batch_of([9] * 6, seed=1)])
    assert all(each.router.input_ED.shape == (N_EXPERTS, 32) for each in trained.values())
