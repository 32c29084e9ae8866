"""From a config to a prepared job: functions read, texts tokenised, shapes known, work items and plan made.

Nothing is computed and nothing is written here; whatever is wrong with the input is found here, all of it at once.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, get_args

import numpy as np

from modularity.capture import CaptureConfig, rows_per_item
from modularity.data import FunctionData, TokenTable, load_functions, row_ranges, tokenise
from modularity.errors import InputError, ModelError
from modularity.models import ModelDescription, describe_model, load_tokenizer, uses_gpu
from modularity.pipelines.config import ACTIVITY_METHODS, AnalysedSite, EmergentModularityConfig
from modularity.pipelines.corpus_reductions import PreparedCorpus, prepare_corpora
from modularity.pipelines.expert_problems import expert_problems, fraction_problems
from modularity.pipelines.layout import listed_neurons, partition_bytes, predictivity_bytes
from modularity.pipelines.loads import STORED_SIZE, Work, job_loads, row_values, worker_memory
from modularity.pipelines.native_experts import native_problems
from modularity.pipelines.plan import Plan
from modularity.pipelines.reduction_layout import reduction_problems
from modularity.pipelines.reduction_plan import ReductionPlan, plan_reductions
from modularity.pipelines.token_problems import token_problems
from modularity.runtime.memory import resident_bytes
from modularity.types import Site, SiteShape, WorkItem

N_PROBES = 5
"""Measurements of which the fastest counts: the others were disturbed."""
SHARDS_PER_ITEM = 2
"""Zarr shards that one capture item writes: the first is written while the second is computed."""
UNLIMITED_MODEL_TOKENS = 512
"""Texts are cut here where neither the config nor the model (T5) sets a limit; the length of the paper."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class PreparedJob:
    """Everything known before the first work item runs."""

    config: EmergentModularityConfig
    functions: tuple[FunctionData, ...]
    tables: Mapping[str, TokenTable]
    """Tokens of each function, by name."""
    description: ModelDescription
    shapes: Mapping[Site, SiteShape]
    """What is captured."""
    rows_per_shard: Mapping[str, int]
    """Rows of one Zarr shard, by function."""
    corpora: tuple[PreparedCorpus, ...] = ()
    """Texts of which only reductions are made."""

    @property
    def capture(self) -> CaptureConfig:
        """How rows are captured."""
        return self.config.capture

    @property
    def analysed(self) -> SiteShape | None:
        """Shape of the site that the analyses use: the first of its name among the captured ones."""
        return _analysed(self.config, self.shapes)

    def function(self, name: str) -> FunctionData:
        """The function of this name."""
        return next(function for function in self.functions if function.name == name)

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model and config: fingerprints by function and corpus."""
        return {
            function.name: f"{function.fingerprint}-{self.tables[function.name].fingerprint}"
            for function in self.functions
        } | {corpus.name: corpus.index.fingerprint for corpus in self.corpora}

    def data_notes(self) -> tuple[str, ...]:
        """What was left out of functions, and what is known of corpora."""
        notes = [note for function in self.functions for note in function.notes]
        return (*notes, *(corpus.note() for corpus in self.corpora))

    def longest_tokens(self) -> int:
        """Tokens of the longest text; of a corpus at most."""
        longest = [int(table.lengths_E.max()) for table in self.tables.values()]
        return max([*longest, *(corpus.max_tokens for corpus in self.corpora)])

    def capture_items(self) -> list[WorkItem]:
        """Rows of each function, a few whole shards at a time."""
        if not self.config.reductions.store_rows:
            return []
        items = []
        for function in self.functions:
            table = self.tables[function.name]
            for start, stop in row_ranges(table.n_rows, SHARDS_PER_ITEM * self.rows_per_shard[function.name]):
                items.append(
                    WorkItem.of("capture", function=function.name, data=table.fingerprint, start=start, stop=stop)
                )
        return items

    @cached_property
    def reductions(self) -> ReductionPlan:
        """Items and sizes of the reductions."""
        return plan_reductions(self.config.reductions, self.analysed, self.functions, self.tables, self.corpora)

    def partition_items(self) -> list[WorkItem]:
        """One item for each layer."""
        shape = self.analysed
        if shape is None or "experts" not in self.config.analyses:
            return []
        return [WorkItem.of("partition", site=str(shape.site), layer=layer) for layer in shape.layers]

    def predictivity_items(self) -> list[WorkItem]:
        """Blocks of neurons of one layer, for each function."""
        shape = self.analysed
        if shape is None or "predictivity" not in self.config.analyses:
            return []
        block = self.config.predictivity.neurons_per_item
        return [
            WorkItem.of(
                "predictivity", function=function.name, site=str(shape.site), layer=layer, start=start, stop=stop
            )
            for function in self.functions
            for layer in shape.layers
            for start, stop in row_ranges(max(shape.widths), block)
        ]

    def activity_items(self) -> list[WorkItem]:
        """One item for each layer and method that partitions neurons by what they do."""
        shape = self.analysed
        if shape is None or "experts" not in self.config.analyses:
            return []
        methods = [method for method in self.config.experts.methods if method in ACTIVITY_METHODS]
        return [WorkItem.of("activity_partition", method=m, layer=layer) for m in methods for layer in shape.layers]

    def summary_items(self) -> list[WorkItem]:
        """Items that bring the layers of a function, or all functions, together."""
        analyses = self.config.analyses
        kinds = [("summary", "predictivity"), ("experts", "experts")]
        items = [
            WorkItem.of(kind, function=function.name)
            for kind, analysis in kinds
            if analysis in analyses
            for function in self.functions
        ]
        if "experts" in analyses and len(self.config.experts.methods) > 1:
            items.append(WorkItem.of("agreement"))
        if self.config.controls.random_weights:
            items.append(WorkItem.of("random_control"))
        return items + ([WorkItem.of("overlap")] if "overlap" in analyses else [])


def prepare(config: EmergentModularityConfig) -> PreparedJob:
    """Read and check everything that a job needs, without loading weights.

    Raises
    ------
    InputError
        With every problem found in model, functions and their fit to each other.
    """
    problems: list[str] = []
    functions = _attempt(lambda: load_functions(config.functions) if config.functions else (), problems)
    description = _attempt(lambda: describe_model(config.model), problems)
    shapes = _attempt(lambda: _captured_shapes(config, description), problems) if description is not None else None
    tokenizer = _attempt(lambda: load_tokenizer(config.model), problems) if description is not None else None
    if shapes is not None:
        problems += [
            *expert_problems(config, _analysed(config, shapes)),
            *fraction_problems(config, _analysed(config, shapes)),
        ]
        if description is not None:
            problems += native_problems(config, _analysed(config, shapes), description)
            problems += reduction_problems(config.reductions, _analysed(config, shapes), description, functions or ())
    tables: dict[str, TokenTable] = {}
    corpora: tuple[PreparedCorpus, ...] | None = ()
    if functions is not None and tokenizer is not None and description is not None:
        limits = (config.capture.max_tokens, description.max_positions)
        max_tokens = min((limit for limit in limits if limit is not None), default=UNLIMITED_MODEL_TOKENS)
        for function in functions:
            table = _attempt(lambda f=function: tokenise(f, tokenizer, max_tokens=max_tokens), problems)  # type: ignore[misc]
            if table is not None:
                tables[function.name] = table
        problems += token_problems(description, shapes or {}, tables)
        corpora = _attempt(
            lambda: prepare_corpora(config.reductions, tokenizer, description, max_tokens=max_tokens), problems
        )
    if problems or corpora is None or functions is None or description is None or shapes is None:
        raise InputError(problems)
    rows = {
        name: config.capture.rows_per_item
        or rows_per_item(shapes, storage_dtype=config.capture.dtype, item_bytes=config.capture.item_bytes)
        for name in tables
    }
    return PreparedJob(config, functions, tables, description, shapes, rows, corpora)


def count_items(job: PreparedJob) -> dict[str, int]:
    """Number of work items of each kind."""
    items = [*job.capture_items(), *job.reductions.reduce_items, *job.partition_items(), *job.predictivity_items()]
    items += [*job.activity_items(), *job.summary_items(), *job.reductions.merge_items]
    return {kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)}


def make_plan(job: PreparedJob, *, reused: Sequence[WorkItem] = (), reuse: str | None = None) -> Plan:
    """Size of a prepared job; no time is planned for `reused` items, which `reuse` describes."""
    config, tables = job.config, job.tables.values()
    work = _work(job, frozenset(reused))
    libraries = resident_bytes()  # after the probes, which load the kernels
    on_gpu, reductions = uses_gpu(config.model), job.reductions
    memory = worker_memory(job, on_gpu=on_gpu, library_bytes=libraries)
    store_bytes = _activation_bytes(job) + _result_bytes(job) + reductions.stored_bytes
    return Plan(
        items=count_items(job),
        n_examples=sum(table.n_examples for table in tables),
        n_rows=sum(table.n_rows for table in tables) if config.reductions.store_rows else 0,
        n_tokens=sum(table.n_tokens for table in tables),
        n_estimated_tokens=sum(corpus.estimate.n_tokens for corpus in job.corpora),
        n_truncated=sum(table.n_truncated for table in tables),
        store_bytes=store_bytes,
        worker_bytes=memory.worker_bytes,
        model_bytes=memory.model_bytes,
        library_bytes=libraries,
        seconds=None if on_gpu else work.seconds,
        device_bytes=memory.device_bytes,
        notes=(*job.data_notes(), *_site_notes(job)),
        reuse=reuse,
        reductions=reductions.text(memory.held_bytes),
        loads=job_loads(job, work, reused=reused, store_bytes=store_bytes, library_bytes=libraries),
    )


def _site_notes(job: PreparedJob) -> list[str]:
    """Which of several neuron sites is analysed."""
    if job.analysed is None or not job.config.analyses:
        return []
    analysed = job.analysed.site
    others = [str(site) for site in job.shapes if site.name in get_args(AnalysedSite) and site != analysed]
    if not others:
        return []
    shared = [site for site in others if site.endswith("shared_expert.neurons")]
    remedy = "; another run with --reuse and analysed=shared_expert.neurons ranks the shared expert" if shared else ""
    return [f"{analysed} is analysed; {', '.join(others)} is only captured{remedy}"]


def _attempt(action: Callable[[], Result], problems: list[str]) -> Result | None:
    try:
        return action()
    except InputError as error:
        problems.extend(error.problems)
    except ModelError as error:
        problems.append(str(error))
    return None


def _captured_shapes(config: EmergentModularityConfig, description: ModelDescription) -> dict[Site, SiteShape]:
    default_stack = description.stacks[0]
    shapes: dict[Site, SiteShape] = {}
    problems = []
    for text in config.capture.sites:
        site = Site.parse(text, default_stack)
        if site not in description.shapes:
            known = ", ".join(str(known) for known in description.shapes)
            problems.append(
                f"capture.sites: {text!r} is not in {config.model.name!r} ({description.architecture}), "
                f"which has {known}"
            )
            continue
        if site in shapes:
            problems.append(f"capture.sites={list(config.capture.sites)}: two names mean {site}; name it only once")
        full = description.shapes[site]
        wanted = full.layers if config.capture.layers is None else config.capture.layers
        absent = [layer for layer in wanted if layer not in full.layers]
        if absent:
            problems.append(f"capture.layers: {absent} are not among the layers {_listed(full.layers)} of {site}")
            continue
        widths = tuple(full.widths[full.layers.index(layer)] for layer in wanted)
        inner = full.unit_shape[1:]
        unit_shape = (max(widths) // math.prod(inner), *inner)
        shapes[site] = SiteShape(site, tuple(wanted), widths, full.unit_dims, unit_shape)
    if problems:
        raise InputError(problems)
    return shapes


def _listed(layers: Sequence[int]) -> str:
    whole = len(layers) == layers[-1] - layers[0] + 1
    return f"{layers[0]}..{layers[-1]}" if whole else ", ".join(map(str, layers))


def _analysed(config: EmergentModularityConfig, shapes: Mapping[Site, SiteShape]) -> SiteShape | None:
    return next((shape for site, shape in shapes.items() if site.name == config.analysed), None)


def _activation_bytes(job: PreparedJob) -> int:
    if not job.config.reductions.store_rows:
        return 0
    n_rows = sum(table.n_rows for table in job.tables.values())
    return n_rows * row_values(job) * STORED_SIZE[job.config.capture.dtype]


def _result_bytes(job: PreparedJob) -> int:
    shape, config = job.analysed, job.config
    if shape is None or "predictivity" not in config.analyses:
        return 0
    with_experts = "experts" in config.analyses
    partition = partition_bytes(shape, config.experts) if with_experts else 0
    overlap = config.overlap if "overlap" in config.analyses else None
    n_listed = listed_neurons(shape, config.experts, overlap) if with_experts else 0
    return partition + sum(
        predictivity_bytes(len(function.subfunctions), shape, config.predictivity, n_listed=n_listed)
        for function in job.functions
    )


def _work(job: PreparedJob, reused: frozenset[WorkItem]) -> Work:
    """Products of the forward, at the measured speed of one float32 product here, and the ranking, by a probe block."""
    rows = dict.fromkeys(job.tables, 0)
    for item in job.capture_items():
        rows[item.text("function")] += 0 if item in reused else item.integer("stop") - item.integer("start")
    n_tokens = sum(table.n_tokens * rows[name] / table.n_rows for name, table in job.tables.items())
    n_tokens += job.reductions.n_tokens(reused)
    model = job.description
    multiplied = model.n_parameters - model.n_embedding_parameters - model.n_idle_parameters
    items = job.predictivity_items()
    to_rank = sum(item not in reused for item in items) / len(items) if items else 0.0
    return Work(
        forward_flops=2 * multiplied * n_tokens,
        analysis_seconds=to_rank * _ranking_seconds(job) if to_rank else 0.0,
        flops=0.5 * probe_flops(),
    )


def probe_flops() -> float:
    """Floating-point operations per second of float32 matrix products of NumPy here, best of several."""
    left, right = np.ones((512, 768), np.float32), np.ones((768, 3072), np.float32)
    seconds = []
    for _ in range(N_PROBES):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * 512 * 768 * 3072 / max(min(seconds), 1e-6)


def _ranking_seconds(job: PreparedJob) -> float:
    """Measured on a probe: 32 neurons of the largest function under 100 label vectors."""
    shape = job.analysed
    if shape is None or "predictivity" not in job.config.analyses:
        return 0.0
    from modularity.stats import ranking_scores

    generator = np.random.default_rng(0)
    n_rows = min(2000, max(table.n_rows for table in job.tables.values()))
    activations_RF = generator.standard_normal((n_rows, 32), dtype=np.float32)
    labels_SR = generator.random((100, n_rows)) < 0.5
    ranking_scores(activations_RF, labels_SR, n_threads=1)
    seconds = []
    for _ in range(N_PROBES):
        start = time.perf_counter()
        ranking_scores(activations_RF, labels_SR, n_threads=1)
        seconds.append(time.perf_counter() - start)
    per_value = min(seconds) / (32 * 100 * n_rows)
    values = sum(
        int((function.labels_SE >= 0).sum()) * sum(shape.widths) * job.config.predictivity.n_permutations
        for function in job.functions
    )
    return per_value * values
