"""Closed-form blocks against autograd; planted ranks; the analytic bound."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from modularity.errors import DataError
from modularity.geometry import (
    FfnFactors,
    NormFactors,
    probe_vectors,
    rank_bounds,
    token_jacobian,
    token_singular_values,
)

WIDTH, NEURONS, TOKENS, EPS = 10, 24, 4, 1e-5
OUT, IN, UP = (
    probe_vectors(WIDTH, NEURONS, seed=1),
    probe_vectors(NEURONS, WIDTH, seed=2),
    probe_vectors(24, 10, seed=3),
)
INPUT = probe_vectors(TOKENS, WIDTH, seed=4)
GAIN, AFTER_GAIN, BIAS = (1 + 0.1 * probe_vectors(1, WIDTH, seed=s)[0] for s in (5, 6, 7))


def norm(values: torch.Tensor, gain: torch.Tensor, centred: bool) -> torch.Tensor:
    if centred:
        return functional.layer_norm(values, (WIDTH,), gain, BIAS, EPS)
    return values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + EPS) * gain


def norm_factors(values: torch.Tensor, gain: torch.Tensor, centred: bool) -> NormFactors:
    deviation = values - values.mean(-1, keepdim=True) if centred else values
    scale = (deviation.pow(2).mean(-1) + EPS).sqrt()
    return NormFactors(deviation / scale[:, None], scale, gain, centred)


def build(activation: str, *, gated: bool, before: bool | None, after: bool | None) -> tuple[FfnFactors, torch.Tensor]:
    """Factors, and the blocks by autograd; `before` and `after` say whether a norm centres, None is no norm."""
    act = getattr(functional, activation)

    def ffn(token: torch.Tensor) -> torch.Tensor:
        inner = token if before is None else norm(token, GAIN, before)
        hidden = act(inner @ IN.T) * (inner @ UP.T if gated else 1)
        out = hidden @ OUT.T
        return out if after is None else norm(out, AFTER_GAIN, after)

    inner = INPUT if before is None else norm(INPUT, GAIN, before)
    entry = (inner @ IN.T).requires_grad_()
    (slope,) = torch.autograd.grad(act(entry).sum(), entry)
    entry = entry.detach()
    hidden = act(entry) * (inner @ UP.T if gated else 1)
    factors = FfnFactors(
        OUT, IN, slope * (inner @ UP.T if gated else 1), UP if gated else None, act(entry) if gated else None,
        None if before is None else norm_factors(INPUT, GAIN, before),
        None if after is None else norm_factors(hidden @ OUT.T, AFTER_GAIN, after),
    )  # fmt: skip
    return factors, torch.stack([torch.autograd.functional.jacobian(ffn, token) for token in INPUT])


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize(("before", "after"), [(None, None), (True, None), (False, None), (False, False), (None, True)])
def test_blocks_are_those_of_autograd(activation: str, gated: bool, before: bool | None, after: bool | None) -> None:
    factors, expected = build(activation, gated=gated, before=before, after=after)
    for token in range(TOKENS):
        torch.testing.assert_close(token_jacobian(factors, token), expected[token], rtol=1e-9, atol=1e-11)
    values = token_singular_values(factors, n_threads=2)
    np.testing.assert_allclose(values, torch.linalg.svdvals(expected).numpy(), rtol=1e-8, atol=1e-11)


def ranks(values_TD: np.ndarray) -> np.ndarray:
    return (values_TD > 1e-10 * values_TD.max()).sum(axis=1)


@pytest.mark.parametrize("n_active", [0, 1, 3, 9, 24])
def test_rank_is_that_of_the_active_neurons(n_active: int) -> None:
    factors, _ = build("relu", gated=False, before=True, after=None)
    slope = torch.zeros(TOKENS, NEURONS, dtype=torch.float64)
    slope[:, :n_active] = 1
    factors = replace(factors, slope_TF=slope)
    expected = min(n_active, WIDTH - 1)
    assert rank_bounds(factors).tolist() == [expected] * TOKENS
    found = token_singular_values(factors)
    assert ranks(found).tolist() == [expected] * TOKENS
    for token in range(TOKENS):
        dense = torch.linalg.svdvals(token_jacobian(factors, token)).numpy()
        np.testing.assert_allclose(found[token], dense, rtol=1e-9, atol=1e-13)


def test_a_planted_low_rank_block_is_found() -> None:
    factors, _ = build("gelu", gated=False, before=None, after=None)
    low = replace(factors, out_DF=OUT[:, :4] @ OUT[:4, :])
    assert ranks(token_singular_values(low)).tolist() == [4] * TOKENS


@pytest.mark.parametrize(("centred", "expected"), [(True, WIDTH - 2), (False, WIDTH - 1)])
def test_a_norm_takes_its_own_direction_away(centred: bool, expected: int) -> None:
    """With an epsilon far below the variance, what the norm divides by no longer shows in its output."""
    factors, _ = build("gelu", gated=False, before=centred, after=None)
    assert ((token_singular_values(factors) > 1e-4).sum(axis=1) == expected).all()


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="expected float64"):
        FfnFactors(OUT.float(), IN, INPUT @ IN.T)
    with pytest.raises(DataError, match="or neither"):
        FfnFactors(OUT, IN, INPUT @ IN.T, up_FD=UP)
