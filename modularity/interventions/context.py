"""What a changed forward knows of its batch: which positions are real, and a key for the content of each example.

The keys are digests of the token ids of an example without padding. Random draws are seeded by them, so that noise on
an example does not depend on the batch that it is in, nor on its place there. Two examples with the same tokens get the
same noise. For the decoder of an encoder-decoder model the key covers the tokens of both stacks.
"""

import hashlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modularity.errors import InputError
from modularity.models import LoadedModel
from modularity.types import StackName


@dataclass(frozen=True)
class BatchContent:
    """Real positions and content of one batch in one stack."""

    real_BT: np.ndarray
    """bool of shape (B, T): not padding."""
    keys_B: tuple[int, ...]
    """Digest of the content of each example, 64 bits."""

    @cached_property
    def lengths_B(self) -> np.ndarray:
        """Real positions of each example, int64."""
        return self.real_BT.sum(axis=1)

    @cached_property
    def key(self) -> int:
        """Digest of the whole batch in its order."""
        return digest(self.keys_B)


def digest(numbers: Iterable[int]) -> int:
    """64-bit number from integers: the same on every machine."""
    text = ",".join(str(int(number)) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class BatchContext:
    """Hooks that note token ids and padding of every forward, of the base model or of a model with a head around it.

    Parameters
    ----------
    model : a loaded base model
    """

    def __init__(self, model: LoadedModel) -> None:
        self._content: dict[StackName, BatchContent] = {}
        self._modules = _input_modules(model)
        self.n_batches: dict[StackName, int] = dict.fromkeys(self._modules, 0)
        """Forwards seen in each stack."""

    def attach(self) -> list[RemovableHandle]:
        """Put the hooks on; the caller removes them."""
        return [
            module.register_forward_pre_hook(self._noter(stack, module), with_kwargs=True)
            for stack, modules in self._modules.items()
            for module in modules
        ]

    def content(self, stack: StackName) -> BatchContent:
        """The batch that is being computed in `stack`; InputError if its token ids are not known."""
        if stack not in self._content:
            raise InputError(
                f"the {stack} runs without input_ids, so its batch is unknown; call the model with input_ids and, "
                f"where there is padding, attention_mask"
            )
        return self._content[stack]

    def _noter(self, stack: StackName, module: nn.Module) -> Any:
        signature = inspect.signature(module.forward)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arguments = signature.bind_partial(*args, **kwargs).arguments
            arguments = arguments.get("kwargs", {}) | arguments
            ids = arguments.get("input_ids")
            if isinstance(ids, torch.Tensor):
                self._note(stack, ids, arguments.get("attention_mask"))
            elif isinstance(arguments.get("inputs_embeds"), torch.Tensor):
                self._content.pop(stack, None)

        return before

    def _note(self, stack: StackName, ids_BT: torch.Tensor, mask_BT: Any) -> None:
        ids = ids_BT.cpu().numpy()
        real_BT = np.ones(ids.shape, dtype=bool)
        if isinstance(mask_BT, torch.Tensor):
            if mask_BT.shape != ids_BT.shape:
                raise InputError(
                    f"attention_mask of the {stack} has shape {tuple(mask_BT.shape)}, input_ids {tuple(ids_BT.shape)}: "
                    f"expected one shape; a changed model does not generate with a cache"
                )
            real_BT = mask_BT.cpu().numpy() != 0
        parents = self._parents(stack, len(ids))
        keys = tuple(digest((parent, *example[real].tolist())) for parent, example, real in zip(parents, ids, real_BT))
        # One forward may pass its ids on from module to module: the base model to its decoder.
        self._content[stack] = BatchContent(real_BT, keys)
        self.n_batches[stack] += 1

    def _parents(self, stack: StackName, n_examples: int) -> tuple[int, ...]:
        """Keys of the encoder's examples, for the decoder of an encoder-decoder model."""
        source = self._content.get("encoder") if stack == "decoder" else None
        if source is None or len(source.keys_B) != n_examples:
            return (0,) * n_examples
        return source.keys_B


def _input_modules(model: LoadedModel) -> dict[StackName, tuple[nn.Module, ...]]:
    """Modules of each stack that receive token ids: what holds the blocks and, if there is one stack, the base model.

    OPTForCausalLM calls the decoder inside its base model; BertForMaskedLM calls its base model, whose encoder receives
    no ids.
    """
    found: dict[StackName, tuple[nn.Module, ...]] = {}
    for layout in model.sites.architecture.stacks:
        if layout.stack not in model.sites.stacks:
            continue
        holder = model.module.get_submodule(layout.blocks.rpartition(".")[0])
        alone = len(model.sites.stacks) == 1 and holder is not model.module
        found[layout.stack] = (model.module, holder) if alone else (holder,)
    return found
