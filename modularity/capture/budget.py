"""Rows of a work item from a byte target, and the memory that a capture worker will need: arithmetic on shapes only.

The same shapes give the same cut on every machine. Memory is an estimate from the largest tensors that are alive at one
time; `tests/capture/test_budget.py` compares it with the measured peak.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from modularity.capture.buffers import row_bytes
from modularity.models import ModelDescription
from modularity.types import Site, SiteShape, StorageDtype

ROW_UNIT = 128
"""Rows of an item are a multiple of this, the inner chunk of the store."""

_STREAM_TENSORS = 12
"""Tensors of the residual width alive in a block: stream, norm, queries, keys, values, their transposes, output."""
_WIDE_TENSORS = 2
"""Tensors of the FFN width alive at once: before and after the activation function."""
_RING_SLOTS = 4
"""Slots of the ring that carry rows; the others carry two numbers each."""
_SCRATCH_BYTES = 48 * 2**20
"""Thread stacks, packed weights of matrix products, allocator slack: seen on CPUs whatever the model."""
_ITEM_SIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def rows_per_item(shapes: Mapping[Site, SiteShape], *, storage_dtype: StorageDtype, item_bytes: int) -> int:
    """Largest multiple of 128 rows whose values fit `item_bytes`, but at least 128.

    Parameters
    ----------
    shapes : what is captured
    storage_dtype : dtype of the stored values
    item_bytes : target for one work item over all sites and layers
    """
    return max(1, item_bytes // row_bytes(shapes, storage_dtype) // ROW_UNIT) * ROW_UNIT


@dataclass(frozen=True)
class MemoryPlan:
    """Predicted peak memory of one capture worker, above the interpreter with its libraries."""

    parameter_bytes: int
    """The weights."""
    working_bytes: int
    """Largest activations alive during one forward."""
    buffer_bytes: int
    """Item buffers on the host, and on CUDA the ring of pinned buffers."""
    on_device: bool
    """Weights and activations are in the memory of an accelerator, buffers on the host; else all is on the host."""

    @property
    def host_bytes(self) -> int:
        """Host memory of the worker."""
        return self.buffer_bytes if self.on_device else self.parameter_bytes + self.working_bytes + self.buffer_bytes

    @property
    def device_bytes(self) -> int:
        """Accelerator memory of the worker; 0 on a CPU."""
        return self.parameter_bytes + self.working_bytes if self.on_device else 0


def plan_memory(
    model: ModelDescription,
    shapes: Mapping[Site, SiteShape],
    *,
    storage_dtype: StorageDtype,
    n_rows_per_item: int,
    tokens_per_batch: int,
    longest_tokens: int,
    n_buffers: int = 2,
    on_device: bool = False,
) -> MemoryPlan:
    """Peak memory of a worker that captures `shapes`, good to a factor of two.

    Parameters
    ----------
    model : description of the checkpoint
    shapes : what is captured
    storage_dtype : dtype of the stored values
    n_rows_per_item : rows of one item buffer
    tokens_per_batch : tokens of one forward, padding included
    longest_tokens : longest example; longer than `tokens_per_batch` it is a batch of its own
    n_buffers : item buffers alive: those pending in the background writer and the one being filled
    on_device : the model is on an accelerator
    """
    n_tokens = max(tokens_per_batch, longest_tokens)
    widest = max(
        model.ffn_active_width if site.name == "ffn.neurons" else max(shape.widths)
        for site, shape in model.shapes.items()
    )
    per_token = _WIDE_TENSORS * widest + _STREAM_TENSORS * model.residual_width
    working = n_tokens * per_token * _ITEM_SIZE.get(model.dtype, 4) + _SCRATCH_BYTES
    # Attention scores exist in full only with eager attention; a mask of padded batches always does.
    working += n_tokens * longest_tokens * 4
    buffers = n_buffers * n_rows_per_item * row_bytes(shapes, storage_dtype)
    if on_device:
        widest_captured = max(prod(shape.unit_shape) for shape in shapes.values())
        buffers += _RING_SLOTS * n_tokens * widest_captured * _ITEM_SIZE[storage_dtype]
    return MemoryPlan(model.parameter_bytes, working, buffers, on_device)
