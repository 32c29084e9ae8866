"""Size of a tight pass: memory of the largest item, time of all, before any of it runs."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from modularity.models import uses_gpu
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.tight_pass_measure import CUTS_X
from modularity.pipelines.tight_pass_prepare import PreparedTightPass
from modularity.runtime.executor import available_cpus
from modularity.runtime.memory import resident_bytes
from modularity.runtime.progress import format_bytes

FLOAT = 8
"""Bytes of a number: everything is float64."""
KEPT_COPIES, PASS_COPIES = 14, 5
"""Arrays of [T, D] and [H, T, T] that automatic differentiation keeps, and further ones for each vector; measured."""
PASS_COST = 2.0
"""Time of one product with a Jacobian, in units of its matrix products: softmax and copies come on top."""
SVD_COPIES = 3
"""Copies of a matrix while its singular values are computed."""
ROW_BYTES, TOKEN_BYTES = 300, 90
PROBE_WIDTH = 256
REMEDIES = Remedies(
    store="take fewer texts, layers or controls",
    memory="lower max_tokens, matrix_free.dense_up_to, matrix_free.probes_at_once or matrix_free.products_at_once",
    time="take fewer texts (texts.per_category), layers or controls, lower max_tokens",
)


@dataclass(frozen=True)
class _Speed:
    """What this machine does in float64, by one thread."""

    flops: float
    svd_seconds: float
    """Singular values of a matrix of PROBE_WIDTH; they take time as the third power of the width."""

    def svd(self, width: int) -> float:
        """Seconds for one square matrix."""
        return self.svd_seconds * (width / PROBE_WIDTH) ** 3


def make_plan(prepared: PreparedTightPass) -> Plan:
    """Size of a prepared job."""
    config, items = prepared.config, prepared.items()
    on_gpu = uses_gpu(config.model)
    model, speed = prepared.description, _probe()
    n_models = 1 + ("random_weights" in config.controls)
    libraries = resident_bytes()
    largest = max(_item_bytes(prepared, kind, len(text.ids_T)) for kind in config.kinds for text in prepared.texts)
    weights = n_models * model.parameter_bytes
    n_threads = int(config.runtime.cpus_per_worker or available_cpus())
    per_text = len(config.conditions()) * len(prepared.layers)
    seconds = per_text * sum(
        _item_seconds(prepared, kind, len(text.ids_T), speed, n_threads)
        for kind in config.kinds
        for text in prepared.texts
    )
    n_spectra = len(prepared.spectrum_items())
    n_kept = 3 * len(CUTS_X) + config.n_points + 2 * config.matrix_free.n_leading
    n_tokens = sum(len(text.ids_T) for text in prepared.texts)
    with_ffn = "ffn" in config.kinds
    store_bytes = n_spectra * (n_kept * FLOAT + ROW_BYTES) + with_ffn * per_text * n_tokens * TOKEN_BYTES
    loads = study_loads(
        config.model,
        config.runtime,
        Work(0.0, seconds * n_threads, speed.flops * n_threads),
        n_parallel=n_spectra,
        dtype="float64",
        weight_bytes=weights,
        device_bytes=weights + largest,
        beside_gpu_bytes=0,
        host_bytes=weights + largest,
        store_bytes=store_bytes,
        library_bytes=libraries,
    )
    loads = replace(loads, gpu=replace(loads.gpu, flops_per_cpu=None))  # singular values there are not measured here
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items={kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)},
        n_examples=len(prepared.texts),
        n_rows=n_spectra,
        n_tokens=n_tokens * n_models,
        n_truncated=sum(text.n_cut > 0 for text in prepared.texts),
        store_bytes=store_bytes,
        worker_bytes=here.worker_bytes,
        seconds=None if on_gpu else seconds,
        device_bytes=here.device_bytes,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared, largest)),
        loads=loads,
        remedies=REMEDIES,
    )


def dense_bytes(n_tokens: int, width: int) -> int:
    """Memory for the whole Jacobian of one sub-block and its singular values."""
    return SVD_COPIES * FLOAT * (n_tokens * width) ** 2


def _is_dense(prepared: PreparedTightPass, n_tokens: int) -> bool:
    return n_tokens * prepared.width <= prepared.config.matrix_free.dense_up_to


def _item_bytes(prepared: PreparedTightPass, kind: str, n_tokens: int) -> int:
    """Float64 weights of the sub-block, and what its spectrum needs."""
    width, settings = prepared.width, prepared.config.matrix_free
    if kind == "ffn":
        n_threads = int(prepared.config.runtime.cpus_per_worker or available_cpus())
        weights = 3 * 3 * FLOAT * width * prepared.n_neurons  # up to three matrices: copy, with gain, active rows
        tokens = 4 * FLOAT * n_tokens * (prepared.n_neurons + width)
        return weights + tokens + n_threads * FLOAT * width * (SVD_COPIES * width + 2 * prepared.n_neurons)
    weights = 2 * 4 * FLOAT * width**2
    n_copies = KEPT_COPIES + PASS_COPIES * settings.products_at_once
    passes = n_copies * FLOAT * (n_tokens * width + prepared.n_heads * n_tokens**2)
    if _is_dense(prepared, n_tokens):
        return weights + passes + dense_bytes(n_tokens, width)
    vector = FLOAT * n_tokens * width
    basis = (settings.n_iterations + 1) * (settings.n_leading + settings.oversampling)
    krylov = 5 * basis * vector
    lanczos = (settings.probes_at_once * (settings.n_steps + 5) + settings.n_probes + settings.n_leading) * vector
    return weights + passes + max(krylov, lanczos)


def _item_seconds(prepared: PreparedTightPass, kind: str, n_tokens: int, speed: _Speed, n_threads: int) -> float:
    width, settings = prepared.width, prepared.config.matrix_free
    if kind == "ffn":
        product = 2 * width**2 * prepared.n_neurons / speed.flops
        return n_tokens * (product + speed.svd(width)) / n_threads
    one = PASS_COST * (8 * n_tokens * width**2 + 8 * n_tokens**2 * width) / (speed.flops * n_threads)
    if _is_dense(prepared, n_tokens):
        return one * n_tokens * width + speed.svd(n_tokens * width)
    block = settings.n_leading + settings.oversampling
    leading = block * 2 * (settings.n_iterations + 1) + settings.n_leading
    return one * (leading + 2 * settings.n_probes * settings.n_steps)


def _probe() -> _Speed:
    """Matrix products and singular values in float64 by one thread, best of three."""
    matrix = np.random.default_rng(0).standard_normal((PROBE_WIDTH, PROBE_WIDTH))
    with threadpool_limits(1):
        product = min(_timed(lambda: matrix @ matrix) for _ in range(3))
        values = min(_timed(lambda: np.linalg.svd(matrix, compute_uv=False)) for _ in range(3))
    return _Speed(2 * PROBE_WIDTH**3 / max(product, 1e-6), values)


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _notes(prepared: PreparedTightPass, largest: int) -> list[str]:
    config = prepared.config
    lengths = [len(text.ids_T) for text in prepared.texts]
    longest = max(lengths)
    notes = [f"texts of {min(lengths)} to {longest} tokens, Jacobians of up to {longest * prepared.width:,} rows"]
    if "attention" in config.kinds:
        n_dense = sum(_is_dense(prepared, length) for length in lengths)
        notes.append(
            f"attention: the whole Jacobian for {n_dense} texts, products with random vectors for "
            f"{len(lengths) - n_dense}; written down, the largest would need "
            f"{format_bytes(dense_bytes(longest, prepared.width))}, an item of this job needs {format_bytes(largest)}"
        )
    return notes
