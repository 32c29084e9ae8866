"""Reductions in a job: the state of one part, from the model; then all parts of a layer merged in their order.

The state of a part depends on its examples alone, and parts are merged in the order of their ranges: the result is the
same, bit for bit, for any number of workers and for an interrupted job.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from modularity.capture import CaptureConfig, Reducer
from modularity.capture.reduction_config import ReductionName
from modularity.capture.selection import ReductionKind
from modularity.data import StreamCounts, TokenBatch, TokenTable, token_batches
from modularity.models import LoadedModel, ModelConfig, load_tokenizer
from modularity.pipelines.config import Variant
from modularity.pipelines.corpus_reductions import (
    PreparedCorpus,
    corpus_batches,
    corpus_part_columns,
    write_contexts,
)
from modularity.pipelines.label_effects import write_label_effects
from modularity.pipelines.neuron_examples import ExampleTexts, neuron_example_rows
from modularity.pipelines.reduction_layout import HALVES, NEURONS_PER_BLOCK, parts_name, reductions_name
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.stats import (
    Accumulator,
    CoActivation,
    FiringRate,
    Histogram,
    LabelSums,
    Moments,
    TopExamples,
    merge_in_order,
)
from modularity.store import ArrayWrite, Run, open_run, table_from_columns
from modularity.types import Site, SiteShape, WorkItem


def reduce_part(
    run: Run,
    item: WorkItem,
    model: LoadedModel,
    tokens: "PartTokens",
    config: ReductionsConfig,
    capture: CaptureConfig,
) -> dict[str, Any]:
    """Run the model over a range of examples and record the state of some layers."""
    site = Site.parse(item.text("site"), model.sites.stacks[0])
    shape = model.sites.shape(site, capture.layers)
    indices = range(item.integer("first_layer"), item.integer("last_layer"))
    layers = [shape.layers[index] for index in indices]
    reducer = Reducer(
        model,
        [site],
        config,
        layers=layers,
        n_subfunctions=0 if tokens.labels_XE is None else len(tokens.labels_XE),
        expert_variant=capture.expert_variant,
    )
    batches = iter(tokens.batches)
    first = next(batches, None)
    if first is None:
        info: dict[str, Any] = {"tokens": 0, "seconds_forward": 0.0, "seconds_reducing": 0.0}
        states = {layer: _nothing(config, shape.widths[index]) for index, layer in zip(indices, layers)}
    else:
        reduced = reducer.reduce(
            chain([first], batches),
            reduction=tokens.reduction,
            labels_SE=tokens.labels_XE,
            row_example_R=tokens.row_example_R,
        )
        states = {layer: reduced.of(site, layer) for layer in layers}
        stats = reduced.stats
        info = {
            "tokens": stats.n_tokens,
            "seconds_forward": stats.seconds_forward,
            "seconds_reducing": stats.seconds_reducing,
        }
    writes: list[ArrayWrite] = []
    for index, layer in zip(indices, layers):
        for kind, accumulator in states[layer].items():
            writes += run.write_result(
                parts_name(item.text("function")),
                _state_block(kind, accumulator, shape),
                at={"part": item.integer("part"), "layer": index},
            )
    written = [run.write_table(name, item, table_from_columns(columns)) for name, columns in tokens.tables().items()]
    run.commit(item, arrays=writes, tables=written, info=info)
    return info | {"bytes": sum(stored.n_bytes for write in writes for stored in write.objects)}


@dataclass(frozen=True)
class PartTokens:
    """The tokens of a work item, and what belongs to them."""

    batches: Iterable[TokenBatch]
    reduction: ReductionKind | None
    """How positions become one row of an example."""
    row_example_R: np.ndarray | None = None
    """Example of each row; None = rows are numbers of examples."""
    labels_XE: np.ndarray | None = None
    """Label vectors of `per_label`; None = it is not asked for."""
    tables: Callable[[], Mapping[str, dict[str, list[Any]]]] = dict
    """Columns of further tables, known after the last batch."""


def function_part(
    item: WorkItem,
    table: TokenTable,
    labels_XE: np.ndarray,
    config: ReductionsConfig,
    *,
    tokens_per_batch: int,
    pad_id: int,
) -> PartTokens:
    """A range of examples of a function."""
    rows = np.searchsorted(table.row_example_R, [item.integer("start"), item.integer("stop")]).tolist()
    batches = token_batches(table, *rows, tokens_per_batch=tokens_per_batch, pad_id=pad_id)
    labels = labels_XE if "per_label" in config.kinds else None
    return PartTokens(batches, table.reduction, table.row_example_R, labels)


def corpus_part(
    item: WorkItem,
    corpus: PreparedCorpus,
    tokenizer: Any,
    config: ReductionsConfig,
    *,
    tokens_per_batch: int,
    pad_id: int,
) -> PartTokens:
    """Some ranges of a corpus, read while they are reduced; their counts are told once, with the first layers."""
    part, counts = corpus.index.parts(config.parts)[item.integer("part")], StreamCounts()
    batches = corpus_batches(corpus, part, tokenizer, counts, tokens_per_batch=tokens_per_batch, pad_id=pad_id)
    rows = item.integer("start"), item.integer("stop")

    def tables() -> dict[str, dict[str, list[Any]]]:
        if item.integer("first_layer"):
            return {}
        return {"corpus_parts": corpus_part_columns(corpus, item.integer("part"), rows, counts)}

    return PartTokens(batches, "mean", tables=tables)


def _nothing(config: ReductionsConfig, width: int) -> dict[ReductionName, Accumulator]:
    """State after no token at all, as of a part of a corpus whose rows are all empty."""
    return {name: config.empty(name, width) for name in config.kinds}


def _state_block(kind: ReductionName, accumulator: Accumulator, shape: SiteShape) -> dict[str, np.ndarray]:
    """State of one layer as a block of `parts_name`: two axes in front, filled up to the widest layer."""
    lengths = dict.fromkeys(("neuron", "other"), max(shape.widths))
    return {
        f"{kind}.{name}": _widened(array, accumulator.DIMS[name], lengths)[None, None]
        for name, array in accumulator.arrays().items()
    }


def _widened(array: np.ndarray, dims: Sequence[str], lengths: Mapping[str, int]) -> np.ndarray:
    """`array` with its named axes filled up: NaN for floats, -1 for integers."""
    shape = tuple(lengths.get(dim, size) for dim, size in zip(dims, array.shape))
    if shape == array.shape:
        return array
    wide = np.full(shape, np.nan if array.dtype.kind == "f" else -1, array.dtype)
    wide[tuple(slice(size) for size in array.shape)] = array
    return wide


@dataclass(frozen=True)
class ReductionWorkerFactory:
    """Builds a `ReductionWorker` in the process that runs it; also holds what its steps need to know."""

    uri: str
    model: ModelConfig
    """Of which only the tokenizer is loaded, for the contexts."""
    config: ReductionsConfig
    variant: Variant
    store_text: bool
    reads_text: bool
    """Positions of the analysed site are positions of the text."""
    n_threads: int
    data_digest: str
    """Stands for the fields below when two factories are compared."""
    tables: Mapping[str, TokenTable] = field(compare=False, repr=False)
    example_ids: Mapping[str, Sequence[str]] = field(compare=False, repr=False)
    corpora: Mapping[str, PreparedCorpus] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self) -> "ReductionWorker":
        """Open the run."""
        return ReductionWorker(self)


class ReductionWorker:
    """Runs `merge`, `label_effects` and `contexts` items; needs no model."""

    def __init__(self, spec: ReductionWorkerFactory) -> None:
        self._spec = spec
        self._run = open_run(spec.uri)
        self._texts: dict[str, ExampleTexts] = {}
        self._tokenizer: Any = None

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        with threadpool_limits(self._spec.n_threads):
            if item.kind == "label_effects":
                return write_label_effects(self._run, item, self._spec.config, variant=self._spec.variant)
            if item.kind == "contexts":
                corpus, config = self._spec.corpora[item.text("function")], self._spec.config.of_corpora()
                return write_contexts(self._run, item, corpus, self._text_tokenizer(), config)
            return self._merge(item)

    def _merge(self, item: WorkItem) -> Mapping[str, Any]:
        run, function, layer = self._run, item.text("function"), item.integer("layer")
        is_corpus = function in self._spec.corpora
        config = self._spec.config.of_corpora() if is_corpus else self._spec.config
        parts = _Parts.read(run, function, layer, config)
        writes: list[ArrayWrite] = []
        tables = []
        for kind in config.kinds:
            for first, merged in parts.merged(kind):
                block = {
                    name: _widened(array, dims, parts.lengths(kind, first))[None]
                    for name, (dims, array) in _published(kind, merged).items()
                    if first == 0 or "neuron" in dims
                }
                at = {"layer": parts.index} | ({"neuron": first} if first else {})
                writes += run.write_result(reductions_name(function), block, at=at)
                if isinstance(merged, TopExamples) and not is_corpus:
                    columns = neuron_example_rows(merged, function, layer, self._example_texts(function), config)
                    tables.append(run.write_table("neuron_examples", item, table_from_columns(columns)))
        run.commit(item, arrays=writes, tables=tables)
        return {}

    def _example_texts(self, function: str) -> ExampleTexts:
        spec = self._spec
        if function not in self._texts:
            tokenizer = self._text_tokenizer()
            self._texts[function] = ExampleTexts(spec.example_ids[function], spec.tables[function], tokenizer)
        return self._texts[function]

    def _text_tokenizer(self) -> Any:
        """The tokenizer, where texts are kept and positions are those of the text; else None."""
        spec = self._spec
        if self._tokenizer is None and spec.store_text and spec.reads_text:
            self._tokenizer = load_tokenizer(spec.model)
        return self._tokenizer


@dataclass(frozen=True, eq=False)
class _Parts:
    """The state of all parts of one layer, read when it is merged."""

    dataset: Any
    index: int
    width: int
    config: ReductionsConfig

    @classmethod
    def read(cls, run: Run, function: str, layer: int, config: ReductionsConfig) -> "_Parts":
        dataset = run.results(parts_name(function))
        index = dataset["layer"].values.tolist().index(layer)
        return cls(dataset, index, int(dataset["width"].values[index]), config)

    def merged(self, kind: ReductionName) -> Iterator[tuple[int, Accumulator]]:
        """First neuron and merged state: whole, or block by block where a layer's state is large."""
        step = NEURONS_PER_BLOCK if kind == "co_activation" else self.dataset.sizes["neuron"]
        for first in range(0, self.dataset.sizes["neuron"], step):
            neurons = slice(first, max(first, min(first + step, self.width)))
            yield first, merge_in_order(self._part(kind, part, neurons) for part in range(self.dataset.sizes["part"]))

    def lengths(self, kind: ReductionName, first: int) -> dict[str, int]:
        """Lengths of the axes of neurons of the block that begins at `first`, up to the widest layer."""
        width: int = self.dataset.sizes["neuron"]
        block = min(NEURONS_PER_BLOCK, width - first) if kind == "co_activation" else width
        return {"neuron": block, "other_neuron": width}

    def _part(self, kind: ReductionName, part: int, neurons: slice) -> Accumulator:
        empty = self.config.empty(kind, 0)
        cuts = {"neuron": neurons, "other": slice(self.width)}
        arrays = {}
        for name, dims in empty.DIMS.items():
            box = tuple(cuts.get(dim, slice(None)) for dim in dims)
            arrays[name] = self.dataset[f"{kind}.{name}"][part, self.index][box].values
        return empty.with_arrays(arrays)


def _published(kind: ReductionName, merged: Accumulator) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Dimensions and values of the arrays of `reductions_name` that one kind gives."""
    if isinstance(merged, Moments):
        moments = merged.result()
        each = ("count", "mean", "variance", "min", "max")
        return {f"moments.{name}": (("neuron",), getattr(moments, f"{name}_F")) for name in each}
    if isinstance(merged, FiringRate):
        rate = merged.result()
        return {"firing_rate": (("neuron",), rate.rate_F), "firing_rate.count": (("neuron",), rate.count_F)}
    if isinstance(merged, Histogram):
        return {
            "histogram": (("neuron", "bin"), merged.counts),
            "histogram.min": (("neuron",), _seen(merged.low)),
            "histogram.max": (("neuron",), _seen(merged.high)),
        }
    if isinstance(merged, TopExamples):
        return {f"top_examples.{name}": (("neuron", "rank"), array) for name, array in merged.arrays().items()}
    if isinstance(merged, LabelSums):
        effects = merged.result()
        halves = {"count": effects.count_S2, "mean": effects.mean_S2F, "variance": effects.variance_S2F}
        dims = ("half", "subfunction", "label", "neuron")
        return {
            f"per_label.{name}": (dims[: array.ndim + 1], array.reshape(len(HALVES), -1, *array.shape[1:]))
            for name, array in halves.items()
        }
    assert isinstance(merged, CoActivation), kind
    return {"co_activation": (("neuron", "other_neuron"), merged.sums), "co_activation.count": (("one",), merged.count)}


def _seen(extremes: np.ndarray) -> np.ndarray:
    """Extremes of neurons without tokens as NaN."""
    return np.where(np.isinf(extremes), np.nan, extremes)
