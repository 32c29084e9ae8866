"""The figures of a similarity study as standalone drawings for papers: small multiples over all layers.

Gram matrices are images of one pixel a cell inside the drawing, so that a matrix of 22,500 cells stays small.
"""

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from modularity.errors import InputError
from modularity.report.content import FloatArray
from modularity.report.palette import category, diverging_ramp
from modularity.report.raster import coloured, data_uri, png_image
from modularity.report.similarity_content import (
    DATA_WORDS,
    MEASURE_WORDS,
    MEASURES,
    TEXTS,
    SimilarityContent,
    layer_words,
    site_words,
)
from modularity.report.similarity_explorers import METHODS, N_HEADS
from modularity.report.similarity_figures import similarity_figures
from modularity.report.svg import drawing, element, standalone, text, tick_labels, ticks
from modularity.report.wording import capital, number, significant

WIDTH, GAP, BAND, N_COLUMNS, LINE = 736.0, 18.0, 5.0, 4, 18.0
N_STREAMS = 3
"""Streams that are drawn without being asked for: those with the largest F."""


def similarity_drawings(content: SimilarityContent, dimensions: Sequence[int] = ()) -> dict[str, str]:
    """Every figure as the text of a standalone SVG file, by name.

    Parameters
    ----------
    content : the run
    dimensions : dimensions whose streams are drawn beside those with the largest F

    Raises
    ------
    InputError
        A dimension does not exist, or streams were not computed.
    """
    _check_dimensions(content, dimensions)
    found = {figure.name: standalone(figure.wide) for figure in similarity_figures(content)}
    for data in content.data:
        for site in content.vectors:
            gram = content.gram(data, site)
            if gram is None:
                continue
            names = [layer_words(site, layer) for layer in content.layers(site)]
            for measure in MEASURES:
                name = f"gram-{_file(site)}-{measure}" + ("" if data == TEXTS else f"-{data}")
                title = f"{MEASURE_WORDS[measure]}, {site_words(site)}, {DATA_WORDS[data]}"
                found[name] = standalone(
                    _gram_drawing(content, name, title, names, content.similarities(gram, measure))
                )
    found |= _head_drawings(content)
    for site in content.vectors:
        for method in METHODS:
            planes = content.projections(site, method)
            if planes:
                name = f"projection-{_file(site)}-{method}"
                points = {layer_words(site, layer): each for layer, (each, _) in planes.items()}
                title = f"{METHODS[method]}, {site_words(site)}"
                found[name] = standalone(_scatter_drawing(content, name, title, points))
    best = [dimension for dimension, *_ in content.best_dimensions[:N_STREAMS]]
    for dimension in dict.fromkeys([*dimensions, *best]) if content.streams is not None else ():
        found[f"stream-{dimension}"] = standalone(_stream_drawing(content, dimension))
    return found


def _check_dimensions(content: SimilarityContent, dimensions: Sequence[int]) -> None:
    if not dimensions:
        return
    if content.streams is None:
        raise InputError(
            f"--dimension {dimensions[0]}: this run has no streams; it does not compare the residual stream"
        )
    n = content.streams.shape[2]
    wrong = [dimension for dimension in dimensions if not 0 <= dimension < n]
    if wrong:
        raise InputError(f"--dimension {', '.join(map(str, wrong))}: expected numbers from 0 to {n - 1}")


def _file(site: str) -> str:
    return site.rpartition("/")[2].replace(".", "-")


def _head_drawings(content: SimilarityContent) -> dict[str, str]:
    site = next((site for site in content.sites if site.endswith("attention.heads")), None)
    gram = None if site is None else content.gram(TEXTS, site)
    best = content.best_heads(N_HEADS)
    if site is None or gram is None or not best:
        return {}
    layers = content.layers(site)
    chosen = np.stack([gram[layers.index(layer), head] for layer, head in best])
    names = [f"head {layer}.{head}" for layer, head in best]
    found = {}
    for measure in MEASURES:
        title = f"{MEASURE_WORDS[measure]}, the heads with the largest category scores"
        name = f"gram-heads-{measure}"
        found[name] = standalone(_gram_drawing(content, name, title, names, content.similarities(chosen, measure)))
    return found


def _places(n: int, top: float, *, n_columns: int = N_COLUMNS) -> tuple[list[tuple[float, float]], float, float]:
    """Upper left corners of square panels, their side, and the height of all."""
    columns = min(n, n_columns)
    side = min(220.0, (WIDTH - GAP * (columns - 1) - 4) / columns)
    places = [(2 + (i % columns) * (side + GAP), top + (i // columns) * (side + 34)) for i in range(n)]
    return places, side, top + math.ceil(n / columns) * (side + 34)


def _legend(content: SimilarityContent, y: float) -> tuple[list[Markup], float]:
    """Keys of the categories, in as many lines as they need, and the height of the lines beyond the first."""
    parts, x, first = [], 4.0, y
    for index, name in enumerate(content.categories):
        width = 30 + 7 * len(name)
        if x > 4 and x + width - 15 > WIDTH:
            x, y = 4.0, y + LINE
        parts.append(element("rect", x=x, y=y - 8, width=10.0, height=10.0, class_=f"key {category(index)}"))
        parts.append(text(x + 15, y + 1, name))
        x += width
    return parts, y - first


def _gram_drawing(content: SimilarityContent, name: str, title: str, names: Sequence[str], found: FloatArray) -> Markup:
    different = content.row_text[:, None] != content.row_text[None, :]
    top = max(0.05, float(np.abs(found[:, different]).max(initial=0.0)))
    ramp = diverging_ramp(dark=False)
    legend, lower = _legend(content, 32)
    places, side, bottom = _places(len(found), 58.0 + lower)
    parts: list[Markup] = [text(2, 14, capital(title), class_="strong"), *legend]
    n_rows = len(content.row_text)
    for (x, y), label, matrix in zip(places, names, found):
        parts.append(text(x, y - 6, label))
        image = data_uri(png_image(coloured(matrix, ramp, low=-top, high=top)))
        inner = side - BAND - 1
        parts.append(
            element("image", x=x + BAND + 1, y=y + BAND + 1, width=inner, height=inner, href=image,
                    preserveAspectRatio="none", image_rendering="optimizeSpeed")
        )  # fmt: skip
        step = inner / n_rows
        start = 0
        for stop in [*(np.flatnonzero(np.diff(content.row_text)) + 1), n_rows]:
            colour = f"key {category(int(content.text_category[content.row_text[start]]))}"
            at, length = BAND + 1 + start * step, (stop - start) * step - 0.4
            parts.append(element("rect", x=x, y=y + at, width=BAND, height=length, class_=colour))
            parts.append(element("rect", x=x + at, y=y, width=length, height=BAND, class_=colour))
            start = int(stop)
    parts += _scale(bottom + 2, top)
    low, high = float(found[:, different].min()), float(found[:, different].max())
    description = f"Similarity of {n_rows} rows; between different texts from {number(low)} to {number(high)}."
    return drawing(name, title, description, WIDTH, bottom + 34, *parts, data={})


def _scale(y: float, top: float) -> list[Markup]:
    width, n = 192.0, len(diverging_ramp(dark=False))
    parts = [
        element("rect", x=18 + i * width / n, y=y, width=width / n + 0.3, height=9.0, class_=f"d{i}") for i in range(n)
    ]
    marks = ticks(-top, top, 4)
    for value, label in zip(marks, tick_labels(marks)):
        parts.append(text(18 + (value + top) / (2 * top) * width, y + 21, label, class_="muted mid"))
    return parts


def _scatter_drawing(content: SimilarityContent, name: str, title: str, planes: dict[str, FloatArray]) -> Markup:
    legend, lower = _legend(content, 32)
    places, side, bottom = _places(len(planes), 58.0 + lower)
    parts: list[Markup] = [text(2, 14, capital(title), class_="strong"), *legend]
    colours = [category(int(content.text_category[t])) for t in content.row_text]
    for (x, y), (label, points) in zip(places, planes.items()):
        parts.append(text(x, y - 6, label))
        parts.append(element("rect", x=x, y=y, width=side, height=side, class_="axis"))
        low, high = points.min(axis=0), points.max(axis=0)
        scale = (side - 16) / float(max((high - low).max(), 1e-12))
        middle = (low + high) / 2
        for (px, py), colour in zip(points, colours):
            at = x + side / 2 + float(px - middle[0]) * scale, y + side / 2 - float(py - middle[1]) * scale
            parts.append(element("circle", cx=at[0], cy=at[1], r=2.6, class_=f"dot {colour}"))
    description = f"Scatter plots of {len(content.row_text)} rows, coloured by category, a panel for each layer."
    return drawing(name, title, description, WIDTH, bottom, *parts, data={})


def _stream_drawing(content: SimilarityContent, dimension: int) -> Markup:
    assert content.streams is not None
    values_TL = content.streams[:, :, dimension].astype(np.float64)
    n_depths = values_TL.shape[1]
    legend, lower = _legend(content, 32)
    left, top, width, height = 58.0, 44.0 + lower, WIDTH - 70, 280.0
    low, high = float(values_TL.min()), float(values_TL.max())
    margin = 0.05 * (high - low or 1.0)
    low, high = low - margin, high + margin

    def at(depth: int, value: float) -> tuple[float, float]:
        x = left + (depth / max(1, n_depths - 1)) * width
        return x, top + height - (value - low) / (high - low) * height

    parts: list[Markup] = [text(2, 14, f"Dimension {dimension} of the residual stream", class_="strong"), *legend]
    marks = ticks(low, high, 5)
    for value, label in zip(marks, tick_labels(marks)):
        _, y = at(0, value)
        parts.append(element("path", d=f"M{left} {y:.2f}h{width}", class_="grid"))
        parts.append(text(left - 8, y + 4, label, class_="muted end"))
    every = max(1, n_depths // 16)
    for depth in range(0, n_depths, every):
        parts.append(text(at(depth, low)[0], top + height + 18, str(depth), class_="muted mid"))
    parts.append(text(left + width / 2, top + height + 36, "depth (0: embedding)", class_="muted mid"))
    for index in range(len(content.categories)):  # one colour after the other, so that no category covers all others
        for values_L in values_TL[content.text_category == index]:
            path = "L".join(f"{x:.2f} {y:.2f}" for x, y in (at(d, float(v)) for d, v in enumerate(values_L)))
            colour = category(index)
            parts.append(element("path", d=f"M{path}", class_=f"{colour}", fill="none", stroke="currentColor",
                                 stroke_width=1.4, opacity=0.8))  # fmt: skip
    spread = f"Values from {significant(float(values_TL.min()))} to {significant(float(values_TL.max()))}."
    name, title = f"stream-{dimension}", f"Streams of dimension {dimension}"
    description = f"A line for each text over depths. {spread}"
    return drawing(name, title, description, WIDTH, top + height + 46, *parts, data={})
