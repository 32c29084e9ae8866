"""What the page shows of activity over all tokens: how often neurons fire, and where single ones are most active."""

from dataclasses import dataclass

import numpy as np

from modularity.report.content import Finding, FloatArray
from modularity.report.grids import Grid
from modularity.report.wording import count, percent, plural

RATE_EDGES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 0.5)
"""Upper ends of the bins of firing rates, each with its end; above the last: below 1, and 1."""
RATE_NAMES = ("0", "≤.01", "≤.1", "≤1", "≤10", "≤50", "<100", "100")
"""The bins in per cent."""


@dataclass(frozen=True)
class Context:
    """A text on which a neuron is most active."""

    value: float
    token: str
    text: str
    """The token and those around it."""
    example: str


@dataclass(frozen=True)
class ActiveNeuron:
    """A neuron whose largest values stand out."""

    layer: int
    neuron: int
    peak: float | None
    """(largest value - mean) / standard deviation over tokens; None without moments."""
    rate: float | None
    contexts: tuple[Context, ...]


@dataclass(frozen=True, eq=False)
class Activity:
    """Activity of all neurons on the tokens of one function or corpus."""

    name: str
    layers: tuple[int, ...]
    n_tokens: int
    threshold: float
    rate_LF: FloatArray | None = None
    """Share of tokens on which a neuron fires; NaN beyond the width of a layer. None: not computed."""
    neurons: tuple[ActiveNeuron, ...] = ()
    is_peak: bool = False
    """Whether the neurons are those with the largest peaks; else those with the largest values."""


def rate_bins(rate_F: FloatArray) -> FloatArray:
    """Share of neurons in each bin of `RATE_NAMES`; NaN values do not count."""
    known = rate_F[np.isfinite(rate_F)]
    bins = np.searchsorted(RATE_EDGES, known, side="left") + (known >= 1)
    return np.bincount(bins, minlength=len(RATE_NAMES)) / max(len(known), 1)


def activity_grid(each: Activity) -> Grid:
    """Layers by bins of the firing rate."""
    assert each.rate_LF is not None
    return Grid(
        tuple(f"layer {layer}" for layer in each.layers),
        RATE_NAMES,
        np.stack([rate_bins(rate_F) for rate_F in each.rate_LF]),
        "share of the layer's neurons",
        "per cent of the tokens on which a neuron fires",
        maximum=1.0,
    )


def activity_caption(each: Activity) -> str:
    """Caption of the firing rates of one function or corpus."""
    return (
        f"Of the neurons of each layer, how many fire how often on the {plural(each.n_tokens, 'token')} of "
        f"{each.name}: a neuron fires where its value is above {each.threshold:g}. Every neuron is in exactly one cell "
        "of its row; each column begins where the one before ends."
    )


def activity_finding(each: Activity) -> Finding | None:
    """How many neurons never fire, and how often the median one does; nothing where it was not computed."""
    if each.rate_LF is None or not np.isfinite(each.rate_LF).any():
        return None
    known = each.rate_LF[np.isfinite(each.rate_LF)]
    text = (
        f"{each.name}: {count(int((known == 0).sum()))} of {plural(len(known), 'neuron')} never fire on "
        f"{plural(each.n_tokens, 'token')}; the median neuron fires on {percent(float(np.median(known)))} of them"
    )
    if len(each.layers) > 1:
        medians = np.nanmedian(each.rate_LF, axis=1)
        low, high = int(np.nanargmin(medians)), int(np.nanargmax(medians))
        text += (
            f" (of layer {each.layers[low]} on {percent(float(medians[low]))}, "
            f"of layer {each.layers[high]} on {percent(float(medians[high]))})"
        )
    return Finding(f"{text}.", "descriptive", each.name, "activity")
