"""Hashes that tell one set of weights, and one tokenizer, from another.

The parameter hash is a SHA-256 over the sorted lines `name dtype shape digest…` of all parameters and persistent
buffers, where the digests are SHA-256 of consecutive 64 MiB blocks of a tensor's bytes in memory order. Blocks are
hashed by several threads (hashlib releases the GIL). Tied parameters count once, under the first of their names in
alphabetical order. Two revisions with identical parameters have the same hash; a change of dtype changes it.
"""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from modularity.errors import ModelError
from modularity.types import canonical_json

BLOCK_BYTES = 64 * 2**20
_N_THREADS = 4


def named_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers by name, sorted; of tied tensors only the first name."""
    state = module.state_dict(keep_vars=True)
    tensors: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name in sorted(state):
        if isinstance(state[name], torch.Tensor) and id(state[name]) not in seen:
            seen.add(id(state[name]))
            tensors[name] = state[name].detach()
    return tensors


def parameter_hash(module: nn.Module) -> str:
    """SHA-256 (64 hexadecimal digits) of the parameters and persistent buffers of `module`, as the file's head defines.

    Raises
    ------
    ModelError
        A parameter is not in memory (offloaded to disk by `device_map`).
    """
    total = hashlib.sha256()
    with ThreadPoolExecutor(_N_THREADS) as pool:
        for name, tensor in named_tensors(module).items():
            if tensor.is_meta:
                raise ModelError(
                    f"parameter {name!r} is not in memory: the model does not fit on the devices and was offloaded; "
                    f"use more or larger GPUs, or a smaller dtype"
                )
            digests = pool.map(_block_digest, _blocks(tensor))
            dtype = str(tensor.dtype).removeprefix("torch.")
            total.update(f"{name} {dtype} {list(tensor.shape)} {' '.join(digests)}\n".encode())
    return total.hexdigest()


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.contiguous().reshape(-1)
    step = BLOCK_BYTES // tensor.element_size()
    return (flat[start : start + step] for start in range(0, flat.numel(), step))


def _block_digest(block: torch.Tensor) -> str:
    return hashlib.sha256(block.cpu().view(torch.uint8).numpy().data).hexdigest()


def tokenizer_hash(tokenizer: Any) -> str | None:
    """SHA-256 (64 hexadecimal digits) of what a tokenizer does to text, None without a tokenizer.

    The serialised `tokenizer.json` without its truncation and padding, which calls change, and the special tokens. For
    tokenizers without this form: class, vocabulary and special tokens.
    """
    if tokenizer is None:
        return None
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(backend, "to_str"):
        content = json.loads(backend.to_str())
        content = {key: value for key, value in content.items() if key not in ("truncation", "padding")}
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    return hashlib.sha256(canonical_json({"content": content, "special": special}).encode()).hexdigest()
