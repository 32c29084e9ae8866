"""Hashes: equal for equal weights, different for any other."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer
from torch import nn

from modularity.errors import ModelError
from modularity.models import LoadedModel, identity, wrap_model
from modularity.models.identity import parameter_hash, tokenizer_hash


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.a = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("kept", torch.tensor([True]))
        self.register_buffer("dropped", torch.tensor([1]), persistent=False)
        self.tied = self.b


def test_definition_by_hand() -> None:
    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    lines = [
        f"a float32 [] {digest(bytes.fromhex('00004040'))}\n",
        f"b float32 [2] {digest(bytes.fromhex('0000803f00000040'))}\n",
        f"kept bool [1] {digest(bytes([1]))}\n",
    ]
    assert parameter_hash(Tiny()) == digest("".join(lines).encode())


def test_large_tensors_are_hashed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = parameter_hash(Tiny())
    monkeypatch.setattr(identity, "BLOCK_BYTES", 4)
    first = hashlib.sha256(bytes.fromhex("0000803f")).hexdigest()
    second = hashlib.sha256(bytes.fromhex("00000040")).hexdigest()
    a, kept = (hashlib.sha256(data).hexdigest() for data in (bytes.fromhex("00004040"), bytes([1])))
    text = f"a float32 [] {a}\nb float32 [2] {first} {second}\nkept bool [1] {kept}\n"
    assert parameter_hash(Tiny()) == hashlib.sha256(text.encode()).hexdigest() != whole


def test_any_change_changes_the_hash() -> None:
    hashes = {parameter_hash(Tiny())}
    for change in (
        lambda m: m.b.data.__setitem__(0, -1.0),
        lambda m: m.kept.fill_(False),
        lambda m: m.half(),
        lambda m: m.__setattr__("b", nn.Parameter(m.b.data.reshape(2, 1))),
        lambda m: m.register_parameter("c", nn.Parameter(torch.zeros(0))),
    ):
        module = Tiny()
        change(module)
        hashes.add(parameter_hash(module))
    assert len(hashes) == 6
    module = Tiny()
    module.dropped.fill_(9)
    assert parameter_hash(module) in hashes


def test_memory_layout_does_not_matter() -> None:
    plain, transposed = nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False)
    transposed.weight = nn.Parameter(plain.weight.data.T.contiguous().T)
    assert parameter_hash(plain) == parameter_hash(transposed)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_same_weights_same_hash(tiny_model: Callable[..., LoadedModel], dtype: str) -> None:
    first, second = (tiny_model("t5", dtype=dtype).identity for _ in range(2))
    assert first == second


def test_weights_that_are_not_in_memory() -> None:
    with torch.device("meta"):
        module = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"parameter 'bias' is not in memory: the model does not fit .* offloaded"):
        parameter_hash(module)


class TestTokenizerHash:
    def test_calls_do_not_change_it(self, tiny_tokenizer: Any) -> None:
        before = tokenizer_hash(tiny_tokenizer)
        tiny_tokenizer(["w1 w2", "w3"], padding=True, truncation=True, max_length=3)
        assert tokenizer_hash(tiny_tokenizer) == before

    def test_vocabulary_and_special_tokens_change_it(self, tiny_tokenizer: Any) -> None:
        def variant(pad_token: str) -> Any:
            backend = Tokenizer.from_str(tiny_tokenizer.backend_tokenizer.to_str())
            return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad_token)

        larger = variant("[PAD]")
        larger.add_tokens(["new"])
        assert tokenizer_hash(variant("[PAD]")) == tokenizer_hash(variant("[PAD]"))
        assert len({tokenizer_hash(each) for each in (variant("[PAD]"), variant("w1"), larger)}) == 3

    def test_without_a_serialised_form(self) -> None:
        class Plain:
            special_tokens_map = {"pad_token": "p"}

            def get_vocab(self) -> dict[str, int]:
                return {"p": 0, "a": 1}

        assert tokenizer_hash(Plain()) == tokenizer_hash(Plain())
        assert len(tokenizer_hash(Plain()) or "") == 64
        assert tokenizer_hash(None) is None


def test_identity_of_a_wrapped_head_model_is_that_of_its_base(tiny_config: Callable[..., Any]) -> None:
    module = transformers.GPT2LMHeadModel(tiny_config("gpt2"))
    whole = wrap_model(module, None, name="x").identity
    assert wrap_model(module.transformer, None, name="x").identity == whole
