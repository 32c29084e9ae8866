"""Labelled text to examples, tokens and token batches."""

from modularity.data.functions import (
    Columns,
    Contrast,
    Example,
    FunctionConfig,
    FunctionData,
    FunctionKind,
    Half,
    Pooling,
    SourceHalves,
)
from modularity.data.template import T5_TEMPLATES
from modularity.data.token_batch import Gather, Reduction, TokenBatch, TokenTable

__all__ = [
    "T5_TEMPLATES",
    "Columns",
    "Contrast",
    "Example",
    "FunctionConfig",
    "FunctionData",
    "FunctionKind",
    "Gather",
    "Half",
    "Pooling",
    "Reduction",
    "SourceHalves",
    "TokenBatch",
    "TokenTable",
]
