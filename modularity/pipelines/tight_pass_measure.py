"""The spectrum of one sub-block at one text: exact where it can be, by random vectors otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from modularity.geometry import (
    FfnFactors,
    FunctionJacobian,
    NormFactors,
    Quadrature,
    SpectrumMeasures,
    count_above,
    dense_singular_values,
    leading_singular_values,
    measures_of_quadrature,
    noise_floor,
    rank_bounds,
    spectral_quadrature,
    spectrum_measures,
    token_singular_values,
)
from modularity.models import FfnPieces, SubBlock
from modularity.pipelines.tight_pass_config import MatrixFreeConfig, TightPassConfig

CUTS_X = 10.0 ** np.linspace(-16, 0, 129)
"""Shares of the largest singular value above which values are counted in `tight_pass_spectra`."""
N_INVERTED = 4096
"""Cuts at which an estimated spectrum is counted, to find the value at a given rank."""
CONVERGED = 1e-4
"""Largest residual, as a share of the value, of singular values that count as known in a quadrature."""
LEVEL_NAMES = ("above_tenth", "above_hundredth", "above_thousandth", "above_ten_thousandth")
NOT_KNOWN = float("nan")
TOKEN_MEANS = ("stable_rank", "effective_rank")
"""Measures of the blocks of single tokens, of which an FFN's row has the mean."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything that is kept of one spectrum."""

    row: dict[str, Any]
    """Columns of `tight_pass` but for those that name the item."""
    tokens: tuple[dict[str, Any], ...]
    """Rows of `tight_pass_tokens`, FFN only."""
    arrays: dict[str, np.ndarray]
    """Arrays of the result `tight_pass_spectra`."""


def measure_ffn(block: SubBlock, config: TightPassConfig, *, n_threads: int) -> Measured:
    """Spectrum from the blocks of single tokens, exact."""
    factors = _factors(block.ffn_pieces())
    values_TD = token_singular_values(factors, n_threads=n_threads)
    n_tokens, width = values_TD.shape
    side = n_tokens * width
    measures = spectrum_measures(values_TD.ravel(), (side, side))
    bounds_T = rank_bounds(factors)
    floor = noise_floor(measures.largest, (side, side))
    active_T = factors.active_TF.sum(dim=1).cpu().numpy()
    row = _row("blocks", measures, rank_bound=int(bounds_T.sum()), n_products=0, residual=0.0)
    row["active_share"] = float(active_T.mean() / factors.active_TF.shape[1])
    tokens = tuple(
        _token_row(position, values_TD[position], int(active_T[position]), int(bounds_T[position]), floor)
        for position in range(n_tokens)
    )
    row |= {f"token_{name}": float(np.mean([token[name] for token in tokens])) for name in TOKEN_MEANS}
    ordered = np.sort(values_TD, axis=None)[::-1]
    arrays = _arrays(ordered, measures.largest, config, leading=ordered, residuals=np.zeros(len(ordered)))
    return Measured(row, tokens, arrays)


def measure_attention(block: SubBlock, config: TightPassConfig, *, seed: int) -> Measured:
    """Spectrum from the whole Jacobian where it is small, from products with vectors where it is not."""
    settings = config.matrix_free
    operator = FunctionJacobian(block, block.point_TD, block=settings.products_at_once)
    bound = _attention_bound(block)
    if operator.n_in <= settings.dense_up_to:
        values_N = dense_singular_values(operator)
        measures = spectrum_measures(values_N, (operator.n_out, operator.n_in))
        row = _row("dense", measures, rank_bound=bound, n_products=operator.n_out, residual=0.0)
        return Measured(row, (), _arrays(values_N, measures.largest, config, values_N, np.zeros(len(values_N))))
    return _matrix_free(operator, settings, config, bound, seed)


def _matrix_free(
    operator: FunctionJacobian, settings: MatrixFreeConfig, config: TightPassConfig, bound: int, seed: int
) -> Measured:
    leading = leading_singular_values(
        operator,
        min(settings.n_leading, operator.n_in, operator.n_out),
        n_iterations=settings.n_iterations,
        oversampling=settings.oversampling,
        seed=seed,
    )
    known = leading.residuals_K <= CONVERGED * leading.values_K
    n_known = len(known) if known.all() else int(np.argmin(known))
    quadrature = spectral_quadrature(
        operator,
        n_probes=settings.n_probes,
        n_steps=settings.n_steps,
        seed=seed + 1,
        known_K=leading.values_K[:n_known],
        known_right_KN=leading.right_KN[:n_known],
        probes_at_once=settings.probes_at_once,
    )
    largest = float(leading.values_K[0]) if len(leading.values_K) else 0.0
    measures = measures_of_quadrature(quadrature, largest)
    n_products = leading.n_products + 2 * settings.n_probes * settings.n_steps
    residual = float(leading.residuals_K[0]) if len(leading.residuals_K) else 0.0
    row = _row("matrix_free", measures, rank_bound=bound, n_products=n_products, residual=residual)
    return Measured(row, (), _arrays(quadrature, largest, config, leading.values_K, leading.residuals_K))


def _factors(pieces: FfnPieces) -> FfnFactors:
    values = {each.name: getattr(pieces, each.name) for each in fields(pieces)}
    for side in ("before", "after"):
        if values[side] is not None:
            values[side] = NormFactors(**vars(values[side]))
    return FfnFactors(**values)


def _attention_bound(block: SubBlock) -> int:
    """Rank of a map from T inputs to T outputs: D each, less one direction where a norm takes the mean away."""
    before, after = block.centring_norms
    n_tokens, width = block.point_TD.shape
    return int(n_tokens * min(width - int(before), width - int(after), block.inner_width))


def _row(
    method: str, measures: SpectrumMeasures, *, rank_bound: int, n_products: int, residual: float
) -> dict[str, Any]:
    row = {
        "method": method,
        "n_values": measures.n_values,
        "largest": measures.largest,
        "largest_residual": residual,
        "frobenius": measures.frobenius.value,
        "rank": measures.rank,
        "rank_float32": measures.rank_float32,
        "rank_bound": rank_bound,
        "stable_rank": measures.stable_rank.value,
        "stable_low": measures.stable_rank.low,
        "stable_high": measures.stable_rank.high,
        "effective_rank": measures.effective_rank.value,
        "effective_low": measures.effective_rank.low,
        "effective_high": measures.effective_rank.high,
    }
    row |= {name: level.value for name, level in zip(LEVEL_NAMES, measures.above, strict=True)}
    hundredth = measures.above[LEVEL_NAMES.index("above_hundredth")]
    row |= {"hundredth_low": hundredth.low, "hundredth_high": hundredth.high}
    row |= {"active_share": NOT_KNOWN, **{f"token_{name}": NOT_KNOWN for name in TOKEN_MEANS}}
    return row | {"n_products": n_products}


def _token_row(position: int, values_D: np.ndarray, n_active: int, bound: int, floor: float) -> dict[str, Any]:
    measures = spectrum_measures(values_D, (len(values_D), len(values_D)))
    return {
        "position": position,
        "n_active": n_active,
        "rank_bound": bound,
        "rank": int((values_D > floor).sum()),
        "largest": measures.largest,
        "stable_rank": measures.stable_rank.value,
        "effective_rank": measures.effective_rank.value,
    }


def _arrays(
    spectrum: np.ndarray | Quadrature,
    largest: float,
    config: TightPassConfig,
    leading: np.ndarray,
    residuals: np.ndarray,
) -> dict[str, np.ndarray]:
    counts_X, low_X, high_X = count_above(spectrum, CUTS_X * largest)
    kept, bounds = (np.full(config.matrix_free.n_leading, np.nan) for _ in range(2))
    n_kept = min(len(leading), len(kept))
    kept[:n_kept], bounds[:n_kept] = leading[:n_kept], residuals[:n_kept]
    return {
        "count_above": counts_X,
        "count_low": low_X,
        "count_high": high_X,
        "sorted_value": _at_ranks(spectrum, largest, config.n_points),
        "leading_value": kept,
        "leading_residual": bounds,
    }


def _at_ranks(spectrum: np.ndarray | Quadrature, largest: float, n_points: int) -> np.ndarray:
    """Singular values at evenly spaced shares (i + 1/2) / n_points of their number, the largest first."""
    shares_P = (np.arange(n_points) + 0.5) / n_points
    if isinstance(spectrum, Quadrature):
        cuts_X = largest * np.geomspace(CUTS_X[0], 1, N_INVERTED)
        counts_X, _, _ = count_above(spectrum, cuts_X)
        return np.interp(shares_P * spectrum.n_singular_values, counts_X[::-1], cuts_X[::-1], right=0.0)
    ordered = np.sort(spectrum)[::-1]
    return np.asarray(ordered[(shares_P * len(ordered)).astype(np.int64)])


def item_seed(seed: int, text: int, layer: int, condition: int) -> int:
    """Seed of the random vectors of one item: it depends on what the item is, not on what ran before it."""
    return int(np.random.SeedSequence([seed, text, layer, condition]).generate_state(1)[0])


def columns_of(rows: list[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
