"""The dense results of the Emergent Modularity job: names, dimensions, blocks, and what each array means."""

import numpy as np

from modularity.data import FunctionData
from modularity.pipelines.config import ExpertsConfig, OverlapConfig, PredictivityConfig
from modularity.store import ResultArray, Run
from modularity.types import PARTITION, SiteShape

PREDICTIVITY_ARRAYS = {
    "predictivity": ("float64", "average precision on selection examples, in the chosen polarity"),
    "polarity": ("int8", "+1: high activation means label 1; -1: high activation means label 0"),
    "normalised": (
        "float64",
        "(predictivity - floor) / (1 - floor) with the polarity's floor: 0 is a constant neuron, 1 a perfect one",
    ),
    "score": (
        "float64",
        "how far predictivity stands out from a random order, about standard normal (variant paper: normalised); "
        "it chooses the polarity and ranks neurons",
    ),
    "auroc": ("float64", "area under the ROC curve on selection examples, of the polarity +1"),
    "accuracy": ("float64", "accuracy on evaluation examples of one threshold, the mean over selection examples"),
    "p_value": ("float64", "permutation p of score, standardised by neuron and pooled over the block"),
    "null_mean": ("float32", "mean of score under permuted labels"),
    "null_sd": ("float32", "standard deviation of score under permuted labels"),
    "predictivity_evaluation": (
        "float64",
        "average precision on evaluation examples, polarity chosen on selection examples",
    ),
    "auroc_evaluation": ("float64", "area under the ROC curve on evaluation examples, of the polarity +1"),
}
_Q_VALUE_BYTES = _NULL_MAX_BYTES = 8
_NULL_TOP_BYTES = 8  # int32 neuron and float32 value
_BLOCK_DIMS = ("subfunction", "layer", "block", "permutation")
NEURON_DIMS = ("subfunction", "layer", "neuron")


def listed_neurons(shape: SiteShape, config: ExpertsConfig, overlap: OverlapConfig | None = None) -> int:
    """Best neurons of a block that are kept for each permutation: as many as a top list of the widest layer has.

    With `overlap`, the larger of the lists for experts and for shared neurons.
    """
    fraction = max(config.top_fraction, 0.0 if overlap is None else overlap.top_fraction)
    return max(1, int(fraction * max(shape.widths)))


def predictivity_bytes(n_subfunctions: int, shape: SiteShape, config: PredictivityConfig, *, n_listed: int = 0) -> int:
    """Bytes of `results/<function>` before compression, its arrays only."""
    width = max(shape.widths)
    n_blocks = -(-width // config.neurons_per_item)
    per_neuron = sum(np.dtype(dtype).itemsize for dtype, _ in PREDICTIVITY_ARRAYS.values()) + _Q_VALUE_BYTES
    per_permutation = _NULL_MAX_BYTES + n_listed * _NULL_TOP_BYTES
    per_layer = width * per_neuron + n_blocks * config.n_permutations * per_permutation
    return n_subfunctions * len(shape.layers) * per_layer


def partition_bytes(shape: SiteShape, config: ExpertsConfig) -> int:
    """Bytes of `results/partition` before compression."""
    return len(config.methods) * len(shape.layers) * max(shape.widths) * np.dtype(np.int32).itemsize


def create_predictivity(
    run: Run, function: FunctionData, shape: SiteShape, config: PredictivityConfig, *, n_listed: int = 0
) -> None:
    """Allocate `results/<function>`; layers narrower than the widest end in NaN.

    `n_listed` best neurons are kept for each permutation, block and sub-function; 0 where no experts are sought.
    """
    width = max(shape.widths)
    block = {"layer": 1, "neuron": min(config.neurons_per_item, width)}
    n_blocks = -(-width // config.neurons_per_item)
    arrays = {
        name: ResultArray(NEURON_DIMS, dtype, block, {"long_name": meaning})
        for name, (dtype, meaning) in PREDICTIVITY_ARRAYS.items()
    }
    arrays["q_value"] = ResultArray(
        NEURON_DIMS,
        "float64",
        {},
        {"long_name": "Benjamini-Hochberg q over the neurons of all layers, by sub-function"},
    )
    arrays["null_max"] = ResultArray(
        _BLOCK_DIMS,
        "float64",
        {"layer": 1, "block": 1},
        {"long_name": "largest score among the neurons of a block, for each label permutation"},
    )
    if n_listed:
        arrays |= _list_arrays()
    run.create_result(
        function.name,
        sizes={
            "subfunction": len(function.subfunctions),
            "layer": len(shape.layers),
            "neuron": width,
            "block": n_blocks,
            "permutation": config.n_permutations,
        }
        | ({"rank": n_listed} if n_listed else {}),
        arrays=arrays,
        coordinates={
            "subfunction": (("subfunction",), np.asarray(function.subfunctions, dtype=str)),
            "layer": (("layer",), np.asarray(shape.layers, dtype=np.int64)),
            "width": (("layer",), np.asarray(shape.widths, dtype=np.int64)),
        },
        attributes={"function": function.name, "site": str(shape.site), "neurons_per_item": config.neurons_per_item},
    )


def _list_arrays() -> dict[str, ResultArray]:
    """The best neurons of each permutation, from which the null of the experts is computed."""
    meanings = {
        "null_top": ("int32", "best neurons of the block for each label permutation, best first; -1: no more"),
        "null_top_value": ("float32", "score of these neurons under the permutation; -inf: no more"),
    }
    return {
        name: ResultArray((*_BLOCK_DIMS, "rank"), dtype, {"layer": 1, "block": 1}, {"long_name": meaning})
        for name, (dtype, meaning) in meanings.items()
    }


def create_partition(run: Run, shape: SiteShape, config: ExpertsConfig) -> None:
    """Allocate `results/partition`: the expert of every neuron, by method; -1 beyond the width of a layer."""
    sizes = {"partition": len(config.methods), "layer": len(shape.layers), "neuron": max(shape.widths)}
    run.create_result(
        PARTITION,
        sizes=sizes,
        arrays={
            "expert": ResultArray(
                ("partition", "layer", "neuron"), "int32", {"partition": 1, "layer": 1}, {"long_name": "expert"}
            )
        },
        coordinates={
            "partition": (("partition",), np.asarray(config.methods, dtype=str)),
            "layer": (("layer",), np.asarray(shape.layers, dtype=np.int64)),
            "width": (("layer",), np.asarray(shape.widths, dtype=np.int64)),
        },
        attributes={"site": str(shape.site), "n_experts": config.n_experts},
    )
