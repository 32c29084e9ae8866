"""One forward over a token batch, of a base model or of one with an LM head.

Encoder-decoder models get the decoder start token as the only token of the decoder: its first step.
"""

import inspect
from typing import Any

import numpy as np
import torch
from torch import nn

from modularity.data import TokenBatch
from modularity.errors import ModelError
from modularity.models import LoadedModel


class Forward:
    """Calls a module on token batches.

    Parameters
    ----------
    module : the base model of `base`, or a model with a head around it
    base : the loaded base model
    """

    def __init__(self, module: nn.Module, base: LoadedModel) -> None:
        self._module, self._device = module, base.device
        self._accepted = set(inspect.signature(module.forward).parameters)
        self._start_token = _decoder_start_token(base) if len(base.sites.stacks) == 2 else None

    def __call__(self, batch: TokenBatch) -> Any:
        """What the model returns, without gradients."""
        with torch.inference_mode():
            return self.differentiable(batch)

    def differentiable(self, batch: TokenBatch) -> Any:
        """What the model returns, with gradients where they are enabled."""
        inputs = {"input_ids": batch.input_ids_BT, "attention_mask": batch.attention_mask_BT}
        if batch.type_ids_BT is not None and "token_type_ids" in self._accepted:
            inputs["token_type_ids"] = batch.type_ids_BT
        if self._start_token is not None:
            inputs["decoder_input_ids"] = np.full((batch.n_examples, 1), self._start_token)
        tensors = {name: torch.from_numpy(values.astype(np.int64)).to(self._device) for name, values in inputs.items()}
        return self._module(**tensors)


def _decoder_start_token(model: LoadedModel) -> int:
    for name in ("decoder_start_token_id", "pad_token_id"):
        token = getattr(model.hf_config, name, None)
        if token is not None:
            return int(token)
    raise ModelError(
        f"{model.identity.name}: the config has neither decoder_start_token_id nor pad_token_id, so the decoder has no "
        f"input; set one of them in config.json"
    )
