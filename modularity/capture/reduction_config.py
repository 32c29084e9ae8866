"""Which statistics over tokens are computed in flight, and the memory that they take: arithmetic on shapes only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from modularity.config import Config
from modularity.stats import (
    Accumulator,
    CoActivation,
    CoActivationRule,
    FiringRate,
    Histogram,
    LabelSums,
    Moments,
    TopExamples,
    log_edges,
)

ReductionName = Literal["moments", "firing_rate", "histogram", "top_examples", "per_label", "co_activation"]
REDUCTION_NAMES: tuple[ReductionName, ...] = get_args(ReductionName)

TILE_VALUES = 2**22
"""Values that are converted to float64 at a time on a CPU, so that they stay in its cache; more on an accelerator."""
DEVICE_TILE_VALUES = 2**25
_TILE_COPIES = 4
"""Arrays of eight bytes per value that are alive while a tile is reduced."""
_EXAMPLE_COPIES = 4
_PAIR_TILE_BYTES = 64 * 2**20


class ReductionConfig(Config):
    """Statistics over tokens, computed while the model runs; none by default."""

    kinds: tuple[ReductionName, ...] = ()
    """`moments`, `firing_rate`, `histogram` and `co_activation` are over the tokens that the function's pooling looks
    at; `top_examples` and `per_label` are over examples: an example's largest value, and its pooled row."""
    threshold: float = Field(default=0.0, allow_inf_nan=False)
    """A neuron fires where its value is above this."""
    smallest: float = Field(default=1e-3, gt=0, allow_inf_nan=False)
    """Smallest magnitude with a histogram bin of its own; below it and down to 0 is one bin on each side of 0."""
    largest: float = Field(default=1e2, gt=0, allow_inf_nan=False)
    """Largest magnitude with a bin; values beyond are counted."""
    n_bins: Annotated[int, Field(ge=1, le=4096)] = 30
    """Histogram bins between the two, on each side of 0, in equal ratios."""
    n_top: int = Field(default=20, ge=1)
    """Examples that are kept for each neuron."""
    co_activation: CoActivationRule = "positive"
    """`positive`: tokens for which both neurons are above 0; `groups`: the clamped sums of MoEfication (card B2)."""

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, kinds: tuple[ReductionName, ...]) -> tuple[ReductionName, ...]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("expected each kind only once")
        return tuple(name for name in REDUCTION_NAMES if name in kinds)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if not self.smallest < self.largest:
            raise ValueError(f"smallest={self.smallest} and largest={self.largest}: expected smallest below largest")
        return self

    @property
    def edges(self) -> np.ndarray:
        """Edges of the histogram bins, float64, exact in float32."""
        return log_edges(self.smallest, self.largest, self.n_bins)

    def empty(self, name: ReductionName, n_neurons: int, *, n_subfunctions: int = 0) -> Accumulator:
        """An accumulator of one kind that has seen nothing."""
        if name == "moments":
            return Moments.empty(n_neurons)
        if name == "firing_rate":
            return FiringRate.empty(n_neurons, self.threshold)
        if name == "histogram":
            return Histogram.empty(n_neurons, self.edges)
        if name == "top_examples":
            return TopExamples.empty(n_neurons, self.n_top)
        if name == "per_label":
            return LabelSums.empty(n_subfunctions, n_neurons)
        return CoActivation.empty(n_neurons, self.co_activation)


@dataclass(frozen=True)
class ReductionBytes:
    """Memory of the reductions of some layers."""

    by_kind: dict[ReductionName, int]
    """State of each kind over all these layers: what is held, and what one work item stores."""
    working_bytes: int
    """Largest temporary arrays, beside the state."""

    @property
    def state_bytes(self) -> int:
        """State of all kinds together."""
        return sum(self.by_kind.values())


def reduction_bytes(
    config: ReductionConfig,
    widths: Sequence[int],
    *,
    n_subfunctions: int = 0,
    n_tokens: int = 4096,
    n_examples: int = 256,
    on_device: bool = False,
) -> ReductionBytes:
    """Memory of the reductions of layers with these widths.

    Parameters
    ----------
    config : kinds and their settings
    widths : neurons of each layer
    n_subfunctions : label vectors of `per_label`
    n_tokens, n_examples : of the largest batch
    on_device : tiles are those of an accelerator
    """
    n_edges = 2 * config.n_bins + 3
    per_neuron = {
        "moments": 5 * 8,
        "firing_rate": 2 * 8,
        "histogram": (n_edges + 1) * 8 + 16,
        "top_examples": config.n_top * 16,
        "per_label": n_subfunctions * 2 * 16,
    }
    by_kind: dict[ReductionName, int] = {name: per_neuron.get(name, 0) * sum(widths) for name in config.kinds}
    if "per_label" in by_kind:
        by_kind["per_label"] += n_subfunctions * 2 * 8 * len(widths)
    if "co_activation" in by_kind:
        by_kind["co_activation"] = sum(8 * width**2 + 8 for width in widths)
    widest = max(widths, default=0)
    values = n_tokens * widest
    working = 4 * values + _TILE_COPIES * 8 * min(values, DEVICE_TILE_VALUES if on_device else TILE_VALUES)
    if {"top_examples", "per_label"} & set(config.kinds):
        working += _EXAMPLE_COPIES * 8 * n_examples * widest + 8 * config.n_top * widest
    if "per_label" in by_kind:
        working += 4 * n_subfunctions * 2 * 8 * widest
    if "co_activation" in by_kind:
        working += (4 if config.co_activation == "positive" else 16) * values + _PAIR_TILE_BYTES
    return ReductionBytes(by_kind, working)
