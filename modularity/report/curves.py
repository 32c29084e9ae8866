"""What the three line plots show: panels, tooltips, captions and tables of values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from modularity.report.captions import curve_caption, expert_caption, function_expert_caption, sensitivity_caption
from modularity.report.content import ExpertCurve, FloatArray, FunctionCurve, ReportContent, SensitivityCurve
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import MISSING, number, p_value, percent, plural, significant, with_interval


@dataclass(frozen=True, eq=False)
class Plot:
    """A line plot before it is drawn at some width."""

    name: str
    section: str
    title: str
    description: str
    caption: str
    panels: tuple[Panel, ...]
    axis: XAxis
    legend: tuple[tuple[str, str], ...]
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Measure:
    """One of the two measures of functional experts, as it is plotted."""

    name: str
    label: str
    factor: float
    unit: str

    def of(self, proportion: FloatArray, degree: FloatArray) -> FloatArray:
        """The measure's own array of the two, in the unit of the plot."""
        return self.factor * (proportion if self.name == "proportion" else degree)

    def text(self, value: float) -> str:
        """A value with its unit."""
        return f"{significant(float(value))}{self.unit}"


MEASURES = (
    Measure("proportion", "functional experts (%)", 100.0, " %"),
    Measure("degree", "modularisation degree", 1.0, ""),
)
_CONTROL_STYLES: tuple[Style, ...] = ("null", "control1", "control2", "control3")


def _layers(curves: Sequence[FunctionCurve | ExpertCurve]) -> XAxis:
    layers = sorted({layer for curve in curves for layer in curve.layers})
    return XAxis("layer", np.array(layers, dtype=np.float64), tuple(map(str, layers)))


def _x(curve: FunctionCurve | ExpertCurve) -> FloatArray:
    return np.array(curve.layers, dtype=np.float64)


def curve_plot(content: ReportContent) -> Plot:
    """Best predictivity per layer against its null, a panel for each function."""
    curves = content.curves
    legend = [("line", f"best neuron on {content.scored_on}, {content.interval}")]
    if any(curve.selection_L is not None for curve in curves):
        legend.append(("open", "the same on selection examples"))
    if any(curve.random_L is not None for curve in curves):
        legend.append(("control2", "the same architecture with random weights, same examples"))
    legend += [("null", "best neuron under permuted labels (mean)"), ("band", "5–95 % of permutations")]
    if len(curves) > 1:
        legend.append(("other", "other functions"))
    best = [f"{c.function} reaches {number(float(np.nanmax(c.best_L)))}" for c in curves if np.isfinite(c.best_L).any()]
    return Plot(
        name="predictivity",
        section="predictivity",
        title="Best neuron of each layer against chance",
        description=f"Line plot of {content.metric} by layer for {_functions(curves)}. {'; '.join(best)}.",
        caption=curve_caption(curves, content.metric, content.scored_on),
        panels=tuple(_curve_panel(content, curve) for curve in curves),
        axis=_layers(curves),
        legend=tuple(legend),
        headers=("function", "layer", content.metric, "low", "high", "null mean", "null 95 %"),
        rows=tuple(_curve_row(curve, i) for curve in curves for i in range(len(curve.layers))),
    )


def _functions(curves: Sequence[object]) -> str:
    return plural(len(curves), "function")


def _curve_row(curve: FunctionCurve, index: int) -> tuple[str, ...]:
    arrays = (curve.best_L, curve.low_L, curve.high_L, curve.null_L, curve.null_high_L)
    return (curve.function, str(curve.layers[index]), *(number(float(array[index])) for array in arrays))


def _curve_panel(content: ReportContent, curve: FunctionCurve) -> Panel:
    x, positions = _x(curve), range(len(curve.layers))
    tips = tuple(_curve_tip(content, curve, i) for i in positions)
    series = [Series(_x(other), other.best_L, "other") for other in content.curves if other is not curve]
    series.append(Series(x, curve.null_L, "null"))
    series.append(Series(x, curve.best_L, "line", curve.low_L, curve.high_L, tips))
    if curve.random_L is not None:
        tips = tuple(_random_tip(content, curve, curve.random_L, i) for i in positions)
        series.append(Series(x, curve.random_L, "control2", curve.random_low_L, curve.random_high_L, tips))
    if curve.selection_L is not None:
        tips = tuple(_selection_tip(curve, float(curve.selection_L[i]), i) for i in positions)
        series.append(Series(x, curve.selection_L, "open", tips=tips))
    band = Band(x, curve.null_L if curve.null_low_L is None else curve.null_low_L, curve.null_high_L)
    colour = category(content.function_order().index(curve.function))
    return Panel(curve.function, colour, tuple(series), (band,), content.metric)


def _null_text(curve: FunctionCurve, index: int) -> str:
    mean, high = number(float(curve.null_L[index])), number(float(curve.null_high_L[index]))
    return f"best under permuted labels {mean}, 95 % below {high}"


def _selection_tip(curve: FunctionCurve, value: float, index: int) -> tuple[str, ...]:
    title = f"{curve.function} · layer {curve.layers[index]}"
    return title, f"on selection examples {number(value)}", _null_text(curve, index)


def _random_tip(content: ReportContent, curve: FunctionCurve, random_L: FloatArray, index: int) -> tuple[str, ...]:
    value = number(float(random_L[index]))
    if curve.random_low_L is not None and curve.random_high_L is not None:
        low, high = float(curve.random_low_L[index]), float(curve.random_high_L[index])
        value = with_interval(float(random_L[index]), low, high)
    tip = [f"{curve.function} · layer {curve.layers[index]} · random weights", f"{content.metric} {value}"]
    if curve.random_p_value_L is not None:
        tip.append(f"{p_value(float(curve.random_p_value_L[index]))} against its own permuted labels")
    return tuple(tip)


def _curve_tip(content: ReportContent, curve: FunctionCurve, index: int) -> tuple[str, ...]:
    value = with_interval(float(curve.best_L[index]), float(curve.low_L[index]), float(curve.high_L[index]))
    tip = [f"{curve.function} · layer {curve.layers[index]}", f"{content.metric} {value}", _null_text(curve, index)]
    if curve.p_value_L is not None:
        tip.append(p_value(float(curve.p_value_L[index])))
    return tuple(tip)


def _control_styles(content: ReportContent) -> dict[str, Style]:
    """Line style of each control, by the order in which controls first appear; beyond four all look alike."""
    curves = (*content.expert_curves, *content.function_expert_curves)
    names = dict.fromkeys(control.name for curve in curves for control in curve.controls)
    return {name: _CONTROL_STYLES[min(index, len(_CONTROL_STYLES) - 1)] for index, name in enumerate(names)}


def expert_plot(content: ReportContent) -> Plot:
    """Proportion and degree of functional experts per layer against their controls."""
    title = "Functional experts of each layer against their controls"
    return _expert_plot(content, content.expert_curves, "experts", title, expert_caption(content.expert_curves))


def function_expert_plot(content: ReportContent) -> Plot:
    """The same for functions as wholes: the lists of their sub-functions together."""
    curves, title = content.function_expert_curves, "Functional experts of whole functions against their controls"
    return _expert_plot(content, curves, "experts-functions", title, function_expert_caption(curves))


def _expert_plot(content: ReportContent, curves: Sequence[ExpertCurve], name: str, title: str, caption: str) -> Plot:
    styles = _control_styles(content)
    return Plot(
        name=name,
        section="experts",
        title=title,
        description=f"Line plots of proportion and degree of functional experts by layer for {_functions(curves)}.",
        caption=caption,
        panels=tuple(_expert_panel(content, curve, row) for row in range(2) for curve in curves),
        axis=_layers(curves),
        legend=(("line", "experts"), *((style, name) for name, style in styles.items())),
        headers=("function", "layer", "proportion", "degree", *(f"degree, {name}" for name in styles)),
        rows=tuple(_expert_row(curve, i, tuple(styles)) for curve in curves for i in range(len(curve.layers))),
    )


def _expert_row(curve: ExpertCurve, index: int, names: tuple[str, ...]) -> tuple[str, ...]:
    degrees = {control.name: significant(float(control.degree_L[index])) for control in curve.controls}
    own = (percent(float(curve.proportion_L[index]), 2), significant(float(curve.degree_L[index])))
    return (curve.function, str(curve.layers[index]), *own, *(degrees.get(name, MISSING) for name in names))


def _expert_panel(content: ReportContent, curve: ExpertCurve, row: int) -> Panel:
    measure, x, styles = MEASURES[row], _x(curve), _control_styles(content)
    own = measure.of(curve.proportion_L, curve.degree_L)
    controls = [(c.name, measure.of(c.proportion_L, c.degree_L)) for c in curve.controls]
    tips = tuple(
        (
            f"{curve.function} · layer {layer}",
            f"{measure.name} {measure.text(own[i])}",
            *(f"{name} {measure.text(values[i])}" for name, values in controls),
        )
        for i, layer in enumerate(curve.layers)
    )
    series = [Series(x, values, styles[name]) for name, values in controls]
    colour = category(content.function_order().index(curve.function))
    title = f"{curve.function}: {measure.name}"
    return Panel(title, colour, (*series, Series(x, own, "line", tips=tips)), (), measure.label, row)


def sensitivity_plot(content: ReportContent) -> Plot:
    """Modularisation degree against the top fraction, with the exact expectation over random partitions."""
    curves = content.sensitivity
    fractions = np.unique(np.concatenate([curve.fractions_Q for curve in curves]))
    panels = (_sensitivity_panel(content, curve, row) for row in range(2) for curve in curves)
    return Plot(
        name="sensitivity",
        section="sensitivity",
        title="Sensitivity to the top fraction",
        description=f"Line plots of proportion and degree by top fraction for {_functions(curves)}.",
        caption=sensitivity_caption(curves),
        panels=tuple(panels),
        axis=XAxis(
            "top fraction of neurons (%)", fractions, tuple(f"{100 * f:g}" for f in fractions), logarithmic=True
        ),
        legend=(("line", "experts"), ("null", "random partition, expected")),
        headers=("function", "top fraction", "top neurons", "proportion", "random", "degree", "random degree"),
        rows=tuple(_sensitivity_row(curve, i) for curve in curves for i in range(len(curve.fractions_Q))),
    )


def _sensitivity_row(curve: SensitivityCurve, index: int) -> tuple[str, ...]:
    shares = (percent(float(array[index]), 2) for array in (curve.proportion_Q, curve.random_proportion_Q))
    degrees = (significant(float(array[index])) for array in (curve.degree_Q, curve.random_degree_Q))
    return (curve.function, percent(float(curve.fractions_Q[index])), _top_text(curve, index), *shares, *degrees)


def _top_text(curve: SensitivityCurve, index: int) -> str:
    """Number of top neurons; where the fraction is less than one neuron, that it was raised to one."""
    if curve.k_Q is None:
        return MISSING
    k, asked = f"{curve.k_Q[index]:g}", None if curve.asked_Q is None else float(curve.asked_Q[index])
    return k if asked is None or asked >= 1 else f"{k} (raised from {significant(asked, 2)})"


def _top_note(curve: SensitivityCurve, index: int) -> str:
    return "" if curve.k_Q is None else f": {_top_text(curve, index)} of each layer’s neurons"


def _sensitivity_panel(content: ReportContent, curve: SensitivityCurve, row: int) -> Panel:
    measure, x = MEASURES[row], curve.fractions_Q
    own = measure.of(curve.proportion_Q, curve.degree_Q)
    random = measure.of(curve.random_proportion_Q, curve.random_degree_Q)
    tips = tuple(
        (
            f"{curve.function} · top {percent(float(fraction))}{_top_note(curve, i)}",
            f"{measure.name} {measure.text(own[i])}",
            f"random partition {measure.text(random[i])}",
        )
        for i, fraction in enumerate(x)
    )
    colour = category(content.function_order().index(curve.function))
    series = (Series(x, random, "null"), Series(x, own, "line", tips=tips))
    return Panel(f"{curve.function}: {measure.name}", colour, series, (), measure.label, row)
