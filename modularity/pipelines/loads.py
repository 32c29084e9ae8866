"""What a prepared job asks of a machine: memory of its workers, operations, bytes; with the model on a GPU or not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modularity.capture import overhang, plan_memory
from modularity.models import ModelConfig
from modularity.pipelines.activity_partition import coactivation_bytes
from modularity.pipelines.layout import listed_neurons
from modularity.pipelines.plan import Load, Loads
from modularity.runtime import RuntimeConfig
from modularity.runtime.executor import available_cpus
from modularity.types import StorageDtype, WorkItem

if TYPE_CHECKING:
    from modularity.pipelines.prepare import PreparedJob

STORED_SIZE: dict[StorageDtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a stored value."""


@dataclass(frozen=True)
class Work:
    """What a job computes."""

    forward_flops: float
    """Operations of the forwards."""
    analysis_seconds: float
    """Time of one thread here for the ranking."""
    flops: float
    """Operations per second of one worker here."""

    @property
    def seconds(self) -> float:
        """Time of one worker here."""
        return self.forward_flops / self.flops + self.analysis_seconds


@dataclass(frozen=True)
class WorkerMemory:
    """Memory of a worker at its peak."""

    worker_bytes: int
    """On the host, libraries included."""
    model_bytes: int
    """Of these, the weights; 0 where they are on a GPU."""
    device_bytes: int
    """On a GPU; 0 without."""
    held_bytes: int
    """State of the reductions, part of one of the two."""


def worker_memory(job: "PreparedJob", *, on_gpu: bool, library_bytes: int) -> WorkerMemory:
    """Memory of a worker that captures and ranks, with the model on a GPU or on the host."""
    config, tables = job.config, job.tables.values()
    memory = plan_memory(
        job.description,
        job.shapes,
        storage_dtype=config.capture.dtype,
        n_rows_per_item=max(job.rows_per_shard.values(), default=0) + max(map(overhang, tables), default=0),
        tokens_per_batch=config.capture.tokens_per_batch,
        longest_tokens=job.longest_tokens(),
        n_buffers=config.capture.pending_items(on_gpu=on_gpu, is_local=True) + 1,
        on_device=on_gpu,
    )
    model = 0 if on_gpu else memory.parameter_bytes
    held = job.reductions.held_bytes(config.capture.tokens_per_batch, on_device=on_gpu)
    without_buffers = memory.host_bytes - memory.buffer_bytes
    reducing = held + without_buffers + job.reductions.reading_bytes
    capture = memory.host_bytes + _writing_bytes(job) if config.reductions.store_rows else without_buffers
    return WorkerMemory(
        worker_bytes=library_bytes + max(capture, model + _analysis_bytes(job), reducing if held else 0),
        model_bytes=model,
        device_bytes=memory.device_bytes + (held if on_gpu else 0),
        held_bytes=held,
    )


def job_loads(
    job: "PreparedJob", work: Work, *, reused: Sequence[WorkItem], store_bytes: int, library_bytes: int
) -> Loads:
    """Loads of a study, for machines elsewhere."""
    left = set(reused)
    n_parallel = sum(item not in left for item in (*job.capture_items(), *job.reductions.reduce_items))

    def load(on_gpu: bool) -> Load:
        memory = worker_memory(job, on_gpu=on_gpu, library_bytes=library_bytes)
        return Load(
            on_gpu=on_gpu,
            n_parallel=n_parallel,
            forward_flops=work.forward_flops,
            dtype=job.description.dtype,
            weight_bytes=job.description.parameter_bytes,
            device_bytes=memory.device_bytes,
            worker_bytes=memory.worker_bytes,
            store_bytes=store_bytes,
            analysis_seconds=work.analysis_seconds,
            flops_per_cpu=work.flops / available_cpus(),
        )

    return configured(load(True), load(False), job.config.model, job.config.runtime)


def study_loads(
    model: ModelConfig,
    runtime: RuntimeConfig,
    work: Work,
    *,
    n_parallel: int,
    dtype: str,
    weight_bytes: int,
    device_bytes: int,
    beside_gpu_bytes: int,
    host_bytes: int,
    store_bytes: int,
    library_bytes: int,
) -> Loads:
    """Loads of a study whose items all need about the same memory.

    Parameters
    ----------
    n_parallel : items that run the model and can run side by side
    dtype, weight_bytes : of the weights
    device_bytes, beside_gpu_bytes : GPU memory of a worker, and its host memory where it has a GPU
    host_bytes : host memory of a worker without a GPU; libraries come on top of both
    """

    def load(on_gpu: bool) -> Load:
        return Load(
            on_gpu=on_gpu,
            n_parallel=n_parallel,
            forward_flops=work.forward_flops,
            dtype=dtype,
            weight_bytes=weight_bytes,
            device_bytes=device_bytes if on_gpu else 0,
            worker_bytes=library_bytes + (beside_gpu_bytes if on_gpu else host_bytes),
            store_bytes=store_bytes,
            analysis_seconds=work.analysis_seconds,
            flops_per_cpu=work.flops / available_cpus(),
        )

    return configured(load(True), load(False), model, runtime)


def configured(gpu: Load, host: Load, model: ModelConfig, runtime: RuntimeConfig) -> Loads:
    """Loads with what the config of a job has fixed."""
    return Loads(
        gpu,
        host,
        may_use_gpu=model.device != "cpu" and runtime.gpus_per_worker != 0,
        needs_gpu=model.device.startswith("cuda") or model.device_map is not None,
        gpus_per_worker=runtime.gpus_per_worker or None,
        cpus_per_worker=runtime.cpus_per_worker,
        workers=runtime.workers,
    )


def row_values(job: "PreparedJob") -> int:
    """Values of one stored row, over all sites and layers."""
    return sum(len(shape.layers) * math.prod(shape.unit_shape) for shape in job.shapes.values())


def _writing_bytes(job: "PreparedJob") -> int:
    """Shards of one layer that are encoded at one time, one in each thread, raw and compressed."""
    n_threads = int(job.config.runtime.cpus_per_worker or available_cpus())
    shards = max(len(shape.layers) for shape in job.shapes.values())
    shard_bytes = (
        max(job.rows_per_shard.values(), default=0) * row_values(job) * STORED_SIZE[job.config.capture.dtype] // shards
    )
    return 2 * min(max(1, n_threads), shards) * shard_bytes


def _analysis_bytes(job: "PreparedJob") -> int:
    """Activations of one block, the labels and the lists of best neurons under permutation."""
    shape = job.analysed
    if shape is None or "predictivity" not in job.config.analyses:
        return 0
    width = min(job.config.predictivity.neurons_per_item, max(shape.widths))
    n_rows = max(table.n_rows for table in job.tables.values())
    n_permutations = job.config.predictivity.n_permutations
    ranking = 3 * n_rows * width * 4 + n_rows * n_permutations
    if "experts" not in job.config.analyses:
        return ranking
    n_subfunctions = max(len(function.subfunctions) for function in job.functions)
    lists = 8 * n_permutations * n_subfunctions * listed_neurons(shape, job.config.experts, job.config.overlap)
    n_blocks = -(-max(shape.widths) // job.config.predictivity.neurons_per_item)
    experts = job.config.experts
    counts = 4 * n_permutations * n_subfunctions * len(shape.layers) * experts.n_experts * len(experts.methods)
    pairs = 0
    if "coactivation" in experts.methods:
        counted = "co_activation" in job.config.reductions.kinds
        pairs = coactivation_bytes(n_rows, max(shape.widths), counted=counted)
    return max(ranking + 2 * lists, 5 * n_blocks * lists + 2 * counts, pairs)
