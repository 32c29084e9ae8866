"""One forward over a token batch, of a base model or of one with an LM head.

Encoder-decoder models get the decoder start token as the only token of the decoder: its first step.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from modularity.data import TokenBatch
from modularity.models import LoadedModel

N_NAMED = 20
"""Examples that a note names."""


@contextmanager
def naming_examples(rows: npt.NDArray[np.int64]) -> Iterator[None]:
    """Add to an error of the model which examples it ran on."""
    try:
        yield
    except Exception as error:
        more = f" and {len(rows) - N_NAMED} more" if len(rows) > N_NAMED else ""
        error.add_note(f"the model ran on the examples {', '.join(map(str, rows[:N_NAMED]))}{more}, counted from 0")
        raise


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
        self._start_token = base.decoder_start_id if len(base.sites.stacks) == 2 else None

    def __call__(self, batch: TokenBatch) -> Any:
        """What the model returns, without gradients."""
        with torch.inference_mode(), naming_examples(batch.row_ids):
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
