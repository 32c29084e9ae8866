"""Every site of every architecture, recomputed from the module's own weights by another path than the hooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from modularity.errors import InputError, SiteError
from modularity.models import LoadedModel, Tap, firing_order, wrap_model
from modularity.models.architectures import architecture_of
from modularity.models.sites import SiteTable
from modularity.types import Site

NAMES = [
    *("opt", "opt-350m", "gpt2", "gpt_neo", "gpt_neox", "gpt_neox-serial"),
    *("bert", "roberta", "xlm-roberta", "distilbert", "t5", "flan-t5", "mt5"),
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2", "olmo3"),
]
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert")
# Float32 sums in another order; half precision: a few units in the last place of values of order one.
TOLERANCE = {"float32": 2e-5, "bfloat16": 6e-2, "float16": 8e-3}


def inputs(model: LoadedModel) -> dict[str, torch.Tensor]:
    """Two texts of six tokens, the second padded on the right; targets of five tokens for encoder-decoder models."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 48, (2, 6), generator=generator)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    ids[mask == 0] = model.hf_config.pad_token_id or 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if "decoder" in model.sites.stacks and "encoder" in model.sites.stacks:
        batch["decoder_input_ids"] = torch.randint(4, 48, (2, 5), generator=generator)
    return batch


@dataclass
class Recorded:
    """What the hooks of one forward delivered."""

    values: dict[tuple[Site, int], torch.Tensor]
    calls: list[tuple[Site, int]]
    output: Any


def record(model: LoadedModel, **arguments: Any) -> Recorded:
    """Run the model with every tap attached; pieces of a chunked FFN are joined, flattened rows are unflattened."""
    taps = firing_order(tap for site in model.sites.sites for tap in model.sites.taps(site))
    pieces: dict[tuple[Site, int], list[torch.Tensor]] = {}
    calls: list[tuple[Site, int]] = []

    def receiver(tap: Tap) -> Callable[[torch.Tensor], None]:
        def receive(value: torch.Tensor) -> None:
            assert value.dtype == tap.dtype, (tap.path, tap.site)
            calls.append((tap.site, tap.layer))
            pieces.setdefault((tap.site, tap.layer), []).append(value.clone())

        return receive

    handles = [tap.attach(receiver(tap)) for tap in taps]
    batch = inputs(model)
    with torch.inference_mode():
        output = model.module(**batch, **arguments)
    for handle in handles:
        handle.remove()
    values = {}
    for tap in taps:
        value = torch.cat(pieces[tap.site, tap.layer], dim=1) if tap.chunk_tokens else pieces[tap.site, tap.layer][0]
        if tap.flattened and value.ndim == 2:
            value = value.reshape(2, -1, tap.width)
        values[tap.site, tap.layer] = value
    return Recorded(values, calls, output)


@dataclass
class Block:
    """Expected values of one block, computed from its input and its attention output."""

    neurons: torch.Tensor
    output: torch.Tensor


def neurons_of(block: nn.Module, layout: Any, model: LoadedModel, normed: torch.Tensor) -> torch.Tensor:
    """act(W_in x) or act(W_gate x) * (W_up x), by the modules' own projections."""
    config = model.hf_config
    name = next(
        getattr(config, key)
        for key in ("dense_act_fn", "activation_function", "hidden_activation", "hidden_act", "activation")
        if getattr(config, key, None) is not None
    )
    gate = layout.ffn_gate and dict(block.named_modules()).get(layout.ffn_gate)
    if gate is not None:
        return ACT2FN[name](gate(normed)) * block.get_submodule(layout.ffn_up)(normed)
    return ACT2FN[name](block.get_submodule(layout.ffn_in)(normed))


def expected_block(
    name: str, model: LoadedModel, layout: Any, block: Any, x: torch.Tensor, attention: torch.Tensor, ffn: torch.Tensor
) -> Block:
    """Neurons and output of a block from its input `x`, its attention's output and its FFN's output."""

    def neurons(normed: torch.Tensor) -> torch.Tensor:
        return neurons_of(block, layout, model, normed)

    if name == "opt-350m":
        middle = block.self_attn_layer_norm(x + attention)
        return Block(neurons(middle), block.final_layer_norm(middle + ffn))
    if name in ("bert", "roberta", "xlm-roberta"):
        middle = block.attention.output.LayerNorm(attention + x)
        return Block(neurons(middle), block.output.LayerNorm(ffn + middle))
    if name == "distilbert":
        middle = block.sa_layer_norm(attention + x)
        return Block(neurons(middle), block.output_layer_norm(ffn + middle))
    if name == "gpt_neox":
        return Block(neurons(block.post_attention_layernorm(x)), ffn + attention + x)
    if name in ("gemma2", "gemma3_text"):
        middle = x + block.post_attention_layernorm(attention)
        neuron_values = neurons(block.pre_feedforward_layernorm(middle))
        return Block(neuron_values, middle + block.post_feedforward_layernorm(ffn))
    if name in ("olmo2", "olmo3"):
        middle = x + block.post_attention_layernorm(attention)
        return Block(neurons(middle), middle + block.post_feedforward_layernorm(ffn))
    middle = x + attention
    norm = {"opt": "final_layer_norm", "gpt2": "ln_2", "gpt_neo": "ln_2"}.get(name, "post_attention_layernorm")
    return Block(neurons(getattr(block, norm)(middle)), middle + ffn)


def expected_t5_block(model: LoadedModel, layout: Any, block: Any, middle: torch.Tensor, ffn: torch.Tensor) -> Block:
    """As `expected_block`, from the stream that enters the FFN layer (after cross-attention in the decoder)."""
    return Block(neurons_of(block, layout, model, block.layer[-1].layer_norm(middle)), middle + ffn)


def build(tiny_model: Callable[..., LoadedModel], name: str, dtype: str, attention: str) -> LoadedModel:
    if name in ("gpt_neo", "gemma2") and attention == "sdpa":
        with pytest.raises(ValueError, match="does not support"):
            tiny_model(name, dtype=dtype, attention=attention)
        pytest.skip("no sdpa attention in this architecture")
    return tiny_model(name, dtype=dtype, attention=attention)


def close(actual: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    scale = float(expected.float().abs().max())
    assert actual.shape == expected.shape
    assert scale > 0
    torch.testing.assert_close(
        actual.float(), expected.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(1.0, scale)
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_sites_equal_what_the_weights_give(
    tiny_model: Callable[..., LoadedModel], name: str, dtype: str, attention: str
) -> None:
    model = build(tiny_model, name, dtype, attention)
    assert model.identity.attention == attention
    middles: dict[tuple[str, int], torch.Tensor] = {}
    if name in ("t5", "flan-t5", "mt5"):
        for stack in model.sites.stacks:
            for layer, block in enumerate(getattr(model.module, stack).block):
                keep = lambda _, args, key=(stack, layer): middles.update({key: args[0].clone()})  # noqa: E731
                block.layer[-1].register_forward_pre_hook(keep)
    recorded = record(model, output_hidden_states=True)
    values = recorded.values
    for layout in model.sites.architecture.stacks:
        stack = layout.stack
        hidden = getattr(recorded.output, f"{stack}_hidden_states", None) or recorded.output.hidden_states
        n_layers = model.sites.n_layers(stack)
        for layer, block in enumerate(model.module.get_submodule(layout.blocks)):
            x, y = values[Site(stack, "residual"), layer], values[Site(stack, "residual"), layer + 1]
            ffn_taps = model.sites.taps(Site(stack, "ffn.neurons"), [layer])
            head_taps = model.sites.taps(Site(stack, "attention.heads"), [layer])
            captured, ffn = values[Site(stack, "ffn.neurons"), layer], values[Site(stack, "ffn.output"), layer]
            heads, mixed = values[Site(stack, "attention.heads"), layer], values[Site(stack, "attention.output"), layer]
            with torch.inference_mode():
                if (stack, layer) in middles:
                    expected = expected_t5_block(model, layout, block, middles[stack, layer], ffn)
                else:
                    expected = expected_block(name, model, layout, block, x, mixed, ffn)
                close(ffn_taps[0].project(captured), ffn, dtype)
                close(head_taps[0].project(heads), mixed, dtype)
            close(captured, expected.neurons, dtype)
            close(y, expected.output, dtype)
            assert torch.equal(x, hidden[layer])
        if name in ENCODERS:
            assert torch.equal(values[Site(stack, "residual"), n_layers], hidden[n_layers])


@pytest.mark.parametrize("name", NAMES)
def test_shapes_call_counts_and_order(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name)
    recorded = record(model)
    taps = firing_order(tap for site in model.sites.sites for tap in model.sites.taps(site))
    assert recorded.calls == [(tap.site, tap.layer) for tap in taps]
    config = model.hf_config
    heads = config.num_attention_heads
    for site in model.sites.sites:
        shape = model.sites.shape(site)
        n_layers = model.sites.n_layers(site.stack)
        assert shape.layers == tuple(range(n_layers + 1 if site.name == "residual" else n_layers))
        length = 5 if site.stack == "decoder" and "encoder" in model.sites.stacks else 6
        for tap, width in zip(model.sites.taps(site), shape.widths, strict=True):
            assert recorded.values[site, tap.layer].shape == (2, length, width)
            assert tap.unit_shape == shape.unit_shape
            assert int(np.prod(tap.unit_shape)) == width == tap.width
        expected = {"ffn.neurons": (37,), "attention.heads": (heads, shape.widths[0] // heads)}
        assert shape.unit_shape == expected.get(site.name, (32,))
        assert len(shape.unit_dims) == len(shape.unit_shape)
    kind = (
        ("encoder", "decoder")
        if "decoder_input_ids" in inputs(model)
        else ("encoder" if name in ENCODERS else "decoder",)
    )
    assert model.sites.stacks == kind


@pytest.mark.parametrize(
    ("name", "value_path"),
    [
        ("opt", "self_attn.v_proj"),
        ("gpt_neo", "attn.attention.v_proj"),
        ("bert", "attention.self.value"),
        ("distilbert", "attention.v_lin"),
        ("llama", "self_attn.v_proj"),
        ("qwen3", "self_attn.v_proj"),
        ("t5", "layer.0.SelfAttention.v"),
    ],
)
def test_heads_are_attention_weights_times_values(
    tiny_model: Callable[..., LoadedModel], name: str, value_path: str
) -> None:
    """The (H, K) order of the units: head h is its own attention pattern applied to its own values."""
    model = tiny_model(name, attention="eager")
    stack = model.sites.stacks[-1]
    layout = model.sites.architecture.stacks[-1]
    values: list[torch.Tensor] = []
    for block in model.module.get_submodule(layout.blocks):
        block.get_submodule(value_path).register_forward_hook(lambda _m, _a, output: values.append(output.clone()))
    recorded = record(model, output_attentions=True)
    patterns = getattr(recorded.output, f"{stack}_attentions", None) or recorded.output.attentions
    heads, width = model.sites.shape(Site(stack, "attention.heads")).unit_shape
    for layer, pattern in enumerate(patterns):
        value = values[layer].unflatten(-1, (-1, width)).transpose(1, 2)
        value = value.repeat_interleave(heads // value.shape[1], dim=1)
        captured = recorded.values[Site(stack, "attention.heads"), layer].unflatten(-1, (heads, width))
        close(captured, (pattern @ value).transpose(1, 2), "float32")


def test_opt_hands_over_flattened_rows(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("opt")
    tap = model.sites.taps(Site("decoder", "ffn.neurons"), [0])[0]
    assert tap.flattened
    assert not model.sites.taps(Site("decoder", "attention.heads"), [0])[0].flattened
    shapes: list[tuple[int, ...]] = []
    handle = tap.attach(lambda value: shapes.append(tuple(value.shape)))
    model.module(**inputs(model))
    handle.remove()
    assert shapes in ([(12, 37)], [(2, 6, 37)])


def test_opt_350m_streams_hold_the_projected_embedding(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("opt-350m")
    assert model.sites.shape(Site("decoder", "residual")).unit_shape == (32,)
    assert model.module.get_input_embeddings().weight.shape[1] == 16
    decoder = model.module.decoder
    batch = inputs(model)
    first = record(model).values[Site("decoder", "residual"), 0]
    embedded = decoder.project_in(decoder.embed_tokens(batch["input_ids"]))
    positions = decoder.embed_positions.weight[2:8]
    close(first[0], embedded[0] + positions, "float32")


def test_bert_ffn_is_not_the_attention_dense(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("bert")
    taps = model.sites.taps(Site("encoder", "ffn.neurons"))
    assert [tap.path for tap in taps] == [f"encoder.layer.{layer}.output.dense" for layer in range(3)]
    assert all(tap.module.in_features == 37 for tap in taps)
    heads = model.sites.taps(Site("encoder", "attention.heads"))
    assert [tap.path for tap in heads] == [f"encoder.layer.{layer}.attention.output.dense" for layer in range(3)]


@pytest.mark.parametrize("name", ENCODERS)
def test_chunked_ffn_fires_once_per_slice(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    chunked, whole = tiny_model(name, chunk_size_feed_forward=2), tiny_model(name)
    site = Site("encoder", "ffn.neurons")
    assert {tap.chunk_tokens for tap in chunked.sites.taps(site)} == {2}
    assert {tap.chunk_tokens for tap in whole.sites.taps(site)} == {0}
    assert {tap.chunk_tokens for tap in chunked.sites.taps(Site("encoder", "residual"))} == {0}
    recorded, reference = record(chunked), record(whole)
    assert recorded.calls.count((site, 1)) == 3
    for key, value in reference.values.items():
        close(recorded.values[key], value, "float32")


@pytest.mark.parametrize("name", ["t5", "flan-t5", "mt5"])
def test_t5_in_float16_keeps_wo_in_float32(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    sites = tiny_model(name, dtype="float16").sites
    for stack in sites.stacks:
        assert {tap.dtype for tap in sites.taps(Site(stack, "ffn.neurons"))} == {torch.float32}
        assert {tap.dtype for tap in sites.taps(Site(stack, "attention.heads"))} == {torch.float16}
        depths = [tap.dtype for tap in sites.taps(Site(stack, "residual"))]
        assert depths == [torch.float16] + [torch.float32] * sites.n_layers(stack)
    bfloat = tiny_model(name, dtype="bfloat16").sites
    assert {tap.dtype for site in bfloat.sites for tap in bfloat.taps(site)} == {torch.bfloat16}


def test_gated_neurons_are_the_product_not_the_activation(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("llama")
    activations: list[torch.Tensor] = []
    model.module.layers[0].mlp.act_fn.register_forward_hook(lambda _m, _a, output: activations.append(output.clone()))
    captured = record(model).values[Site("decoder", "ffn.neurons"), 0]
    assert activations[0].shape == captured.shape
    assert not torch.allclose(activations[0], captured, atol=1e-3)


def test_layers_may_differ_in_width(tiny_model: Callable[..., LoadedModel]) -> None:
    """A pruned model: 37 neurons in the first layer, 20 in the second; one head less in the second."""
    model = tiny_model("gpt_neox")
    block = model.module.layers[1]
    block.mlp.dense_h_to_4h = nn.Linear(32, 20)
    block.mlp.dense_4h_to_h = nn.Linear(20, 32)
    block.attention.dense = nn.Linear(24, 32)
    sites = SiteTable(model.module, architecture_of("gpt_neox"))
    shape = sites.shape(Site("decoder", "ffn.neurons"))
    assert (shape.widths, shape.unit_shape) == ((37, 20), (37,))
    heads = sites.shape(Site("decoder", "attention.heads"))
    assert (heads.widths, heads.unit_shape) == ((32, 24), (4, 8))
    assert sites.shape(Site("decoder", "ffn.neurons"), [1]).unit_shape == (20,)
    assert sites.ffn_input_weights("decoder", 1).shape == (20, 32)


@pytest.mark.parametrize(
    ("name", "w_in", "w_up", "w_out"),
    [
        ("gpt2", lambda m: m.h[1].mlp.c_fc.weight.T, None, lambda m: m.h[1].mlp.c_proj.weight),
        ("opt", lambda m: m.decoder.layers[1].fc1.weight, None, lambda m: m.decoder.layers[1].fc2.weight.T),
        (
            "llama",
            lambda m: m.layers[1].mlp.gate_proj.weight,
            lambda m: m.layers[1].mlp.up_proj.weight,
            lambda m: m.layers[1].mlp.down_proj.weight.T,
        ),
        (
            "t5",
            lambda m: m.decoder.block[1].layer[2].DenseReluDense.wi.weight,
            None,
            lambda m: m.decoder.block[1].layer[2].DenseReluDense.wo.weight.T,
        ),
        (
            "flan-t5",
            lambda m: m.decoder.block[1].layer[2].DenseReluDense.wi_0.weight,
            lambda m: m.decoder.block[1].layer[2].DenseReluDense.wi_1.weight,
            lambda m: m.decoder.block[1].layer[2].DenseReluDense.wo.weight.T,
        ),
    ],
)
def test_ffn_weights_have_one_row_per_neuron(
    tiny_model: Callable[..., LoadedModel], name: str, w_in: Any, w_up: Any, w_out: Any
) -> None:
    model = tiny_model(name, dtype="bfloat16")
    found = model.sites.ffn_input_weights("decoder", 1)
    assert (found.shape, found.dtype, found.flags.c_contiguous) == ((37, 32), np.float32, True)
    np.testing.assert_array_equal(found, w_in(model.module).float().numpy())
    np.testing.assert_array_equal(model.sites.ffn_output_weights("decoder", 1), w_out(model.module).float().numpy())
    if w_up is None:
        with pytest.raises(
            InputError, match=r"matrix='up' exists in gated FFNs only, this one has no gate; use 'gate'"
        ):
            model.sites.ffn_input_weights("decoder", 1, matrix="up")
    else:
        up = model.sites.ffn_input_weights("decoder", 1, matrix="up")
        np.testing.assert_array_equal(up, w_up(model.module).float().numpy())
    found[:] = 0
    assert float(w_in(model.module).abs().max()) > 0


def test_hooks_change_nothing(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("gpt2")
    batch = inputs(model)
    with torch.inference_mode():
        plain = model.module(**batch).last_hidden_state
    assert torch.equal(record(model).output.last_hidden_state, plain)


def test_half_of_an_encoder_decoder_model(tiny_config: Callable[..., Any]) -> None:
    from transformers import T5EncoderModel, T5ForConditionalGeneration

    assert wrap_model(T5EncoderModel(tiny_config("t5")), None, name="half").sites.stacks == ("encoder",)
    assert wrap_model(T5ForConditionalGeneration(tiny_config("t5")), None, name="whole").sites.stacks == (
        "encoder",
        "decoder",
    )


class TestMessages:
    def test_unknown_site_and_layers(self, tiny_model: Callable[..., LoadedModel]) -> None:
        sites = tiny_model("bert").sites
        with pytest.raises(
            InputError, match=r"site 'decoder/ffn.neurons' does not exist in this bert model; it has enc"
        ):
            sites.taps(Site("decoder", "ffn.neurons"))
        with pytest.raises(InputError, match=r"layers \[0, 3\] of site 'encoder/ffn.neurons': .* from 0 to 2"):
            sites.taps(Site("encoder", "ffn.neurons"), [0, 3])
        with pytest.raises(InputError, match=r"depths \[1, 1\] of site 'encoder/residual': .* different numbers"):
            sites.shape(Site("encoder", "residual"), [1, 1])
        with pytest.raises(InputError, match=r"layers \[\] of site"):
            sites.taps(Site("encoder", "ffn.neurons"), [])
        with pytest.raises(InputError, match="stack 'decoder' does not exist in this model; it has encoder"):
            sites.ffn_input_weights("decoder", 0)
        with pytest.raises(InputError, match="layer 9 of the encoder: expected a number from 0 to 2"):
            sites.ffn_output_weights("encoder", 9)

    def test_layers_come_back_in_firing_order(self, tiny_model: Callable[..., LoadedModel]) -> None:
        sites = tiny_model("bert").sites
        assert [tap.layer for tap in sites.taps(Site("encoder", "ffn.neurons"), [2, 0])] == [0, 2]

    def test_missing_module(self, tiny_model: Callable[..., LoadedModel]) -> None:
        model = tiny_model("gpt_neox")
        block = model.module.layers[1].mlp
        block.renamed = block.dense_4h_to_h
        del block.dense_4h_to_h
        with pytest.raises(SiteError, match=r"layers.1 has no module 'mlp.dense_4h_to_h'; it has .*mlp"):
            SiteTable(model.module, architecture_of("gpt_neox"))

    def test_wrong_row(self, tiny_model: Callable[..., LoadedModel]) -> None:
        module = tiny_model("gpt_neox").module
        with pytest.raises(SiteError, match=r"GPTNeoXModel of type 'gpt2' has no blocks at 'h', it has embed_in"):
            SiteTable(module, architecture_of("gpt2"))

    def test_projection_that_is_not_linear(self, tiny_model: Callable[..., LoadedModel]) -> None:
        module = tiny_model("gpt_neox").module
        module.layers[0].mlp.dense_4h_to_h = nn.Identity()
        with pytest.raises(
            SiteError, match=r"'layers.0.mlp.dense_4h_to_h' is a Identity, expected a linear projection"
        ):
            SiteTable(module, architecture_of("gpt_neox"))

    def test_heads_that_do_not_divide(self, tiny_model: Callable[..., LoadedModel]) -> None:
        module = tiny_model("gpt_neox").module
        module.layers[0].attention.dense = nn.Linear(30, 32)
        with pytest.raises(SiteError, match=r"30 inputs of the attention out-projection are no multiple of .*=8"):
            SiteTable(module, architecture_of("gpt_neox"))
        del module.layers[1].attention.head_size
        module.layers[0].attention.dense = nn.Linear(32, 32)
        with pytest.raises(SiteError, match=r"layers.1 has no attribute 'attention.head_size'"):
            SiteTable(module, architecture_of("gpt_neox"))


def test_meta_modules_have_no_weights(tiny_config: Callable[..., Any]) -> None:
    from modularity.models.loading import build_module

    with torch.device("meta"):
        module = build_module(tiny_config("llama"), architecture_of("llama"), dtype="float32")
    sites = SiteTable(module, architecture_of("llama"))
    with pytest.raises(SiteError, match="weights are not in memory"):
        sites.ffn_input_weights("decoder", 0)


def test_table_covers_what_the_tests_cover(tiny_config: Callable[..., Any]) -> None:
    from modularity.models import known_architectures

    with_experts = ("switch", "olmoe", "mixtral", "qwen3_moe")  # test_expert_taps.py
    shared = ("qwen2_moe", "deepseek_v2", "deepseek_v3", "dots1", "glm4_moe")  # test_shared_experts.py
    covered: Mapping[str, str] = {tiny_config(name).model_type: name for name in (*NAMES, *with_experts, *shared)}
    assert set(covered) == set(known_architectures())
