"""Reads and writes of the activation store, side by side with zarr's own and with the zarrs codec pipeline.

Bytes are counted at the store; the values are checked in every case. Times are medians, paths interleaved, warm cache.

    python benchmarks/store_reads.py --json
    python benchmarks/store_reads.py --small
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from modularity.store import Manifest, RowCoordinates, Run, Space
from modularity.types import Site, SiteShape

SITE = Site("decoder", "ffn.neurons")
PIPELINES = {"zarr": "zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs": "zarrs.ZarrsCodecPipeline"}


class CountingSpace(Space):
    """Counts the bytes that reads bring."""

    n_bytes = 0
    _lock = threading.Lock()

    def read_range(self, path: str, start: int, stop: int) -> memoryview:
        """Counted range."""
        data = super().read_range(path, start, stop)
        with self._lock:
            self.n_bytes += len(data)
        return data

    def read_tail(self, path: str, n_bytes: int) -> memoryview:
        """Counted tail."""
        data = super().read_tail(path, n_bytes)
        with self._lock:
            self.n_bytes += len(data)
        return data


def activations(kind: str, n_rows: int, n_layers: int, n_neurons: int) -> np.ndarray:
    """Synthetic rows: `dense` (no zeros), `relu50` or `relu95` (that share of zeros)."""
    values = np.random.default_rng(0).standard_normal((n_rows, n_layers, n_neurons), dtype=np.float32)
    threshold = {"dense": None, "relu50": 0.0, "relu95": 1.645}[kind]
    return values if threshold is None else np.maximum(values - np.float32(threshold), 0)


def new_run(folder: Path, n_rows: int, n_layers: int, n_neurons: int, per_item: int) -> Run:
    run = Run(CountingSpace(folder), Manifest.of("store_reads"))
    index = np.arange(n_rows)
    rows = RowCoordinates(
        example_id_R=[f"e{i}" for i in index], example_R=index, position_R=np.full(n_rows, -1), subfunctions=("s",),
        labels_SR=(index % 2)[None], selection_R=index % 4 < 2, text_fingerprint_R=[""] * n_rows,
        n_tokens_R=np.ones(n_rows),
    )  # fmt: skip
    shape = SiteShape(SITE, tuple(range(n_layers)), (n_neurons,) * n_layers, ("neuron",), (n_neurons,))
    run.create_activations("f", {SITE: shape}, rows, storage_dtype="float32", rows_per_item=per_item)
    return run


def seconds(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Wall and CPU seconds of an action, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = action()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def available() -> list[str]:
    """Codec pipelines that can be imported."""
    try:
        import zarrs  # noqa: F401
    except ImportError:
        return ["zarr"]
    return ["zarr", "zarrs"]


def read_table(folder: Path, *, n_rows: int, n_neurons: int, repeats: int) -> dict[str, Any]:
    """Bytes read per byte returned for both patterns, and the latency of one neuron over all rows."""
    per_item = 960
    run = new_run(folder, n_rows, 1, n_neurons, per_item)
    block = activations("dense", per_item, 1, n_neurons)
    for start in range(0, n_rows, per_item):
        run.write_activations("f", SITE, start, block[: n_rows - start])
    expected = np.concatenate([block] * (-(-n_rows // per_item)))[:n_rows, 0]
    result: dict[str, Any] = {"rows": n_rows, "neurons": n_neurons}
    patterns = {
        "64_neurons_all_rows": (slice(33, 97), slice(None)),
        "64_rows_all_neurons": (slice(None), slice(50, 114)),
    }
    for name, (units, rows) in patterns.items():
        run.space.n_bytes = 0
        took, _, part = seconds(lambda u=units, r=rows: run.read_activations("f", SITE, layer=0, rows=r, units=u))
        assert np.array_equal(part, expected[rows, units])
        result[name] = {"bytes_read_per_byte": round(run.space.n_bytes / part.nbytes, 2), "seconds": round(took, 4)}
    path = folder / "activations/f/decoder/ffn.neurons"
    readers: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: run.read_activations("f", SITE, layer=0, units=slice(77, 78))[:, 0]
    }
    for name in available():
        readers[name] = lambda name=name: with_pipeline(name, lambda: zarr.open_array(path, mode="r")[:, 0, 77])
    times: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(repeats):
        for name, reader in readers.items():
            took, _, column = seconds(reader)
            assert np.array_equal(column, expected[:, 77])
            times[name].append(took)
    result["one_neuron_all_rows_s"] = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return result


def with_pipeline(name: str, action: Callable[[], Any]) -> Any:
    with zarr.config.set({"codec_pipeline.path": PIPELINES[name]}):
        return action()


def write_table(folder: Path, *, n_rows: int, n_layers: int, n_neurons: int, repeats: int) -> dict[str, Any]:
    """MB/s of float32 (wall, and per CPU second) for whole shards, ours and zarr's with the same layout."""
    result: dict[str, Any] = {}
    for kind in ("dense", "relu50", "relu95"):
        block = activations(kind, n_rows, n_layers, n_neurons)
        run = new_run(folder / kind, n_rows, n_layers, n_neurons, n_rows)
        written = run.write_activations("f", SITE, 0, block)
        ours = run._activations.array("f", SITE)
        writers: dict[str, Callable[[], Any]] = {
            "ours": lambda b=block, r=run: r.write_activations("f", SITE, 0, b),
            "ours_1_thread": lambda b=block, r=run: r.write_activations("f", SITE, 0, b, n_threads=1),
        }
        for name in available():
            writers[name] = lambda name=name, b=block, a=ours, k=kind: with_pipeline(
                name, lambda: zarr_write(folder / f"{k}.zarr", b, a)
            )
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
        for _ in range(repeats):
            for name, writer in writers.items():
                wall, cpu, _ = seconds(writer)
                rates[name].append((block.nbytes / 1e6 / wall, block.nbytes / 1e6 / cpu))
        stored = sum(part.n_bytes for part in written.objects)
        result[kind] = {
            name: {
                "MB_per_s": round(statistics.median(wall for wall, _ in pairs)),
                "MB_per_cpu_s": round(statistics.median(cpu for _, cpu in pairs)),
            }
            for name, pairs in rates.items()
        } | {"compression": round(block.nbytes / stored, 2)}
    return result


def zarr_write(path: Path, block: np.ndarray, like: Any) -> None:
    array = zarr.create_array(
        path, shape=block.shape, dtype=block.dtype, chunks=like.chunk, shards=like.shard, fill_value=float("nan"),
        filters=None, compressors=(ZstdCodec(level=1), Crc32cCodec()), config={"write_empty_chunks": True},
        overwrite=True,
    )  # fmt: skip
    array[...] = block


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the read test (default 100000)")
    parser.add_argument("--neurons", type=int, default=768, help="neurons per layer of the read test (default 768)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a few thousand rows, for a quick look")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    rows, write_rows = (5_000, 192) if options.small else (options.rows, 960)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "zarr": zarr.__version__,
            "cpus": len(os.sched_getaffinity(0)),
            "read": read_table(folder / "read", n_rows=rows, n_neurons=options.neurons, repeats=options.repeats),
            "write": write_table(
                folder / "write", n_rows=write_rows, n_layers=4, n_neurons=3072, repeats=options.repeats
            ),
        }
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
