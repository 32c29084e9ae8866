"""The drawn figures of a similarity study: scores by layer, heads, dimensions, activity, alignment of layers."""

from collections.abc import Iterator, Sequence

import numpy as np

from modularity.report.content import FloatArray
from modularity.report.curves import Plot
from modularity.report.figures import LEVEL, MARKED, NARROW_PX, WIDE_PX, Figure, Table, limited, plot_figure
from modularity.report.grids import Grid, grid_figure
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.similarity_content import (
    DATA_WORDS,
    MEASURE_WORDS,
    TEXTS,
    Row,
    SimilarityContent,
    column,
    score_curves,
    site_words,
)
from modularity.report.wording import interval, number, p_cell, p_value, significant, with_interval

_STYLES: dict[str, Style] = {"random_tokens": "control1", "shuffled_tokens": "control2"}
_DRAWN = ("centred", "cosine")
_KINDS = {"head": "heads", "expert": "experts", "ffn": "FFN blocks", "attention": "attention blocks"}


def similarity_figures(content: SimilarityContent) -> tuple[Figure, ...]:
    """All drawn figures, in the order of the page; what the run has not computed gives none."""
    found = [] if not content.rows("category_scores") else [plot_figure(_score_plot(content))]
    found += list(_head_figures(content))
    if content.rows("dimension_summary"):
        found.append(plot_figure(_dimension_plot(content)))
    found += [figure for kind in _KINDS for figure in _activity_figures(content, kind)]
    found += list(_alignment_figures(content))
    return tuple(found)


def layer_axis(content: SimilarityContent, sites: Sequence[str]) -> XAxis:
    """Axis of layers; depth 0 of the residual stream is the embedding."""
    layers = sorted({layer for site in sites for layer in content.layers(site)})
    return XAxis("layer (residual stream: depth)", np.array(layers, dtype=np.float64), tuple(map(str, layers)))


def _score_plot(content: SimilarityContent) -> Plot:
    panels, rows = [], []
    for place, measure in enumerate(_DRAWN):
        for index, site in enumerate(content.vectors):
            curves = score_curves(content, site, measure)
            if curves[TEXTS]:
                panels.append(_score_panel(site, measure, curves, category(index), place))
            rows += [_score_row(row) for data in content.data for row in curves[data]]
    labels = [(_STYLES[data], DATA_WORDS[data]) for data in content.data if data != TEXTS]
    row = next(row for row in content.rows("category_scores"))
    how = f"all {row['n_labellings']:,}" if row["exact"] else f"{row['n_labellings']:,} random"
    return Plot(
        name="scores",
        section="scores",
        title="Category score of every layer against its null",
        description="Line plots of the category score by layer, a panel for each site and measure.",
        caption=(
            "Mean similarity of different texts of one category minus that of texts of different categories; a text "
            "has one similarity with another, the mean over pairs of positions. Whiskers: 95 % bootstrap over texts "
            f"within categories. Band: 5–95 % of the score under {how} labellings of the {row['n_texts']} texts. "
            "Centred: the mean over all rows is taken off first. Controls have the same lengths, positions and labels."
        ),
        panels=tuple(panels),
        axis=layer_axis(content, content.vectors),
        legend=(("line", "texts"), *labels, ("null", "permuted labels (mean)"), ("band", "5–95 % of labellings")),
        headers=("data", "site", "measure", "layer", "score", "interval", "null 95 %", "p", "q"),
        rows=tuple(rows),
    )


def _score_row(row: Row) -> tuple[str, ...]:
    return (
        DATA_WORDS[row["data"]], site_words(row["site"]), row["measure"], str(row["layer"]), number(row["score"], 3),
        interval(row["low"], row["high"], 3), number(row["null_high"], 3), p_cell(row["p_value"]),
        p_cell(row["q_value"]),
    )  # fmt: skip


def _score_panel(site: str, measure: str, curves: dict[str, list[Row]], colour: str, place: int) -> Panel:
    rows = curves[TEXTS]
    x = column(rows, "layer")
    tips = tuple(
        (
            f"{site_words(site)} · layer {row['layer']} · {MEASURE_WORDS[measure]}",
            f"score {with_interval(row['score'], row['low'], row['high'], 3)}",
            f"within {number(row['within'], 3)}, between {number(row['between'], 3)}",
            f"95 % of labellings below {number(row['null_high'], 3)}",
            f"{p_value(row['p_value'])}, {p_value(row['q_value'], 'q')}",
        )
        for row in rows
    )
    series = [Series(x, column(rows, "null_mean"), "null")]
    for data, style in _STYLES.items():
        if curves.get(data):
            values = column(curves[data], "score")
            known = tuple(
                (f"{DATA_WORDS[data]} · layer {row['layer']}", f"score {number(row['score'], 3)}",
                 p_value(row["p_value"])) for row in curves[data]
            )  # fmt: skip
            series.append(Series(column(curves[data], "layer"), values, style, tips=known))
    series.append(Series(x, column(rows, "score"), "line", column(rows, "low"), column(rows, "high"), tips))
    band = Band(x, column(rows, "null_low"), column(rows, "null_high"))
    return Panel(f"{site_words(site)}: {measure}", colour, tuple(series), (band,), "category score", place)


def _head_figures(content: SimilarityContent) -> Iterator[Figure]:
    for measure in _DRAWN:
        rows = [row for row in content.rows("category_scores", data=TEXTS, measure=measure) if row["head"] >= 0]
        if not rows:
            continue
        layers, heads = sorted({row["layer"] for row in rows}), sorted({row["head"] for row in rows})
        score_LH, q_LH, low_LH, high_LH = (_matrix(rows, name, layers, heads) for name in
                                           ("score", "q_value", "low", "high"))  # fmt: skip
        grid = Grid(
            tuple(f"layer {layer}" for layer in layers), tuple(map(str, heads)), score_LH,
            f"category score, {MEASURE_WORDS[measure]}", "head",
            marked=np.nan_to_num(q_LH, nan=1.0) <= LEVEL, mark_label=MARKED, diverging=True,
        )  # fmt: skip
        ends = [[interval(float(a), float(b), 3) for a, b in zip(*pair)] for pair in zip(low_LH, high_LH)]
        fields = [("category score", _strings(score_LH, 3)), ("95 % interval", ends),
                  ("q over all heads", [[p_cell(float(v)) for v in row] for row in q_LH])]  # fmt: skip
        yield _grid_figure(
            f"heads-{measure}", "heads", f"Category score of every single head, {MEASURE_WORDS[measure]}",
            "Score of the output of each head before the out-projection, as for whole sites. A dot: q ≤ 0.05 over all "
            "heads of all layers, exact or drawn labellings of texts.",
            grid, fields, [f"head {head}" for head in heads],
        )  # fmt: skip


def _matrix(rows: Sequence[Row], name: str, layers: Sequence[int], columns: Sequence[int], key: str = "head"
            ) -> FloatArray:  # fmt: skip
    found = np.full((len(layers), len(columns)), np.nan)
    for row in rows:
        found[layers.index(row["layer"]), columns.index(row[key])] = row[name]
    return found


def _strings(values: FloatArray, digits: int = 2) -> list[list[str]]:
    return [[number(float(value), digits) for value in row] for row in values]


def _grid_figure(
    name: str, section: str, title: str, caption: str, grid: Grid, fields: Sequence[tuple[str, object]],
    columns: Sequence[str],
) -> Figure:  # fmt: skip
    finite = grid.value[np.isfinite(grid.value)]
    top = (
        f"Values lie between {number(float(finite.min()), 3)} and {number(float(finite.max()), 3)}."
        if len(finite)
        else ""
    )
    wide, narrow = (
        grid_figure(f"{name}-{variant}", title, f"Matrix of values. {top}", grid, width=width)
        for variant, width in (("wide", WIDE_PX), ("narrow", NARROW_PX))
    )
    names = [f"{group} · {row}" if group else row for group, row in
             zip(grid.row_groups or [""] * len(grid.row_names), grid.row_names)]  # fmt: skip
    data: dict[str, object] = {"rows": names, "cols": list(columns), "fields": list(fields)}
    table = Table(("", *columns), tuple((n, *row) for n, row in zip(names, _strings(grid.value))))
    return Figure(name, section, title, caption, wide, narrow, data, limited(table))


def _dimension_plot(content: SimilarityContent) -> Plot:
    panels, rows = [], []
    for index, site in enumerate(content.vectors):
        series = []
        for data in reversed(content.data):
            found = sorted(content.rows("dimension_summary", data=data, site=site), key=lambda row: row["layer"])
            tips = tuple(
                (
                    f"{site_words(site)} · layer {row['layer']} · {DATA_WORDS[data]}",
                    f"{row['n_significant']} of {row['n_dimensions']} dimensions with q ≤ {LEVEL}",
                    f"largest F {significant(row['largest_f'])} in dimension {row['dimension']}",
                    f"{p_value(row['p_value_largest'])} of the largest F",
                )
                for row in found
            )
            share = 100 * column(found, "n_significant") / column(found, "n_dimensions") if found else np.empty(0)
            if found:
                style: Style = "line" if data == TEXTS else _STYLES[data]
                series.append(Series(column(found, "layer"), share, style, tips=tips))
            rows += [
                (DATA_WORDS[data], site_words(site), str(row["layer"]), str(row["n_significant"]),
                 str(row["n_dimensions"]), significant(row["largest_f"]), str(row["dimension"]),
                 p_cell(row["p_value_largest"]))
                for row in found
            ]  # fmt: skip
        panels.append(Panel(site_words(site), category(index), tuple(series), (), "dimensions with q ≤ 0.05 (%)", 0))
    labels = [(_STYLES[data], DATA_WORDS[data]) for data in content.data if data != TEXTS]
    return Plot(
        name="dimensions",
        section="streams",
        title="Share of dimensions that differ by category",
        description="Line plots of the share of dimensions with q at most 0.05 by layer, a panel for each site.",
        caption=(
            "One-way analysis of variance of each dimension, texts as units (positions are averaged first), "
            "Benjamini-Hochberg over all dimensions and layers of a site. The tooltip has the largest F of the layer "
            "with its p under permuted labels."
        ),
        panels=tuple(panels),
        axis=layer_axis(content, content.vectors),
        legend=(("line", "texts"), *labels),
        headers=("data", "site", "layer", "q ≤ 0.05", "dimensions", "largest F", "dimension", "p of it"),
        rows=tuple(rows),
    )


def _activity_figures(content: SimilarityContent, kind: str) -> Iterator[Figure]:
    rows = content.rows("activity", data=TEXTS, kind=kind)
    if not rows:
        return
    layers, components = sorted({row["layer"] for row in rows}), sorted({row["component"] for row in rows})
    alone = len(components) == 1  # blocks: layers are the columns
    columns = layers if alone else components
    parts: dict[str, list[FloatArray]] = {name: [] for name in ("effect", "q_value", "mean", "rest")}
    for name in content.categories:
        own = [row for row in rows if row["category"] == name]
        for value, found in parts.items():
            matrix = _matrix(own, value, layers, components, "component")
            found.append(matrix.T if alone else matrix)
    effect, q, mean, rest = (np.concatenate(found) for found in parts.values())
    labels = [""] if alone else [f"layer {layer}" for layer in layers]
    groups = tuple(name for name in content.categories for _ in labels)
    word = "layer" if alone else kind
    grid = Grid(
        groups if alone else tuple(labels) * len(content.categories), tuple(map(str, columns)), effect,
        "Hedges’ g of the category against the rest", word,
        row_groups=groups, group_order=content.categories,
        marked=np.nan_to_num(q, nan=1.0) <= LEVEL, mark_label=MARKED, diverging=True, digits=1,
    )  # fmt: skip
    fields = [("Hedges’ g", _strings(effect)), ("activity in the category", _strings(mean, 3)),
              ("in the rest", _strings(rest, 3)), (f"q over all {_KINDS[kind]} and categories",
              [[p_cell(float(v)) for v in row] for row in q])]  # fmt: skip
    yield _grid_figure(
        f"activity-{kind}", "activity", f"Which {_KINDS[kind]} light up or go dark for a category",
        "Root mean square of what a component gives out, mean over the positions of a text, compared between the texts "
        "of a category and all others: orange is more active, blue less. A dot: q ≤ 0.05 by permutation of texts.",
        grid, fields, [f"{word} {value}" for value in columns],
    )  # fmt: skip


def _alignment_figures(content: SimilarityContent) -> Iterator[Figure]:
    rows = content.rows("alignment", data=TEXTS)
    if not rows:
        return
    places = [(site, layer) for site in content.vectors for layer in content.layers(site)]
    index = {place: i for i, place in enumerate(places)}
    n = len(places)
    cka, plain, null, q = np.full((n, n), np.nan), np.full((n, n), np.nan), np.full((n, n), np.nan), np.ones((n, n))
    for row in rows:
        i, j = index[row["site"], row["layer"]], index[row["other_site"], row["other_layer"]]
        for matrix, name in ((cka, "cka_debiased"), (plain, "cka"), (null, "null_mean"), (q, "q_value")):
            matrix[i, j] = matrix[j, i] = row[name]
    names = tuple(f"{site_words(site)} {layer}" for site, layer in places)
    groups = tuple(site_words(site) for site, _ in places)
    grid = Grid(
        tuple(str(layer) for _, layer in places), tuple(str(layer) for _, layer in places), cka, "debiased linear CKA",
        row_groups=groups, column_groups=groups, group_order=tuple(dict.fromkeys(groups)),
        blank=np.eye(n, dtype=bool), turned=True, square=True, diverging=bool(np.nanmin(cka) < -0.02),
    )  # fmt: skip
    fields: list[tuple[str, object]] = [
        ("debiased CKA", _strings(cka)), ("plain CKA", _strings(plain)), ("plain, texts exchanged", _strings(null)),
        ("q over all pairs", [[p_cell(float(v)) for v in row] for row in q]),
    ]  # fmt: skip
    figure = _grid_figure(
        "alignment", "alignment", "Alignment of layers and sites",
        "Linear CKA of the rows’ vectors of two layers, debiased. The tooltip has the plain form and its mean when the "
        "texts of one layer are exchanged: what positions alone align.",
        grid, fields, list(names),
    )  # fmt: skip
    figure.data["rows"], figure.data["joiner"] = list(names), " × "
    yield figure
