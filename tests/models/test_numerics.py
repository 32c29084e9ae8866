"""The choice of the float32 route: accuracy decides first, then speed; the setting of torch is put back."""

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_info

from modularity.errors import InputError, NumericError
from modularity.models import MatmulMode, apply_matmul_mode, choose_matmul_mode, compute_threads, numerics

SHAPE = {"residual_width": 64, "ffn_width": 96}


@pytest.fixture(autouse=True)
def restored_precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.fixture
def short_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU whose `medium` route rounds its operands to bfloat16, as with AMX."""
    plain = numerics._product

    def product(name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if name == "onednn":
            left, right = left.bfloat16().float(), right.bfloat16().float()
        return plain("highest", left, right)

    monkeypatch.setattr(numerics, "_product", product)


def speeds(monkeypatch: pytest.MonkeyPatch, default: float, onednn: float) -> None:
    monkeypatch.setattr(numerics, "_gflops", lambda *_: (default, onednn))


def test_measures_both_routes() -> None:
    mode = choose_matmul_mode(**SHAPE)
    assert mode.name in ("highest", "onednn")
    assert mode.shape == (512, 64, 96)
    assert mode.default_gflops > 0
    assert mode.speedup >= 1
    assert 0 < mode.default_error < 1e-5
    assert mode.chosen_error <= 2 * mode.default_error
    assert torch.get_float32_matmul_precision() == "highest"


def test_faster_and_as_accurate_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_error", lambda name, *_: {"highest": 1e-7, "onednn": 1.9e-7}[name])
    speeds(monkeypatch, 100.0, 180.0)
    assert choose_matmul_mode(**SHAPE) == MatmulMode("onednn", (512, 64, 96), 100.0, 180.0, 1e-7, 1.9e-7)
    assert choose_matmul_mode("highest", **SHAPE).name == "highest"
    speeds(monkeypatch, 100.0, 110.0)
    assert choose_matmul_mode(**SHAPE).name == "highest"
    assert choose_matmul_mode("onednn", **SHAPE).name == "onednn"


@pytest.mark.usefixtures("short_format")
def test_a_shorter_format_is_refused_however_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, 100.0, 1000.0)
    mode = choose_matmul_mode(**SHAPE)
    assert (mode.name, mode.speedup) == ("highest", 1.0)
    expected = (
        r"matmul='onednn' has a largest error of \d\.\de-0[23] .*at most 2 times .*Use matmul='highest', or 'auto'"
    )
    with pytest.raises(NumericError, match=expected):
        choose_matmul_mode("onednn", **SHAPE)


@pytest.mark.usefixtures("short_format")
def test_a_worker_that_is_less_accurate_refuses_the_recorded_mode() -> None:
    recorded = MatmulMode("onednn", (512, 64, 96), 100.0, 180.0, 1e-7, 1e-7)
    with pytest.raises(NumericError, match="Use matmul='highest', or 'auto'"):
        apply_matmul_mode(recorded)
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_worker_applies_the_recorded_mode() -> None:
    recorded = MatmulMode("onednn", (512, 64, 96), 100.0, 180.0, 1e-7, 1e-7)
    apply_matmul_mode(recorded, device="cuda:0")
    assert torch.get_float32_matmul_precision() == "highest"
    if numerics._error("onednn", *numerics._operands(64, 96)) < 1e-5:
        apply_matmul_mode(recorded)
        assert torch.get_float32_matmul_precision() == "medium"
    apply_matmul_mode(choose_matmul_mode("highest", **SHAPE))
    assert torch.get_float32_matmul_precision() == "highest"


def test_error_is_that_of_the_product() -> None:
    left, right = numerics._operands(64, 96)
    exact = left.double() @ right.double().T
    error = float(((left @ right.T)[:64].double() - exact[:64]).abs().max() / exact[:64].abs().max())
    assert numerics._error("highest", left, right) == pytest.approx(error, rel=1e-6, abs=1e-8)


def test_unknown_route() -> None:
    with pytest.raises(InputError, match="matmul='mkl': expected one of auto, highest, onednn"):
        choose_matmul_mode("mkl")  # type: ignore[arg-type]


def test_very_wide_products_are_measured_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_MAX_WIDTH", 80)
    assert choose_matmul_mode("highest", **SHAPE).shape == (512, 64, 80)


def test_compute_threads_are_set_and_put_back() -> None:
    blas = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    before = torch.get_num_threads()
    with compute_threads(3):
        assert torch.get_num_threads() == 3
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {3}
    assert torch.get_num_threads() == before
    assert [pool for pool in threadpool_info() if pool["user_api"] == "blas"] == blas
