"""Do functions use the same neurons? Overlap of the top neurons of all sub-functions, and of functions (card A3).

Tables: `overlap_subfunctions` (every two sub-functions: top-k overlap, Jaccard and rank correlation, averages over
layers, with chance, an exact p-value and one from permuted labels), `overlap_layers` (the same by layer) and
`overlap_functions` (blocks of functions without self pairs, with the permutation null of which sub-function belongs to
which function).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from modularity.neurons import top_fraction_count, top_neurons
from modularity.pipelines.config import OverlapConfig
from modularity.pipelines.permuted_lists import permuted_top
from modularity.stats import (
    benjamini_hochberg,
    boundary_ties,
    chance_jaccard,
    function_overlap,
    jaccard,
    n_common,
    p_values,
    rank_correlation,
    top_k_overlap,
)
from modularity.stats.overlap_layers import n_shared, total_overlap_p_values
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Compared:
    names: list[tuple[str, str]]
    """(function, sub-function) of every row and column."""
    layers: list[int]
    widths: list[int]
    k_L: list[int]
    common_LSS: np.ndarray
    overlap_LSS: np.ndarray
    jaccard_LSS: np.ndarray
    correlation_LSS: np.ndarray
    ties_LS: np.ndarray
    labels: "_LabelNull"


@dataclass(frozen=True, eq=False)
class _LabelNull:
    """Shared neurons of every pair over all layers, where labels mean nothing; NaN in a run without such lists."""

    p_value_SS: np.ndarray
    mean_SS: np.ndarray
    """Mean over permutations of the share of top neurons in common."""
    n_top: int
    """Neurons of one list, summed over layers: at most as many as the run keeps of each permutation."""


def compare_functions(run: Run, item: WorkItem, config: OverlapConfig) -> Mapping[str, Any]:
    """Write the overlap tables of all functions of the run."""
    compared = _compare(run, config)
    tables = {
        "overlap_subfunctions": _pair_rows(compared),
        "overlap_layers": _layer_rows(compared),
        "overlap_functions": _function_rows(compared, config),
    }
    written = [
        run.write_table(name, item, table_from_columns({key: [row[key] for row in rows] for key in rows[0]}))
        for name, rows in tables.items()
        if rows
    ]
    run.commit(item, tables=written, info={"boundary_ties": int(compared.ties_LS.sum())})
    return {}


def _compare(run: Run, config: OverlapConfig) -> _Compared:
    results = {name: run.results(name, partial=True) for name in run.functions()}
    first = next(iter(results.values()))
    layers, widths = first["layer"].values.tolist(), first["width"].values.tolist()
    names = [(function, str(name)) for function, result in results.items() for name in result["subfunction"].values]
    values_SLF = np.concatenate([result["score"].values for result in results.values()])
    k_L = [top_fraction_count(width, config.top_fraction) for width in widths]
    each = [values_SLF[:, index, :width] for index, width in enumerate(widths)]
    return _Compared(
        names,
        layers,
        widths,
        k_L,
        np.stack([n_common(values_SF, k) for values_SF, k in zip(each, k_L)]),
        np.stack([top_k_overlap(values_SF, k) for values_SF, k in zip(each, k_L)]),
        np.stack([jaccard(values_SF, k) for values_SF, k in zip(each, k_L)]),
        np.stack([rank_correlation(values_SF) for values_SF in each]),
        np.stack([boundary_ties(values_SF, k) for values_SF, k in zip(each, k_L)]),
        _label_null(list(results.values()), each, k_L),
    )


def _label_null(results: Sequence[xr.Dataset], values_LSF: Sequence[np.ndarray], k_L: Sequence[int]) -> _LabelNull:
    """The lists of all sub-functions under permutation n of their labels, against the observed lists of that length.

    Sub-functions over the same rows share a permutation, so that what their labels have in common stays; what neurons
    have in common, such as being sparse, stays for all.
    """
    n_subfunctions = len(values_LSF[0])
    n_listed = min(result.sizes.get("rank", 0) for result in results)
    if not n_listed:
        nothing_SS = np.full((n_subfunctions, n_subfunctions), np.nan)
        return _LabelNull(nothing_SS, nothing_SS, 0)
    n_draws = min(result.sizes["permutation"] for result in results)
    observed_SS = np.zeros((n_subfunctions, n_subfunctions), np.int64)
    null_NSS = np.zeros((n_draws, n_subfunctions, n_subfunctions), np.int64)
    lengths = [min(k, n_listed) for k in k_L]
    for index, (values_SF, k) in enumerate(zip(values_LSF, lengths)):
        observed_SS += n_shared(top_neurons(values_SF, k)[None], values_SF.shape[1])[0]
        top_NSK = np.concatenate([permuted_top(result, index, k)[:n_draws] for result in results], axis=1)
        null_NSS += n_shared(top_NSK, values_SF.shape[1])
    return _LabelNull(p_values(observed_SS, null_NSS), null_NSS.mean(axis=0) / sum(lengths), sum(lengths))


def _pairs(compared: _Compared) -> list[tuple[int, int]]:
    return [(a, b) for a in range(len(compared.names)) for b in range(a + 1, len(compared.names))]


def _chance(k_L: Sequence[int], widths: Sequence[int]) -> float:
    return float(np.mean([k / width for k, width in zip(k_L, widths)]))


def _jaccard_chance(compared: _Compared) -> float:
    return float(np.mean([chance_jaccard(k, width) for k, width in zip(compared.k_L, compared.widths)]))


def _names(compared: _Compared, a: int, b: int) -> Row:
    (function_a, name_a), (function_b, name_b) = compared.names[a], compared.names[b]
    return {"function_a": function_a, "subfunction_a": name_a, "function_b": function_b, "subfunction_b": name_b}


def _pair_rows(compared: _Compared) -> list[Row]:
    pairs = _pairs(compared)
    if not pairs:
        return []
    total_SS = compared.common_LSS.sum(axis=0)
    p_value_P = np.array(
        total_overlap_p_values(np.array([total_SS[pair] for pair in pairs]), compared.k_L, compared.widths)
    )
    q_value_P = benjamini_hochberg(p_value_P)
    means = {
        "top_overlap": compared.overlap_LSS.mean(axis=0),
        "jaccard": compared.jaccard_LSS.mean(axis=0),
        "rank_correlation": compared.correlation_LSS.mean(axis=0),
    }
    return [
        _names(compared, a, b)
        | {name: float(mean_SS[a, b]) for name, mean_SS in means.items()}
        | {
            "n_common": int(total_SS[a, b]),
            "n_top": sum(compared.k_L),
            "chance": _chance(compared.k_L, compared.widths),
            "jaccard_chance": _jaccard_chance(compared),
            "p_value": float(p_value_P[number]),
            "q_value": float(q_value_P[number]),
            "overlap_labels": float(compared.labels.mean_SS[a, b]),
            "p_labels": float(compared.labels.p_value_SS[a, b]),
            "n_top_labels": compared.labels.n_top,
        }
        for number, (a, b) in enumerate(pairs)
    ]


def _layer_rows(compared: _Compared) -> list[Row]:
    return [
        _names(compared, a, b)
        | {
            "layer": layer,
            "top_overlap": float(compared.overlap_LSS[index, a, b]),
            "jaccard": float(compared.jaccard_LSS[index, a, b]),
            "rank_correlation": float(compared.correlation_LSS[index, a, b]),
            "chance": compared.k_L[index] / compared.widths[index],
        }
        for index, layer in enumerate(compared.layers)
        for a, b in _pairs(compared)
    ]


def _function_rows(compared: _Compared, config: OverlapConfig) -> list[Row]:
    functions = [function for function, _ in compared.names]
    found, by_jaccard, by_rank = (
        function_overlap(similarity_SS, functions, n_permutations=config.n_permutations, seed=config.seed)
        for similarity_SS in (
            compared.overlap_LSS.mean(axis=0),
            compared.jaccard_LSS.mean(axis=0),
            compared.correlation_LSS.mean(axis=0),
        )
    )
    chance = _chance(compared.k_L, compared.widths)
    return [
        {
            "function_a": name_a,
            "function_b": name_b,
            "top_overlap": float(found.mean_GG[a, b]),
            "chance": chance,
            "null_mean": float(found.null_mean_GG[a, b]),
            "null_sd": float(found.null_sd_GG[a, b]),
            "p_above": float(found.p_above_GG[a, b]),
            "p_below": float(found.p_below_GG[a, b]),
            "within_minus_between": found.within_minus_between,
            "p_within_above_between": found.p_within_above_between,
            "jaccard": float(by_jaccard.mean_GG[a, b]),
            "jaccard_chance": _jaccard_chance(compared),
            "jaccard_p_above": float(by_jaccard.p_above_GG[a, b]),
            "rank_correlation": float(by_rank.mean_GG[a, b]),
            "rank_correlation_p_above": float(by_rank.p_above_GG[a, b]),
        }
        for a, name_a in enumerate(found.functions)
        for b, name_b in enumerate(found.functions)
        if a <= b
    ]
