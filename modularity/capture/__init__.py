"""Live model to activation rows (pooled or picked on the device, checked, written without piling up) or statistics.

Names are imported when first used: a config is validated at once, while torch takes seconds to load.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modularity.capture.budget import MemoryPlan, plan_memory, rows_per_item
    from modularity.capture.buffers import BufferPool, ItemBuffer, row_bytes
    from modularity.capture.capturer import Capturer, CaptureStats
    from modularity.capture.config import CaptureConfig
    from modularity.capture.failing_example import failing_row
    from modularity.capture.halved_batches import in_halved_batches, is_out_of_memory
    from modularity.capture.reduction_config import ReductionBytes, ReductionConfig, reduction_bytes
    from modularity.capture.reductions import Reduced, Reducer, ReductionStats
    from modularity.capture.shards import CapturedShard, capture_shards, overhang
    from modularity.capture.writer import BackgroundWriter

__all__ = [
    "BackgroundWriter",
    "BufferPool",
    "CaptureConfig",
    "CaptureStats",
    "CapturedShard",
    "Capturer",
    "ItemBuffer",
    "MemoryPlan",
    "Reduced",
    "Reducer",
    "ReductionBytes",
    "ReductionConfig",
    "ReductionStats",
    "capture_shards",
    "failing_row",
    "in_halved_batches",
    "is_out_of_memory",
    "overhang",
    "plan_memory",
    "reduction_bytes",
    "row_bytes",
    "rows_per_item",
]

_MODULES = {
    "budget": ("MemoryPlan", "plan_memory", "rows_per_item"),
    "buffers": ("BufferPool", "ItemBuffer", "row_bytes"),
    "capturer": ("Capturer", "CaptureStats"),
    "config": ("CaptureConfig",),
    "failing_example": ("failing_row",),
    "halved_batches": ("in_halved_batches", "is_out_of_memory"),
    "reduction_config": ("ReductionBytes", "ReductionConfig", "reduction_bytes"),
    "reductions": ("Reduced", "Reducer", "ReductionStats"),
    "shards": ("CapturedShard", "capture_shards", "overhang"),
    "writer": ("BackgroundWriter",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Public name `name`, from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
