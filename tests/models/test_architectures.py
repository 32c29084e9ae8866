"""Rows of the table: adding one, refusing a bad one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import transformers

from modularity.errors import InputError, ModelError
from modularity.models import (
    Architecture,
    StackLayout,
    architecture_of,
    architectures,
    known_architectures,
    register_architecture,
    wrap_model,
)
from modularity.types import Site

LAYOUT = StackLayout(
    stack="decoder",
    blocks="layers",
    ffn_out="mlp.down_proj",
    ffn_gate="mlp.gate_proj",
    ffn_up="mlp.up_proj",
    attention_out="self_attn.o_proj",
    head_width="self_attn.head_dim",
)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "_TABLE", dict(architectures._TABLE))


def test_every_family_is_known() -> None:
    assert set(known_architectures()) >= {
        *("opt", "gpt2", "gpt_neo", "gpt_neox", "bert", "roberta", "distilbert", "t5", "mt5"),
        *("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "olmo", "olmo2"),
    }
    assert list(known_architectures()) == sorted(known_architectures())


def test_unknown_type_lists_the_known_ones() -> None:
    expected = r"model type 'bloom' is not in the site table; known: bert, .*distilbert, .*xlm-roberta\. Add a row"
    with pytest.raises(ModelError, match=expected):
        architecture_of("bloom")


@pytest.mark.usefixtures("table")
def test_a_registered_row_is_used() -> None:
    config = transformers.StableLmConfig(
        vocab_size=48,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    module = transformers.StableLmModel(config)
    with pytest.raises(ModelError, match="'stablelm' is not in the site table"):
        wrap_model(module, None, name="stable")
    register_architecture(Architecture("stablelm", (LAYOUT,)))
    register_architecture(Architecture("stablelm", (LAYOUT,)))
    model = wrap_model(module, None, name="stable")
    assert model.sites.shape(Site("decoder", "ffn.neurons")).widths == (37, 37)


@pytest.mark.usefixtures("table")
def test_bad_rows_are_refused_with_every_problem() -> None:
    with pytest.raises(InputError, match="model type 'llama' is already in the site table with other paths"):
        register_architecture(Architecture("llama", (replace(LAYOUT, blocks="h"),)))
    with pytest.raises(
        InputError, match=r"2 problems:\n  1. .*stacks \['decoder', 'decoder'\].*\n  2. mine/decoder needs"
    ):
        register_architecture(Architecture("mine", (LAYOUT, replace(LAYOUT, ffn_gate=None))))
    with pytest.raises(InputError, match=r"model type 'mine' has stacks \[\], expected one or two different ones"):
        register_architecture(Architecture("mine", ()))
    assert "mine" not in known_architectures()


def test_longest_input(tiny_config: Callable[..., Any]) -> None:
    assert architecture_of("roberta").longest_input(tiny_config("roberta")) == 62
    assert architecture_of("distilbert").longest_input(tiny_config("distilbert")) == 64
    assert architecture_of("mt5").longest_input(tiny_config("mt5")) is None
