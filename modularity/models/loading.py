"""Checkpoints become frozen base models, with their site table and identity.

The base model has no LM head: capture does not need logits. Settings are those of the checkpoint unless the config
says otherwise: no forced dtype, no forced attention implementation. Missing backbone weights are an error, since
transformers would fill them with random numbers, and so are weights of layers that `config.json` leaves out; heads that
the base model does not have are dropped in silence.
"""

import copy
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from modularity.errors import InputError, ModelError
from modularity.models.architectures import Architecture, architecture_of
from modularity.models.config import ModelConfig
from modularity.models.identity import parameter_hash, tokenizer_hash
from modularity.models.sites import SiteTable
from modularity.models.source import (
    Source,
    check_tokenizer_files,
    check_weight_files,
    explained,
    find_source,
    pinned,
    read_hf_config,
)

_INCOMPLETE = "its config.json belongs to other weights, or the checkpoint is incomplete"


@dataclass(frozen=True)
class ModelIdentity:
    """What distinguishes one loaded model from another; a run records it and refuses to mix two."""

    name: str
    """As given in the config."""
    revision: str | None
    """Commit hash of the hub repository where known, else the revision asked for."""
    parameter_hash: str
    """SHA-256 of the base model's parameters and persistent buffers, see `identity.py`."""
    tokenizer_hash: str | None
    """SHA-256 of the tokenizer; None without one."""
    architecture: str
    """`config.model_type`."""
    dtype: str
    """Dtype of the input embeddings (`float32`): single projections may differ, see `Tap.dtype`."""
    attention: str | None
    """Attention implementation in use (`sdpa`, `eager` …)."""
    n_parameters: int
    """Parameters of the base model, tied ones counted once."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A base model without LM head, in eval mode and without gradients, with everything that capture needs."""

    module: nn.Module
    tokenizer: Any
    """Hugging Face tokenizer; None if a module was wrapped without one."""
    config: ModelConfig
    hf_config: Any
    """Configuration of the module (`transformers.PretrainedConfig`)."""
    sites: SiteTable
    identity: ModelIdentity

    @property
    def device(self) -> torch.device:
        """Device on which the input ids belong."""
        return self.module.get_input_embeddings().weight.device  # type: ignore[operator]

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens; None = no limit (relative positions)."""
        return self.sites.architecture.longest_input(self.hf_config)

    @property
    def decoder_start_id(self) -> int:
        """Token that a decoder begins with where a batch has no input for it; ModelError if the config names none."""
        for name in ("decoder_start_token_id", "pad_token_id"):
            token = getattr(self.hf_config, name, None)
            if token is not None:
                return int(token)
        raise ModelError(
            f"{self.identity.name}: the config has neither decoder_start_token_id nor pad_token_id, so the decoder has "
            f"no input; set one of them in config.json"
        )

    @property
    def pad_id(self) -> int:
        """Token id to fill padding with: the tokenizer's, else its end of text, else 0. Padding is masked anyway."""
        candidates = (getattr(self.tokenizer, "pad_token_id", None), getattr(self.tokenizer, "eos_token_id", None), 0)
        return next(int(token_id) for token_id in candidates if token_id is not None)


def load_model(config: ModelConfig) -> LoadedModel:
    """Load a checkpoint as `config` says.

    Raises
    ------
    InputError
        The name is a path that does not exist, or cannot be a hub id.
    ModelError
        The hub cannot be reached; config, weights or tokenizer are missing, incomplete or pickled; the architecture is
        not in the site table; the attention implementation or the device is not available.
    SiteError
        The model lacks a module that its row of the site table names.
    """
    source = find_source(config)
    hf_config = read_hf_config(source)
    architecture = architecture_of(hf_config.model_type, hf_config)
    source = pinned(source)
    device = device_of(config)
    tokenizer = _tokenizer(config, source)
    if config.weights == "random":
        module: nn.Module = _random(config, source, hf_config)
    else:
        options = dict(architecture.build_options)
        module = pretrained_module(AutoModel, config, source, hf_config, hint=_INCOMPLETE, **options)
    if config.device_map is None:
        module = module.to(device)
    return _assemble(module, tokenizer, config, architecture, revision=source.commit or config.revision)


def wrap_model(module: nn.Module, tokenizer: Any, *, name: str) -> LoadedModel:
    """Treat an already built Hugging Face model as a loaded one.

    The module is changed in place: eval mode, no gradients, no key-value cache. Of a model with a head the base model
    is taken, which shares its weights.

    Parameters
    ----------
    module : a `transformers.PreTrainedModel`
    tokenizer : its tokenizer, or None if text is not going to be tokenised
    name : what to call it in runs and messages

    Raises
    ------
    ModelError
        Not a Hugging Face model, or its architecture is not in the site table.
    """
    if not isinstance(module, PreTrainedModel):
        raise ModelError(
            f"{type(module).__name__} is not a transformers.PreTrainedModel; wrap the Hugging Face model itself, "
            f"not a data-parallel, compiled or adapter shell around it"
        )
    base = module.base_model
    architecture = architecture_of(base.config.model_type, base.config)
    return _assemble(base, tokenizer, ModelConfig(name=name), architecture, revision=None)


def build_module(hf_config: Any, architecture: Architecture, *, dtype: str, **options: Any) -> nn.Module:
    """Base model of a configuration, with the dtypes that loading its checkpoint would give.

    `from_config` ignores `_keep_in_fp32_modules`, which `from_pretrained` honours: T5 in float16 keeps `wo` in float32.
    """
    module = AutoModel.from_config(copy.deepcopy(hf_config), dtype=dtype, **architecture.build_options, **options)
    kept: set[str] = set()
    if dtype == "float16":
        kept |= set(module._keep_in_fp32_modules or ())
    if dtype in ("float16", "bfloat16"):
        kept |= set(module._keep_in_fp32_modules_strict or ())
    for name, parameter in module.named_parameters():
        if kept.intersection(name.split(".")):
            parameter.data = parameter.data.float()
    return module


def checkpoint_dtype(config: ModelConfig, hf_config: Any) -> str | None:
    """Dtype asked for, or that of the checkpoint as far as its config says: `float32`, …; None where it does not."""
    if config.dtype != "auto":
        return config.dtype
    dtype = getattr(hf_config, "dtype", None)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def check_weights(config: ModelConfig) -> None:
    """What can be said of the weights without loading them.

    Raises
    ------
    InputError, ModelError
        As `load_model`: a local folder holds no weights, pickled ones only, or incomplete ones.
    """
    if config.weights == "pretrained":
        check_weight_files(find_source(config), allow_pickle=config.allow_pickle)


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a checkpoint, without its weights: what planning a job needs.

    Raises
    ------
    InputError, ModelError
        As `load_model`, as far as the tokenizer is concerned.
    """
    return _tokenizer(config, pinned(find_source(config)))


def _tokenizer(config: ModelConfig, model_source: Source) -> Any:
    source = model_source if config.tokenizer is None else find_source(config, config.tokenizer)
    check_tokenizer_files(source)
    with explained(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.name, **source.options)


def attention_option(config: ModelConfig) -> dict[str, str]:
    """Keyword argument of transformers for the attention implementation; none where the config leaves it open."""
    return {} if config.attention is None else {"attn_implementation": config.attention}


def pretrained_module(
    auto_class: Any, config: ModelConfig, source: Source, hf_config: Any, *, hint: str, **options: Any
) -> nn.Module:
    """Weights of a checkpoint in the module that `auto_class` of transformers builds for it.

    Parameters
    ----------
    auto_class : `AutoModel`, or one with a head
    config, source, hf_config : the checkpoint
    hint : end of the message about missing weights
    options : keyword arguments of the model class

    Raises
    ------
    ModelError
        Weight files are missing, incomplete or pickled, or weights of the module are not among them.
    """
    check_weight_files(source, allow_pickle=config.allow_pickle)
    options |= attention_option(config)
    if config.device_map is not None:
        options["device_map"] = config.device_map
    with explained(source, "weights"):
        module, report = auto_class.from_pretrained(
            source.name,
            config=hf_config,
            dtype=config.dtype,
            use_safetensors=None if config.allow_pickle else True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused below
            output_loading_info=True,
            **options,
            **source.options,
        )
    other = sorted(report["mismatched_keys"])
    if other:
        name, stored, built = other[0]
        raise ModelError(
            f"checkpoint {source.name!r}: {len(other)} weights have other shapes than {type(module).__name__} of its "
            f"config.json ({name} is {list(stored)}, expected {list(built)}); {hint}"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise ModelError(
            f"checkpoint {source.name!r} lacks {len(missing)} of the weights of {type(module).__name__} ({shown}), "
            f"which would be random numbers; {hint}"
        )
    beyond = _beyond_the_last(report["unexpected_keys"], module)
    if beyond:
        shown = ", ".join(beyond[:5]) + (", …" if len(beyond) > 5 else "")
        raise ModelError(
            f"checkpoint {source.name!r} holds {len(beyond)} weights of layers that its config.json leaves out "
            f"({shown}), so that the model would be a shorter one; correct the number of layers in config.json, or "
            "remove these weights from the checkpoint"
        )
    return module


def _beyond_the_last(unused: Iterable[str], module: nn.Module) -> list[str]:
    """Unused weights that go on a numbered list of the module: `h.5.mlp.c_fc.weight` where its layers end at `h.4`."""
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    last: dict[str, int] = {}
    for name, _ in module.named_parameters():
        for place, number in _numbered(name.removeprefix(prefix)):
            last[place] = max(number, last.get(place, -1))
    return [
        name
        for name in sorted(unused)
        if any(number > last.get(place, number) for place, number in _numbered(name.removeprefix(prefix)))
    ]


def _numbered(name: str) -> list[tuple[str, int]]:
    """Parts of a name that end in a number: `h.5.experts.expert_2.wo` gives (`h.`, 5) and (`h.5.…_`, 2)."""
    return [(name[: found.start()], int(found.group())) for found in re.finditer(r"\d+(?=\.)", name)]


def _random(config: ModelConfig, source: Source, hf_config: Any) -> nn.Module:
    """Fresh weights, drawn on the CPU, so that a seed gives the same ones on every device."""
    dtype = checkpoint_dtype(config, hf_config) or "float32"
    with explained(source, "weights"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_module(
            hf_config,
            architecture_of(hf_config.model_type),
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            **attention_option(config),
        )


def uses_gpu(config: ModelConfig) -> bool:
    """Whether the model of `config` would run on a GPU in this process, as far as can be seen before loading it."""
    return config.device.startswith("cuda") or (config.device == "auto" and torch.cuda.is_available())


def device_of(config: ModelConfig) -> torch.device:
    """Device that the model of `config` is put on here; ModelError where torch has no such one."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(config.device)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ModelError(f"device={config.device!r}: torch sees {count} CUDA devices; use device='cpu' or 'auto'")
    return device


def _assemble(
    module: nn.Module, tokenizer: Any, config: ModelConfig, architecture: Architecture, *, revision: str | None
) -> LoadedModel:
    module.eval().requires_grad_(False)
    _without_cache(module)
    embeddings = module.get_input_embeddings().weight  # type: ignore[operator]  # a method of every Hugging Face model
    if tokenizer is not None and tokenizer.vocab_size > embeddings.shape[0]:
        raise InputError(
            f"the tokenizer of {config.tokenizer or config.name!r} has {tokenizer.vocab_size} tokens, but the model "
            f"{config.name!r} embeds {embeddings.shape[0]}; give the tokenizer that the model was trained with"
        )
    hf_config: Any = module.config
    identity = ModelIdentity(
        name=config.name,
        revision=revision,
        parameter_hash=parameter_hash(module),
        tokenizer_hash=tokenizer_hash(tokenizer),
        architecture=architecture.model_type,
        dtype=str(embeddings.dtype).removeprefix("torch."),
        attention=getattr(hf_config, "_attn_implementation", None),
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
    return LoadedModel(module, tokenizer, config, hf_config, SiteTable(module, architecture), identity)


def _without_cache(module: nn.Module) -> None:
    """Decoders would keep the keys and values of every layer for generation."""
    for part in module.modules():
        if isinstance(part, PreTrainedModel) and getattr(part.config, "use_cache", False):
            part.config.use_cache = False
