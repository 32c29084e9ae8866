"""One work item of predictivity: a block of neurons of one layer, for all sub-functions of one function."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from modularity.neurons import NeuronPredictivity, neuron_predictivity
from modularity.pipelines.config import PredictivityConfig, Variant
from modularity.pipelines.layout import PREDICTIVITY_ARRAYS
from modularity.stats import PolarityRule
from modularity.store import Run
from modularity.types import Site, WorkItem

_FIELDS = {
    "predictivity": "ap_SF",
    "polarity": "polarity_SF",
    "normalised": "normalised_SF",
    "score": "score_SF",
    "auroc": "auroc_SF",
    "accuracy": "accuracy_SF",
    "p_value": "p_value_SF",
    "null_mean": "null_mean_SF",
    "null_sd": "null_sd_SF",
    "predictivity_evaluation": "ap_evaluation_SF",
    "auroc_evaluation": "auroc_evaluation_SF",
}


def rank_block(
    run: Run, item: WorkItem, config: PredictivityConfig, *, variant: Variant, n_threads: int
) -> Mapping[str, Any]:
    """Rank the neurons of a block and record their scores, p-values, and best neurons under permuted labels."""
    function, layer = item.text("function"), item.integer("layer")
    start, stop = item.integer("start"), item.integer("stop")
    results = run.results(function, partial=True)
    index = results["layer"].values.tolist().index(layer)
    n_valid = max(0, min(stop, int(results["width"].values[index])) - start)
    coordinates = run.coordinates(function)
    n_listed = results.sizes.get("rank", 0)
    if n_valid:
        activations_RF = run.read_activations(
            function,
            Site.parse(item.text("site"), "decoder"),
            layer=layer,
            units=slice(start, start + n_valid),
            n_threads=n_threads,
        )
        scores = neuron_predictivity(
            activations_RF,
            coordinates["label"],
            selection_half(coordinates, variant),
            n_permutations=config.n_permutations,
            seed=config.seed,
            rule=polarity_rule(variant),
            n_top=n_listed,
            clusters_R=coordinates["cluster"],
            n_threads=n_threads,
        )
        values = _values(scores, start, stop)
    else:
        values = _nothing((len(coordinates["subfunction"]), config.n_permutations, n_listed), stop - start)
    if not n_listed:
        del values["null_top"], values["null_top_value"]
    block = {"layer": index, "neuron": start, "block": start // config.neurons_per_item}
    written = run.write_result(function, values, at=block)
    run.commit(item, arrays=written, info={"neurons": n_valid})
    return {"bytes": sum(stored.n_bytes for write in written for stored in write.objects)}


def selection_half(coordinates: Mapping[str, np.ndarray], variant: Variant) -> np.ndarray | None:
    """Rows on which neurons are chosen; None = all rows choose and report, as in the paper."""
    return None if variant == "paper" else coordinates["selection"].astype(bool)


def polarity_rule(variant: Variant) -> PolarityRule:
    """How the polarity of a neuron is chosen."""
    return "larger" if variant == "paper" else "standardised"


def _values(scores: NeuronPredictivity, start: int, stop: int) -> dict[str, np.ndarray]:
    """Arrays of a block as they are stored; neurons are counted from the first of the layer."""
    values: dict[str, np.ndarray] = {
        "null_max": scores.null_max_SN[:, None, None],
        "null_top": np.where(scores.null_top_SNK < 0, -1, scores.null_top_SNK + np.int32(start))[:, None, None],
        "null_top_value": scores.null_top_value_SNK[:, None, None],
    }
    for name, field in _FIELDS.items():
        values_SF = getattr(scores, field)
        dtype = np.dtype(PREDICTIVITY_ARRAYS[name][0])
        padded = np.full((len(values_SF), 1, stop - start), 0 if dtype.kind == "i" else np.nan, dtype)
        padded[:, 0, : values_SF.shape[1]] = values_SF
        values[name] = padded
    return values


def _nothing(shape_SNK: tuple[int, int, int], n_neurons: int) -> dict[str, np.ndarray]:
    """Values of a block that lies beyond the width of its layer."""
    n_subfunctions, n_permutations, n_listed = shape_SNK
    lists_shape = (n_subfunctions, 1, 1, n_permutations, n_listed)
    values: dict[str, np.ndarray] = {
        "null_max": np.full(lists_shape[:-1], -np.inf),
        "null_top": np.full(lists_shape, -1, np.int32),
        "null_top_value": np.full(lists_shape, -np.inf, np.float32),
    }
    for name, (dtype, _) in PREDICTIVITY_ARRAYS.items():
        fill = 0 if np.dtype(dtype).kind == "i" else np.nan
        values[name] = np.full((n_subfunctions, 1, n_neurons), fill, dtype)
    return values
