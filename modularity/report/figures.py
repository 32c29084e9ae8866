"""The figures of a report: what each shows, in two widths for the page and as standalone SVG files for papers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup

from modularity.report.activity import RATE_NAMES, Activity, activity_caption, activity_grid
from modularity.report.captions import agreement_caption, expert_map_caption, heatmap_caption, overlap_caption
from modularity.report.content import AgreementMatrix, ExpertMap, FloatArray, Heatmap, OverlapMatrix, ReportContent
from modularity.report.curves import Plot, curve_plot, expert_plot, function_expert_plot, sensitivity_plot
from modularity.report.graph_study import GroupAgreement, agreement_grid, graph_plots, group_agreement_caption
from modularity.report.grids import Grid, grid_figure
from modularity.report.lines import line_figure
from modularity.report.moefication import layer_plot, share_plot
from modularity.report.perturbation import (
    DropMatrix,
    RoutingMatrix,
    dose_plot,
    drop_caption,
    drop_grid,
    routing_caption,
)
from modularity.report.pruning import pruning_plots
from modularity.report.restricted_routing import learning_plot, strategy_plot
from modularity.report.scan_figures import scan_plots
from modularity.report.svg import standalone
from modularity.report.wording import MISSING, interval, number, p_cell, percent, significant

WIDE_PX, NARROW_PX = 736.0, 340.0
LEVEL = 0.05
MARKED = "significant after correction"
"""What a dot means in every matrix; maps of experts say which test it is: functional."""
MAX_TABLE_CELLS = 1500
"""Figures with more values get no table of values on the page; the tooltip still has them all."""


@dataclass(frozen=True)
class Table:
    """Values of a figure as text, for readers without a pointer."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Figure:
    """One figure of the page."""

    name: str
    section: str
    title: str
    caption: str
    wide: Markup
    narrow: Markup
    data: dict[str, object]
    """What tooltips show: `tips` for points, `rows`, `cols` and `fields` for cells."""
    table: Table | None
    layer: int | None = None
    """Set for figures of which the page shows one layer at a time."""


def figures(content: ReportContent) -> dict[str, str]:
    """Every figure as the text of a standalone SVG file, by name (`predictivity`, `experts-layer-5`, …)."""
    return {figure.name: standalone(figure.wide) for figure in page_figures(content)}


def page_figures(content: ReportContent) -> tuple[Figure, ...]:
    """All figures in the order of the page; parts that the content lacks give none."""
    found = [plot_figure(curve_plot(content))] if content.curves else []
    found += [_heatmap_figure(content, heatmap) for heatmap in content.heatmaps]
    found += [_overlap_figure(content, matrix) for matrix in content.overlaps]
    found += [plot_figure(expert_plot(content))] if content.expert_curves else []
    found += [plot_figure(function_expert_plot(content))] if content.function_expert_curves else []
    found += [_agreement_figure(content.agreement)] if content.agreement is not None else []
    top = max((float(np.nanmax(_enrichment(each), initial=0)) for each in content.expert_maps), default=0.0)
    found += [_expert_map_figure(content, each, top) for each in content.expert_maps]
    found += [plot_figure(sensitivity_plot(content))] if content.sensitivity else []
    found += [_activity_figure(each) for each in content.activities if each.rate_LF is not None]
    found += _perturbation_figures(content)
    if content.tuning is not None:
        found += [plot_figure(strategy_plot(content.tuning)), plot_figure(learning_plot(content.tuning))]
    if content.selection is not None:
        found += [plot_figure(share_plot(content.selection)), plot_figure(layer_plot(content.selection))]
    found += _graph_figures(content)
    found += [plot_figure(plot) for plot in pruning_plots(content.pruning)] if content.pruning is not None else []
    if content.scan is not None:
        found += [plot_figure(replace(plot, section="training")) for plot in scan_plots(content.scan)]
    return tuple(found)


def _perturbation_figures(content: ReportContent) -> list[Figure]:
    shown = content.perturbation
    if shown is None:
        return []
    tasks = shown.matrices[0].tasks if shown.matrices else ()
    found = []
    for dose, matrix in zip(shown.doses, shown.matrices):
        found += [plot_figure(dose_plot(dose, tasks)), _drop_figure(matrix)]
    found += [_routing_figure(shown.routing)] if shown.routing is not None else []
    return found


def _graph_figures(content: ReportContent) -> list[Figure]:
    study = content.graphs
    if study is None:
        return []
    found = [plot_figure(plot) for plot in graph_plots(study)]
    return found + ([_group_agreement_figure(study.agreement)] if study.agreement is not None else [])


def _group_agreement_figure(matrix: GroupAgreement) -> Figure:
    values = _strings(matrix.value_YS, significant)
    ends = np.stack([matrix.low_YS, matrix.high_YS], axis=-1)
    spread = [[interval(float(low), float(high), 3) for low, high in row] for row in ends]
    title = "Groups of graphs, and experts"
    where = _extremes(matrix.value_YS, matrix.rows, matrix.columns)
    svgs = _grid_svgs("group-agreement", title, f"Matrix of adjusted Rand indices. {where}", agreement_grid(matrix))
    fields = [
        ("adjusted Rand index", values),
        ("smallest and largest over layers", spread),
        ("adjusted mutual information", _strings(matrix.information_YS, significant)),
        (f"layers of {matrix.n_layers} with q ≤ 0.05", _strings(matrix.n_found_YS, lambda value: number(value, 0))),
    ]
    data: dict[str, object] = {"rows": matrix.rows, "cols": matrix.columns, "fields": fields, "joiner": " × "}
    table = _value_table(matrix.rows, matrix.columns, values)
    return Figure("group-agreement", "graphs", title, group_agreement_caption(matrix), *svgs, data, table)


def _drop_figure(matrix: DropMatrix) -> Figure:
    grid, name = drop_grid(matrix), f"drops-{matrix.noise}"
    values = _strings(matrix.drop_YS, significant)
    ends = np.stack([matrix.low_YS, matrix.high_YS], axis=-1)
    spread = [[interval(float(low), float(high)) for low, high in row] for row in ends]
    title = f"Drops of every task under every ranking, noise: {matrix.noise}"
    where = _extremes(matrix.drop_YS, matrix.rankings, matrix.tasks)
    svgs = _grid_svgs(name, title, f"Matrix of drops of the logit margin. {where}", grid)
    fields = [("drop of the logit margin", values), ("range over seeds", spread)]
    data: dict[str, object] = {"rows": matrix.rankings, "cols": matrix.tasks, "fields": fields, "joiner": " → "}
    table = _value_table(matrix.rankings, matrix.tasks, values)
    return Figure(name, "perturbation", title, drop_caption(matrix), *svgs, data, table)


def _routing_figure(matrix: RoutingMatrix) -> Figure:
    rows = tuple(f"experts of {name}" for name in matrix.experts_of)
    grid = Grid(
        rows,
        matrix.tasks,
        matrix.advantage_YS,
        "advantage in logit margin",
        "task that is measured",
        marked=np.nan_to_num(matrix.p_value_YS, nan=1.0) <= LEVEL,
        mark_label="p ≤ 0.05",
        turned=True,
    )
    values = _strings(matrix.advantage_YS, significant)
    title = "Restricted routing: functional experts against as many others"
    where = _extremes(matrix.advantage_YS, rows, matrix.tasks)
    svgs = _grid_svgs("routing", title, f"Matrix of advantages in logit margin. {where}", grid)
    fields = [("advantage", values), ("p", _strings(matrix.p_value_YS, p_cell))]
    data: dict[str, object] = {"rows": rows, "cols": matrix.tasks, "fields": fields, "joiner": " → "}
    table = _value_table(rows, matrix.tasks, values)
    return Figure("routing", "routing", title, routing_caption(matrix), *svgs, data, table)


def plot_figure(plot: Plot) -> Figure:
    """The figure of a plot of lines, drawn for wide and for narrow pages."""

    def draw(variant: str, width: float) -> tuple[Markup, list[tuple[str, ...]]]:
        name = f"{plot.name}-{variant}"
        return line_figure(name, plot.title, plot.description, plot.panels, plot.axis, width=width, legend=plot.legend)

    wide, tips = draw("wide", WIDE_PX)
    narrow, _ = draw("narrow", NARROW_PX)
    table = limited(Table(plot.headers, plot.rows))
    return Figure(plot.name, plot.section, plot.title, plot.caption, wide, narrow, {"tips": tips}, table)


def _grid_svgs(name: str, title: str, description: str, grid: Grid) -> tuple[Markup, Markup]:
    wide = grid_figure(f"{name}-wide", title, description, grid, width=WIDE_PX)
    return wide, grid_figure(f"{name}-narrow", title, description, grid, width=NARROW_PX)


def _strings(values: FloatArray, format_: Callable[[float], str]) -> list[list[str]]:
    return [[format_(float(value)) for value in row] for row in values]


def limited(table: Table) -> Table | None:
    """The table, where it is small enough for the page."""
    return table if len(table.rows) * len(table.headers) <= MAX_TABLE_CELLS else None


def _value_table(rows: Sequence[str], columns: Sequence[str], values: list[list[str]]) -> Table | None:
    return limited(Table(("", *columns), tuple((name, *row) for name, row in zip(rows, values))))


def _extremes(values: FloatArray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Where the largest value lies, for the description read out to those who do not see the figure."""
    if not np.isfinite(values).any():
        return "All values are missing."
    row, column = divmod(int(np.nanargmax(values)), values.shape[1])
    return f"The largest value, {number(float(values[row, column]))}, is that of {rows[row]} and {columns[column]}."


def _heatmap_figure(content: ReportContent, heatmap: Heatmap) -> Figure:
    columns = tuple(f"layer {layer}" for layer in heatmap.layers)
    p = heatmap.p_value_YL
    grid = Grid(
        heatmap.row_names,
        tuple(map(str, heatmap.layers)),
        heatmap.value_YL,
        content.metric,
        "layer",
        row_groups=heatmap.row_groups,
        group_order=content.function_order(),
        marked=None if p is None else np.nan_to_num(p, nan=1.0) <= LEVEL,
        mark_label=MARKED,
        reference=heatmap.chance,
    )
    values = _strings(heatmap.value_YL, number)
    fields: list[tuple[str, object]] = [(f"{content.metric} on {content.scored_on}", values)]
    if heatmap.low_YL is not None and heatmap.high_YL is not None:
        ends = np.stack([heatmap.low_YL, heatmap.high_YL], axis=-1)
        fields.append((content.interval, [[interval(float(a), float(b)) for a, b in row] for row in ends]))
    if p is not None:
        chosen_on = " on selection examples" if content.held_out else ""
        fields.append((f"{heatmap.p_name}{chosen_on}", _strings(p, p_cell)))
    name = f"heatmap-{heatmap.name}"
    where = _extremes(heatmap.value_YL, heatmap.row_names, columns)
    svgs = _grid_svgs(name, heatmap.title, f"Heat map of {content.metric} by row and layer. {where}", grid)
    table = _value_table(heatmap.row_names, columns, values)
    data: dict[str, object] = {"rows": heatmap.row_names, "cols": columns, "fields": fields}
    caption = heatmap_caption(heatmap, content.metric, content.scored_on, content.interval)
    return Figure(name, "predictivity", heatmap.title, caption, *svgs, data, table)


def _agreement_figure(matrix: AgreementMatrix) -> Figure:
    columns = tuple(f"layer {layer}" for layer in matrix.layers)
    grid = Grid(
        matrix.pairs,
        tuple(map(str, matrix.layers)),
        matrix.value_YL,
        "adjusted Rand index",
        "layer",
        marked=np.nan_to_num(matrix.q_value_YL, nan=1.0) <= LEVEL,
        mark_label=MARKED,
    )
    title = "Whether partitions agree"
    values = _strings(matrix.value_YL, significant)
    where = _extremes(matrix.value_YL, matrix.pairs, columns)
    svgs = _grid_svgs("agreement", title, f"Matrix of adjusted Rand indices of two partitions. {where}", grid)
    fields = [("adjusted Rand index", values), ("q over all cells", _strings(matrix.q_value_YL, p_cell))]
    data: dict[str, object] = {"rows": matrix.pairs, "cols": columns, "fields": fields}
    table = _value_table(matrix.pairs, columns, values)
    return Figure("agreement", "experts", title, agreement_caption(matrix), *svgs, data, table)


def _activity_figure(each: Activity) -> Figure:
    grid = activity_grid(each)
    title = f"How often neurons fire on {each.name}"
    values = _strings(grid.value, percent)
    where = _extremes(grid.value, grid.row_names, grid.column_names)
    name = f"activity-{each.name}"
    svgs = _grid_svgs(name, title, f"Matrix of shares of neurons by layer and firing rate. {where}", grid)
    data: dict[str, object] = {"rows": grid.row_names, "cols": RATE_NAMES, "fields": [("share of neurons", values)]}
    table = _value_table(grid.row_names, RATE_NAMES, values)
    return Figure(name, "activity", title, activity_caption(each), *svgs, data, table)


def _overlap_figure(content: ReportContent, matrix: OverlapMatrix) -> Figure:
    p = matrix.p_value_SS
    blank = np.eye(len(matrix.names), dtype=bool) if matrix.self_pairs else None
    shown = matrix.value_SS if blank is None else np.where(blank, np.nan, matrix.value_SS)
    grid = Grid(
        matrix.names,
        matrix.names,
        shown,
        matrix.statistic,
        row_groups=matrix.groups,
        column_groups=matrix.groups,
        group_order=content.function_order(),
        marked=None if p is None else np.nan_to_num(p, nan=1.0) <= LEVEL,
        mark_label=MARKED,
        blank=blank,
        reference=matrix.chance,
        turned=True,
        square=True,
        digits=3,
    )
    name, chance = f"overlap-{matrix.name}", significant(matrix.chance)
    where = _extremes(shown, matrix.names, matrix.names)
    svgs = _grid_svgs(name, matrix.title, f"Matrix of the {matrix.statistic}. Chance is {chance}. {where}", grid)
    values = _strings(shown, significant)
    fields: list[tuple[str, object]] = [(matrix.statistic, values), ("chance", chance)]
    if matrix.chance > 0:
        fields.append(("times chance", _strings(shown / matrix.chance, lambda value: number(value, 1))))
    if p is not None:
        fields.append((matrix.p_name, _strings(np.where(np.isnan(shown), np.nan, p), p_cell)))
    if matrix.label_value_SS is not None:
        fields.append(("under permuted labels", _strings(matrix.label_value_SS, significant)))
    if matrix.label_p_SS is not None:
        fields.append(("p under permuted labels", _strings(matrix.label_p_SS, p_cell)))
    data: dict[str, object] = {"rows": matrix.names, "cols": matrix.names, "fields": fields, "joiner": " × "}
    table = _value_table(matrix.names, matrix.names, values)
    return Figure(name, "overlap", matrix.title, overlap_caption(matrix), *svgs, data, table)


def _enrichment(each: ExpertMap) -> FloatArray:
    """Counts over their expectation; NaN where none is expected."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(each.expected_SE > 0, each.count_SE / each.expected_SE, np.nan)


def expert_order(each: ExpertMap) -> list[int]:
    """Experts ordered by the first row that they are functional for, most concentrated first; the others by number."""
    strength = np.nan_to_num(_enrichment(each))
    last = len(each.row_names)

    def key(expert: int) -> tuple[int, float, int]:
        rows = np.flatnonzero(each.functional_SE[:, expert])
        return (int(rows[0]), -float(strength[rows[0], expert]), expert) if rows.size else (last, 0.0, expert)

    return sorted(range(each.count_SE.shape[1]), key=key)


def _expert_map_figure(content: ReportContent, each: ExpertMap, top: float) -> Figure:
    order = expert_order(each)
    experts, ratio = tuple(str(expert) for expert in order), _enrichment(each)[:, order]
    grid = Grid(
        each.row_names,
        experts,
        ratio,
        "count ÷ chance",
        "experts, ordered by what they serve",
        row_groups=each.row_groups,
        group_order=content.function_order(),
        marked=each.functional_SE[:, order],
        mark_label="functional expert",
        reference=1.0,
        maximum=top,
        digits=1,
    )
    counts = _strings(each.count_SE[:, order], lambda value: MISSING if np.isnan(value) else f"{value:g}")
    fields: list[tuple[str, object]] = [(f"of the top {each.k} neurons", counts)]
    fields.append(("expected by chance", _constant(each.expected_SE[:, order])))
    if each.p_value_SE is not None:
        fields.append(("p", _strings(each.p_value_SE[:, order], p_cell)))
    functional = each.functional_SE[:, order]
    fields.append(("functional", [["yes" if value else "" for value in row] for row in functional]))
    name, columns = f"experts-layer-{each.layer}", tuple(f"expert {expert}" for expert in experts)
    title = f"Experts of layer {each.layer} and the sub-functions that they serve"
    where = _extremes(ratio, each.row_names, columns)
    svgs = _grid_svgs(name, title, f"Counts of top neurons over chance, by sub-function and expert. {where}", grid)
    data: dict[str, object] = {"rows": each.row_names, "cols": columns, "fields": fields}
    table = _value_table(each.row_names, columns, counts)
    return Figure(name, "experts", title, expert_map_caption(each), *svgs, data, table, layer=each.layer)


def _constant(expected: FloatArray) -> object:
    """One text for all cells where they agree, else the text of each."""
    if expected.size and np.ptp(expected) == 0:
        return number(float(expected.flat[0]))
    return _strings(expected, number)
