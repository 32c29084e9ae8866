"""Which neurons a label changes, from sums over examples alone: no row is stored.

Neurons are chosen on selection examples and reported on evaluation examples; q is by Benjamini and Hochberg over the
neurons of all layers, each sub-function a family. Examples are taken as independent: those of one cluster, such as a
minimal pair, are not, and p is then too large or too small.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from modularity.pipelines.config import Variant
from modularity.pipelines.reduction_layout import EFFECT_ARRAYS, reductions_name
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.stats import LabelEffects, LabelSums, benjamini_hochberg
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]


def write_label_effects(run: Run, item: WorkItem, config: ReductionsConfig, *, variant: Variant) -> Mapping[str, Any]:
    """Write the arrays `per_label.<effect>` and the table `label_effects` of one function."""
    function = item.text("function")
    results = run.results(reductions_name(function), partial=True)
    widths, layers = results["width"].values.tolist(), results["layer"].values.tolist()
    both = [_layer_effects(results, index, width, variant) for index, width in enumerate(widths)]
    shape = (results.sizes["subfunction"], len(layers), results.sizes["neuron"])
    arrays = {}
    for name in EFFECT_ARRAYS:
        for half, ending in enumerate(("", "_evaluation")):
            values_SLF = np.full(shape, np.nan)
            for index, width in enumerate(widths):
                values_SLF[:, index, :width] = getattr(both[index][half], f"{name}_SF")
            arrays[f"per_label.{name}{ending}"] = values_SLF
    q_value_SLF = np.full(shape, np.nan)
    for p_value_LF, q_value_LF in zip(arrays["per_label.p_value"], q_value_SLF):
        real_LF = ~np.isnan(p_value_LF)
        q_value_LF[real_LF] = benjamini_hochberg(p_value_LF[real_LF])
    arrays["per_label.q_value"] = q_value_SLF
    rows = [
        {"function": function, "subfunction": subfunction, "layer": layer} | row
        for s, subfunction in enumerate(results["subfunction"].values.tolist())
        for index, layer in enumerate(layers)
        for row in _rows(*both[index], q_value_SLF[s, index], s, config.n_effects)
    ]
    table = table_from_columns({name: [row[name] for row in rows] for name in rows[0]})
    writes = run.write_result(reductions_name(function), arrays)
    run.commit(item, arrays=writes, tables=[run.write_table("label_effects", item, table)])
    return {}


def _layer_effects(results: xr.Dataset, index: int, width: int, variant: Variant) -> tuple[LabelEffects, LabelEffects]:
    """Effects of one layer on selection and on evaluation examples; of the variant `paper` on all, twice."""
    count_HS2 = results["per_label.count"][index].values
    mean_HS2F, variance_HS2F = (
        results[f"per_label.{name}"][index].values[..., :width] for name in ("mean", "variance")
    )
    squares_HS2F = np.nan_to_num(variance_HS2F) * np.maximum(count_HS2 - 1, 0)[..., None]
    selection, evaluation = (
        LabelSums(count_S2, mean_S2F, squares_S2F)
        for count_S2, mean_S2F, squares_S2F in zip(count_HS2, np.nan_to_num(mean_HS2F), squares_HS2F)
    )
    if variant == "paper":
        selection.merge(evaluation)
        return (selection.result(),) * 2
    return selection.result(), evaluation.result()


def _rows(chosen: LabelEffects, reported: LabelEffects, q_value_F: np.ndarray, s: int, n_listed: int) -> list[Row]:
    """The neurons with the largest absolute t on selection examples, ties by the lowest index."""
    size_F = np.abs(np.nan_to_num(chosen.t_SF[s], posinf=np.inf, neginf=-np.inf))
    best = np.argsort(-size_F, kind="stable")[:n_listed]
    low_F, high_F = difference_interval(reported, s)
    return [
        {
            "rank": rank,
            "neuron": neuron,
            "difference_selection": float(chosen.difference_SF[s, neuron]),
            "effect_selection": float(chosen.effect_SF[s, neuron]),
            "t_selection": float(chosen.t_SF[s, neuron]),
            "p_value": float(chosen.p_value_SF[s, neuron]),
            "q_value": float(q_value_F[neuron]),
            "difference_evaluation": float(reported.difference_SF[s, neuron]),
            "difference_low": float(low_F[neuron]),
            "difference_high": float(high_F[neuron]),
            "effect_evaluation": float(reported.effect_SF[s, neuron]),
            "p_value_evaluation": float(reported.p_value_SF[s, neuron]),
            "n_evaluation": int(reported.count_S2[s].sum()),
        }
        for rank, neuron in enumerate(best.tolist(), 1)
    ]


def difference_interval(effects: LabelEffects, s: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of the difference of means of every neuron, by Welch; as wide as 0 for a constant neuron."""
    error_F = np.sqrt((effects.variance_S2F[s] / np.maximum(effects.count_S2[s], 1)[:, None]).sum(0))
    degrees_F = effects.degrees_SF[s]
    half_F = np.where(np.isnan(degrees_F), 0.0, stdtrit(np.nan_to_num(degrees_F, nan=1.0), 0.975)) * error_F
    return effects.difference_SF[s] - half_F, effects.difference_SF[s] + half_F
