"""One forward of a base model over one token batch: the same call a plain Hugging Face user makes, never an LM head.

Encoder-decoder models: the encoder runs alone when no decoder site is wanted. For decoder sites the decoder input ids
come from the batch if it has any (`decoder_input_ids_BT`, `decoder_attention_mask_BT`), else they are the single
decoder start token, so that each example has one decoder position.

Padding on the left: absolute positions are counted over the real tokens (`position_ids`), as `generate` does, where the
model takes them and does not derive them from the ids itself (RoBERTa does). Values then do not depend on the side.
"""

import inspect
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from modularity.data import TokenBatch
from modularity.models import LoadedModel
from modularity.types import StackName

Extents = dict[StackName, tuple[int, int]]
Masks = dict[StackName, np.ndarray]


class BatchForward:
    """Calls the part of a model that the wanted stacks need.

    Parameters
    ----------
    model : a loaded base model
    stacks : stacks with wanted sites
    """

    def __init__(self, model: LoadedModel, stacks: Collection[StackName]) -> None:
        both = set(model.sites.stacks) == {"encoder", "decoder"}
        self._runs_decoder = both and "decoder" in stacks
        self._stacks = frozenset(stacks)
        self.source: StackName = model.sites.stacks[0]
        """The stack that reads the batch's tokens."""
        self._device = model.device
        encoder_alone = both and not self._runs_decoder
        self._callee: nn.Module = model.module.get_encoder() if encoder_alone else model.module  # type: ignore[operator]
        self._accepted = set(inspect.signature(self._callee.forward).parameters)
        self._numbers_positions = any(
            hasattr(child, "create_position_ids_from_input_ids") for child in self._callee.modules()
        )
        self._start_token = model.decoder_start_id if self._runs_decoder else None

    def masks(self, batch: TokenBatch) -> Masks:
        """Real positions of each wanted stack: bool arrays of shape (B, T) or (B, decoder positions)."""
        masks: Masks = {self.source: batch.attention_mask_BT} if self.source in self._stacks else {}
        if self._runs_decoder:
            ids, mask = self._decoder_input(batch)
            masks["decoder"] = np.ones(ids.shape, dtype=bool) if mask is None else mask
        return masks

    def __call__(self, batch: TokenBatch) -> object:
        """Run the model; gradients and dropout are the caller's business."""
        inputs: dict[str, Any] = {
            "input_ids": self._tensor(batch.input_ids_BT),
            "attention_mask": self._tensor(batch.attention_mask_BT.astype(np.int64)),
        }
        if batch.type_ids_BT is not None and "token_type_ids" in self._accepted:
            inputs["token_type_ids"] = self._tensor(batch.type_ids_BT.astype(np.int64))
        if self._needs_position_ids(batch):
            inputs["position_ids"] = self._tensor(np.maximum(batch.attention_mask_BT.cumsum(1) - 1, 0))
        if self._runs_decoder:
            ids, mask = self._decoder_input(batch)
            inputs["decoder_input_ids"] = self._tensor(ids)
            if mask is not None:
                inputs["decoder_attention_mask"] = self._tensor(mask.astype(np.int64))
        return self._callee(**inputs)

    def _needs_position_ids(self, batch: TokenBatch) -> bool:
        left_padded = not batch.attention_mask_BT[:, 0].all()
        return left_padded and "position_ids" in self._accepted and not self._numbers_positions

    def _decoder_input(self, batch: TokenBatch) -> tuple[np.ndarray, np.ndarray | None]:
        ids = getattr(batch, "decoder_input_ids_BT", None)
        if ids is None:
            return np.full((len(batch.input_ids_BT), 1), self._start_token, dtype=np.int64), None
        return ids, getattr(batch, "decoder_attention_mask_BT", None)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)
