"""Corpora in a job: indexed, estimated, cut into parts, counted; and the contexts of their top examples.

A corpus is read range by range in the workers: neither they nor the process that plans hold its texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.data import (
    CorpusIndex,
    StreamCounts,
    TokenBatch,
    TokenEstimate,
    Tokenizer,
    estimate_tokens,
    index_corpus,
    stream_batches,
    stream_tables,
)
from modularity.errors import InputError
from modularity.models import ModelDescription
from modularity.pipelines.neuron_examples import ExampleTexts, neuron_example_rows
from modularity.pipelines.reduction_layout import config_digest, reductions_name
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.runtime.progress import format_bytes
from modularity.stats import TopExamples
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus, as all workers know it."""

    index: CorpusIndex
    estimate: TokenEstimate
    max_tokens: int
    """Tokens at which texts are cut."""

    @property
    def name(self) -> str:
        """Name in results and tables."""
        return self.index.config.name

    def note(self) -> str:
        """What the plan says of it."""
        index, n_files = self.index, len(self.index.files)
        files = "1 file" if n_files == 1 else f"{n_files:,} files"
        size = format_bytes(index.n_bytes)
        return f"corpus {self.name}: {index.n_rows:,} rows in {files} ({size}), {self.estimate.text()}"

    def tokens_of(self, part: tuple[int, int]) -> int:
        """Estimated tokens of ranges [first, last), in proportion to their bytes."""
        n_bytes = sum(each.n_bytes for each in self.index.ranges[slice(*part)])
        return round(self.estimate.n_tokens * n_bytes / max(1, self.index.n_bytes))


def prepare_corpora(
    config: ReductionsConfig, tokenizer: Tokenizer, description: ModelDescription, *, max_tokens: int
) -> tuple[PreparedCorpus, ...]:
    """Index every corpus and estimate its tokens.

    Raises
    ------
    InputError
        With everything that is wrong with any of them, as far as a sample of its rows shows.
    """
    problems: list[str] = []
    found = []
    for each in config.corpora:
        try:
            index = index_corpus(each)
            estimate = estimate_tokens(index, tokenizer, max_tokens=max_tokens)
        except InputError as error:
            problems += error.problems
            continue
        if estimate.largest_id >= description.vocabulary_size:
            problems.append(
                f"corpus {each.name!r} has the token {estimate.largest_id}, but {description.name!r} embeds "
                f"{description.vocabulary_size} tokens; give the tokenizer that the model was trained with"
            )
        found.append(PreparedCorpus(index, estimate, max_tokens))
    if problems:
        raise InputError(problems)
    return tuple(found)


def corpus_batches(
    corpus: PreparedCorpus,
    part: tuple[int, int],
    tokenizer: Tokenizer,
    counts: StreamCounts,
    *,
    tokens_per_batch: int,
    pad_id: int,
) -> Iterator[TokenBatch]:
    """Batches of a part; `counts` is complete after the last."""
    tables = stream_tables(corpus.index, part, tokenizer, counts, max_tokens=corpus.max_tokens)
    return stream_batches(tables, tokens_per_batch=tokens_per_batch, pad_id=pad_id)


def corpus_part_columns(
    corpus: PreparedCorpus, part: int, rows: tuple[int, int], counts: StreamCounts
) -> dict[str, list[Any]]:
    """Columns of the table `corpus_parts` for one part."""
    return {
        "corpus": [corpus.name],
        "part": [part],
        "first_row": [rows[0]],
        "rows": [counts.n_rows],
        "texts": [counts.n_texts],
        "tokens": [counts.n_tokens],
        "truncated": [counts.n_truncated],
        "empty": [counts.n_empty],
        "left_out": [counts.bad.total()],
        "left_out_first": [counts.first_bad],
    }


def context_items(corpus: PreparedCorpus, config: ReductionsConfig) -> list[WorkItem]:
    """One item for each part, where top examples are listed."""
    if "top_examples" not in config.kinds:
        return []
    return [
        WorkItem.of("contexts", function=corpus.name, data=corpus.index.fingerprint, settings=config_digest(config),
                    part=part)
        for part in range(len(corpus.index.parts(config.parts)))
    ]  # fmt: skip


def write_contexts(
    run: Run, item: WorkItem, corpus: PreparedCorpus, tokenizer: Tokenizer | None, config: ReductionsConfig
) -> Mapping[str, Any]:
    """Rows of `neuron_examples` whose examples stand in one part: one pass over it, for all layers together.

    Parameters
    ----------
    tokenizer : None = no text is kept, and nothing is read
    """
    part = corpus.index.parts(config.parts)[item.integer("part")]
    first, last = corpus.index.rows_of(part)
    tops = _top_examples(run, corpus.name, config)
    columns: dict[str, list[Any]] = {}

    def add(texts: ExampleTexts, rows: Sequence[int] | np.ndarray) -> None:
        for layer, top in tops.items():
            for name, values in neuron_example_rows(top, corpus.name, layer, texts, config, among=rows).items():
                columns.setdefault(name, []).extend(values)

    listed = [top.example[:, : config.n_listed].ravel() for top in tops.values()]
    wanted = np.unique(np.concatenate(listed))
    wanted = wanted[(wanted >= first) & (wanted < last)]
    if tokenizer is None:
        add(ExampleTexts({row: corpus.index.id(row) for row in wanted.tolist()}), wanted)
    else:
        tables = stream_tables(corpus.index, part, tokenizer, StreamCounts(), max_tokens=corpus.max_tokens)
        for rows_E, table in tables:
            here = np.intersect1d(rows_E, wanted)
            names = {row: corpus.index.id(row) for row in here.tolist()}
            places = {int(row): place for place, row in enumerate(rows_E)}
            if len(here):
                add(ExampleTexts(names, table, tokenizer, places), here)
    has_rows = any(columns.values())
    tables_written = [run.write_table("neuron_examples", item, table_from_columns(columns))] if has_rows else []
    run.commit(item, tables=tables_written)
    return {}


def _top_examples(run: Run, corpus: str, config: ReductionsConfig) -> dict[int, TopExamples]:
    """Merged top examples of every layer."""
    results = run.results(reductions_name(corpus), partial=True)
    found = {}
    for index, (layer, width) in enumerate(zip(results["layer"].values.tolist(), results["width"].values.tolist())):
        empty = config.empty("top_examples", 0)
        arrays = {name: results[f"top_examples.{name}"][index, :width].values for name in empty.DIMS}
        top = empty.with_arrays(arrays)
        assert isinstance(top, TopExamples)
        found[layer] = top
    return found
