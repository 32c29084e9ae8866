"""Matrices of coloured cells: heat maps over layers, overlap matrices, and counts of top neurons in experts.

All cells of one colour are one path, so that ten thousand cells stay small; the page finds the cell under the pointer
from the edges in `data-x` and `data-y`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from modularity.report.content import FloatArray
from modularity.report.palette import N_LEVELS, category
from modularity.report.svg import coordinate, drawing, element, text, text_width, tick_labels, ticks, wrapped
from modularity.report.wording import number

ON_LIGHT_BELOW = 15
"""Levels under this are light on paper, so that marks on them are dark; the page swaps the two on a dark screen."""
GROUP_PX, SCALE_PX, LABEL_PX, LINE_PX = 25.0, 60.0, 150.0, 16.0


@dataclass(frozen=True, eq=False)
class Grid:
    """What is drawn: values with row and column names, groups of rows (and of columns), and marks."""

    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    """Short labels under the columns."""
    value: FloatArray
    """Values of shape (rows, columns); NaN is drawn as missing."""
    scale_label: str
    column_label: str = ""
    row_groups: tuple[str, ...] = ()
    column_groups: tuple[str, ...] = ()
    group_order: tuple[str, ...] = ()
    marked: npt.NDArray[np.bool_] | None = None
    mark_label: str = ""
    blank: npt.NDArray[np.bool_] | None = None
    """Cells that do not exist, such as self-pairs."""
    reference: float | None = None
    """A value marked on the colour scale, such as chance."""
    reference_label: str = "chance"
    turned: bool = False
    """Whether column labels are written upwards."""
    square: bool = False
    maximum: float | None = None
    """End of the colour scale; None takes the largest value."""
    digits: int = 2
    diverging: bool = False
    """Whether values have a sign: the colour scale then goes from `-top` over paper to `top`."""

    @property
    def top(self) -> float:
        """End of the colour scale, a round number; values at or below zero get the lowest colour."""
        finite = self.value[np.isfinite(self.value)] if self.maximum is None else np.array([self.maximum])
        finite = np.abs(finite) if self.diverging else finite
        largest = max(float(finite.max(initial=0.0)), self.reference or 0.0)
        if largest <= 0:
            return 1.0
        step = ticks(0, largest, 4)
        return largest if len(step) < 2 else math.ceil(largest / (step[1] - step[0]) - 1e-9) * (step[1] - step[0])


@dataclass
class _Layout:
    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    cell_width: float = 0.0
    cell_height: float = 0.0
    group_labels: list[tuple[float, str]] = field(default_factory=list)
    label_px: float = 0.0
    bottom: float = 0.0
    width: float = 0.0


def grid_figure(name: str, title: str, description: str, grid: Grid, *, width: float) -> Markup:
    """Drawing of one matrix, at most `width` wide where cells of 5 pixels allow it."""
    layout = _layout(grid, width)
    foot = _column_foot(grid, layout)
    scale, n_lines = _colour_scale(grid, layout.bottom + foot + 20, layout)
    body = (_row_labels(grid, layout), _cells(grid, layout), _marks(grid, layout), _column_labels(grid, layout), scale)
    data = {
        "kind": "grid",
        "x": " ".join(map(coordinate, layout.x)),
        "y": " ".join(map(coordinate, layout.y)),
        "cell": f"{coordinate(layout.cell_width)} {coordinate(layout.cell_height)}",
    }
    height = layout.bottom + foot + SCALE_PX + LINE_PX * max(0, n_lines - 2)
    return drawing(name, title, description, layout.width, height, *body, data=data)


def _layout(grid: Grid, width: float) -> _Layout:
    rows, columns = grid.value.shape
    longest = max((text_width(row) for row in grid.row_names), default=0)
    label = max(min(longest + 18, LABEL_PX if width > 500 and rows <= 40 else 112.0), 40.0)
    gaps = _n_gaps(grid.column_groups) * 5
    cell = min((width - label - gaps - 4) / columns, 54.0 if rows <= 12 or not grid.square else 34.0)
    cell = max(cell, 10.0 if grid.turned else 7.0)
    height = cell if grid.square else min(28.0, max(15.0, cell)) if rows <= 40 else 13.0
    layout = _Layout(cell_width=cell, cell_height=height, label_px=label)
    layout.x = _positions(grid.column_groups, columns, label, cell, 5)
    y, heading = 6.0, bool(grid.row_groups) and grid.row_groups != grid.row_names
    for index in range(rows):
        if heading and (index == 0 or grid.row_groups[index] != grid.row_groups[index - 1]):
            layout.group_labels.append((y + GROUP_PX - 7, grid.row_groups[index]))
            y += GROUP_PX
        layout.y.append(y)
        y += height
    layout.bottom = y
    layout.width = max(layout.x[-1] + cell + 4, min(width, 470.0))
    return layout


def _n_gaps(groups: Sequence[str]) -> int:
    return sum(a != b for a, b in pairwise(groups))


def _positions(groups: Sequence[str], n: int, start: float, size: float, gap: float) -> list[float]:
    positions = []
    for index in range(n):
        if groups and index and groups[index] != groups[index - 1]:
            start += gap
        positions.append(start)
        start += size
    return positions


def levels(value: FloatArray, top: float, *, bottom: float = 0.0) -> npt.NDArray[np.int64]:
    """Colour level of every value between `bottom` and `top`, 0 to `N_LEVELS` - 1; -1 where it is missing."""
    scaled = np.floor((np.clip(np.nan_to_num(value), bottom, top) - bottom) / (top - bottom) * N_LEVELS)
    return np.where(np.isfinite(value), np.clip(scaled, 0, N_LEVELS - 1), -1).astype(np.int64)


def _grid_levels(grid: Grid) -> npt.NDArray[np.int64]:
    return levels(grid.value, grid.top, bottom=-grid.top if grid.diverging else 0.0)


def _is_light(grid: Grid, level: int) -> bool:
    """Whether a level is light on light paper."""
    return abs(2 * level - N_LEVELS + 1) < N_LEVELS / 2 + 4 if grid.diverging else level < ON_LIGHT_BELOW


def _cells(grid: Grid, layout: _Layout) -> Markup:
    level, letter = _grid_levels(grid), "d" if grid.diverging else "q"
    gap = 1.0 if layout.cell_width >= 9 else 0.4
    width, height = coordinate(layout.cell_width - gap), coordinate(layout.cell_height - gap)
    paths: dict[str, list[str]] = {}
    for row, column in np.ndindex(*level.shape):
        if grid.blank is not None and grid.blank[row, column]:
            continue
        style = "na" if level[row, column] < 0 else f"{letter}{level[row, column]}"
        start = f"M{coordinate(layout.x[column])} {coordinate(layout.y[row])}"
        paths.setdefault(style, []).append(f"{start}h{width}v{height}h-{width}z")
    return element("g", *(element("path", d="".join(path), class_=style) for style, path in sorted(paths.items())))


def _marks(grid: Grid, layout: _Layout) -> Markup:
    """Values written into roomy cells, and a dot on each marked cell (in the corner where there is a value)."""
    level = _grid_levels(grid)
    parts, dots = [], {"": "", " on-light": ""}
    written = layout.cell_width >= 33 and layout.cell_height >= 15 and grid.value.size <= 260
    for row, column in np.ndindex(*level.shape):
        if level[row, column] < 0 or (grid.blank is not None and grid.blank[row, column]):
            continue
        tone = " on-light" if _is_light(grid, int(level[row, column])) else ""
        x, y = layout.x[column] + layout.cell_width / 2, layout.y[row] + layout.cell_height / 2
        if written:
            label = number(float(grid.value[row, column]), grid.digits)
            parts.append(text(x - 0.5, y + 3.5, label, class_=f"cell-text{tone}"))
        if grid.marked is not None and grid.marked[row, column]:
            dots[tone] += (
                _dot(layout.x[column] + layout.cell_width - 6, layout.y[row] + 5) if written else _dot(x - 0.5, y - 0.5)
            )
    parts += [element("path", d=path, class_=f"mark{tone}") for tone, path in dots.items() if path]
    return element("g", *parts)


def _dot(x: float, y: float, radius: float = 1.8) -> str:
    arc = f"a{radius} {radius} 0 1 0"
    return f"M{coordinate(x - radius)} {coordinate(y)}{arc} {2 * radius} 0{arc} {-2 * radius} 0z"


def _row_labels(grid: Grid, layout: _Layout) -> Markup:
    parts = []
    for y, group in layout.group_labels:
        parts.append(text(2, y, group, class_="strong", limit_px=layout.width - 4))
    for name, y in zip(grid.row_names, layout.y):
        middle = y + layout.cell_height / 2 + 3.5
        style = "end" if layout.cell_height >= 13 else "end small"
        parts.append(text(layout.label_px - 12, middle, name, class_=style, limit_px=layout.label_px - 14))
    for group, y in zip(grid.row_groups, layout.y):
        colour = category(grid.group_order.index(group))
        parts.append(
            element(
                "rect", x=layout.label_px - 8, y=y, width=4.0, height=layout.cell_height - 1, class_=f"key {colour}"
            )
        )
    return element("g", *parts)


def _column_foot(grid: Grid, layout: _Layout) -> float:
    if not grid.turned:
        return 34.0 if grid.column_label else 18.0
    return min(max(text_width(name) for name in grid.column_names), layout.label_px - 12) + 18


def _column_labels(grid: Grid, layout: _Layout) -> Markup:
    parts, y = [], layout.bottom
    if grid.turned:
        style = "end" if layout.cell_width >= 13 else "end small"
        for name, x in zip(grid.column_names, layout.x):
            at = x + layout.cell_width / 2 + 3.5
            parts.append(text(at, y + 8, name, class_=style, limit_px=layout.label_px - 12, turned=True))
        for group, x in zip(grid.column_groups, layout.x):
            colour = category(grid.group_order.index(group))
            parts.append(element("rect", x=x, y=y + 1, width=layout.cell_width - 1, height=3.0, class_=f"key {colour}"))
        return element("g", *parts)
    widest = max(text_width(name) for name in grid.column_names) + 5
    every = max(1, math.ceil(widest / layout.cell_width))
    middles = [x + layout.cell_width / 2 for x in layout.x]
    named = list(zip(middles, grid.column_names))[::every]
    parts += [text(middle, y + 14, name, class_="muted mid") for middle, name in named]
    if grid.column_label:
        middle = (layout.x[0] + layout.x[-1] + layout.cell_width) / 2
        parts.append(text(middle, y + 29, grid.column_label, class_="muted mid"))
    return element("g", *parts)


def _colour_scale(grid: Grid, y: float, layout: _Layout) -> tuple[Markup, int]:
    """Colour bar with its ticks and reference, beside it what it measures and what a dot means; number of its lines."""
    x, width, top = 18.0, 192.0 if layout.width > 400 else 112.0, grid.top
    step, letter, bottom = width / N_LEVELS, "d" if grid.diverging else "q", -top if grid.diverging else 0.0
    parts = [
        element("rect", x=x + i * step, y=y, width=step + 0.3, height=9.0, class_=f"{letter}{i}")
        for i in range(N_LEVELS)
    ]
    positions = ticks(bottom, top, 4 if width > 150 else 3 if grid.diverging else 2)
    for value, label in zip(positions, tick_labels(positions)):
        parts.append(text(x + (value - bottom) / (top - bottom) * width, y + 21, label, class_="muted mid"))
    if grid.reference is not None and bottom <= grid.reference <= top:
        place = x + (grid.reference - bottom) / (top - bottom) * width
        parts.append(element("path", d=f"M{coordinate(place)} {coordinate(y - 1)}l-4 -6h8z", class_="key"))
        parts.append(text(max(place - 4, x - 4), y - 10, grid.reference_label, class_="muted"))
    aside = x + width + 22
    remaining = layout.width - aside - 2
    lines = [(aside, line) for line in wrapped(grid.scale_label, remaining)]
    if grid.marked is not None and grid.mark_label:
        parts.append(element("path", d=_dot(aside + 3, y + 4 + LINE_PX * len(lines)), class_="key"))
        lines += [(aside + 10, line) for line in wrapped(grid.mark_label, remaining - 10)]
    for number_, (left, line) in enumerate(lines):
        parts.append(text(left, y + 8 + LINE_PX * number_, line, class_="muted", limit_px=remaining))
    return element("g", *parts), len(lines)
