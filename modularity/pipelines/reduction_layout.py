"""Where the reductions of a function stand in a run, what they take, and the work items that compute them.

`results/<function>.parts` holds the state of every part, `results/<function>.reductions` what all parts give together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np

from modularity.capture.reduction_config import ReductionName, reduction_bytes
from modularity.data import FunctionData, TokenTable
from modularity.models import ModelDescription
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.store import ResultArray, Run
from modularity.types import SiteShape, WorkItem, content_digest

NEURONS_PER_BLOCK = 1024
"""Neurons of one chunk of co-activation, which is merged block by block."""
HALVES = ("selection", "evaluation")

_STATE_DIMS = {"subfunction": "label_vector", "other": "other_neuron"}
_LAYER_ARRAYS: dict[ReductionName, dict[str, tuple[tuple[str, ...], str, str]]] = {
    "moments": {
        "moments.count": (("neuron",), "int64", "tokens"),
        "moments.mean": (("neuron",), "float64", "mean over tokens"),
        "moments.variance": (("neuron",), "float64", "variance over tokens, divided by their number"),
        "moments.min": (("neuron",), "float64", "smallest value"),
        "moments.max": (("neuron",), "float64", "largest value"),
    },
    "firing_rate": {
        "firing_rate": (("neuron",), "float64", "share of tokens with a value above the threshold"),
        "firing_rate.count": (("neuron",), "int64", "tokens"),
    },
    "histogram": {
        "histogram": (
            ("neuron", "bin"),
            "int64",
            "tokens below the first edge, in each bin, and from the last edge on",
        ),
        "histogram.min": (("neuron",), "float64", "smallest value"),
        "histogram.max": (("neuron",), "float64", "largest value"),
    },
    "top_examples": {
        "top_examples.value": (("neuron", "rank"), "float32", "largest value in the example; -inf: no more examples"),
        "top_examples.example": (("neuron", "rank"), "int64", "index of the example in the function; -1: no more"),
        "top_examples.position": (("neuron", "rank"), "int32", "token position of the value; -1: no more"),
    },
    "per_label": {
        "per_label.count": (("half", "subfunction", "label"), "int64", "examples"),
        "per_label.mean": (("half", "subfunction", "label", "neuron"), "float64", "mean of the pooled rows"),
        "per_label.variance": (
            ("half", "subfunction", "label", "neuron"),
            "float64",
            "variance of the pooled rows, divided by count - 1",
        ),
    },
    "co_activation": {
        "co_activation": (("neuron", "other_neuron"), "float64", "co-activation of two neurons, symmetric"),
        "co_activation.count": (("one",), "int64", "tokens, or groups of tokens"),
    },
}
EFFECT_ARRAYS = {
    "difference": "mean for label 1 minus mean for label 0",
    "effect": "Hedges' g, the difference in pooled standard deviations",
    "t": "Welch's t",
    "p_value": "two-sided p of t, not corrected",
}
"""Arrays `per_label.<name>` on selection and `per_label.<name>_evaluation` on evaluation examples."""
_EFFECT_DIMS = ("subfunction", "layer", "neuron")


def parts_name(function: str) -> str:
    """Result with the state of every part; no function can have this name."""
    return f"{function}.parts"


def reductions_name(function: str) -> str:
    """Result with the merged reductions."""
    return f"{function}.reductions"


def label_vectors(function: FunctionData) -> np.ndarray:
    """int8 (2 S, E): labels of every sub-function on selection examples, then on evaluation examples; -1 elsewhere."""
    halves = (np.where(half_E, function.labels_SE, -1) for half_E in (function.selection_E, ~function.selection_E))
    return np.concatenate([*halves]).astype(np.int8)


@dataclass(frozen=True)
class ReductionSizes:
    """Sizes of all dimensions of the reductions of one function."""

    config: ReductionsConfig
    shape: SiteShape
    n_subfunctions: int
    n_parts: int

    @property
    def dimensions(self) -> dict[str, int]:
        """Length of every dimension, by name."""
        width = max(self.shape.widths)
        return {
            "part": self.n_parts,
            "layer": len(self.shape.layers),
            "neuron": width,
            "other_neuron": width,
            "bin": len(self.config.edges) + 1,
            "rank": self.config.n_top,
            "half": len(HALVES),
            "subfunction": self.n_subfunctions,
            "label_vector": len(HALVES) * self.n_subfunctions,
            "label": 2,
            "one": 1,
        }

    def state_arrays(self) -> dict[str, ResultArray]:
        """Arrays of `parts_name`, in blocks of one part and layer."""
        found = {}
        for kind in self.config.kinds:
            empty = self.config.empty(kind, 0)
            for name, array in empty.arrays().items():
                dims = ("part", "layer", *(_STATE_DIMS.get(dim, dim) for dim in empty.DIMS[name]))
                found[f"{kind}.{name}"] = ResultArray(dims, array.dtype.name, _block(kind, {"part": 1, "layer": 1}))
        return found

    def merged_arrays(self) -> dict[str, ResultArray]:
        """Arrays of `reductions_name`, in blocks of one layer; effects of labels whole."""
        found = {
            name: ResultArray(("layer", *dims), dtype, _block(kind, {"layer": 1}), {"long_name": meaning})
            for kind in self.config.kinds
            for name, (dims, dtype, meaning) in _LAYER_ARRAYS[kind].items()
        }
        if "per_label" in self.config.kinds:
            for name, meaning in EFFECT_ARRAYS.items():
                for half, ending in zip(HALVES, ("", "_evaluation")):
                    attributes = {"long_name": f"{meaning}, on {half} examples"}
                    found[f"per_label.{name}{ending}"] = ResultArray(_EFFECT_DIMS, "float64", {}, attributes)
            attributes = {"long_name": "Benjamini-Hochberg q over the neurons of all layers, by sub-function"}
            found["per_label.q_value"] = ResultArray(_EFFECT_DIMS, "float64", {}, attributes)
        return found

    @property
    def stored_bytes(self) -> int:
        """Bytes of both results before compression."""
        arrays = [*self.state_arrays().values(), *self.merged_arrays().values()]
        sizes = self.dimensions
        return sum(prod(sizes[dim] for dim in array.dims) * np.dtype(array.dtype).itemsize for array in arrays)


def _block(kind: ReductionName, block: dict[str, int]) -> dict[str, int]:
    return block | ({"neuron": NEURONS_PER_BLOCK} if kind == "co_activation" else {})


def create_reductions(run: Run, name: str, subfunctions: Sequence[str], sizes: ReductionSizes) -> None:
    """Allocate both results of a function or a corpus."""
    shape, config = sizes.shape, sizes.config
    layers = {
        "layer": (("layer",), np.asarray(shape.layers, dtype=np.int64)),
        "width": (("layer",), np.asarray(shape.widths, dtype=np.int64)),
    }
    attributes = {"function": name, "site": str(shape.site)}
    run.create_result(
        parts_name(name),
        sizes=sizes.dimensions,
        arrays=sizes.state_arrays(),
        coordinates=layers,
        attributes=attributes,
    )
    coordinates = dict(layers)
    if "per_label" in config.kinds:
        coordinates["subfunction"] = (("subfunction",), np.asarray(subfunctions, dtype=str))
        coordinates["half"] = (("half",), np.asarray(HALVES, dtype=str))
        coordinates["label"] = (("label",), np.arange(2))
    if "histogram" in config.kinds:
        coordinates["histogram.edge"] = (("edge",), config.edges)
    run.create_result(
        reductions_name(name),
        sizes=sizes.dimensions,
        arrays=sizes.merged_arrays(),
        coordinates=coordinates,
        attributes=attributes | {"threshold": config.threshold, "co_activation": config.co_activation},
    )


def example_ranges(table: TokenTable, n_parts: int) -> list[tuple[int, int]]:
    """Ranges of examples that cover a function, about equally many tokens in each; fewer where examples are few."""
    total = int(table.offsets_E1[-1])
    cuts = np.searchsorted(table.offsets_E1, total * np.arange(1, n_parts) / n_parts).tolist()
    bounds = sorted({0, *cuts, table.n_examples})
    return list(pairwise(bounds))


def layer_groups(shape: SiteShape, config: ReductionsConfig, n_subfunctions: int) -> list[tuple[int, int]]:
    """Ranges of indices of layers whose state fits `state_bytes`; a layer that does not is a group of its own."""
    groups: list[tuple[int, int]] = []
    start = 0
    for stop in range(1, len(shape.layers) + 1):
        if (
            stop == len(shape.layers)
            or _state(shape.widths[start : stop + 1], config, n_subfunctions) > config.state_bytes
        ):
            groups.append((start, stop))
            start = stop
    return groups


def _state(widths: Sequence[int], config: ReductionsConfig, n_subfunctions: int) -> int:
    return reduction_bytes(config, widths, n_subfunctions=len(HALVES) * n_subfunctions).state_bytes


def reduction_problems(
    config: ReductionsConfig,
    shape: SiteShape | None,
    description: ModelDescription,
    functions: Sequence[FunctionData],
) -> list[str]:
    """Why the reductions that the config asks for cannot be computed; nothing if they can."""
    if shape is None or not config.kinds:
        return []
    problems = []
    experts = description.native_experts[shape.site.stack] if shape.site.name == "ffn.neurons" else ()
    routed = [layer for layer in shape.layers if layer in experts]
    if "co_activation" in config.kinds and routed:
        problems.append(
            f"reductions.kinds has 'co_activation', but the layers {routed} of {shape.site} have experts, whose "
            "neurons have no values for the same tokens; leave it out, or set capture.layers to dense layers"
        )
    n_subfunctions = max((len(function.subfunctions) for function in functions), default=0)
    widest = max(shape.widths)
    needed = _state([widest], config, n_subfunctions)
    if needed > config.state_bytes:
        problems.append(
            f"reductions: one layer of {widest} neurons needs {needed:,} bytes, reductions.state_bytes is "
            f"{config.state_bytes:,}; raise it, or leave out a kind (co_activation takes {widest}² numbers)"
        )
    return problems


def reduce_items(
    function: str,
    data: str,
    ranges: Sequence[tuple[int, int]],
    shape: SiteShape,
    config: ReductionsConfig,
    n_subfunctions: int = 0,
) -> list[WorkItem]:
    """Ranges of examples of a function or a corpus with the fingerprint `data`, for each group of layers."""
    settings = config_digest(config)
    return [
        WorkItem.of(
            "reduce",
            function=function,
            data=data,
            settings=settings,
            site=str(shape.site),
            part=part,
            start=start,
            stop=stop,
            first_layer=first,
            last_layer=last,
        )
        for part, (start, stop) in enumerate(ranges)
        for first, last in layer_groups(shape, config, n_subfunctions)
    ]


def merge_items(function: str, shape: SiteShape, config: ReductionsConfig) -> list[WorkItem]:
    """One item for each layer, and one for the effects of labels over all layers."""
    settings = config_digest(config)
    items = [WorkItem.of("merge", function=function, settings=settings, layer=layer) for layer in shape.layers]
    if "per_label" in config.kinds:
        items.append(WorkItem.of("label_effects", function=function, settings=settings))
    return items


def config_digest(config: ReductionsConfig) -> str:
    """Stands for everything in the config that the numbers depend on."""
    values: Mapping[str, object] = config.as_json()
    return content_digest(
        {name: value for name, value in values.items() if name not in ("store_rows", "state_bytes", "corpora")}
    )
