"""Items, bytes and memory of the reductions of a job, known before it starts."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from modularity.capture.reduction_config import reduction_bytes
from modularity.data import FunctionData, TokenTable
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
    """`merge` and `label_effects` items."""
    tokens_of_part: Mapping[str, int]
    """Tokens that go through the model, by id of the item."""
    most_examples: int
    """Examples of the largest batch at most: all have at least one token."""

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
            for first, last in layer_groups(shape, self.config, n_subfunctions):
                planned = reduction_bytes(
                    self.config,
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
) -> ReductionPlan:
    """The reductions of a job over the analysed site."""
    if shape is None or not config.kinds:
        return ReductionPlan(config, {}, (), (), {}, 0)
    sizes, first, last, tokens = {}, [], [], {}
    for function in functions:
        table = tables[function.name]
        n_parts = len(example_ranges(table, config.parts))
        sizes[function.name] = ReductionSizes(config, shape, len(function.subfunctions), n_parts)
        items = reduce_items(function, table, shape, config)
        first += items
        last += merge_items(function, shape, config)
        for item in items:
            start, stop = table.offsets_E1[[item.integer("start"), item.integer("stop")]].tolist()
            tokens[item.id] = stop - start
    most = max(table.n_examples for table in tables.values())
    return ReductionPlan(config, sizes, tuple(first), tuple(last), tokens, most)
