"""Small multiples of line plots: a panel for each function and measure, with common scales.

Each panel shows one function in its colour and the other functions in faint grey; the null is a grey band and a dashed
line; each control has a dash and a colour of its own. Gaps in a line are missing values.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from markupsafe import Markup

from modularity.report.content import FloatArray
from modularity.report.svg import (
    Box,
    coordinate,
    drawing,
    element,
    polyline,
    text,
    text_width,
    tick_labels,
    ticks,
    wrapped,
)

Style = Literal["line", "other", "null", "control1", "control2", "control3", "open"]
PANEL_MIN_PX, PANEL_MAX_PX, PANEL_HEIGHT_PX = 205.0, 420.0, 176.0


@dataclass(frozen=True, eq=False)
class Series:
    """One line of a panel."""

    x: FloatArray
    y: FloatArray
    style: Style
    low: FloatArray | None = None
    high: FloatArray | None = None
    """Ends of whiskers at each point."""
    tips: tuple[tuple[str, ...], ...] = ()
    """Lines of the tooltip for each point; empty when the points have none."""


@dataclass(frozen=True, eq=False)
class Band:
    """An area between two lines."""

    x: FloatArray
    low: FloatArray
    high: FloatArray
    style: Style | None = None
    """Style of the line that it belongs to, in whose colour it is a tint; None = grey."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One plot: a title, the colour class of its main series, the series and bands from back to front."""

    title: str
    colour: str
    series: tuple[Series, ...]
    bands: tuple[Band, ...] = ()
    y_label: str = ""
    row: int = 0
    """Panels of one row share a y-scale, and start a new line of panels."""
    from_zero: bool = True
    """Whether the y-scale has to hold zero."""


@dataclass(frozen=True, eq=False)
class XAxis:
    """The common x-axis: positions, what is written at them, and the name of the axis."""

    label: str
    positions: FloatArray
    labels: tuple[str, ...]
    logarithmic: bool = False

    def scale(self, box: Box, x: FloatArray) -> FloatArray:
        """Pixel positions of `x` in `box`, with half a step free at both ends."""
        values, ends = (np.log(x), np.log(self.positions)) if self.logarithmic else (x, self.positions)
        low, high = float(ends.min()), float(ends.max())
        margin = 10 if high > low else box.width / 2
        share = (values - low) / (high - low) if high > low else np.zeros_like(values)
        return np.asarray(box.x + margin + share * (box.width - 2 * margin))


@dataclass(frozen=True)
class _Scale:
    box: Box
    low: float
    high: float

    def __call__(self, value: float) -> float:
        return self.box.bottom - (value - self.low) / (self.high - self.low) * self.box.height


@dataclass
class _Points:
    """Positions and tooltips of all points that answer to the pointer, in drawing order."""

    positions: list[str] = field(default_factory=list)
    tips: list[tuple[str, ...]] = field(default_factory=list)


def y_range(panels: list[Panel]) -> tuple[float, float]:
    """Common y-range of the panels: holds every line, band and whisker, and zero where a panel asks for it."""
    arrays = [array for p in panels for s in p.series for array in (s.y, s.low, s.high) if array is not None]
    arrays += [array for p in panels for b in p.bands for array in (b.low, b.high)]
    from_zero = any(panel.from_zero for panel in panels)
    values = np.concatenate([*arrays, np.zeros(1)]) if from_zero else np.concatenate(arrays)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if high <= low:
        high = low + 1
    if not from_zero:
        return low - 0.06 * (high - low), high + 0.06 * (high - low)
    return (low - 0.03 * (high - low) if low < 0 else 0.0), high + 0.06 * (high - low)


def line_figure(
    name: str,
    title: str,
    description: str,
    panels: tuple[Panel, ...],
    axis: XAxis,
    *,
    width: float,
    legend: tuple[tuple[str, str], ...] = (),
) -> tuple[Markup, list[tuple[str, ...]]]:
    """Drawing of all panels at this width, and the tooltips of its points in the order of `data-points`."""
    rows = [[panel for panel in panels if panel.row == row] for row in sorted({panel.row for panel in panels})]
    left, top, gap, foot = 46.0, 30.0, 16.0, 40.0
    columns = max(1, min(max(map(len, rows)), int((width - left + gap) // (PANEL_MIN_PX + gap))))
    panel_width = min(PANEL_MAX_PX, (width - left - gap * (columns - 1) - 6) / columns)
    key, y = _legend(legend, width)
    points, parts = _Points(), [key]
    for row in rows:
        low, high = y_range(row)
        for index, panel in enumerate(row):
            if index and index % columns == 0:
                y += top + PANEL_HEIGHT_PX + foot
            box = Box(left + (index % columns) * (panel_width + gap), y + top, panel_width, PANEL_HEIGHT_PX)
            parts.append(_panel(panel, axis, _Scale(box, low, high), points, first=index % columns == 0))
        y += top + PANEL_HEIGHT_PX + foot
    data = {"kind": "points", "points": " ".join(points.positions)}
    return drawing(name, title, description, width, y, *parts, data=data), points.tips


def _legend(entries: tuple[tuple[str, str], ...], width: float) -> tuple[Markup, float]:
    """Samples of the styles with their meaning, wrapped at `width`, and the height that they take."""
    parts, x, y = [], 6.0, 12.0
    for style, label in entries:
        lines = wrapped(label, width - 36)
        needed = 30 + max(map(text_width, lines)) + 14
        if x > 6 and (x + needed - 14 > width or len(lines) > 1):
            x, y = 6.0, y + 18
        parts += _sample(style, x, y - 4)
        parts += [text(x + 30, y + 15 * number, line, class_="muted") for number, line in enumerate(lines)]
        x, y = x + needed, y + 15 * (len(lines) - 1)
    return element("g", *parts), y + 12 if entries else 0.0


def _sample(style: str, x: float, y: float) -> list[Markup]:
    if style == "band":
        return [element("rect", x=x, y=y - 5, width=24.0, height=10.0, class_="band")]
    shapes = [] if style == "open" else [element("path", d=f"M{coordinate(x)} {coordinate(y)}h24", class_=style)]
    if style == "line":
        shapes.append(element("path", d=f"M{coordinate(x + 12)} {coordinate(y - 6)}v12", class_="whisker"))
    if style in ("line", "open"):
        shapes.append(element("circle", cx=x + 12, cy=y, r=3.0, class_="dot" if style == "line" else "open"))
    return shapes


def _panel(panel: Panel, axis: XAxis, scale: _Scale, points: _Points, *, first: bool) -> Markup:
    box = scale.box
    parts = [
        text(box.x, box.y - 12, panel.title, class_="strong", limit_px=box.width),
        *_axes(axis, scale, first=first),
    ]
    if first and panel.y_label:
        parts.append(text(box.x - 36, box.y + box.height / 2, panel.y_label, class_="muted mid", turned=True))
    parts += [_band(band, axis, scale) for band in panel.bands]
    parts += [_series(series, axis, scale, points) for series in panel.series]
    return element("g", *parts, class_=panel.colour)


def _axes(axis: XAxis, scale: _Scale, *, first: bool) -> list[Markup]:
    box = scale.box
    positions = ticks(scale.low, scale.high, 5)
    parts = []
    for value, label in zip(positions, tick_labels(positions)):
        style = "axis" if value == 0 else "grid"
        parts.append(
            element("path", d=f"M{coordinate(box.x)} {coordinate(scale(value))}H{coordinate(box.right)}", class_=style)
        )
        if first:
            parts.append(text(box.x - 6, scale(value) + 4, label, class_="muted end"))
    at = axis.scale(box, axis.positions)
    every = max(1, math.ceil(len(at) * (max(map(text_width, axis.labels)) + 8) / box.width))
    named = list(zip(at, axis.labels))[::every]
    parts += [text(float(x), box.bottom + 16, label, class_="muted mid") for x, label in named]
    parts.append(text(box.x + box.width / 2, box.bottom + 31, axis.label, class_="muted mid"))
    return parts


def tint(style: Style | None) -> str:
    """CSS class of a band that belongs to a line of this style."""
    if style is None or style in ("other", "open"):
        return "band"
    return f"tint tint-{style}"


def _band(band: Band, axis: XAxis, scale: _Scale) -> Markup:
    x = axis.scale(scale.box, band.x)
    good = np.isfinite(band.low) & np.isfinite(band.high)
    upper = [(float(a), scale(float(b))) for a, b in zip(x[good], band.high[good])]
    lower = [(float(a), scale(float(b))) for a, b in zip(x[good], band.low[good])]
    if len(upper) == 1:
        upper = [(upper[0][0] - 14, upper[0][1]), (upper[0][0] + 14, upper[0][1])]
        lower = [(lower[0][0] - 14, lower[0][1]), (lower[0][0] + 14, lower[0][1])]
    return element("path", d=polyline(upper + lower[::-1]) + ("Z" if upper else ""), class_=tint(band.style))


def _series(series: Series, axis: XAxis, scale: _Scale, points: _Points) -> Markup:
    x = axis.scale(scale.box, series.x)
    at = [(float(a), scale(float(b))) for a, b in zip(x, series.y)]
    parts = []
    if series.style != "open":
        parts.append(element("path", d=polyline(at), class_=series.style))
    if series.low is not None and series.high is not None:
        ends = [f"M{coordinate(float(a))} {coordinate(scale(float(low)))}V{coordinate(scale(float(high)))}"
                for a, low, high in zip(x, series.low, series.high) if math.isfinite(low + high)]  # fmt: skip
        parts.append(element("path", d="".join(ends), class_="whisker"))
    for index, point in enumerate(at):
        if not all(map(math.isfinite, point)):
            continue
        if series.style in ("line", "open"):
            style = "dot" if series.style == "line" else "open"
            parts.append(element("circle", cx=point[0], cy=point[1], r=3.2 if style == "dot" else 2.6, class_=style))
        if series.tips:
            points.positions.append(f"{coordinate(point[0])},{coordinate(point[1])}")
            points.tips.append(series.tips[index])
    return element("g", *parts)
