"""From the config of a similarity study to what its workers need: texts, controls, shapes, work items and plan.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import factorial, prod
from typing import TypeVar

import numpy as np

from modularity.capture import CaptureConfig, MemoryPlan, plan_memory, rows_per_item
from modularity.data import TEXTS, CutTexts, TokenTable, control_texts, cut_texts, load_texts, row_ranges
from modularity.errors import InputError, ModelError
from modularity.geometry.gram import MEASURES
from modularity.geometry.labellings import n_labellings
from modularity.models import ModelDescription, describe_model, load_tokenizer, uses_gpu
from modularity.pipelines.config import ExpertsConfig
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.runtime.memory import resident_bytes
from modularity.types import Site, SiteShape, WorkItem

_ITEM_SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
LABELLING_SECONDS = 4e-7
"""Of one labelling and one similarity matrix, 15 texts, two cores; it grows with the pairs of texts."""
REMEDIES = Remedies(
    store="choose fewer sites, texts.positions or controls",
    memory="lower tokens_per_batch, or choose fewer sites or texts.positions",
    time="lower scores.n_draws or scores.max_labellings, or choose fewer sites or controls",
)

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class PreparedSimilarity:
    """Everything known before the first work item runs."""

    config: SimilarityConfig
    data: Mapping[str, CutTexts]
    """The texts under the name `texts`, and the controls."""
    description: ModelDescription
    shapes: Mapping[Site, SiteShape]
    """What is captured: the compared sites, and the neurons where experts are wanted."""
    rows_per_shard: int
    partitioned: SiteShape | None
    """Neurons over the layers whose experts are compared."""
    experts: ExpertsConfig
    """How they are partitioned; of no use without `partitioned`."""

    @property
    def texts(self) -> CutTexts:
        """The texts themselves."""
        return self.data[TEXTS]

    @property
    def tables(self) -> dict[str, TokenTable]:
        """Tokens of each data set, by name."""
        return {name: each.table for name, each in self.data.items()}

    @property
    def compared(self) -> tuple[SiteShape, ...]:
        """Shapes of the sites whose vectors are compared."""
        return tuple(shape for site, shape in self.shapes.items() if site.name in self.config.sites)

    @property
    def vectors(self) -> tuple[SiteShape, ...]:
        """Of these, the sites with one vector for a layer: all but single heads."""
        return tuple(shape for shape in self.compared if len(shape.unit_shape) == 1)

    @property
    def capture(self) -> CaptureConfig:
        """How rows are captured."""
        return CaptureConfig(
            sites=tuple(str(site) for site in self.shapes),
            dtype=self.config.dtype,
            tokens_per_batch=self.config.tokens_per_batch,
        )

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model and config."""
        return {name: f"{each.function.fingerprint}-{each.table.fingerprint}" for name, each in self.data.items()}

    def capture_items(self) -> list[WorkItem]:
        """Rows of the texts and of each control, whole shards."""
        return [
            WorkItem.of("capture", function=name, data=each.table.fingerprint, start=start, stop=stop)
            for name, each in self.data.items()
            for start, stop in row_ranges(each.table.n_rows, self.rows_per_shard)
        ]

    def partition_items(self) -> list[WorkItem]:
        """One item for each layer with experts."""
        shape = self.partitioned
        if shape is None:
            return []
        return [WorkItem.of("partition", site=str(shape.site), layer=layer) for layer in shape.layers]

    def gram_items(self) -> list[WorkItem]:
        """One item for each data set, site and layer."""
        return [
            WorkItem.of("gram", data=name, site=str(shape.site), layer=layer)
            for name in self.data
            for shape in self.compared
            for layer in shape.layers
        ]

    def test_items(self) -> list[WorkItem]:
        """What is computed from rows and Gram matrices: by data set and site, by data set and kind of component."""
        items = [
            WorkItem.of("scores", data=name, site=str(shape.site)) for name in self.data for shape in self.compared
        ]
        for shape in self.vectors:
            items += [WorkItem.of("dimensions", data=name, site=str(shape.site)) for name in self.data]
            items.append(WorkItem.of("projection", site=str(shape.site)))
            if shape.site.name == "residual":
                items.append(WorkItem.of("streams", site=str(shape.site)))
        items += [WorkItem.of("activity", data=name, kind=kind) for name in self.data for kind in self.kinds()]
        if sum(len(shape.layers) for shape in self.vectors) > 1:
            items += [WorkItem.of("alignment", data=name) for name in self.data]
        return items

    def kinds(self) -> tuple[str, ...]:
        """Kinds of components whose activity is compared."""
        of_sites = {"attention.heads": "head", "attention.output": "attention", "ffn.output": "ffn"}
        kinds = [of_sites[shape.site.name] for shape in self.compared if shape.site.name in of_sites]
        return (*kinds, *(("expert",) if self.partitioned is not None else ()))

    def items(self) -> list[WorkItem]:
        """All items, in the order of the steps."""
        return [*self.capture_items(), *self.partition_items(), *self.gram_items(), *self.test_items()]


def prepare_similarity(config: SimilarityConfig) -> PreparedSimilarity:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in texts and model.
    """
    problems: list[str] = []
    texts = _attempt(lambda: load_texts(config.texts), problems)
    description = _attempt(lambda: describe_model(config.model), problems)
    tokenizer = _attempt(lambda: load_tokenizer(config.model), problems) if description is not None else None
    most = None if description is None else description.max_positions
    if most is not None and config.texts.length > most:
        problems.append(
            f"texts.length={config.texts.length}: {config.model.name!r} reads at most {most} tokens; lower "
            "texts.length and texts.positions"
        )
    partitioned, experts = None, ExpertsConfig(methods=("balanced",))
    if description is not None and config.experts is not None:
        found = _attempt(lambda: _partition(config, description), problems)
        if found is not None:
            partitioned, experts = found
    data: dict[str, CutTexts] = {}
    if texts is not None and tokenizer is not None and description is not None:
        cut = _attempt(lambda: cut_texts(texts, tokenizer, config.texts), problems)
        if cut is not None:
            data[TEXTS] = cut
            for control in config.controls:
                data[control] = control_texts(
                    cut, control, tokenizer, n_ids=description.vocabulary_size, seed=config.scores.seed
                )
            problems += _size_problems(config, cut)
    if problems or description is None or not data:
        raise InputError(problems)
    shapes = _shapes(config, description)
    rows = rows_per_item(shapes, storage_dtype=config.dtype, item_bytes=CaptureConfig().item_bytes)
    return PreparedSimilarity(config, data, description, shapes, rows, partitioned, experts)


def _shapes(config: SimilarityConfig, description: ModelDescription) -> dict[Site, SiteShape]:
    stack = description.stacks[0]
    names = [*config.sites, *(["ffn.neurons"] if config.experts is not None else [])]
    return {Site(stack, name): description.shapes[Site(stack, name)] for name in names}  # type: ignore[arg-type]


def _partition(config: SimilarityConfig, description: ModelDescription) -> tuple[SiteShape, ExpertsConfig]:
    """Layers whose experts are compared, and how their neurons are partitioned."""
    assert config.experts is not None
    stack = description.stacks[0]
    shape, native = description.shapes[Site(stack, "ffn.neurons")], description.native_experts[stack]
    if config.experts.method == "native" and not native:
        raise InputError(
            f"experts.method='native', but {config.model.name!r} ({description.architecture}) has no experts of its "
            "own in the " + stack + "; use 'balanced'"
        )
    if native and config.experts.method != "balanced":
        layers = tuple(sorted(native))
        widths = tuple(shape.widths[shape.layers.index(layer)] for layer in layers)
        n_experts = max(native.values())
        sparse = SiteShape(shape.site, layers, widths, shape.unit_dims, (max(widths),))
        return sparse, ExpertsConfig(n_experts=n_experts, methods=("native",), seed=config.experts.seed)
    n_experts = config.experts.n_experts
    uneven = sorted({width for width in shape.widths if width % n_experts})
    if uneven:
        raise InputError(
            f"experts.n_experts={n_experts} does not divide the {', '.join(map(str, uneven))} neurons of a layer; "
            "choose a divisor, or set experts=null"
        )
    return shape, ExpertsConfig(n_experts=n_experts, methods=("balanced",), seed=config.experts.seed)


def _size_problems(config: SimilarityConfig, texts: CutTexts) -> list[str]:
    n_rows, problems = texts.table.n_rows, []
    if config.scores.n_removed >= n_rows:
        problems.append(f"scores.n_removed={config.scores.n_removed}: there are {n_rows} rows; remove fewer components")
    if config.projection.n_neighbours >= n_rows:
        problems.append(
            f"projection.n_neighbours={config.projection.n_neighbours}: there are {n_rows} rows; take fewer"
        )
    if n_rows < 4:
        problems.append(f"{n_rows} rows: CKA needs 4 or more; give more texts or positions")
    return problems


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None


def n_enumerated(prepared: PreparedSimilarity) -> tuple[int, int, bool]:
    """Labellings that the category score is computed for, those that exist, and whether all are covered."""
    sizes = tuple(int(n) for n in np.bincount(prepared.texts.category_E))
    number = n_labellings(sizes)
    distinct = number // factorial(sum(size == min(sizes) for size in sizes))
    exact = distinct <= prepared.config.scores.max_labellings
    return (distinct if exact else prepared.config.scores.n_draws), number, exact


def make_plan(prepared: PreparedSimilarity) -> Plan:
    """Size of a prepared job."""
    config, model = prepared.config, prepared.description
    tables = [each.table for each in prepared.data.values()]
    n_rows, on_gpu = tables[0].n_rows, uses_gpu(config.model)
    memory = {place: _memory(prepared, on_gpu=place) for place in (True, False)}
    libraries = resident_bytes()
    row_values = sum(len(shape.layers) * prod(shape.unit_shape) for shape in prepared.shapes.values())
    matrices = sum(len(s.layers) * (s.unit_shape[0] if len(s.unit_shape) > 1 else 1) for s in prepared.compared)
    largest = max(len(s.layers) * prod(s.unit_shape) // max(s.unit_shape[-1], 1) for s in prepared.compared)
    gram = n_rows * n_rows * 8
    n_null, n_all, exact = n_enumerated(prepared)
    alignment = 3 * sum(len(shape.layers) for shape in prepared.vectors) * gram
    widest = max(8 * n_rows * prod(shape.unit_shape) for shape in prepared.shapes.values())
    analysis = max(alignment, 3 * widest, 2 * gram + largest * len(MEASURES) * 8 * len(prepared.texts.category_E) ** 2)
    analysis += 64 * 2 * n_null * 8
    multiplied = model.n_parameters - model.n_embedding_parameters - model.n_idle_parameters
    n_tokens = sum(table.n_tokens for table in tables)
    n_pairs = len(prepared.texts.category_E) ** 2 / 225
    scoring = len(tables) * matrices * len(MEASURES) * n_null * LABELLING_SECONDS * n_pairs
    items = prepared.items()
    kind = "all" if exact else f"{n_null:,} random ones of"
    n_texts, smallest = len(prepared.texts.category_E), 1 / (n_null if exact else n_null + 1)
    notes = [f"p of category scores from {kind} {n_all:,} labellings of {n_texts} texts, none below {smallest:.2g}"]
    store_bytes = len(tables) * (n_rows * row_values * _ITEM_SIZE[config.dtype] + matrices * gram)
    work = Work(2 * multiplied * n_tokens, scoring, 0.5 * probe_flops())
    loads = study_loads(
        config.model,
        config.runtime,
        work,
        n_parallel=len(prepared.capture_items()),
        dtype=model.dtype,
        weight_bytes=memory[True].parameter_bytes,
        device_bytes=memory[True].device_bytes,
        beside_gpu_bytes=max(memory[True].host_bytes, analysis),
        host_bytes=max(memory[False].host_bytes, analysis),
        store_bytes=store_bytes,
        library_bytes=libraries,
    )
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items={k: sum(item.kind == k for item in items) for k in dict.fromkeys(item.kind for item in items)},
        n_examples=sum(table.n_examples for table in tables),
        n_rows=sum(table.n_rows for table in tables),
        n_tokens=n_tokens,
        n_truncated=sum(table.n_truncated for table in tables),
        store_bytes=store_bytes,
        worker_bytes=here.worker_bytes,
        seconds=None if on_gpu else work.seconds,
        device_bytes=here.device_bytes,
        model_bytes=0 if on_gpu else memory[False].parameter_bytes,
        library_bytes=libraries,
        notes=(*notes, *prepared.texts.notes),
        loads=loads,
        remedies=REMEDIES,
    )


def _memory(prepared: PreparedSimilarity, *, on_gpu: bool) -> MemoryPlan:
    """Memory of a worker that captures rows."""
    config, n_rows = prepared.config, prepared.texts.table.n_rows
    return plan_memory(
        prepared.description,
        prepared.shapes,
        storage_dtype=config.dtype,
        n_rows_per_item=min(prepared.rows_per_shard, n_rows) + len(config.texts.position_list()),
        tokens_per_batch=config.tokens_per_batch,
        longest_tokens=config.texts.length,
        n_buffers=2,
        on_device=on_gpu,
    )
