"""Batches are halved where memory does not suffice, and one example that is too large is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from modularity.capture import in_halved_batches, is_out_of_memory
from modularity.errors import AllowanceError


def allocate_too_much() -> None:
    torch.empty(2**55, dtype=torch.uint8)


def allocate_too_much_in_numpy() -> None:
    np.empty(2**55, np.uint8)


@pytest.mark.parametrize("allocate", [allocate_too_much, allocate_too_much_in_numpy])
def test_failed_allocations_of_the_host_are_recognised(allocate: Callable[[], None]) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert is_out_of_memory(caught.value)


def test_other_errors_are_not_a_lack_of_memory() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("device-side assert"))
    with pytest.raises(RuntimeError, match="device-side"):
        in_halved_batches(lambda tokens: fail("device-side assert"), tokens_per_batch=8, longest_tokens=1)


def fail(message: str) -> None:
    raise RuntimeError(message)


@pytest.mark.parametrize(("halvings", "tried"), [(0, [4096, 2048, 1024]), (1, [2048, 1024]), (5, [128])])
def test_batches_are_halved_until_they_fit(halvings: int, tried: list[int]) -> None:
    seen: list[int] = []

    def compute(tokens: int) -> str:
        seen.append(tokens)
        if tokens > 1500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    found = in_halved_batches(compute, tokens_per_batch=4096, longest_tokens=70, halvings=halvings)
    assert (found, seen) == (("done", tried[-1]), tried)


def test_one_example_that_does_not_fit_is_refused() -> None:
    def compute(tokens: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    with pytest.raises(
        AllowanceError, match=r"one example of 300 tokens: CUDA out of memory. Tried to allocate 2 GiB;"
    ):
        in_halved_batches(compute, tokens_per_batch=1024, longest_tokens=300)
