"""What the page shows of a tight pass: directions per layer, and sorted singular values of every layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modularity.report.content import Finding, Provenance
from modularity.report.curves import Plot
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import MISSING, number, plural, significant

FloatArray = npt.NDArray[np.float64]
STYLES: dict[str, tuple[Style, str]] = {
    "model": ("line", "the model, bars: 95 % interval over texts"),
    "random_weights": ("control1", "same architecture, random weights"),
    "shuffled_weights": ("control2", "same weights of each matrix in random order"),
    "bound": ("null", "analytic upper bound of the rank"),
}
"""Style and meaning of every line, in the order of the legend."""
MEASURE_NAMES = {
    "rank": "rank",
    "above_hundredth": "values above 1 %",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
}
"""Measures that are drawn, per token."""
SUB_BLOCK_NAMES = {"ffn": "FFN", "attention": "attention"}
LOWEST = -10.0
"""Decimal logarithm below which singular values are drawn at the foot."""


@dataclass(frozen=True, eq=False)
class LayerLine:
    """One measure of one sub-block under one condition, over layers."""

    sub_block: str
    measure: str
    condition: str
    """One of `STYLES`."""
    mean_L: FloatArray
    low_L: FloatArray
    high_L: FloatArray
    """Ends of the interval over texts; NaN with a single text."""


@dataclass(frozen=True, eq=False)
class SpectrumLine:
    """Sorted singular values of one sub-block and layer under one condition, over the largest of each."""

    sub_block: str
    layer: int
    condition: str
    median_X: FloatArray
    """Decimal logarithm of value over largest value, median over texts, at `TightPass.shares_X`."""
    low_X: FloatArray
    high_X: FloatArray
    """Smallest and largest over texts."""


@dataclass(frozen=True, eq=False)
class TightPass:
    """The whole page."""

    title: str
    model: str
    stack: str
    layers: tuple[int, ...]
    width: int
    n_texts: int
    n_tokens: int
    created: str
    state: str
    lines: tuple[LayerLine, ...]
    spectra: tuple[SpectrumLine, ...]
    shares_X: FloatArray
    """Shares of all singular values, the largest first."""
    methods: tuple[tuple[str, str], ...]
    """Sub-block, and how its spectra were computed."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    provenance: Provenance


def tight_pass_plots(content: TightPass) -> tuple[Plot, ...]:
    """Figures in the order of the page: directions by layer, then the spectra of each kind of sub-block."""
    plots = [_direction_plot(content)] if content.lines else []
    kinds = dict.fromkeys(line.sub_block for line in content.spectra)
    return (*plots, *(_spectrum_plot(content, kind) for kind in kinds))


def _direction_plot(content: TightPass) -> Plot:
    axis = XAxis("layer", np.array(content.layers, dtype=np.float64), tuple(map(str, content.layers)))
    kinds = list(dict.fromkeys(line.sub_block for line in content.lines))
    panels = tuple(_direction_panels(content, kinds))
    used = {line.condition for line in content.lines}
    return Plot(
        name="directions",
        section="directions",
        title="Directions that each sub-block uses, per token",
        description=f"Line plots of rank measures by layer for {', '.join(SUB_BLOCK_NAMES[kind] for kind in kinds)}.",
        caption=(
            "Measures of the singular values of the Jacobian of each sub-block without residual, divided by the number "
            f"of tokens: at most {content.width}, the width. Means over {plural(content.n_texts, 'text')}. The rank "
            "counts values above rounding in float64. Stable rank is the sum of squares over the largest square, "
            "effective rank the exponential of the entropy of the values. Where the Jacobian of attention was not "
            "written down, its rank is not known."
        ),
        panels=panels,
        axis=axis,
        legend=tuple(STYLES[name] for name in STYLES if name in used),
        headers=("sub-block", "measure", "condition", "layer", "mean over texts", "95 % interval"),
        rows=tuple(
            (SUB_BLOCK_NAMES[line.sub_block], MEASURE_NAMES[line.measure], line.condition.replace("_", " "), str(layer),
             significant(float(line.mean_L[i])), _interval(line, i))
            for line in content.lines for i, layer in enumerate(content.layers)
        ),
    )  # fmt: skip


def _direction_panels(content: TightPass, kinds: list[str]) -> Iterator[Panel]:
    x = np.array(content.layers, dtype=np.float64)
    for index, kind in enumerate(kinds):
        for measure, name in MEASURE_NAMES.items():
            own = [line for line in content.lines if (line.sub_block, line.measure) == (kind, measure)]
            if not own:
                continue
            own.sort(key=lambda line: list(STYLES).index(line.condition), reverse=True)
            series = []
            for line in own:
                style = STYLES[line.condition][0]
                if style != "line":
                    series.append(Series(x, line.mean_L, style))
                    continue
                tips = tuple(_direction_tip(own, name, i, layer) for i, layer in enumerate(content.layers))
                series.append(Series(x, line.mean_L, style, line.low_L, line.high_L, tips))
            title = f"{SUB_BLOCK_NAMES[kind]}: {name}"
            yield Panel(title, category(index), tuple(series), (), "per token", _row(index, measure))


def _row(kind: int, measure: str) -> int:
    """Panels of one row share a scale; stable ranks are far below the width."""
    return 2 * kind + int(measure == "stable_rank")


def _direction_tip(lines: list[LayerLine], measure: str, index: int, layer: int) -> tuple[str, ...]:
    shown = [
        f"{line.condition.replace('_', ' ')} {significant(float(line.mean_L[index]))} {_interval(line, index)}"
        for line in sorted(lines, key=lambda line: list(STYLES).index(line.condition))
    ]
    return (f"layer {layer} · {measure} per token", *shown)


def _interval(line: LayerLine, index: int) -> str:
    low, high = float(line.low_L[index]), float(line.high_L[index])
    return f"[{significant(low)}, {significant(high)}]" if np.isfinite(low + high) else MISSING


def _spectrum_plot(content: TightPass, kind: str) -> Plot:
    ticks = np.linspace(0, 1, 5)
    own = [line for line in content.spectra if line.sub_block == kind]
    layers = list(dict.fromkeys(line.layer for line in own))
    used = {line.condition for line in own}
    name = SUB_BLOCK_NAMES[kind]
    labels = {**STYLES, "model": ("line", "the model, median over texts")}
    return Plot(
        name=f"spectra-{kind}",
        section="spectra",
        title=f"Sorted singular values of the Jacobian: {name}",
        description=f"Line plots of sorted singular values of {name} by layer, a panel for each.",
        caption=(
            f"All singular values of the Jacobian of {name} without residual, the largest first, over the largest; "
            f"decimal logarithm. The grey area holds all {plural(content.n_texts, 'text')}. The horizontal axis is the "
            f"share of all values (tokens times width). Values below 1e{LOWEST:.0f} are drawn there."
        ),
        panels=tuple(_spectrum_panel(content, [one for one in own if one.layer == layer], layer) for layer in layers),
        axis=XAxis("share of singular values", ticks, tuple(f"{100 * tick:g} %" for tick in ticks)),
        legend=(*(labels[name] for name in labels if name in used), ("band", "smallest to largest of the texts")),
        headers=("layer", "condition", "share of values", "log10 of value / largest", "over texts"),
        rows=tuple(
            (str(line.layer), line.condition.replace("_", " "), f"{100 * share:.1f} %",
             number(float(line.median_X[i])), f"{number(float(line.low_X[i]))} to {number(float(line.high_X[i]))}")
            for line in own for i, share in enumerate(content.shares_X)
        ),
    )  # fmt: skip


def _spectrum_panel(content: TightPass, lines: list[SpectrumLine], layer: int) -> Panel:
    x, series, bands = content.shares_X, [], []
    for line in sorted(lines, key=lambda line: list(STYLES).index(line.condition), reverse=True):
        style = STYLES[line.condition][0]
        if style != "line":
            series.append(Series(x, line.median_X, style))
            continue
        bands.append(Band(x, line.low_X, line.high_X))
        tips = tuple(
            (
                f"layer {layer} · {100 * share:.1f} % of the values",
                f"10^{number(float(line.median_X[i]))} of the largest",
            )
            for i, share in enumerate(x)
        )
        series.append(Series(x, line.median_X, style, tips=tips))
    kind = list(dict.fromkeys(each.sub_block for each in content.spectra)).index(lines[0].sub_block)
    return Panel(f"layer {layer}", category(kind), tuple(series), tuple(bands), "log10 of value / largest")
