"""Labelled text to examples, tokens and token batches."""

from modularity.data.batches import example_batch, row_ranges, token_batches
from modularity.data.corpora import HalvedTextsConfig, load_halved_texts
from modularity.data.corpus_index import CorpusIndex, StreamConfig, index_corpus
from modularity.data.corpus_stream import (
    StreamCounts,
    TokenEstimate,
    estimate_tokens,
    reading_bytes,
    stream_batches,
    stream_tables,
)
from modularity.data.cut_texts import TEXTS, Control, CutTexts, control_texts, cut_texts
from modularity.data.files import sample_names
from modularity.data.function_part import Columns, Contrast, FunctionPart, SourceHalves, TriplesConfig
from modularity.data.functions import Example, FunctionConfig, FunctionData, FunctionKind, Half, Pooling
from modularity.data.glue import GlueConfig, GlueVariant, declared_function, glue_function
from modularity.data.language_functions import planted_functions, planted_label_words, write_planted_functions
from modularity.data.language_words import LANGUAGES
from modularity.data.languages import Sentence, keeps_rule, sentences
from modularity.data.load import load_functions
from modularity.data.sample_functions import inference_function, sample_functions, series_path
from modularity.data.statements import Statement, Triple, statements_from_triples
from modularity.data.template import T5_TEMPLATES
from modularity.data.text_source import SourceText
from modularity.data.texts import PlainTextsConfig, TextsConfig, load_plain_texts, load_texts
from modularity.data.token_batch import Gather, Reduction, TokenBatch, TokenTable
from modularity.data.tokenise import Tokenizer, tokenise

__all__ = [
    "LANGUAGES",
    "T5_TEMPLATES",
    "TEXTS",
    "Columns",
    "Contrast",
    "Control",
    "CorpusIndex",
    "CutTexts",
    "Example",
    "FunctionConfig",
    "FunctionData",
    "FunctionKind",
    "FunctionPart",
    "Gather",
    "GlueConfig",
    "GlueVariant",
    "Half",
    "HalvedTextsConfig",
    "PlainTextsConfig",
    "Pooling",
    "Reduction",
    "Sentence",
    "SourceHalves",
    "SourceText",
    "Statement",
    "StreamConfig",
    "StreamCounts",
    "TextsConfig",
    "TokenBatch",
    "TokenEstimate",
    "TokenTable",
    "Tokenizer",
    "Triple",
    "TriplesConfig",
    "control_texts",
    "cut_texts",
    "declared_function",
    "estimate_tokens",
    "example_batch",
    "glue_function",
    "index_corpus",
    "inference_function",
    "keeps_rule",
    "load_functions",
    "load_halved_texts",
    "load_plain_texts",
    "load_texts",
    "planted_functions",
    "planted_label_words",
    "reading_bytes",
    "row_ranges",
    "sample_functions",
    "sample_names",
    "sentences",
    "series_path",
    "statements_from_triples",
    "stream_batches",
    "stream_tables",
    "token_batches",
    "tokenise",
    "write_planted_functions",
]
