"""Every site of a sparse FFN, recomputed from the weights by another path, token by token."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from modularity.errors import InputError, ModelError, SiteError
from modularity.models import LoadedModel, RoutedNeurons, wrap_model
from modularity.models.architectures import Architecture, architecture_of, register_architecture
from modularity.models.sites import SiteTable
from modularity.types import Site

FUSED = ("olmoe", "mixtral", "qwen3_moe")
TOLERANCE = {"float32": 2e-5, "bfloat16": 4e-2, "float16": 8e-3}
N_TOKENS, WIDTH = 7, 24


def moe(model: LoadedModel, stack: str, layer: int) -> Any:
    """The sparse FFN of a layer, by its written-out path."""
    if model.identity.architecture == "switch_transformers":
        return getattr(model.module, stack).block[layer].layer[-1].mlp
    return model.module.layers[layer].mlp


def forward(model: LoadedModel, taps: Any, *, ids: torch.Tensor | None = None) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """What the taps receive, and the (input, output) of every sparse FFN, in one forward."""
    seen: dict[Any, Any] = {}
    ffn: dict[Any, Any] = {}
    handles = [tap.attach(lambda value, key=(tap.site, tap.layer): seen.update({key: value})) for tap in taps]
    for stack in model.sites.stacks:
        for layer in model.sites.sparse_layers(stack):
            keep = lambda _, args, output, key=(stack, layer): ffn.update({key: (args[0], output)})  # noqa: E731
            handles.append(moe(model, stack, layer).register_forward_hook(keep))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 48, (2, N_TOKENS), generator=generator) if ids is None else ids
    batch = {"input_ids": ids}
    if "encoder" in model.sites.stacks:
        batch["decoder_input_ids"] = ids[:, :5]
    with torch.inference_mode():
        model.module(**batch)
    for handle in handles:
        handle.remove()
    return seen, ffn


def switch_routing(ffn: Any, hidden_BTD: torch.Tensor, capacity: int) -> tuple[torch.Tensor, list[dict[int, float]]]:
    """Probabilities, and for each token its expert with the weight; none where the expert is full for the sequence."""
    probabilities = torch.softmax(hidden_BTD.float() @ ffn.router.classifier.weight.float().T, dim=-1)
    chosen = []
    for example in probabilities.to(hidden_BTD.dtype):
        load = [0] * example.shape[-1]
        for token in example:
            expert = int(token.argmax())
            load[expert] += 1
            chosen.append({expert: float(token[expert])} if load[expert] <= capacity else {})
    return probabilities.flatten(0, 1), chosen


def fused_routing(name: str, ffn: Any, hidden_BTD: torch.Tensor) -> tuple[torch.Tensor, list[dict[int, float]]]:
    """Probabilities, and for each token its top two experts with their weights."""
    logits = functional.linear(hidden_BTD.flatten(0, 1), ffn.gate.weight)
    probabilities = torch.softmax(logits.float(), dim=-1)
    chosen = []
    for token in probabilities:
        experts = token.argsort(descending=True)[:2].tolist()
        total = float(token[experts].sum()) if name != "olmoe" else 1.0
        chosen.append({expert: float(token[expert]) / total for expert in experts})
    return probabilities, chosen


def neurons_by_hand(ffn: Any, expert: int, hidden_D: torch.Tensor) -> torch.Tensor:
    if hasattr(ffn, "router"):
        return torch.relu(ffn.experts[f"expert_{expert}"].wi.weight.float() @ hidden_D.float())
    gate_up = ffn.experts.gate_up_proj[expert].float() @ hidden_D.float()
    width = len(gate_up) // 2
    return functional.silu(gate_up[:width]) * gate_up[width:]


def output_by_hand(ffn: Any, expert: int, neurons_F: torch.Tensor) -> torch.Tensor:
    weight = ffn.experts[f"expert_{expert}"].wo.weight if hasattr(ffn, "router") else ffn.experts.down_proj[expert]
    return weight.float() @ neurons_F


def close(actual: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    scale = max(1.0, float(expected.float().abs().max()))
    torch.testing.assert_close(actual.float(), expected.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", ["switch", *FUSED])
def test_sites_equal_what_the_weights_give(
    tiny_model: Callable[..., LoadedModel], name: str, dtype: str, attention: str
) -> None:
    if (name, attention) == ("switch", "sdpa"):
        with pytest.raises(ValueError, match="does not support"):
            tiny_model(name, dtype=dtype, attention=attention)
        return
    model = tiny_model(name, dtype=dtype, attention=attention)
    assert model.identity.attention == attention
    taps = [tap for site in model.sites.sites for tap in model.sites.taps(site)]
    seen, ffns = forward(model, taps)
    n_dropped = 0
    for (stack, layer), (hidden, output) in ffns.items():
        ffn = moe(model, stack, layer)
        with torch.inference_mode():
            routed = switch_routing(ffn, hidden, 2) if name == "switch" else fused_routing(name, ffn, hidden)
            probabilities_NE, chosen = routed
            values = seen[Site(stack, "ffn.neurons"), layer]
            assert isinstance(values, RoutedNeurons)
            dense_NEF = values.dense()[0].unflatten(-1, (probabilities_NE.shape[-1], -1))
            projected_ND = values.project()
        close(seen[Site(stack, "router.probabilities"), layer].flatten(0, -2), probabilities_NE, dtype)
        choices_NE = seen[Site(stack, "router.choices"), layer]
        assert torch.equal(choices_NE.bool(), values.choices_NE)
        for token, experts in enumerate(chosen):
            assert choices_NE[token].nonzero().flatten().tolist() == sorted(experts)
            n_dropped += not experts
            total_D = torch.zeros(hidden.shape[-1])
            for expert in range(probabilities_NE.shape[-1]):
                if expert not in experts:
                    assert not dense_NEF[token, expert].any()
                    continue
                expected_F = neurons_by_hand(ffn, expert, hidden.flatten(0, 1)[token])
                close(dense_NEF[token, expert], expected_F, dtype)
                total_D += experts[expert] * output_by_hand(ffn, expert, expected_F)
            close(output.flatten(0, 1)[token], total_D, dtype)
        assert torch.equal(seen[Site(stack, "ffn.output"), layer], output)
        close(projected_ND, output.flatten(0, 1), dtype)
    assert (n_dropped > 0) == (name == "switch")


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
@pytest.mark.parametrize("name", FUSED)
def test_neurons_do_not_depend_on_the_implementation_of_the_experts(
    tiny_model: Callable[..., LoadedModel], name: str, implementation: str
) -> None:
    model = tiny_model(name)
    model.module.set_experts_implementation(implementation)
    last = model.sites.n_layers("decoder") - 1
    seen, ffns = forward(model, model.sites.taps(Site("decoder", "ffn.neurons"), [last]))
    values = seen[Site("decoder", "ffn.neurons"), last]
    close(values.project(), ffns["decoder", last][1].flatten(0, 1), "float32")


@pytest.mark.parametrize("name", ["switch", *FUSED])
def test_released_variant_computes_every_expert_for_every_token(
    tiny_model: Callable[..., LoadedModel], name: str
) -> None:
    from dataclasses import replace

    model = tiny_model(name)
    stack = model.sites.stacks[0]
    (tap,) = model.sites.taps(Site(stack, "ffn.neurons"), [1])
    seen, ffns = forward(model, [replace(tap, variant="released")])
    hidden_ND = ffns[stack, 1][0].flatten(0, 1)
    ffn, values = moe(model, stack, 1), seen[tap.site, 1]
    with torch.inference_mode():
        everything_NEF = values.dense()[0].unflatten(-1, (values.experts.n_experts, -1))
        for expert in range(values.experts.n_experts):
            expected_NF = torch.stack([neurons_by_hand(ffn, expert, hidden_D) for hidden_D in hidden_ND])
            close(everything_NEF[:, expert], expected_NF, "float32")
        routed_NEF = replace(values, variant="corrected").dense()[0].view_as(everything_NEF)
        at_chosen = values.choices_NE[..., None]
        close(routed_NEF, everything_NEF * at_chosen, "float32")
        close(values.project(), ffns[stack, 1][1].flatten(0, 1), "float32")
    assert not torch.equal(routed_NEF, everything_NEF)


def test_parts_are_restricted_to_tokens_that_count(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("olmoe")
    site = Site("decoder", "ffn.neurons")
    values = forward(model, model.sites.taps(site, [0]))[0][site, 0].batched(2)
    assert values.shape == (2, N_TOKENS, 5 * WIDTH)
    counted_N = torch.zeros(2 * N_TOKENS, dtype=torch.bool)
    counted_N[[3, 9]] = True
    with torch.inference_mode():
        parts = list(values.parts(counted_N))
        picked = values.tokens(torch.tensor([9, 3, 9])).dense()[0]
        dense = values.dense().flatten(0, 1)
    assert sum(len(tokens) for _, tokens, _ in parts) == 4
    assert {int(token) for _, tokens, _ in parts for token in tokens} == {3, 9}
    torch.testing.assert_close(picked, dense[[9, 3, 9]])


@pytest.mark.parametrize("name", ["switch", *FUSED])
def test_shapes_layers_and_order(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    sites = tiny_model(name).sites
    stack = sites.stacks[0]
    sparse = {"switch": (1, 3), "qwen3_moe": (1,)}.get(name, (0, 1))
    n_experts, dense_width = (3, WIDTH) if name == "switch" else (5, 37)
    assert sites.sparse_layers(stack) == sparse
    shape = sites.shape(Site(stack, "ffn.neurons"))
    assert shape.widths == tuple(WIDTH * n_experts if layer in sparse else dense_width for layer in shape.layers)
    for router in ("router.probabilities", "router.choices"):
        shape = sites.shape(Site(stack, router))  # type: ignore[arg-type]
        assert (shape.layers, shape.widths, shape.unit_dims) == (sparse, (n_experts,) * len(sparse), ("expert",))
    orders = [
        sites.taps(Site(stack, site), [1])[0].order  # type: ignore[arg-type]
        for site in ("attention.output", "router.probabilities", "router.choices", "ffn.neurons", "ffn.output")
    ]
    assert orders == sorted(orders)


@pytest.mark.parametrize("name", ["switch", *FUSED])
def test_weights_and_native_partition_are_expert_major(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name)
    stack = model.sites.stacks[0]
    labels_F = model.sites.native_partition(stack, 1)
    n_experts = 3 if name == "switch" else 5
    assert labels_F.dtype == np.int32
    assert labels_F.tolist() == [expert for expert in range(n_experts) for _ in range(WIDTH)]
    inside_FD = model.sites.ffn_input_weights(stack, 1)
    outside_FD = model.sites.ffn_output_weights(stack, 1)
    assert inside_FD.shape == outside_FD.shape == (WIDTH * n_experts, 32)
    ffn, unit, expert = moe(model, stack, 1), 7, 2
    row = WIDTH * expert + unit
    if name == "switch":
        wi, wo = ffn.experts["expert_2"].wi.weight, ffn.experts["expert_2"].wo.weight
        np.testing.assert_array_equal(inside_FD[row], wi[unit])
        np.testing.assert_array_equal(outside_FD[row], wo[:, unit])
        with pytest.raises(InputError, match="matrix='up' exists in gated FFNs only"):
            model.sites.ffn_input_weights(stack, 1, matrix="up")
    else:
        np.testing.assert_array_equal(inside_FD[row], ffn.experts.gate_up_proj[expert, unit])
        up_FD = model.sites.ffn_input_weights(stack, 1, matrix="up")
        np.testing.assert_array_equal(up_FD[row], ffn.experts.gate_up_proj[expert, WIDTH + unit])
        np.testing.assert_array_equal(outside_FD[row], ffn.experts.down_proj[expert, :, unit])


def test_dense_layers_of_a_mixed_model_are_ordinary(tiny_model: Callable[..., LoadedModel]) -> None:
    for name, stack, path in (("switch", "encoder", "layer.1.mlp.wi"), ("qwen3_moe", "decoder", "mlp.gate_proj")):
        model = tiny_model(name)
        layout = model.sites.architecture.stacks[0]
        block = model.module.get_submodule(layout.blocks)[0]
        np.testing.assert_array_equal(
            model.sites.ffn_input_weights(stack, 0),  # type: ignore[arg-type]
            block.get_submodule(path).weight,
        )
        tap = model.sites.taps(Site(stack, "ffn.neurons"), [0])[0]  # type: ignore[arg-type]
        assert tap.check == "linear"
        with pytest.raises(InputError, match=f"layer 0 of the {stack} is dense: .* layers 1"):
            model.sites.native_partition(stack, 0)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"expected one or more different numbers of 1.*, the layers with experts"):
            model.sites.taps(Site(stack, "router.choices"), [0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"layer 0 of the decoder is dense: .* no layer has any"):
        tiny_model("llama").sites.native_partition("decoder", 0)
    with pytest.raises(InputError, match=r"'decoder/router.choices' does not exist in this llama model"):
        tiny_model("llama").sites.taps(Site("decoder", "router.choices"))


def test_unknown_mixtures_are_refused_by_name() -> None:
    import transformers

    config = transformers.Ernie4_5_MoeConfig(
        vocab_size=48, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, moe_num_experts=4,
        num_key_value_heads=2, moe_intermediate_size=8, moe_k=2, intermediate_size=8,
    )  # fmt: skip
    module = transformers.AutoModel.from_config(config)
    with pytest.raises(ModelError, match=r"'ernie4_5_moe' is a mixture of experts .* it has deepseek_v2, .*olmoe, "):
        wrap_model(module, None, name="x")
    with pytest.raises(ModelError, match="'ernie4_5_moe' is not in the site table; known: bert"):
        architecture_of("ernie4_5_moe")


def test_experts_of_another_layout_are_refused(tiny_config: Callable[..., Any], monkeypatch: Any) -> None:
    import transformers

    from modularity.models import architectures

    monkeypatch.setattr(architectures, "_TABLE", dict(architectures._TABLE))
    module = transformers.AutoModel.from_config(tiny_config("mixtral"))
    row = architecture_of("mixtral")
    module.layers[1].mlp.experts.has_bias = True
    with pytest.raises(SiteError, match=r"layers.1.mlp.experts is a MixtralExperts that has \{'has_bias': True\}"):
        SiteTable(module, row)
    module = transformers.AutoModel.from_config(tiny_config("switch"))
    register_architecture(Architecture("other", (row.stacks[0],)))
    with pytest.raises(SiteError, match="has no blocks at 'layers'"):
        SiteTable(module, architecture_of("other"))


def test_arguments_in_another_order_are_refused(tiny_model: Callable[..., LoadedModel]) -> None:
    (tap,) = tiny_model("olmoe").sites.taps(Site("decoder", "ffn.neurons"), [0])
    with pytest.raises(SiteError, match=r"the experts were called with 1 arguments and \['top_k_index'\] by name"):
        tap.from_input((torch.zeros(2, 32),), {"top_k_index": torch.zeros(2, 2)})
