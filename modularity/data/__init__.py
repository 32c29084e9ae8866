"""Labelled text to examples, tokens and token batches."""

from modularity.data.batches import example_batch, row_ranges, token_batches
from modularity.data.files import sample_names
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
from modularity.data.language_functions import planted_functions, write_planted_functions
from modularity.data.language_words import LANGUAGES
from modularity.data.languages import Sentence, keeps_rule, sentences
from modularity.data.load import load_functions
from modularity.data.sample_functions import inference_function, sample_functions, series_path
from modularity.data.template import T5_TEMPLATES
from modularity.data.token_batch import Gather, Reduction, TokenBatch, TokenTable
from modularity.data.tokenise import Tokenizer, tokenise

__all__ = [
    "LANGUAGES",
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
    "Sentence",
    "SourceHalves",
    "TokenBatch",
    "TokenTable",
    "Tokenizer",
    "example_batch",
    "inference_function",
    "keeps_rule",
    "load_functions",
    "planted_functions",
    "row_ranges",
    "sample_functions",
    "sample_names",
    "sentences",
    "series_path",
    "token_batches",
    "tokenise",
    "write_planted_functions",
]
