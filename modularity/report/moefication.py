"""What the page shows of a MoEfication: mass and scores against the share of experts, and mass layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modularity.errors import DataError
from modularity.report.curves import Plot
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import interval, number, percent, plural

FloatArray = npt.NDArray[np.float64]
CONTROL = "random"
MEASURES = {
    "mass": ("activation mass kept", "mass kept"),
    "loss": ("rise of the loss (nats)", "loss"),
    "kl": ("divergence from the whole model (nats)", "divergence"),
    "agreement": ("same most likely token", "agreement"),
    "accuracy": ("accuracy, mean of tasks", "accuracy"),
}
"""Measures that are drawn, what stands at their axis, and their short name."""
ROUTERS = {
    "mlp": "trained router",
    "oracle": "oracle",
    "parameter": "parameter router",
    "random": "random router",
}
"""Routers in the order in which they claim the main line, and their names."""
PARTITIONS = {"random": "random experts", "balanced": "experts by weights", "coactivation": "experts by co-activation"}
"""Names of partitions where they are not clear."""
_LABEL_WIDTH = 0.17
"""Part of a panel that a label of the axis takes."""
_CONTROL_STYLES: tuple[Style, ...] = ("control1", "control2")


@dataclass(frozen=True, eq=False)
class SelectionLine:
    """One measure with one router, at every share or in every layer."""

    router: str
    value_X: FloatArray
    """Mean over seeds."""
    low_X: FloatArray
    high_X: FloatArray
    """95 % interval over texts, widened to the range over seeds."""
    ffn_flops_X: FloatArray
    """Operations of the divided FFNs by those of whole ones."""


@dataclass(frozen=True, eq=False)
class SelectionPanel:
    """One measure under one partition."""

    partition: str
    measure: str
    x_X: FloatArray
    """Shares of experts, or layers."""
    lines: tuple[SelectionLine, ...]
    whole: float
    """The measure of the whole model; for the loss, which is drawn as its rise, the loss itself."""

    def __post_init__(self) -> None:
        for line in self.lines:
            if line.value_X.shape != self.x_X.shape:
                raise DataError(
                    f"line {line.router!r} of partition {self.partition!r} has {len(line.value_X)} points, expected "
                    f"{len(self.x_X)}"
                )


@dataclass(frozen=True, eq=False)
class ExpertSelection:
    """Everything that the page shows of a MoEfication."""

    shares: tuple[SelectionPanel, ...]
    """Against the share of experts."""
    layers: tuple[SelectionPanel, ...]
    """Mass by layer, at one share."""
    layer_share: float
    """That share: selected experts by all."""
    n_experts: int
    n_seeds: int


def partition_name(partition: str) -> str:
    """What a partition is called on the page."""
    return PARTITIONS.get(partition, f"{partition} experts")


def main_router(routers: Sequence[str]) -> str:
    """The router whose line is the main one."""
    return next(name for name in ROUTERS if name in routers)


def share_plot(shown: ExpertSelection) -> Plot:
    """All measures against the share of experts, a row for each and a panel for each partition."""
    x_X = shown.shares[0].x_X
    names = tuple(percent(float(x), 0) for x in x_X)
    measures = list(dict.fromkeys(panel.measure for panel in shown.shares))
    texts = [MEASURES[name][0] for name in measures]
    return Plot(
        name="selection",
        section="selection",
        title="What is kept when a token runs only some experts",
        description=f"Line plots of {', '.join(texts)} by share of experts for {_partitions(shown.shares)}.",
        caption=(
            f"{shown.n_experts} experts in each layer; every token runs the share of them that a router selects. "
            "Activation mass: what the selected experts hold of a layer's activation, with all other layers whole. The "
            "other rows: all layers select at once. Texts did not train the routers. Bands: 95 % intervals over texts, "
            f"widened to the range over {plural(shown.n_seeds, 'seed')}. Nulls are the dashed line, a router that "
            "nothing has taught, and the panels of random experts, drawn anew for every seed."
        ),
        panels=tuple(_panel(panel, shown.shares, measures.index(panel.measure), names) for panel in shown.shares),
        axis=XAxis("experts that a token runs", x_X, _apart(x_X, names)),
        legend=_legend(shown.shares),
        headers=("experts", "router", "measure", "share", "value", "band", "whole model", "FFN operations"),
        rows=tuple(
            (partition_name(panel.partition), ROUTERS[line.router], MEASURES[panel.measure][1], names[i],
             number(float(line.value_X[i]), 3), interval(float(line.low_X[i]), float(line.high_X[i]), 3),
             number(panel.whole, 3), percent(float(line.ffn_flops_X[i]), 0))
            for panel in shown.shares for line in panel.lines for i in range(len(names))
        ),
    )  # fmt: skip


def layer_plot(shown: ExpertSelection) -> Plot:
    """Mass kept by layer at one share, a panel for each partition."""
    x_X = shown.layers[0].x_X
    names = tuple(f"{layer:g}" for layer in x_X)
    places = tuple(f"layer {name}" for name in names)
    return Plot(
        name="selection-layers",
        section="selection",
        title=f"Mass kept in each layer by {percent(shown.layer_share, 0)} of its experts",
        description=f"Line plots of activation mass kept by layer for {_partitions(shown.layers)}.",
        caption=(
            f"Activation mass that {percent(shown.layer_share, 0)} of the experts of a layer hold, as above, every "
            f"layer on its own. Experts that know nothing hold {percent(shown.layer_share, 0)} of it on average."
        ),
        panels=tuple(_panel(panel, shown.layers, 0, places) for panel in shown.layers),
        axis=XAxis("layer", x_X, names),
        legend=_legend(shown.layers),
        headers=("experts", "router", "layer", "mass kept", "band"),
        rows=tuple(
            (partition_name(panel.partition), ROUTERS[line.router], names[i], number(float(line.value_X[i]), 3),
             interval(float(line.low_X[i]), float(line.high_X[i]), 3))
            for panel in shown.layers for line in panel.lines for i in range(len(names))
        ),
    )  # fmt: skip


def _apart(x_X: FloatArray, names: Sequence[str]) -> tuple[str, ...]:
    """The names with those left empty that would run into the one before, or into the last."""
    shown, previous = [], -np.inf
    for x, name in zip(x_X, names):
        is_free = x - previous >= _LABEL_WIDTH * np.ptp(x_X) and (
            x == x_X[-1] or x_X[-1] - x >= _LABEL_WIDTH * np.ptp(x_X)
        )
        shown.append(name if is_free else "")
        previous = x if is_free else previous
    return tuple(shown)


def _partitions(panels: Sequence[SelectionPanel]) -> str:
    return plural(len(dict.fromkeys(panel.partition for panel in panels)), "partition")


def _styles(panels: Sequence[SelectionPanel]) -> dict[str, Style]:
    """Style of each router: the main one in the colour of its panel, the control dashed grey."""
    routers = list(dict.fromkeys(line.router for panel in panels for line in panel.lines))
    styles: dict[str, Style] = {main_router(routers): "line"}
    others = [name for name in ROUTERS if name in routers and name not in styles and name != CONTROL]
    styles |= dict(zip(others, _CONTROL_STYLES))
    return styles | ({CONTROL: "null"} if CONTROL in routers and CONTROL not in styles else {})


def _legend(panels: Sequence[SelectionPanel]) -> tuple[tuple[str, str], ...]:
    return tuple((style, ROUTERS[router]) for router, style in _styles(panels).items())


def _panel(panel: SelectionPanel, panels: Sequence[SelectionPanel], row: int, names: tuple[str, ...]) -> Panel:
    styles = _styles(panels)
    lines = sorted(panel.lines, key=lambda line: list(styles).index(line.router), reverse=True)
    partitions = list(dict.fromkeys(each.partition for each in panels))
    tips = tuple(_tip(panel, lines[::-1], names[i], i) for i in range(len(names)))
    series = tuple(
        Series(panel.x_X, line.value_X, styles[line.router], tips=tips if styles[line.router] == "line" else ())
        for line in lines
    )
    bands = tuple(Band(panel.x_X, line.low_X, line.high_X, styles[line.router]) for line in lines)
    label, short = MEASURES[panel.measure]
    title = f"{partition_name(panel.partition)}: {short}"
    return Panel(title, category(partitions.index(panel.partition)), series, bands, label, row)


def _tip(panel: SelectionPanel, lines: Sequence[SelectionLine], name: str, index: int) -> tuple[str, ...]:
    values = (
        f"{ROUTERS[line.router]} {number(float(line.value_X[index]), 3)} "
        f"{interval(float(line.low_X[index]), float(line.high_X[index]), 3)}".rstrip()
        for line in lines
    )
    return (f"{partition_name(panel.partition)} · {name}", *values)
