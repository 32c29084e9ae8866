"""Descriptions agree with the loaded models that they describe."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modularity.models import ModelConfig, describe_model, load_model
from modularity.types import Site

Save = Callable[..., tuple[Path, Any]]


@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["opt-350m", "gpt2", "roberta", "distilbert", "t5", "flan-t5", "llama", "gemma2", "qwen3"]
)
def test_equals_the_loaded_model(save_checkpoint: Save, name: str, dtype: str) -> None:
    folder, _ = save_checkpoint(name)
    config = ModelConfig(name=str(folder), dtype=dtype, device="cpu")
    described, loaded = describe_model(config), load_model(config)
    assert described.shapes == {site: loaded.sites.shape(site) for site in loaded.sites.sites}
    assert described.n_parameters == loaded.identity.n_parameters
    parameters = list(loaded.module.parameters())
    assert described.parameter_bytes == sum(p.numel() * p.element_size() for p in parameters)
    assert described.n_embedding_parameters == loaded.module.get_input_embeddings().weight.numel()
    assert (described.dtype, described.architecture) == (loaded.identity.dtype, loaded.identity.architecture)
    assert (described.max_positions, described.stacks) == (loaded.max_positions, loaded.sites.stacks)
    assert (described.residual_width, described.vocabulary_size) == (32, 48)
    assert described.has_decoder == (name not in ("roberta", "distilbert"))


def test_needs_the_config_file_alone(tmp_path: Path) -> None:
    """OPT-2.7B and the 11B T5: built in a moment, without memory for weights."""
    opt = {
        **{"model_type": "opt", "hidden_size": 2560, "ffn_dim": 10240, "num_hidden_layers": 32, "vocab_size": 50272},
        **{"num_attention_heads": 32, "word_embed_proj_dim": 2560, "max_position_embeddings": 2048, "dtype": "float16"},
    }
    (tmp_path / "config.json").write_text(json.dumps(opt))
    description = describe_model(ModelConfig(name=str(tmp_path)))
    shape = description.shapes[Site("decoder", "ffn.neurons")]
    assert (len(shape.layers), sum(shape.widths), shape.unit_shape) == (32, 327_680, (10240,))
    assert description.n_parameters == 2_651_596_800
    assert description.parameter_bytes == 2 * 2_651_596_800
    t5 = {
        **{"model_type": "t5", "d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128},
        **{"vocab_size": 32128, "feed_forward_proj": "relu"},
    }
    (tmp_path / "config.json").write_text(json.dumps(t5))
    description = describe_model(ModelConfig(name=str(tmp_path)))
    assert description.shapes[Site("encoder", "attention.heads")].unit_shape == (128, 128)
    assert description.shapes[Site("decoder", "residual")].layers == tuple(range(25))
    assert 11.2e9 < description.n_parameters < 11.4e9
    assert (description.dtype, description.max_positions) == ("float32", None)


def test_dtype_of_local_weights_where_the_config_is_silent(save_checkpoint: Save) -> None:
    folder, _ = save_checkpoint("gpt2", dtype="bfloat16")
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config))
    assert describe_model(ModelConfig(name=str(folder))).dtype == "bfloat16"


@pytest.mark.parametrize(("name", "active", "layers"), [("mixtral", 48, {0: 5, 1: 5}), ("qwen3_moe", 48, {1: 5})])
def test_description_of_a_mixture_of_experts(save_checkpoint, name: str, active: int, layers: dict[int, int]) -> None:
    folder, _ = save_checkpoint(name)
    description = describe_model(ModelConfig(name=str(folder)))
    assert description.native_experts == {"decoder": layers}
    assert description.ffn_active_width == active
    assert description.n_idle_parameters == len(layers) * 3 * 3 * 24 * 32
    assert description.shapes[Site("decoder", "ffn.neurons")].widths[1] == 120
    assert description.shapes[Site("decoder", "router.choices")].layers == tuple(layers)


def test_description_of_switch_and_of_a_dense_model(save_checkpoint) -> None:
    switch = describe_model(ModelConfig(name=str(save_checkpoint("switch")[0])))
    assert switch.native_experts == {"encoder": {1: 3, 3: 3}, "decoder": {1: 3}}
    assert switch.ffn_active_width == 24
    assert switch.n_idle_parameters == 3 * 2 * 2 * 24 * 32
    llama = describe_model(ModelConfig(name=str(save_checkpoint("llama")[0])))
    assert llama.native_experts == {"decoder": {}}
    assert (llama.ffn_active_width, llama.n_idle_parameters) == (37, 0)


def test_checkpoints_with_experts_are_loaded_and_described_alike(save_checkpoint) -> None:
    for name in ("switch", "olmoe"):
        config = ModelConfig(name=str(save_checkpoint(name)[0]), device="cpu")
        model, description = load_model(config), describe_model(config)
        assert description.shapes == {site: model.sites.shape(site) for site in model.sites.sites}
        assert description.n_parameters == model.identity.n_parameters
