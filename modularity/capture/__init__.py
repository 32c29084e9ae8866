"""Live model to activation rows: pooled or picked on the device, checked, written without piling up."""

from modularity.capture.budget import MemoryPlan, plan_memory, rows_per_item
from modularity.capture.buffers import BufferPool, ItemBuffer, row_bytes
from modularity.capture.capturer import Capturer, CaptureStats
from modularity.capture.config import CaptureConfig
from modularity.capture.storage_dtype import bfloat16_from_bits, bfloat16_to_bits, numpy_dtype
from modularity.capture.writer import BackgroundWriter

__all__ = [
    "BackgroundWriter",
    "BufferPool",
    "CaptureConfig",
    "CaptureStats",
    "Capturer",
    "ItemBuffer",
    "MemoryPlan",
    "bfloat16_from_bits",
    "bfloat16_to_bits",
    "numpy_dtype",
    "plan_memory",
    "row_bytes",
    "rows_per_item",
]
