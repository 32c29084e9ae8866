"""What planning needs to know of a model, from its config alone: no weights are read, no memory is allocated.

The module is built on torch's meta device, where tensors have shapes but no storage, and the site table is resolved on
it as on a loaded one; so the two cannot disagree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from modularity.models.architectures import architecture_of
from modularity.models.config import ModelConfig
from modularity.models.loading import attention_option, build_module, checkpoint_dtype
from modularity.models.sites import SiteTable
from modularity.models.source import Source, explained, find_source, pinned, read_hf_config, safetensors_header
from modularity.types import Site, SiteShape, StackName

_SAFETENSORS_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class ModelDescription:
    """Shapes and sizes of a model that has not been loaded."""

    name: str
    revision: str | None
    """Commit hash of the hub repository where known, else the revision asked for."""
    architecture: str
    """`config.model_type`."""
    stacks: tuple[StackName, ...]
    shapes: Mapping[Site, SiteShape]
    """Shape of every site, over all layers."""
    n_parameters: int
    """Parameters of the base model, tied ones counted once."""
    n_embedding_parameters: int
    """Of these, the input embedding: looked up, not multiplied."""
    n_idle_parameters: int
    """Of these, the experts that process none of one token: all but the chosen ones of every sparse layer."""
    parameter_bytes: int
    dtype: str
    """Dtype of the weights; `float32` where neither config nor local weights say."""
    max_positions: int | None
    """Longest input in tokens; None = no limit (relative positions)."""
    residual_width: int
    """D of the first stack."""
    ffn_active_width: int
    """Largest number of neurons of one layer that are computed for one token: those of the chosen experts only."""
    native_experts: Mapping[StackName, Mapping[int, int]]
    """Number of experts by stack and sparse layer; no layer in a dense model."""
    vocabulary_size: int
    """Rows of the input embedding."""
    has_decoder: bool
    """True where a stack is named `decoder`: causal models and encoder-decoder models."""


def describe_model(config: ModelConfig) -> ModelDescription:
    """Shapes of all sites, parameter count and bytes, from the config of the checkpoint alone.

    Raises
    ------
    InputError, ModelError, SiteError
        As `load_model`, as far as the config shows it.
    """
    source = find_source(config)
    hf_config = read_hf_config(source)
    architecture = architecture_of(hf_config.model_type, hf_config)
    dtype = checkpoint_dtype(config, hf_config) or _stored_dtype(source) or "float32"
    with explained(source, "model"), torch.device("meta"):
        module = build_module(
            hf_config, architecture, dtype=dtype, trust_remote_code=config.trust_remote_code, **_local_attention(config)
        )
    sites = SiteTable(module, architecture)
    embedding = module.get_input_embeddings().weight  # type: ignore[operator]  # a method of every Hugging Face model
    parameters = tuple(module.parameters())
    numbers = _expert_numbers(sites, int(getattr(hf_config, "num_experts_per_tok", 1)))
    return ModelDescription(
        name=config.name,
        revision=pinned(source).commit or config.revision,
        architecture=architecture.model_type,
        stacks=sites.stacks,
        shapes={site: sites.shape(site) for site in sites.sites},
        n_parameters=sum(parameter.numel() for parameter in parameters),
        n_embedding_parameters=embedding.numel(),
        parameter_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        dtype=dtype,
        max_positions=architecture.longest_input(hf_config),
        residual_width=sites.residual_width(sites.stacks[0]),
        n_idle_parameters=numbers.n_idle_parameters,
        ffn_active_width=numbers.active_width,
        native_experts=numbers.native,
        vocabulary_size=embedding.shape[0],
        has_decoder="decoder" in sites.stacks,
    )


def _local_attention(config: ModelConfig) -> dict[str, str]:
    """The attention asked for, as far as every machine has it: flash kernels may be on the workers only."""
    from_packages = config.attention is not None and ("flash" in config.attention or "/" in config.attention)
    return {} if from_packages else attention_option(config)


class _ExpertNumbers(NamedTuple):
    active_width: int
    n_idle_parameters: int
    native: dict[StackName, dict[int, int]]


def _expert_numbers(sites: SiteTable, n_chosen: int) -> _ExpertNumbers:
    active, idle = 0, 0
    native: dict[StackName, dict[int, int]] = {stack: {} for stack in sites.stacks}
    for stack in sites.stacks:
        for tap in sites.taps(Site(stack, "ffn.neurons")):
            experts = sites.expert_weights(stack, tap.layer)
            if experts is None:
                active = max(active, tap.width)
                continue
            native[stack][tap.layer] = experts.n_experts
            active = max(active, n_chosen * experts.width)
            n_matrices = 3 if experts.is_gated else 2
            idle += (experts.n_experts - n_chosen) * n_matrices * experts.width * experts.residual_width
    return _ExpertNumbers(active, idle, native)


def _stored_dtype(source: Source) -> str | None:
    """Dtype of the first floating-point tensor in a local safetensors file, which is what `auto` loads."""
    files: list[Path] = sorted(source.folder.glob("*.safetensors")) if source.folder is not None else []
    for path in files[:1]:
        stored = (_SAFETENSORS_DTYPES.get(entry.get("dtype", "")) for entry in safetensors_header(path).values())
        return next((dtype for dtype in stored if dtype is not None), None)
    return None
