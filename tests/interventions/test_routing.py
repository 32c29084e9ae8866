"""Restricted routing, proven by recomputing sparse layers from weights."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional

from modularity.errors import InputError, ModelError, SiteError
from modularity.interventions import random_other_experts, restricted_routing, routers
from modularity.interventions.forward import Forward
from modularity.interventions.routing import router_kind
from modularity.models import HeadModel, architecture_of, known_architectures, restricted_routing_problem

MODELS = {
    "switch": ("encoder", "encoder.block.{}.layer.1.mlp"),
    "olmoe": ("decoder", "model.layers.{}.mlp"),
    "mixtral": ("decoder", "model.layers.{}.mlp"),
    "qwen3_moe": ("decoder", "model.layers.{}.mlp"),
    "qwen2_moe": ("decoder", "model.layers.{}.mlp"),
}
ALLOWED = (1, 3, 4)


def layer_of(model: HeadModel, name: str) -> tuple[tuple[str, int], torch.nn.Module]:
    """(stack, layer) of the first sparse FFN, and its module."""
    stack, path = MODELS[name]
    layer = model.base.sites.sparse_layers(stack)[0]
    return (stack, layer), model.module.get_submodule(path.format(layer))


def seen_by(model: HeadModel, ffn: torch.nn.Module, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of a sparse FFN in one forward, (N, D) each."""
    seen = {}
    handle = ffn.register_forward_hook(
        lambda _, args, output: seen.update(input=args[0].clone(), output=output.clone())
    )
    Forward(model.module, model.base)(batch)
    handle.remove()
    return seen["input"].reshape(-1, 32), seen["output"].reshape(-1, 32)


def by_hand(name: str, ffn: torch.nn.Module, hidden_ND: torch.Tensor, allowed: tuple[int, ...]) -> torch.Tensor:
    """Output of the sparse FFN with routing restricted to `allowed` and no capacity, token by token."""
    weight = ffn.router.classifier.weight if name == "switch" else ffn.gate.weight
    output = torch.zeros_like(hidden_ND)
    for token, hidden in enumerate(hidden_ND):
        probability = (weight @ hidden).softmax(-1)
        best = sorted(allowed, key=lambda expert: -probability[expert].item())
        chosen = best[: 1 if name == "switch" else 2]
        total = probability[chosen].sum() if name in ("mixtral", "qwen3_moe") else 1.0
        for expert in chosen:
            if name == "switch":
                one = ffn.experts[f"expert_{expert}"]
                written = one.wo.weight @ (one.wi.weight @ hidden).relu()
            else:
                gate, up = (ffn.experts.gate_up_proj[expert] @ hidden).chunk(2)
                written = ffn.experts.down_proj[expert] @ (functional.silu(gate) * up)
            output[token] += probability[expert] / total * written
        if name == "qwen2_moe":
            output[token] += torch.sigmoid(ffn.shared_expert_gate(hidden)) * ffn.shared_expert(hidden)
    return output


@pytest.mark.parametrize("allowed", [ALLOWED, (2,), (0, 1, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_restricted_layers_follow_from_the_weights(tiny, batch_of, n_hooks, name, allowed) -> None:
    model, batch = tiny(name), batch_of([9, 6, 9])
    key, ffn = layer_of(model, name)
    hidden, plain = seen_by(model, ffn, batch)
    with restricted_routing(model.base, {key: allowed}) as restricted:
        assert [(router.stack, router.layer) for router in restricted] == [key]
        again, output = seen_by(model, ffn, batch)
    assert torch.equal(again, hidden)
    torch.testing.assert_close(output, by_hand(name, ffn, hidden, allowed), rtol=1e-4, atol=1e-5)
    assert torch.allclose(output, plain, atol=1e-5) == (len(allowed) == 5)
    assert n_hooks(model) == 0


def test_the_gate_is_the_original_probability_of_the_chosen_expert(tiny, batch_of) -> None:
    model = tiny("switch")
    key, ffn = layer_of(model, "switch")
    hidden = torch.randn((2, 6, 32), generator=torch.Generator().manual_seed(0))
    original = ffn.router(hidden)[2].softmax(-1)
    with restricted_routing(model.base, {key: ALLOWED}):
        dispatch, gate, logits = ffn.router(hidden)
    assert torch.equal(dispatch.sum(-1), torch.ones((2, 6), dtype=torch.long))
    assert (dispatch[..., [0, 2]] == 0).all()
    torch.testing.assert_close(gate[..., 0], (original * dispatch).sum(-1))
    torch.testing.assert_close(gate[..., 0], original[..., list(ALLOWED)].max(-1).values)
    torch.testing.assert_close(logits.softmax(-1), original)


def test_capacity_is_dropped_in_restricted_layers_only(tiny, batch_of) -> None:
    model = tiny("switch", num_sparse_encoder_layers=2, expert_capacity=1)
    layers = [router for router in routers(model.base) if router.stack == "encoder"]
    assert [router.layer for router in layers] == [0, 1]
    hidden = torch.randn((2, 30, 32), generator=torch.Generator().manual_seed(1))
    with restricted_routing(model.base, {("encoder", 0): (2,), ("encoder", 1): ()}):
        restricted, other = (router.module(hidden)[0] for router in layers)
    assert restricted.sum() == 60
    assert other.sum() <= 10


def test_a_layer_without_allowed_experts_is_unchanged(tiny, batch_of) -> None:
    model, batch = tiny("olmoe"), batch_of([6, 4])
    plain = Forward(model.module, model.base)(batch).logits
    with restricted_routing(model.base, {("decoder", 0): (), ("decoder", 1): []}) as restricted:
        assert restricted == ()
        assert torch.equal(Forward(model.module, model.base)(batch).logits, plain)


def test_gradients_flow_through_the_gate(tiny) -> None:
    model = tiny("switch")
    key, ffn = layer_of(model, "switch")
    ffn.router.classifier.weight.requires_grad_(True)
    with restricted_routing(model.base, {key: ALLOWED}):
        ffn(torch.randn((1, 5, 32))).sum().backward()
    assert ffn.router.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_half_precision_models_keep_their_dtype(tiny, batch_of, name, dtype) -> None:
    model = tiny(name, dtype=dtype)
    key, _ = layer_of(model, name)
    with restricted_routing(model.base, {key: ALLOWED}):
        assert Forward(model.module, model.base)(batch_of([6, 4])).logits.dtype == dtype


def test_routers_say_what_they_choose(tiny) -> None:
    found = {name: routers(tiny(name).base)[0] for name in MODELS}
    assert {name: (router.n_chosen, router.renormalises) for name, router in found.items()} == {
        "switch": (1, False),
        "olmoe": (2, False),
        "mixtral": (2, True),
        "qwen3_moe": (2, True),
        "qwen2_moe": (2, False),
    }
    assert all(router.n_experts == 5 for router in found.values())
    assert {(router.stack, router.layer) for router in routers(tiny("switch").base)} == {("encoder", 1), ("decoder", 1)}
    assert routers(tiny("t5").base) == ()


def test_the_control_has_as_many_other_experts() -> None:
    drawn = [random_other_experts((3, 1), 6, seed=seed) for seed in range(300)]
    assert drawn[0] == random_other_experts((1, 3), 6, seed=0)
    assert all(len(one) == 2 and not set(one) & {1, 3} for one in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=6)
    assert counts[[0, 2, 4, 5]] / 300 == pytest.approx(0.5, abs=0.1)
    assert random_other_experts((), 4, seed=0) == ()


@pytest.mark.parametrize("experts", [(0, 1, 2), (0, 9), (-1,)])
def test_a_control_that_cannot_be_drawn_is_refused(experts) -> None:
    with pytest.raises(InputError, match="at most half of them"):
        random_other_experts(experts, 5, seed=0)


EXPERTS = {"n_routed_experts": 4, "num_experts": 4, "num_local_experts": 4, "first_k_dense_replace": 0}


@pytest.mark.parametrize(
    "model_type", [name for name in known_architectures() if any(s.experts for s in architecture_of(name).stacks)]
)
def test_the_table_says_which_routers_can_be_restricted(model_type) -> None:
    """As `routers` finds them in a model of the architecture."""
    sizes = {
        "num_hidden_layers": 2, "vocab_size": 48, "hidden_size": 32, "moe_intermediate_size": 8, "n_group": 1,
        "topk_group": 1, "num_experts_per_tok": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "n_shared_experts": 1,
    }  # fmt: skip
    if model_type == "switch_transformers":
        sizes = {"num_layers": 2, "num_sparse_encoder_layers": 1, "d_model": 32, "vocab_size": 48}
    config = transformers.AutoConfig.for_model(model_type, **(sizes | EXPERTS))
    with torch.device("meta"):
        module = transformers.AutoModel.from_config(config)
    gates = [each for each in module.modules() if type(each).__name__.lower().endswith("router")]
    assert len(gates) >= 1
    can_be = all(router_kind(gate) is not None for gate in gates)
    problem = restricted_routing_problem(model_type)
    assert (problem is None) == can_be
    assert problem is None or f"routers of {model_type!r} choose within groups of experts or by a bias" in problem


def test_dense_models_have_no_router_to_refuse() -> None:
    assert restricted_routing_problem("t5") is None
    with pytest.raises(ModelError, match=r"model type 'mamba' is not in the site table"):
        restricted_routing_problem("mamba")


def test_all_problems_are_named(tiny) -> None:
    wrong = {("encoder", 0): (1,), ("encoder", 1): (1, 5), ("decoder", 7): (0,)}
    with pytest.raises(InputError) as caught, restricted_routing(tiny("switch").base, wrong):
        pass
    text = str(caught.value)
    for part in (
        "encoder has no router that can be restricted; layers with one: encoder 1, decoder 1",
        "experts [1, 5]",
        "7",
    ):
        assert part in text


def test_a_router_that_returns_something_else_is_an_error(tiny, batch_of, monkeypatch) -> None:
    model = tiny("mixtral")
    gate = model.base.module.layers[0].mlp.gate
    monkeypatch.setattr(type(gate), "forward", lambda self, hidden: hidden)
    with (
        pytest.raises(SiteError, match="routes in another way"),
        restricted_routing(model.base, {("decoder", 0): (1,)}),
    ):
        Forward(model.module, model.base)(batch_of([4]))
