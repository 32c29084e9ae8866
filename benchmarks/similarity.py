"""Gram matrices of all layers and sites from one forward pass, on a random model of the shape of OPT-125M.

    python benchmarks/similarity.py                        # 15 texts of 512 tokens, about three minutes on 2 cores
    python benchmarks/similarity.py --small --rounds 3     # 4 x 256 x 1024, seconds

Ours captures the rows at positions 475:512:4 of every text (attention output, block output, FFN output, every head) in
one pass over the texts and computes the Gram matrix of every layer of every site, in float64, 12 for the heads of a
layer. It is timed beside a bare forward of the base model over the same texts, the two taking turns in going first;
printed is how many forwards it costs, the median over the rounds.

Beside it the way of a notebook: one pass over the texts for each layer and site, with one hook, and cosine similarities
of its rows in float32. One pass is timed and multiplied by the number of layers and sites.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from capture import FULL, SMALL, Bench, seconds

from modularity.capture import BufferPool, Capturer
from modularity.data import TokenTable
from modularity.data.batches import token_batches
from modularity.geometry.gram import gram_matrix
from modularity.types import Site

KINDS = ("attention.output", "residual", "ffn.output", "attention.heads")
SITES = tuple(Site("decoder", kind) for kind in KINDS)


def chosen_rows(ids_ET: np.ndarray, positions: range) -> TokenTable:
    """Table of the texts with one row for each chosen position."""
    n_texts, n_tokens = ids_ET.shape
    return TokenTable(
        token_ids=ids_ET.astype(np.int32).ravel(),
        type_ids=None,
        offsets_E1=np.arange(n_texts + 1) * n_tokens,
        truncated_E=np.zeros(n_texts, dtype=bool),
        row_example_R=np.repeat(np.arange(n_texts), len(positions)),
        row_position_R=np.tile(np.asarray(positions), n_texts),
        reduction=None,
        pool_mask=None,
        fingerprint="0" * 16,
    )


def ours(bench: Bench, ids_ET: np.ndarray, positions: range) -> Callable[[], dict[Site, np.ndarray]]:
    """One pass, then the Gram matrix of every layer and head."""
    capturer = Capturer(bench.loaded, SITES)
    table = chosen_rows(ids_ET, positions)
    pool = BufferPool(capturer.shapes, table.n_rows)

    def run() -> dict[Site, np.ndarray]:
        buffer = pool.acquire(table.n_rows)
        batches = token_batches(table, 0, table.n_rows, tokens_per_batch=ids_ET.shape[1], pad_id=1)
        capturer.capture(batches, buffer.arrays, 0, reduction=None)
        grams = {site: grams_of(values) for site, values in buffer.arrays.items()}
        pool.release(buffer)
        return grams

    return run


def grams_of(values_RLU: np.ndarray) -> np.ndarray:
    """Gram matrices of every layer, or of every layer and head, from rows x layers x units or x heads x width."""
    per_layer = np.moveaxis(values_RLU, 1, 0)
    if per_layer.ndim == 3:
        return np.stack([gram_matrix(values_RU) for values_RU in per_layer])
    return np.stack([[gram_matrix(rows[:, head]) for head in range(rows.shape[1])] for rows in per_layer])


def one_site(bench: Bench, ids_ET: np.ndarray, positions: range) -> Callable[[], np.ndarray]:
    """The notebook's way for one layer and site: a hook on the FFN of the last block, cosines of its rows."""
    texts = [torch.from_numpy(ids[None]) for ids in ids_ET]
    module = bench.causal.model.decoder.layers[-1].fc2

    @torch.inference_mode()
    def run() -> np.ndarray:
        rows: list[torch.Tensor] = []

        def keep(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
            rows.append(output.reshape(len(ids_ET[0]), -1)[list(positions)].clone())

        handle = module.register_forward_hook(keep)
        for ids in texts:
            bench.causal.model(input_ids=ids)
        handle.remove()
        unit = torch.nn.functional.normalize(torch.cat(rows), dim=1)
        return (unit @ unit.T).numpy()

    return run


def bare(bench: Bench, ids_ET: np.ndarray) -> Callable[[], None]:
    """The base model alone over the same texts."""
    texts = [torch.from_numpy(ids[None]) for ids in ids_ET]

    @torch.inference_mode()
    def run() -> None:
        for ids in texts:
            bench.causal.model(input_ids=ids)

    return run


def measure(bench: Bench, n_texts: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds."""
    rng = np.random.default_rng(0)
    ids_ET = rng.integers(4, bench.shape.vocabulary, (n_texts, 512))
    positions = range(475, 512, 4)
    passes = {"bare": bare(bench, ids_ET), "ours": ours(bench, ids_ET, positions),
              "one site": one_site(bench, ids_ET, positions)}  # fmt: skip
    for run in passes.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(rounds):
        for name in list(passes)[:: 1 if turn % 2 else -1]:
            times[name].append(seconds(passes[name]))
    grams = passes["ours"]()
    check = passes["one site"]()
    last = grams[Site("decoder", "ffn.output")][-1]
    norms = np.sqrt(np.diag(last))
    difference = float(np.abs(last / norms[:, None] / norms - check).max())
    assert difference < 1e-4, f"the two ways differ by {difference}"
    n_passes = sum(len(gram) for gram in grams.values())
    return {
        "texts": n_texts,
        "rows": n_texts * len(positions),
        "gram_matrices": sum(int(np.prod(gram.shape[:-2])) for gram in grams.values()),
        "layers_and_sites": n_passes,
        "forwards": median(a / b for a, b in zip(times["ours"], times["bare"])),
        "notebook_forwards": n_passes * median(a / b for a, b in zip(times["one site"], times["bare"])),
        "seconds": {name: median(each) for name, each in times.items()},
        "largest_difference_of_cosines": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="4 x 256 x 1024 instead of 12 x 768 x 3072")
    parser.add_argument("--texts", type=int, default=15, help="texts of 512 tokens (default 15)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(prefix="similarity-benchmark-") as folder:
        bench = Bench(SMALL if arguments.small else FULL, 1, Path(folder))
        result = measure(bench, arguments.texts, arguments.rounds)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['gram_matrices']} Gram matrices of {result['rows']} rows, {result['texts']} texts of 512 tokens")
    print(f"  ours, one pass                        {result['forwards']:7.2f} bare forwards of the same texts")
    print(f"  one pass for each layer and site      {result['notebook_forwards']:7.1f} (one timed, multiplied)")
    print(f"  ratio                                 {result['notebook_forwards'] / result['forwards']:7.0f}")
    print(f"  largest difference of cosines         {result['largest_difference_of_cosines']:.1e}")


if __name__ == "__main__":
    main()
