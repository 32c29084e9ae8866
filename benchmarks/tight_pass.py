"""Spectra of the Jacobians of one block of the shape of OPT-125M: written down and decomposed, and our way.

    python benchmarks/tight_pass.py                  # 34 positions, both ways; 512 positions, ours
    python benchmarks/tight_pass.py --small          # a few seconds: width 64
    python benchmarks/tight_pass.py --only ffn-34 --json

The way of the study this replaces: the whole Jacobian by automatic differentiation, row by row, then its singular
values. At 34 x 768 that is 5.5 GB in float64 and takes long, so it is extrapolated: rows are differentiated for as long
as a second and multiplied up; the decomposition is timed at two sizes and grows by the third power from the larger.
Both are favourable to it: larger decompositions are slower than that where memory is short.

Ours: FFN by blocks of single tokens, all singular values, exact; attention from products with vectors, leading values
and the density of all (as many vectors as the job takes by default). CPU seconds add the time of all threads, so that
they say the same on a busy machine; ratios are of CPU seconds. Memory is the peak of this process, libraries included.
"""

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from transformers import AutoModel, OPTConfig

from modularity.config import validate_config
from modularity.geometry import DenseOperator, FunctionJacobian, dense_singular_values, probe_vectors
from modularity.models import SubBlock, SubBlockKind, record_text, wrap_model
from modularity.pipelines.tight_pass_config import TightPassConfig
from modularity.pipelines.tight_pass_measure import measure_attention, measure_ffn

SECONDS_OF_ROWS = 1.0


@dataclass(frozen=True)
class Shape:
    """One block: width, heads and neurons."""

    width: int
    n_heads: int
    n_neurons: int
    svd_sizes: tuple[int, int]


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    kind: str
    positions: int
    method: str
    cpu_seconds: float
    wall_seconds: float
    peak_gb: float
    extrapolated: bool
    ratio: float | None
    """CPU seconds of the dense way over ours."""


FULL = Shape(768, 12, 3072, (768, 1536))
SMALL = Shape(64, 4, 256, (128, 256))


def block_of(shape: Shape, kind: SubBlockKind, n_tokens: int) -> SubBlock:
    """A block with random weights: its time does not depend on training, but for neurons that ReLU makes silent."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=512, hidden_size=shape.width, ffn_dim=shape.n_neurons, num_attention_heads=shape.n_heads,
        num_hidden_layers=1, word_embed_proj_dim=shape.width, max_position_embeddings=1024, pad_token_id=1,
        bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = wrap_model(AutoModel.from_config(config, attn_implementation="eager"), None, name="opt-125m-shaped")
    ids_T = np.random.default_rng(0).integers(4, 512, n_tokens)
    return SubBlock(model, record_text(model, ids_T, stack="decoder", layers=[0], kinds=[kind])[kind, 0])


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def dense_seconds(shape: Shape, kind: SubBlockKind, n_tokens: int) -> tuple[float, float]:
    """CPU and wall seconds of the whole Jacobian and its singular values, extrapolated."""
    block = block_of(shape, kind, n_tokens)
    operator = FunctionJacobian(block, block.point_TD, block=8)
    rows = torch.zeros(8, operator.n_out, dtype=torch.float64)
    rows[torch.arange(8), torch.arange(8)] = 1
    operator.apply_transpose(rows)  # first use
    cpu = wall = 0.0
    n_rows = 0
    while wall < SECONDS_OF_ROWS:
        more = timed(lambda: operator.apply_transpose(rows))
        cpu, wall, n_rows = cpu + more[0], wall + more[1], n_rows + len(rows)
    factor = operator.n_out / n_rows
    small, large = shape.svd_sizes
    dense_singular_values(DenseOperator(probe_vectors(small, small, seed=0)))
    matrix = DenseOperator(probe_vectors(large, large, seed=1))
    svd = timed(lambda: torch.linalg.svdvals(matrix.matrix_MN))
    growth = (operator.n_out / large) ** 3
    return cpu * factor + svd[0] * growth, wall * factor + svd[1] * growth


def ours(shape: Shape, kind: SubBlockKind, n_tokens: int, n_threads: int) -> tuple[float, float]:
    """CPU and wall seconds of what the job does for one sub-block and text."""
    config = validate_config(TightPassConfig, {"model": {"name": "unused"}, "texts": {"source": "unused"}})
    block = block_of(shape, kind, n_tokens)
    if kind == "ffn":
        return timed(lambda: measure_ffn(block, config, n_threads=n_threads))
    return timed(lambda: measure_attention(block, config, seed=0))


def compare(shape: Shape, kind: SubBlockKind, n_tokens: int, n_threads: int, *, dense: bool) -> list[Result]:
    """Both ways, or ours alone."""
    cpu, wall = ours(shape, kind, n_tokens, n_threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    mine = Result(kind, n_tokens, "modularity", cpu, wall, peak, False, None)
    if not dense:
        return [mine]
    theirs = dense_seconds(shape, kind, n_tokens)
    memory = 2 * 8e-9 * (n_tokens * shape.width) ** 2
    return [
        Result(kind, n_tokens, "dense", *theirs, memory, True, None),
        Result(kind, n_tokens, "modularity", cpu, wall, peak, False, theirs[0] / cpu),
    ]


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="width 64 instead of 768")
    parser.add_argument("--threads", type=int, default=2, help="compute threads (default 2)")
    parser.add_argument("--only", nargs="*", default=None, help="of ffn-34 attention-34 ffn-512 attention-512")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of the table")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}: expected at least 1")
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.set_num_threads(options.threads)
    shape = SMALL if options.small else FULL
    cases: list[tuple[SubBlockKind, int, bool]] = [
        ("ffn", 34, True), ("attention", 34, True), ("ffn", 512, False), ("attention", 512, False)
    ]  # fmt: skip
    cases = [case for case in cases if options.only is None or f"{case[0]}-{case[1]}" in options.only]
    results = []
    if not options.json:
        print(f"{'sub-block':10}{'positions':>10}  {'method':12}{'CPU s':>12}{'wall s':>12}{'peak GB':>9}{'ratio':>10}")
    for kind, n_tokens, dense in cases:
        for result in compare(shape, kind, n_tokens, options.threads, dense=dense):
            results.append(asdict(result))
            if not options.json:
                ratio = "" if result.ratio is None else f"{result.ratio:,.0f}"
                about = "~" if result.extrapolated else ""
                print(
                    f"{kind:10}{n_tokens:10}  {result.method:12}{about + f'{result.cpu_seconds:,.1f}':>12}"
                    f"{about + f'{result.wall_seconds:,.1f}':>12}{result.peak_gb:9.1f}{ratio:>10}",
                    flush=True,
                )
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
