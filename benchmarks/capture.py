"""Capture of all FFN neurons beside a bare forward and the peers, on a random model of the shape of OPT-125M.

    python benchmarks/capture.py                                  # 12 x 768 x 3072, some ten minutes on 2 cores
    python benchmarks/capture.py --small --rounds 3               # 4 x 256 x 1024, about a minute
    python benchmarks/capture.py --peer-python ~/peers/bin/python # peers from another environment
    python benchmarks/capture.py --only "every token" --batches 2 --rounds 12
    python benchmarks/capture.py --json > result.json

Every figure is a ratio of speeds in one process. Each variant is timed beside a bare forward of the base model (no LM
head) over the same unpadded batches of 16 x 128 tokens, which goes first in every other pair; printed is the median of
these ratios over the rounds, 1.00 = as fast as bare. `seed loop` batches texts of mixed length (log-normal, as SST-2
and NLI) by eight in file order; our figure there is real tokens per second over those of that loop. Memory is the peak
of a process of its own over the loaded model, once and with ten times the batches. Biases are shifted so that 95 % of
the neurons are zero.

Peers: transformer-lens (`run_with_cache`, TransformerBridge) and nnsight, where they are installed. With
`--peer-python` they are run by that interpreter, each paired with a bare forward there.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from modularity.capture import (
    BackgroundWriter,
    BufferPool,
    CaptureConfig,
    CapturedShard,
    Capturer,
    capture_shards,
    overhang,
    rows_per_item,
)
from modularity.data import TokenTable
from modularity.models import wrap_model
from modularity.models.numerics import choose_matmul_mode
from modularity.store import Manifest, RowCoordinates, create_run
from modularity.types import Site, WorkItem

B, T = 16, 128
SITE = Site("decoder", "ffn.neurons")
BARE = "bare forward, no LM head"
TARGETS = {
    "ours, pooled rows to the store": 0.96,
    "ours, every token to the store, float32": 0.93,
    "ours, every token to the store, bfloat16": 0.93,
    "ours over seed loop, SST-2-like": 1.8,
    "ours over seed loop, NLI-like": 1.8,
}
MIXED = {"SST-2-like": (2.9, 0.6), "NLI-like": (3.2, 0.7)}
"""Mean and standard deviation of the logarithm of the length in tokens."""
PEERS = {"nnsight": "nnsight", "TransformerLens run_with_cache": "transformer_lens"}

Pass = Callable[[], object]
Prepare = Callable[[], Pass]


@dataclass(frozen=True)
class Shape:
    """Sizes of the model."""

    n_layers: int
    width: int
    n_neurons: int
    n_heads: int
    vocabulary: int


FULL, SMALL = Shape(12, 768, 3072, 12, 50272), Shape(4, 256, 1024, 4, 5000)


class Bench:
    """Model, batches and a scratch folder, from which the variants are made."""

    def __init__(self, shape: Shape, n_batches: int, folder: Path) -> None:
        torch.manual_seed(0)
        self.shape, self.folder = shape, folder
        config = OPTConfig(
            hidden_size=shape.width,
            word_embed_proj_dim=shape.width,
            ffn_dim=shape.n_neurons,
            vocab_size=shape.vocabulary,
            num_hidden_layers=shape.n_layers,
            num_attention_heads=shape.n_heads,
            max_position_embeddings=512,
        )
        self.causal = OPTForCausalLM(config).eval()
        self.loaded = wrap_model(self.causal.model, None, name="random-opt")
        for block in self.causal.model.decoder.layers:
            block.fc1.bias.data -= 1.645 * 0.02 * shape.width**0.5
        self.ids = np.random.default_rng(0).integers(4, shape.vocabulary, (n_batches, B, T))
        self.n_runs = 0
        self.capturers: dict[str, Capturer] = {}
        self.pools: dict[tuple[str, int], BufferPool] = {}

    def bare(self) -> Pass:
        """The base model alone."""
        inputs = [torch.from_numpy(ids) for ids in self.ids]
        mask = torch.ones(B, T, dtype=torch.long)

        @torch.inference_mode()
        def run() -> None:
            for ids in inputs:
                self.causal.model(input_ids=ids, attention_mask=mask)

        return run

    def hooks(self) -> Pass:
        """Plain forward pre-hooks that copy into one preallocated float32 buffer, no store."""
        buffer = torch.zeros(self.shape.n_layers, B * T, self.shape.n_neurons)
        bare = self.bare()

        def hook(layer: int) -> Callable[..., None]:
            def copy_input(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
                buffer[layer].copy_(args[0])

            return copy_input

        def run() -> None:
            blocks = self.causal.model.decoder.layers
            handles = [block.fc2.register_forward_pre_hook(hook(layer)) for layer, block in enumerate(blocks)]
            bare()
            for handle in handles:
                handle.remove()

        return run

    def ours(self, *, reduction: str | None, dtype: str = "float32") -> Pass:
        """Capture of pooled rows or of every token, written to a fresh Zarr store."""
        n_examples = len(self.ids) * B
        table = _table(self.ids.reshape(n_examples, T).astype(np.int32).ravel(), np.full(n_examples, T), reduction)
        return self.pipeline(table, dtype=dtype)

    def pipeline(self, table: TokenTable, *, dtype: str = "float32") -> Pass:
        """One pass of the whole way from a token table to a store, by a worker that lives over all passes."""
        if dtype not in self.capturers:
            self.capturers[dtype] = Capturer(self.loaded, [SITE], storage_dtype=dtype)
        capturer = self.capturers[dtype]
        n_rows = rows_per_item(capturer.shapes, storage_dtype=dtype, item_bytes=CaptureConfig().item_bytes)
        n_rows = min(n_rows, -(-table.n_rows // 128) * 128)
        key = dtype, n_rows + overhang(table)
        pool = self.pools.setdefault(key, BufferPool(capturer.shapes, key[1], storage_dtype=dtype))
        shutil.rmtree(self.folder / f"run{self.n_runs}", ignore_errors=True)
        self.n_runs += 1
        run = create_run(self.folder / f"run{self.n_runs}", Manifest.of("benchmark"))
        run.create_activations("texts", capturer.shapes, _coordinates(table), storage_dtype=dtype, rows_per_item=n_rows)

        def write(shard: CapturedShard) -> None:
            values = shard.buffer.arrays[SITE]
            array = run.write_activations("texts", SITE, shard.start, values)
            run.commit(WorkItem.of("capture", start=shard.start, rows=len(values)), arrays=[array])
            pool.release(shard.buffer)

        def go() -> None:
            shards = capture_shards(
                capturer, table, pool,
                first=0, last=table.n_rows, rows_per_shard=n_rows, tokens_per_batch=B * T, pad_id=1,
            )  # fmt: skip
            with BackgroundWriter(
                write, max_pending=CaptureConfig().pending_items(on_gpu=False, is_local=True)
            ) as writer:
                for shard in shards:
                    writer.put(shard)

        return go

    def seed_loop(self, table: TokenTable) -> Pass:
        """Batches of eight in file order, padded; masked max over tokens, to the CPU, appended to lists."""
        texts = np.split(table.token_ids.astype(np.int64), table.offsets_E1[1:-1])

        @torch.inference_mode()
        def run() -> list[torch.Tensor]:
            rows: list[torch.Tensor] = []
            for start in range(0, len(texts), 8):
                part = texts[start : start + 8]
                mask = torch.zeros(len(part), max(map(len, part)), dtype=torch.long)
                ids = torch.ones_like(mask)
                for row, text in enumerate(part):
                    ids[row, : len(text)], mask[row, : len(text)] = torch.from_numpy(text), 1
                rows.extend(self._seed_batch(ids, mask))
            return rows

        return run

    def _seed_batch(self, ids: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        pooled: list[torch.Tensor] = []

        def hook(module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            values = torch.relu(output.reshape(*mask.shape, -1))
            pooled.append(values.masked_fill(mask[..., None] == 0, -1e12).max(1).values.cpu())

        handles = [block.fc1.register_forward_hook(hook) for block in self.causal.model.decoder.layers]
        self.causal.model(input_ids=ids, attention_mask=mask)
        for handle in handles:
            handle.remove()
        return pooled

    def nnsight(self) -> Pass:
        """nnsight: save the input of every out-projection."""
        from nnsight import NNsight

        model = NNsight(self.causal.model)
        inputs = [torch.from_numpy(ids) for ids in self.ids]
        mask = torch.ones(B, T, dtype=torch.long)

        @torch.inference_mode()
        def run() -> None:
            for ids in inputs:
                saved = []
                with model.trace(input_ids=ids, attention_mask=mask):
                    for block in model.decoder.layers:
                        saved.append(block.fc2.input.save())  # traced, not a comprehension
                assert len(saved) == self.shape.n_layers

        return run

    def transformer_lens(self) -> Pass:
        """TransformerLens 4 bridge: `run_with_cache` of the FFN neurons, on a copy, because it changes the model."""
        import copy

        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

        causal = copy.deepcopy(self.causal)
        bridge = build_bridge_from_module(causal, "OPTForCausalLM", hf_config=causal.config)
        inputs = [torch.from_numpy(ids) for ids in self.ids]

        @torch.inference_mode()
        def run() -> None:
            for ids in inputs:
                _, cache = bridge.run_with_cache(ids, names_filter=lambda name: name.endswith("mlp.hook_post"))
                assert len(cache) >= self.shape.n_layers

        return run


def _table(token_ids: np.ndarray, lengths: np.ndarray, reduction: str | None) -> TokenTable:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pooled = reduction is not None
    return TokenTable(
        token_ids=token_ids,
        type_ids=None,
        offsets_E1=offsets,
        truncated_E=np.zeros(len(lengths), dtype=bool),
        row_example_R=np.arange(len(lengths)) if pooled else np.repeat(np.arange(len(lengths)), lengths),
        row_position_R=np.full(len(lengths), -1) if pooled else np.concatenate([np.arange(n) for n in lengths]),
        reduction=reduction,
        pool_mask=np.ones(len(token_ids), dtype=bool) if pooled else None,
        fingerprint="0" * 16,
    )


def _mixed_table(bench: Bench, name: str, n_texts: int) -> TokenTable:
    rng = np.random.default_rng(1)
    lengths = np.clip(rng.lognormal(*MIXED[name], n_texts).astype(np.int64), 3, 256)
    return _table(rng.integers(4, bench.shape.vocabulary, lengths.sum()).astype(np.int32), lengths, "max")


def _coordinates(table: TokenTable) -> RowCoordinates:
    n_rows = table.n_rows
    return RowCoordinates(
        example_id_R=[str(example) for example in table.row_example_R],
        example_R=table.row_example_R,
        position_R=table.row_position_R.astype(np.int32),
        subfunctions=("even",),
        labels_SR=(table.row_example_R % 2 == 0).astype(np.int8)[None],
        selection_R=table.row_example_R % 2 == 0,
        text_fingerprint_R=["0" * 16] * n_rows,
        n_tokens_R=table.lengths_E[table.row_example_R].astype(np.int32),
        token_id_R=None if table.reduction else table.row_tokens_R,
    )


def _onednn(prepare: Prepare) -> Prepare:
    def prepared() -> Pass:
        run = prepare()

        def go() -> None:
            torch.set_float32_matmul_precision("medium")
            try:
                run()
            finally:
                torch.set_float32_matmul_precision("highest")

        return go

    return prepared


def variants(bench: Bench) -> dict[str, Prepare]:
    """What is timed against the bare forward; a peer that is not installed is not among them."""
    pooled = "ours, pooled rows to the store"
    found: dict[str, Prepare] = {
        "plain hooks, float32 buffer, no store": bench.hooks,
        pooled: lambda: bench.ours(reduction="max"),
        "ours, every token to the store, float32": lambda: bench.ours(reduction=None),
        "ours, every token to the store, bfloat16": lambda: bench.ours(reduction=None, dtype="bfloat16"),
        f"{BARE}, oneDNN": _onednn(bench.bare),
        f"{pooled}, oneDNN": _onednn(lambda: bench.ours(reduction="max")),
    }
    return found | peers(bench)


def peers(bench: Bench) -> dict[str, Prepare]:
    """Peers of this interpreter."""
    makers = dict(zip(PEERS, (bench.nnsight, bench.transformer_lens), strict=True))
    return {name: makers[name] for name, package in PEERS.items() if importlib.util.find_spec(package)}


def seconds(run: Pass) -> float:
    """Wall-clock seconds of one pass."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def paired_speed(reference: Pass, prepare: Prepare, rounds: int) -> float:
    """Median over the rounds of reference time over variant time; one pass to warm up.

    The two take turns in going first: what is timed second finds a warmer machine, or one that its host has slowed.
    """
    prepare()()
    ratios = []
    for turn in range(rounds):
        run = prepare()
        if turn % 2:
            ours = seconds(run)
            ratios.append(seconds(reference) / ours)
        else:
            ratios.append(seconds(reference) / seconds(run))
    return median(ratios)


def speed_rows(bench: Bench, todo: dict[str, Prepare], rounds: int) -> dict[str, float]:
    """Speed of each variant relative to the bare forward."""
    bare = bench.bare()
    bare()
    return {name: paired_speed(bare, prepare, rounds) for name, prepare in todo.items()}


def seed_rows(bench: Bench, n_texts: int, rounds: int) -> dict[str, float]:
    """Our real tokens per second over those of the seed-style loop, on the same texts."""
    rows = {}
    for name in MIXED:
        table = _mixed_table(bench, name, n_texts)
        loop = bench.seed_loop(table)
        loop()
        rows[f"ours over seed loop, {name}"] = paired_speed(loop, lambda table=table: bench.pipeline(table), rounds)
    return rows


def peak_over_model(bench: Bench, name: str) -> int:
    """Bytes by which this process grows over the loaded model during one pass of a variant (Linux)."""
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    ({BARE: bench.bare} | variants(bench))[name]()()
    return _status_bytes("VmHWM") - before


def _status_bytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def memory_rows(arguments: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Peak of each variant in a process of its own, with the batches asked for and with ten times as many."""
    peer_python = arguments.peer_python or sys.executable
    rows: dict[str, dict[str, int]] = {}
    todo = [(BARE, sys.executable), *((name, sys.executable) for name in TARGETS if "store" in name)]
    for name, python in [*todo, ("nnsight", peer_python)]:
        with suppress(subprocess.CalledProcessError):
            rows[name] = {
                times: child(arguments, python, "--memory-of", name, "--batches", str(n))["bytes"]
                for times, n in (("1x", arguments.batches), ("10x", 10 * arguments.batches))
            }
    return rows


def child(arguments: argparse.Namespace, python: str, *options: str) -> Any:
    """The JSON that this script prints in another process."""
    command = [python, "-W", "ignore", __file__, *(["--small"] if arguments.small else []), *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if result.returncode:
        print(f"{' '.join(command)} failed:\n{result.stderr[-1500:]}", file=sys.stderr)
        raise subprocess.CalledProcessError(result.returncode, command)
    return json.loads(result.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, bench: Bench) -> dict[str, Any]:
    """The whole benchmark."""
    mode = choose_matmul_mode(residual_width=bench.shape.width, ffn_width=bench.shape.n_neurons)
    todo = {name: prepare for name, prepare in variants(bench).items() if arguments.only in name}
    speed = speed_rows(bench, todo, arguments.rounds)
    if arguments.peer_python:
        with suppress(subprocess.CalledProcessError):
            options = ("--peers-only", "--rounds", str(arguments.rounds), "--batches", str(arguments.batches))
            speed |= child(arguments, arguments.peer_python, *options)
    mixed = {} if arguments.only else seed_rows(bench, 64 * arguments.batches, arguments.rounds)
    memory = {} if arguments.no_memory or arguments.only else memory_rows(arguments)
    return {
        "model": asdict(bench.shape),
        "batches": arguments.batches,
        "rounds": arguments.rounds,
        "only": arguments.only,
        "threads": torch.get_num_threads(),
        "matmul": asdict(mode),
        "speed": speed,
        "mixed": mixed,
        "memory": memory,
    }


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The result as a table."""
    portion = f"{result['rounds']} rounds of {result['batches']} batches, {B} x {T} tokens"
    yield f"speed relative to the bare forward ({portion})"
    yield f"  {BARE:48s}  1.00"
    absent = {} if result["only"] else {name: None for name in PEERS if name not in result["speed"]}
    rows = result["speed"] | absent
    for name, ratio in (rows | result["mixed"]).items():
        target = f"   target {TARGETS[name]}" if name in TARGETS else ""
        yield f"  {name:48s}  " + ("not installed" if ratio is None else f"{ratio:.3f}{target}")
    matmul = result["matmul"]
    yield (
        f"matrix products: {matmul['name']} chosen, {matmul['chosen_gflops'] / matmul['default_gflops']:.2f}x, "
        f"relative error {matmul['chosen_error']:.1e} (default {matmul['default_error']:.1e})"
    )
    memory = result["memory"]
    if memory:
        yield "peak memory over the loaded model, MiB:   1x batches   10x batches   over nnsight (10x; target 0.6)"
    for name, peak in memory.items():
        share = f"{peak['10x'] / memory['nnsight']['10x']:.2f}" if "nnsight" in memory else "-"
        yield f"  {name:48s} {peak['1x'] / 2**20:8.0f} {peak['10x'] / 2**20:12.0f} {share:>10s}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="4 x 256 x 1024 instead of 12 x 768 x 3072")
    parser.add_argument("--rounds", type=int, default=5, help="pairs per variant (default 5)")
    parser.add_argument("--batches", type=int, default=4, help="batches of 16 x 128 tokens per pass (default 4)")
    parser.add_argument("--peer-python", metavar="PATH", help="interpreter with nnsight and transformer-lens")
    parser.add_argument("--only", metavar="TEXT", default="", help="only variants whose name contains this; no memory")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--peers-only", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix="capture-benchmark-") as folder:
        bench = Bench(SMALL if arguments.small else FULL, arguments.batches, Path(folder))
        if arguments.memory_of:
            print(json.dumps({"bytes": peak_over_model(bench, arguments.memory_of)}))
        elif arguments.peers_only:
            print(json.dumps(speed_rows(bench, peers(bench), arguments.rounds)))
        else:
            result = measure(arguments, bench)
            print(json.dumps(result) if arguments.json else "\n".join(lines(result)))


if __name__ == "__main__":
    main()
