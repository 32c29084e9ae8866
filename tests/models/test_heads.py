"""Checkpoints with their LM head: the same base model as without, one set of weights, no random heads."""

import pytest
import torch
import transformers

from modularity.errors import ModelError
from modularity.models import ModelConfig, load_model
from modularity.models.heads import load_head_model, wrap_head_model

_KINDS = {
    "t5": ("AutoModelForSeq2SeqLM", "seq2seq"),
    "flan-t5": ("AutoModelForSeq2SeqLM", "seq2seq"),
    "bert": ("AutoModelForMaskedLM", "masked"),
    "roberta": ("AutoModelForMaskedLM", "masked"),
    "distilbert": ("AutoModelForMaskedLM", "masked"),
    "gpt2": ("AutoModelForCausalLM", "causal"),
    "opt": ("AutoModelForCausalLM", "causal"),
    "gpt_neox": ("AutoModelForCausalLM", "causal"),
    "llama": ("AutoModelForCausalLM", "causal"),
    "gemma2": ("AutoModelForCausalLM", "causal"),
}


@pytest.mark.parametrize("name", _KINDS)
def test_logits_and_base_are_those_of_the_checkpoint(name: str, save_checkpoint) -> None:
    auto_class, kind = _KINDS[name]
    folder, module = save_checkpoint(name, auto_class)
    model = load_head_model(ModelConfig(name=str(folder), device="cpu"))
    assert model.kind == kind
    ids = torch.tensor([[5, 7, 9, 11]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids[:, :2]} if kind == "seq2seq" else {})
    with torch.no_grad():
        assert torch.allclose(model.module(**inputs).logits, module.eval()(**inputs).logits, atol=1e-6)
    assert model.base.module in set(model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())
    assert model.base.config.name == str(folder)
    if name != "flan-t5":  # its head is not tied, and its base model is the head model
        assert model.base.identity == load_model(ModelConfig(name=str(folder), device="cpu")).identity


@pytest.mark.parametrize("name", ["t5", "bert", "llama"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_random_weights_are_those_of_the_base_model_with_this_seed(name: str, dtype: str, save_checkpoint) -> None:
    folder, _ = save_checkpoint(name, _KINDS[name][0])
    config = ModelConfig(name=str(folder), device="cpu", weights="random", seed=4, dtype=dtype)
    model, base = load_head_model(config), load_model(config)
    assert model.base.identity.parameter_hash == base.identity.parameter_hash
    tensors = model.base.module.state_dict()
    assert all((tensors[key] == value).all() for key, value in base.module.state_dict().items())
    output = model.module.get_output_embeddings().weight
    tied = model.module.config.tie_word_embeddings
    assert (output is model.module.get_input_embeddings().weight) == tied


def test_a_checkpoint_without_head_is_refused(save_checkpoint) -> None:
    folder, _ = save_checkpoint("bert", "AutoModel")
    with pytest.raises(ModelError, match=r"lacks \d+ of the weights of BertForMaskedLM .*with its LM head"):
        load_head_model(ModelConfig(name=str(folder), device="cpu"))


def test_a_base_model_has_no_head(tiny_config) -> None:
    module = transformers.AutoModel.from_config(tiny_config("llama"))
    with pytest.raises(ModelError, match=r"LlamaModel has no LM head; .*AutoModelForCausalLM"):
        wrap_head_model(module, None, name="tiny")


def test_wrapping_shares_weights_with_the_base(tiny_config) -> None:
    module = transformers.AutoModelForMaskedLM.from_config(tiny_config("bert"))
    model = wrap_head_model(module, None, name="tiny")
    assert model.base.module is module.bert
    assert not model.module.training
