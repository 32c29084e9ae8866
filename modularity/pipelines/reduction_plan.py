"""Items, bytes and memory of the reductions of a job, known before it starts."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from modularity.capture.reduction_config import reduction_bytes
from modularity.data import FunctionData, TokenTable, reading_bytes
from modularity.data.corpus_stream import BLOCK_TEXTS
from modularity.pipelines.corpus_reductions import PreparedCorpus, context_items
from modularity.pipelines.reduction_layout import (
    HALVES,
    ReductionSizes,
    example_ranges,
    layer_groups,
    merge_items,
    reduce_items,
)
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.runtime.progress import format_bytes
from modularity.types import SiteShape, WorkItem


@dataclass(frozen=True, eq=False)
class ReductionPlan:
    """What the reductions of a job compute and take; empty where it has none."""

    config: ReductionsConfig
    sizes: Mapping[str, ReductionSizes]
    """By function."""
    reduce_items: tuple[WorkItem, ...]
    merge_items: tuple[WorkItem, ...]
    """`merge`, `label_effects` and `contexts` items."""
    tokens_of_part: Mapping[str, int]
    """Tokens that go through the model, by id of the item."""
    most_examples: int
    """Examples of the largest batch at most: all have at least one token."""
    reading_bytes: int = 0
    """Memory that reading and tokenising a corpus takes in a worker."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that the run keeps, before compression."""
        return sum(sizes.stored_bytes for sizes in self.sizes.values())

    def n_tokens(self, reused: Container[WorkItem] = ()) -> int:
        """Tokens that go through the model, without reused items; counted again for each group of layers."""
        return sum(self.tokens_of_part[item.id] for item in self.reduce_items if item not in reused)

    def held_bytes(self, tokens_per_batch: int, *, on_device: bool) -> int:
        """Memory of a worker at its peak, beside the model's own: state of a group of layers, and temporaries."""
        largest = 0
        for sizes in self.sizes.values():
            shape, n_subfunctions = sizes.shape, sizes.n_subfunctions
            for first, last in layer_groups(shape, sizes.config, n_subfunctions):
                planned = reduction_bytes(
                    sizes.config,
                    shape.widths[first:last],
                    n_subfunctions=len(HALVES) * n_subfunctions,
                    n_tokens=tokens_per_batch,
                    n_examples=min(tokens_per_batch, self.most_examples),
                    on_device=on_device,
                )
                largest = max(largest, planned.state_bytes + planned.working_bytes)
        return largest

    def text(self, held_bytes: int) -> str | None:
        """One line for the plan."""
        if not self.sizes:
            return None
        rows = "beside stored rows" if self.config.store_rows else "instead of stored rows"
        return (
            f"{', '.join(self.config.kinds)} {rows}: {format_bytes(self.stored_bytes)} in "
            f"{len(self.reduce_items):,} parts, {format_bytes(held_bytes)} of memory"
        )


def plan_reductions(
    config: ReductionsConfig,
    shape: SiteShape | None,
    functions: Sequence[FunctionData],
    tables: Mapping[str, TokenTable],
    corpora: Sequence[PreparedCorpus] = (),
) -> ReductionPlan:
    """The reductions of a job over the analysed site."""
    if shape is None or not config.kinds:
        return ReductionPlan(config, {}, (), (), {}, 0)
    sizes: dict[str, ReductionSizes] = {}
    first: list[WorkItem] = []
    last: list[WorkItem] = []
    tokens: dict[str, int] = {}
    for function in functions:
        table, n_subfunctions = tables[function.name], len(function.subfunctions)
        ranges = example_ranges(table, config.parts)
        sizes[function.name] = ReductionSizes(config, shape, n_subfunctions, len(ranges))
        items = reduce_items(function.name, table.fingerprint, ranges, shape, config, n_subfunctions)
        first += items
        last += merge_items(function.name, shape, config)
        for item in items:
            start, stop = table.offsets_E1[[item.integer("start"), item.integer("stop")]].tolist()
            tokens[item.id] = stop - start
    for corpus in corpora:
        own, parts = config.of_corpora(), corpus.index.parts(config.parts)
        sizes[corpus.name] = ReductionSizes(own, shape, 0, len(parts))
        rows = [corpus.index.rows_of(part) for part in parts]
        items = reduce_items(corpus.name, corpus.index.fingerprint, rows, shape, own)
        first += items
        last += [*merge_items(corpus.name, shape, own), *context_items(corpus, own)]
        tokens |= {item.id: corpus.tokens_of(parts[item.integer("part")]) for item in items}
    most = max((table.n_examples for table in tables.values()), default=0)
    reading = max((reading_bytes(corpus.index) for corpus in corpora), default=0)
    return ReductionPlan(
        config, sizes, tuple(first), tuple(last), tokens, max(most, BLOCK_TEXTS if corpora else 0), reading
    )
