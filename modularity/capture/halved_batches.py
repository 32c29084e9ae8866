"""Smaller batches where memory does not suffice: halved until they fit, or until one example alone is too much.

Values do not depend on batches beyond the order of floating-point sums, so a part computed in smaller batches equals
one computed in the usual ones to rounding.
"""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from modularity.errors import AllowanceError

Result = TypeVar("Result")
_HOST_ALLOCATION_FAILED = "DefaultCPUAllocator"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and _HOST_ALLOCATION_FAILED in str(error)
    )


def in_halved_batches(
    compute: Callable[[int], Result], *, tokens_per_batch: int, longest_tokens: int, halvings: int = 0
) -> tuple[Result, int]:
    """Call `compute(tokens)`, with half the tokens each time that memory did not suffice.

    Parameters
    ----------
    compute : computes everything with batches of at most so many tokens; may be called several times
    tokens_per_batch : batch to begin with
    longest_tokens : tokens of the longest example, which no batch can be smaller than
    halvings : halvings of `tokens_per_batch` before the first call

    Returns
    -------
    result, tokens : what `compute` returned, and the batch that fitted

    Raises
    ------
    AllowanceError
        Batches of one example do not fit.
    """
    tokens = max(1, tokens_per_batch >> halvings)
    while True:
        try:
            return compute(tokens), tokens
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            message = str(error).partition("\n")[0]
        # Only now do the tensors of the failed call have no owner: its frames hang on the error.
        gc.collect()
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        if tokens <= longest_tokens:
            raise AllowanceError(
                f"memory does not suffice for one example of {longest_tokens} tokens: {message}; lower the tokens "
                "of an example (capture.max_tokens), or use a larger GPU, a smaller model.dtype or model.device_map"
            )
        tokens = max(1, tokens // 2)
