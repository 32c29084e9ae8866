"""Which route float32 matrix products take on a CPU: torch's default (MKL), or oneDNN where that loses nothing.

`torch.set_float32_matmul_precision("medium")` sends float32 products to oneDNN. On CPUs without bfloat16 matrix units
they stay true float32, and on AMD CPUs, where MKL does not use AVX-512, they are 1.7 to 2.3 times as fast (measured on
Zen 5). On CPUs with AMX the same setting may compute in bfloat16: three digits instead of seven. So the choice is made
by measurement on the FFN shape of the model, against float64: oneDNN only if its largest error is within
`MAX_ERROR_RATIO` of the default's. The error is that of the product, relative to the largest entry of the reference.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from threadpoolctl import threadpool_limits

from modularity.errors import InputError, NumericError

MatmulName = Literal["highest", "onednn"]
MatmulRequest = Literal["auto", "highest", "onednn"]

MAX_ERROR_RATIO = 2.0
"""How much larger than the default's the error of oneDNN may be; bfloat16's is four orders of magnitude larger."""
MIN_SPEEDUP = 1.15
"""Below this `auto` stays with the default: a gain within the noise of the measurement is none."""
_PRECISION = {"highest": "highest", "onednn": "medium"}
_N_ROWS = 512
_MAX_WIDTH = 8192  # wider products run at the same speed, and their operands take gigabytes
_N_REPEATS = 5


@dataclass(frozen=True)
class MatmulMode:
    """The route chosen, and the measurement that it rests on; recorded in the run."""

    name: MatmulName
    """`highest`: torch's default. `onednn`: the setting called `medium`."""
    shape: tuple[int, int, int]
    """(rows, D, F) of the products measured: [rows, D] @ [D, F]."""
    default_gflops: float
    """Speed of the default route, 1e9 floating-point operations per second, best of several."""
    chosen_gflops: float
    """Speed of the chosen route."""
    default_error: float
    """Largest error of the default route against float64, relative to the largest entry."""
    chosen_error: float
    """Largest error of the chosen route."""

    @property
    def speedup(self) -> float:
        """Chosen over default speed."""
        return self.chosen_gflops / self.default_gflops


def choose_matmul_mode(
    request: MatmulRequest = "auto", *, residual_width: int = 768, ffn_width: int = 3072
) -> MatmulMode:
    """Measure both routes on one FFN shape and choose; some tenths of a second. The setting of torch is left as it was.

    Only meaningful for float32 on a CPU; other dtypes and GPUs do not look at this setting.

    Parameters
    ----------
    request : `auto`, or a route to be forced
    residual_width, ffn_width : D and F of the model; measured up to 8,192 each

    Raises
    ------
    NumericError
        `onednn` is forced, and its error is more than `MAX_ERROR_RATIO` times that of the default.
    """
    if request not in get_args(MatmulRequest):
        raise InputError(f"matmul={request!r}: expected one of {', '.join(get_args(MatmulRequest))}")
    shape = (_N_ROWS, min(residual_width, _MAX_WIDTH), min(ffn_width, _MAX_WIDTH))
    operands = _operands(*shape[1:])
    default_error, error = _error("highest", *operands), _error("onednn", *operands)
    accurate = error <= MAX_ERROR_RATIO * default_error
    if request == "onednn" and not accurate:
        raise NumericError(_inaccurate(error, default_error))
    default_gflops, gflops = _gflops(*operands)
    default = MatmulMode("highest", shape, default_gflops, default_gflops, default_error, default_error)
    mode = MatmulMode("onednn", shape, default_gflops, gflops, default_error, error)
    if request == "onednn" or (request == "auto" and accurate and mode.speedup >= MIN_SPEEDUP):
        return mode
    return default


def apply_matmul_mode(mode: MatmulMode, *, device: torch.device | str = "cpu") -> None:
    """Switch this process to a recorded route, after checking that it is as accurate on this machine.

    A worker calls it with the mode that the run recorded: it neither measures speed nor chooses anew, so that all
    workers of a run compute in the same way. Nothing is done where the model is on a GPU: there the same setting of
    torch would turn on TF32, which has three digits.

    Raises
    ------
    NumericError
        This CPU computes less accurately in this mode than the default: the run must be made with matmul='highest'.
    """
    if torch.device(device).type != "cpu":
        return
    if mode.name == "onednn":
        operands = _operands(*mode.shape[1:])
        error, default_error = _error("onednn", *operands), _error("highest", *operands)
        if error > MAX_ERROR_RATIO * default_error:
            raise NumericError(_inaccurate(error, default_error))
    torch.set_float32_matmul_precision(_PRECISION[mode.name])


@contextmanager
def compute_threads(n_threads: int) -> Iterator[None]:
    """Let torch and the BLAS of NumPy compute with `n_threads` threads for the time of a `with` block.

    Sums are formed in another order with another number of threads, so that the last bits of a forward differ: a run
    records the number, and every worker computes with it wherever it runs.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):
            yield
    finally:
        torch.set_num_threads(before)


def _inaccurate(error: float, default_error: float) -> str:
    return (
        f"matmul='onednn' has a largest error of {error:.1e} on this CPU, the default {default_error:.1e}; at most "
        f"{MAX_ERROR_RATIO:g} times the default's is accepted: this CPU shortens the format there. "
        f"Use matmul='highest', or 'auto'"
    )


def _operands(residual_width: int, ffn_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normal entries from a fixed seed, [rows, D] and [F, D] as a linear layer has them."""
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(_N_ROWS, residual_width, generator=generator)
    return left, torch.randn(ffn_width, residual_width, generator=generator)


def _product(name: MatmulName, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left @ right.T` by one route; the process setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_PRECISION[name])
    try:
        with torch.inference_mode():
            return torch.nn.functional.linear(left, right)
    finally:
        torch.set_float32_matmul_precision(before)


def _error(name: MatmulName, left: torch.Tensor, right: torch.Tensor) -> float:
    """Largest error of the first 64 x 1024 entries of the product, over the largest entry of the float64 reference."""
    reference = left[:64].double() @ right[:1024].double().T
    product = _product(name, left, right)[:64, :1024].double()
    return float((product - reference).abs().max() / reference.abs().max())


def _gflops(left: torch.Tensor, right: torch.Tensor) -> tuple[float, float]:
    """Speed of the default and of oneDNN, best of several products made in turn, so that other load hits both."""
    best_s: dict[MatmulName, float] = {"highest": float("inf"), "onednn": float("inf")}
    for _ in range(_N_REPEATS):
        for name in best_s:
            start = time.perf_counter()
            _product(name, left, right)
            best_s[name] = min(best_s[name], time.perf_counter() - start)
    operations = 2e-9 * left.shape[0] * left.shape[1] * right.shape[0]
    return operations / best_s["highest"], operations / best_s["onednn"]
