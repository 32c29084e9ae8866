"""The worker that holds a model: identifies it, captures rows, reduces tokens, partitions neurons by its weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from modularity.capture import (
    BackgroundWriter,
    BufferPool,
    CaptureConfig,
    CapturedShard,
    Capturer,
    capture_shards,
    failing_row,
    in_halved_batches,
    is_out_of_memory,
    overhang,
)
from modularity.data import TokenTable
from modularity.errors import ModelError, ModularityError, NumericError
from modularity.experts import (
    balanced_kmeans,
    kmeans_partition,
    normalise_rows,
    random_partition,
    shuffled_weight_partition,
)
from modularity.models import (
    MatmulMode,
    ModelConfig,
    apply_matmul_mode,
    choose_matmul_mode,
    compute_threads,
    load_model,
)
from modularity.pipelines.config import ACTIVITY_METHODS, ExpertsConfig, PartitionMethod
from modularity.pipelines.corpus_reductions import PreparedCorpus
from modularity.pipelines.native_experts import count_routing
from modularity.pipelines.reduction_step import corpus_part, function_part, reduce_part
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.pipelines.steps import SMALLER_BATCH
from modularity.store import ArrayWrite, Run, open_run
from modularity.types import PARTITION, Site, WorkItem

N_NAMED = 5
"""Examples that an error about values names."""


@dataclass(frozen=True)
class ModelWorkerFactory:
    """Builds a `ModelWorker` in the process that runs it."""

    uri: str
    model: ModelConfig
    capture: CaptureConfig
    sites: tuple[Site, ...]
    experts: ExpertsConfig
    data_digest: str
    """Stands for `tables` when two factories are compared."""
    rows_per_shard: tuple[tuple[str, int], ...]
    n_threads: int
    tables: Mapping[str, TokenTable] = field(compare=False, repr=False)
    reductions: ReductionsConfig = field(default_factory=ReductionsConfig)
    label_vectors: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False, repr=False)
    """Labels of each function, of both halves; for reductions by label."""
    corpora: Mapping[str, PreparedCorpus] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self) -> "ModelWorker":
        """Load the model."""
        return ModelWorker(self)


class ModelWorker:
    """Runs `identify`, `capture`, `reduce` and `partition` items on one loaded model."""

    def __init__(self, spec: ModelWorkerFactory) -> None:
        self._spec = spec
        self._model = load_model(spec.model)
        self._run: Run | None = None
        self._capturer: Capturer | None = None
        self._pools: dict[int, BufferPool] = {}

    def __call__(self, item: WorkItem) -> dict[str, Any]:
        """Compute and record one item."""
        return self.in_smaller_batches(item, 0)

    def in_smaller_batches(self, item: WorkItem, halvings: int) -> dict[str, Any]:
        """Compute and record one item; where memory does not suffice for its batches, in smaller ones."""
        by_batch = {"capture": self._capture, "reduce": self._reduce}
        with compute_threads(self._spec.n_threads):
            if item.kind not in by_batch:
                return {"identify": self._identify, "partition": self._partition}[item.kind](item)
            info, _ = in_halved_batches(
                lambda tokens: by_batch[item.kind](item, tokens),
                tokens_per_batch=self._spec.capture.tokens_per_batch,
                longest_tokens=int(self._spec.tables[item.text("function")].lengths_E.max()),
                halvings=halvings,
            )
            return info

    def _identify(self, item: WorkItem) -> dict[str, Any]:
        """Who the model is, and how float32 products are best computed on this machine."""
        width = max(self._model.sites.shape(site).unit_shape[0] for site in self._spec.sites)
        mode = choose_matmul_mode(self._spec.model.matmul, ffn_width=width) if self._uses_float32_cpu() else None
        return {
            "identity": asdict(self._model.identity),
            "matmul": None if mode is None else asdict(mode),
            "device": str(self._model.device),
        }

    def _uses_float32_cpu(self) -> bool:
        return self._model.device.type == "cpu" and self._model.identity.dtype == "float32"

    def _opened_run(self) -> Run:
        if self._run is None:
            self._run = open_run(self._spec.uri)
            mode = self._run.manifest.notes.get("matmul")
            if mode is not None:
                recorded = MatmulMode(**{**mode, "shape": tuple(mode["shape"])})
                apply_matmul_mode(recorded, device=self._model.device)
        return self._run

    def _capture(self, item: WorkItem, tokens_per_batch: int) -> dict[str, Any]:
        """Capture whole shards; while one is written the next is computed, and at most a few wait."""
        run, spec = self._opened_run(), self._spec
        function = item.text("function")
        table, rows_per_shard = spec.tables[function], dict(spec.rows_per_shard)[function]
        if self._capturer is None:
            self._capturer = Capturer(
                self._model,
                spec.sites,
                layers=spec.capture.layers,
                storage_dtype=spec.capture.dtype,
                expert_variant=spec.capture.expert_variant,
            )
        n_rows = rows_per_shard + max(overhang(each) for each in spec.tables.values())
        pool = self._pools.setdefault(
            n_rows, BufferPool(self._capturer.shapes, n_rows, storage_dtype=spec.capture.dtype)
        )
        writes: list[ArrayWrite] = []
        info: dict[str, Any] = {"tokens": 0, "bytes": 0, "seconds_forward": 0.0, **self._smaller(tokens_per_batch)}

        def write(shard: CapturedShard) -> None:
            for site, values in shard.buffer.arrays.items():
                writes.append(run.write_activations(function, site, shard.start, values, n_threads=spec.n_threads))
            pool.release(shard.buffer)

        shards = capture_shards(
            self._capturer,
            table,
            pool,
            first=item.integer("start"),
            last=item.integer("stop"),
            rows_per_shard=rows_per_shard,
            tokens_per_batch=tokens_per_batch,
            pad_id=self._model.pad_id,
        )
        n_pending = spec.capture.pending_items(on_gpu=self._model.device.type != "cpu", is_local=run.space.is_local)
        with self._naming_examples(run, function), BackgroundWriter(write, max_pending=n_pending) as writer:
            for shard in shards:
                if shard.stats is not None:
                    info["tokens"] += shard.stats.n_tokens
                    info["seconds_forward"] += shard.stats.seconds_forward
                    count_routing(info, shard.stats)
                writer.put(shard)
        info["bytes"] = sum(stored.n_bytes for written in writes for stored in written.objects)
        run.commit(item, arrays=writes, info=info)
        return info

    def _reduce(self, item: WorkItem, tokens_per_batch: int) -> dict[str, Any]:
        """Statistics over the tokens of a range of examples."""
        spec, function = self._spec, item.text("function")
        batching = {"tokens_per_batch": tokens_per_batch, "pad_id": self._model.pad_id}
        config = spec.reductions
        if function in spec.corpora:
            config = config.of_corpora()
            tokens = corpus_part(item, spec.corpora[function], self._model.tokenizer, config, **batching)
        else:
            table, labels_XE = spec.tables[function], spec.label_vectors[function]
            tokens = function_part(item, table, labels_XE, config, **batching)
        info = reduce_part(self._opened_run(), item, self._model, tokens, config, spec.capture)
        return info | self._smaller(tokens_per_batch)

    def _smaller(self, tokens_per_batch: int) -> dict[str, int]:
        """What an item tells of its batches where they are not those of the config."""
        return {} if tokens_per_batch == self._spec.capture.tokens_per_batch else {SMALLER_BATCH: tokens_per_batch}

    @contextmanager
    def _naming_examples(self, run: Run, function: str) -> Iterator[None]:
        """Add the ids of the examples to an error about values that cannot be stored, or of the model."""
        assert self._capturer is not None
        try:
            yield
        except NumericError as error:
            if not error.rows:
                raise
            raise NumericError(f"{error}; examples {_names(run, function, error.rows)}", error.rows) from None
        except ModularityError:
            raise
        except Exception as error:
            if is_out_of_memory(error) or not len(self._capturer.last_rows):
                raise
            row = failing_row(
                self._capturer,
                self._spec.tables[function],
                storage_dtype=self._spec.capture.dtype,
                pad_id=self._model.pad_id,
            )
            if row is None:
                error.add_note(f"in a batch with examples {_names(run, function, self._capturer.last_rows.tolist())}")
                raise
            raise ModelError(
                f"the model fails on example {_names(run, function, [row])} of {function!r}, also alone: "
                f"{type(error).__name__}: {error}; mend or leave out the example"
            ) from error

    def _partition(self, item: WorkItem) -> dict[str, Any]:
        """Experts of the neurons of one layer, by every method of the config that needs weights alone."""
        run, config = self._opened_run(), self._spec.experts
        sites, layer = self._model.sites, item.integer("layer")
        site = Site.parse(item.text("site"), sites.stacks[0])
        weights = sites.ffn_input_weights if site.name == "ffn.neurons" else sites.shared_input_weights
        rows_FD = normalise_rows(weights(site.stack, layer))
        width = run.results(PARTITION, partial=True).sizes["neuron"]
        layers = run.results(PARTITION, partial=True)["layer"].values.tolist()
        writes: list[ArrayWrite] = []
        for index, method in enumerate(config.methods):
            if method in ACTIVITY_METHODS:
                continue
            if method == "native":
                labels_F = sites.native_partition(site.stack, layer)
            else:
                labels_F = partition_neurons(rows_FD, method, config, layer=layer)
            labels_MLF = np.full((1, 1, width), -1, np.int32)
            labels_MLF[0, 0, : len(rows_FD)] = labels_F
            at = {"partition": index, "layer": layers.index(layer)}
            writes += run.write_result(PARTITION, {"expert": labels_MLF}, at=at)
        run.commit(item, arrays=writes)
        return {}


def _names(run: Run, function: str, rows: Sequence[int]) -> str:
    """Ids of the examples of some rows, a few of them."""
    found = [*dict.fromkeys(rows)]
    ids = run.activations(function)["example_id"].values[found[:N_NAMED]]
    return ", ".join(repr(str(each)) for each in ids) + (" …" if len(found) > N_NAMED else "")


def partition_neurons(rows_FD: np.ndarray, method: PartitionMethod, config: ExpertsConfig, *, layer: int) -> np.ndarray:
    """Expert of every neuron of one layer by its input weights, int32 (F,); seeds differ by layer."""
    n_experts, seed = config.n_experts, config.seed + layer
    if method == "balanced":
        return balanced_kmeans(rows_FD, n_experts, n_restarts=config.n_restarts, seed=seed)
    if method == "random":
        return random_partition(len(rows_FD), n_experts, seed=seed)
    if method == "unbalanced":
        return kmeans_partition(rows_FD, n_experts, seed=seed).labels_F
    return shuffled_weight_partition(rows_FD, n_experts, seed=seed)
