"""Checkpoints with their LM head: what is needed where the answer of a model is read, and not only its activations.

The head is the one that the checkpoint was trained with: the language model of a decoder, the masked language model of
an encoder, the decoder and head of an encoder-decoder. Base model and head model share their weights, so that a change
made at a site of the base model is seen in the logits.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, PreTrainedModel

from modularity.errors import ModelError
from modularity.models.architectures import Architecture, architecture_of
from modularity.models.config import ModelConfig
from modularity.models.loading import (
    LoadedModel,
    attention_option,
    build_module,
    checkpoint_dtype,
    device_of,
    load_tokenizer,
    pretrained_module,
    wrap_model,
)
from modularity.models.source import Source, explained, find_source, pinned, read_hf_config

HeadKind = Literal["seq2seq", "masked", "causal"]

_CLASSES: dict[HeadKind, Any] = {
    "seq2seq": AutoModelForSeq2SeqLM,
    "masked": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
}
_HEADLESS = "label words can be read only from a checkpoint with its LM head"


@dataclass(frozen=True, eq=False)
class HeadModel:
    """A model that gives logits over its vocabulary, and its base model with sites; both are one set of weights."""

    base: LoadedModel
    """The base model: sites, tokenizer, config, identity. T5 has no module of its own for it: there, `base.module` is
    the head model, and its identity counts the head."""
    module: nn.Module
    """The model with its head, in eval mode and without gradients."""
    kind: HeadKind
    """`seq2seq`: logits of the decoder; `masked`: of every position; `causal`: of the token after every position."""


def head_kind(architecture: Architecture) -> HeadKind:
    """Kind of head that goes with the stacks of an architecture."""
    stacks = {layout.stack for layout in architecture.stacks}
    if len(stacks) == 2:
        return "seq2seq"
    return "masked" if stacks == {"encoder"} else "causal"


def load_head_model(config: ModelConfig) -> HeadModel:
    """Load a checkpoint with its LM head, otherwise as `load_model` does.

    Random weights: those of the base model are the ones that `load_model` draws with the same seed.

    Raises
    ------
    ModelError
        As `load_model`; or the checkpoint has no weights for an LM head, which would be random numbers.
    InputError, SiteError
        As `load_model`.
    """
    source = find_source(config)
    hf_config = read_hf_config(source)
    architecture = architecture_of(hf_config.model_type, hf_config)
    source = pinned(source)
    device = device_of(config)
    tokenizer = load_tokenizer(config)
    if config.weights == "random":
        module = _random(config, source, hf_config, architecture)
    else:
        module = pretrained_module(_CLASSES[head_kind(architecture)], config, source, hf_config, hint=_HEADLESS)
    if config.device_map is None:
        module = module.to(device)
    found = wrap_head_model(module, tokenizer, name=config.name)
    identity = replace(found.base.identity, revision=source.commit or config.revision)
    return replace(found, base=replace(found.base, config=config, identity=identity))


def wrap_head_model(module: nn.Module, tokenizer: Any, *, name: str) -> HeadModel:
    """Treat an already built Hugging Face model with an LM head as a loaded one; it is changed as by `wrap_model`.

    Raises
    ------
    ModelError
        Not a Hugging Face model, not of an architecture in the site table, or without output embeddings.
    """
    base = wrap_model(module, tokenizer, name=name)
    output = module.get_output_embeddings() if isinstance(module, PreTrainedModel) else None
    if output is None:
        raise ModelError(
            f"{type(module).__name__} has no LM head; give the model with its head ({_advice(base)}) instead of the "
            f"base model"
        )
    module.eval().requires_grad_(False)
    return HeadModel(base, module, head_kind(base.sites.architecture))


def _advice(base: LoadedModel) -> str:
    return f"transformers.{_CLASSES[head_kind(base.sites.architecture)].__name__}"


def _random(config: ModelConfig, source: Source, hf_config: Any, architecture: Architecture) -> nn.Module:
    dtype = checkpoint_dtype(config, hf_config) or "float32"
    options = {"trust_remote_code": config.trust_remote_code, **attention_option(config)}
    with explained(source, "weights"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        base = build_module(hf_config, architecture, dtype=dtype, **options)
        module = _CLASSES[head_kind(architecture)].from_config(hf_config, dtype=dtype, **options)
    module.base_model.load_state_dict(base.state_dict(), strict=False, assign=True)
    module.tie_weights()
    return module
