"""Sub-blocks of every architecture: the recorded output comes out again, and pieces give the Jacobian of autograd."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from modularity.errors import InputError, SiteError
from modularity.geometry import FfnFactors, FunctionJacobian, NormFactors, token_jacobian
from modularity.models import LoadedModel, SubBlock, record_sub_blocks
from modularity.models.sub_block_parts import KINDS
from modularity.types import StackName

DENSE = (
    "opt", "opt-350m", "gpt2", "gpt_neo", "gpt_neox", "gpt_neox-serial", "bert", "roberta", "xlm-roberta", "distilbert",
    "t5", "flan-t5", "mt5", "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2",
    "olmo3",
)  # fmt: skip
TOKENS = 7


def forward(model: LoadedModel, n_tokens: int = TOKENS) -> Callable[[], Any]:
    ids = 4 + torch.arange(n_tokens)[None] * 3 % 40
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if len(model.sites.stacks) == 2:
        inputs["decoder_input_ids"] = ids[:, :5]
    return lambda: model.module(**inputs)


def recorded(model: LoadedModel, stack: StackName | None = None, layer: int = 1) -> dict[Any, Any]:
    return record_sub_blocks(model, forward(model), stack=stack or model.sites.stacks[0], layers=[layer])


def factors_of(block: SubBlock) -> FfnFactors:
    pieces = block.ffn_pieces()
    values = {each.name: getattr(pieces, each.name) for each in fields(pieces)}
    for side in ("before", "after"):
        if values[side] is not None:
            values[side] = NormFactors(**vars(values[side]))
    return FfnFactors(**values)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("with_norm", [True, False])
def test_ffn_blocks_are_those_of_autograd(tiny_model: Callable[..., LoadedModel], name: str, with_norm: bool) -> None:
    model = tiny_model(name, attention="eager")
    block = SubBlock(model, recorded(model)["ffn", 1], with_norm=with_norm)
    assert block.error < 1e-5
    jacobian = torch.func.jacrev(block)(block.point_TD)
    factors = factors_of(block)
    for token in range(TOKENS):
        torch.testing.assert_close(token_jacobian(factors, token), jacobian[token, :, token], rtol=1e-8, atol=1e-10)
    jacobian[range(TOKENS), :, range(TOKENS)] = 0
    assert not jacobian.any()  # no position sees another


@pytest.mark.parametrize("name", DENSE)
def test_attention_has_both_derivatives_in_float64(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name, attention="eager")
    block = SubBlock(model, recorded(model)["attention", 1])
    assert block.error < 1e-5
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(block.point_TD.shape, dtype=torch.float64, generator=generator)
    weights = torch.randn(block.point_TD.shape, dtype=torch.float64, generator=generator)
    operator = FunctionJacobian(block, block.point_TD)
    pushed = operator.apply(direction.reshape(1, -1)).reshape(block.point_TD.shape)
    pulled = operator.apply_transpose(weights.reshape(1, -1))
    assert float((pushed * weights).sum()) == pytest.approx(float(pulled @ direction.flatten()), rel=1e-10)
    step = 1e-4
    with torch.no_grad():
        ahead, back = block(block.point_TD + step * direction), block(block.point_TD - step * direction)
    torch.testing.assert_close((ahead - back) / (2 * step), pushed, rtol=1e-4, atol=1e-4 * float(pushed.abs().max()))
    assert pushed.dtype == torch.float64


@pytest.mark.parametrize("name", ["opt", "gpt2", "llama"])
def test_causal_attention_does_not_look_ahead(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name, attention="eager")
    block = SubBlock(model, recorded(model)["attention", 1])
    jacobian = torch.func.jacrev(block)(block.point_TD).abs().sum(dim=(1, 3))
    assert not jacobian.triu(1).any()
    assert (jacobian.tril() > 0).sum() == TOKENS * (TOKENS + 1) // 2


@pytest.mark.parametrize("name", ["t5", "flan-t5"])
def test_decoders_of_two_stacks(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name, attention="eager")
    found = recorded(model, "decoder", 0)
    for kind in KINDS:
        assert SubBlock(model, found[kind, 0]).point_TD.shape == (5, 32)


def test_half_precision_is_reproduced_within_its_own_error(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("llama", attention="eager", dtype="bfloat16")
    found = recorded(model)
    assert all(1e-5 < SubBlock(model, found[kind, 1]).error < 0.05 for kind in KINDS)


@pytest.mark.parametrize("name", ["opt", "llama", "t5"])
def test_a_model_in_float64_that_computes_parts_in_float32(tiny_model: Callable[..., LoadedModel], name: str) -> None:
    model = tiny_model(name, attention="eager", dtype="float64")
    found = recorded(model)
    assert all(SubBlock(model, found[kind, 1]).error < 1e-6 for kind in KINDS)


def test_shuffled_weights_are_the_same_numbers_in_another_order(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("bert", attention="eager")
    found = recorded(model)["ffn", 1]
    plain, shuffled = SubBlock(model, found), SubBlock(model, found, shuffle_seed=0)
    before, after = plain.ffn_pieces().out_DF, shuffled.ffn_pieces().out_DF
    assert not torch.equal(before, after)
    torch.testing.assert_close(before.flatten().sort().values, after.flatten().sort().values)
    again = SubBlock(model, found, shuffle_seed=0).ffn_pieces().out_DF
    assert torch.equal(after, again)
    assert torch.equal(model.sites._blocks["encoder"][1].output.dense.weight.double(), before)


def test_slices_of_positions_are_put_together(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("bert", attention="eager", chunk_size_feed_forward=1)
    assert SubBlock(model, recorded(model)["ffn", 1]).point_TD.shape == (TOKENS, 32)


def test_what_cannot_be_taken_apart_is_refused(tiny_model: Callable[..., LoadedModel]) -> None:
    with pytest.raises(InputError, match="load it with attention='eager'"):
        recorded(tiny_model("bert", attention="sdpa"))
    model = tiny_model("bert", attention="eager")
    with pytest.raises(InputError, match="layer 3 of the encoder: expected a number from 0 to 2"):
        recorded(model, layer=3)
    with pytest.raises(InputError, match="made of experts"):
        recorded(tiny_model("mixtral", attention="eager"))
    found = recorded(model)["attention", 1]
    with pytest.raises(InputError, match="attention mixes positions"):
        SubBlock(model, found).ffn_pieces()
    with torch.no_grad():
        model.sites._blocks["encoder"][1].attention.output.dense.weight.mul_(2)
    with pytest.raises(SiteError, match=r"encoder.layer.1: the attention computed in float64 differs"):
        SubBlock(model, found)


def test_attention_of_mixture_models_works(tiny_model: Callable[..., LoadedModel]) -> None:
    model = tiny_model("mixtral", attention="eager")
    found = record_sub_blocks(model, forward(model), stack="decoder", layers=[0], kinds=["attention"])
    assert SubBlock(model, found["attention", 0]).error < 1e-5
