"""What the figures that a reader explores hold: Gram matrices, streams and projections, packed into small integers.

A similarity is kept to a hundredth (one byte), a stream or coordinate to 1/30,000 of the largest value of its dimension
or plane (two bytes). The page holds the texts first, then the best heads, then the controls, up to a limit of bytes;
what did not fit is said on the page.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modularity.report.content import FloatArray
from modularity.report.palette import diverging_ramp
from modularity.report.similarity_content import (
    DATA_WORDS,
    MEASURE_WORDS,
    MEASURES,
    TEXTS,
    SimilarityContent,
    layer_words,
    site_words,
)
from modularity.report.wording import count, p_cell, significant

N_HEADS = 6
"""Heads whose Gram matrices the page holds: those with the largest category scores."""
LISTED_DIMENSIONS = 60
METHODS = {"pca": "PCA", "potential": "potential distances (as PHATE)"}


@dataclass(frozen=True)
class Explorers:
    """Data of the three figures, each plain JSON values or None, and what was cut by figure."""

    gram: dict[str, object] | None
    streams: dict[str, object] | None
    projection: dict[str, object] | None
    cuts: dict[str, str]


@dataclass(frozen=True)
class ExplorerLimits:
    """Caps on what the page holds."""

    gram_bytes: int = 6_000_000
    """Of all Gram matrices together, as text."""
    stream_values: int = 3_000_000
    """Values of streams: texts × depths × dimensions."""


def explorers(content: SimilarityContent, limits: ExplorerLimits | None = None) -> Explorers:
    """Everything that can be explored on the page of a run."""
    limits = limits or ExplorerLimits()
    cuts: dict[str, str] = {}
    gram = _gram(content, limits, cuts)
    return Explorers(gram, _streams(content, limits, cuts), _projection(content), cuts)


def _common(content: SimilarityContent) -> dict[str, object]:
    return {
        "texts": [row["text_id"] for row in content.texts],
        "categories": list(content.categories),
        "category": content.text_category.tolist(),
        "row_text": content.row_text.tolist(),
        "row_position": content.row_position.tolist(),
    }


def packed_bytes(values: FloatArray) -> str:
    """Values between -1 and 1 as hundredths, base64 of int8."""
    return base64.b64encode(np.round(100 * np.clip(values, -1, 1)).astype(np.int8).tobytes()).decode()


def packed_shorts(values: FloatArray) -> tuple[str, float]:
    """Base64 of little-endian int16, and the factor by which they are multiplied."""
    largest = float(np.abs(values).max(initial=0.0))
    factor = largest / 30_000 if largest > 0 else 1.0
    return base64.b64encode(np.round(values / factor).astype("<i2").tobytes()).decode(), factor


def _gram(content: SimilarityContent, limits: ExplorerLimits, cuts: dict[str, str]) -> dict[str, object] | None:
    sets: list[dict[str, object]] = []
    n_bytes = n_left = 0
    for key, label, layers, gram in _stacks(content):
        size = len(MEASURES) * len(gram) * gram.shape[-1] * (gram.shape[-1] + 1) // 2 * 4 // 3
        if n_bytes + size > limits.gram_bytes:
            n_left += 1
            continue
        n_bytes += size
        lower = np.tril_indices(gram.shape[-1])
        measures, tops = {}, {}
        for measure in MEASURES:
            found = content.similarities(gram, measure)
            measures[measure] = [packed_bytes(each[lower]) for each in found]
            different = content.row_text[:, None] != content.row_text[None, :]
            tops[measure] = max(0.05, float(np.abs(found[:, different]).max(initial=0.0)))
        sets.append({"key": key, "label": label, "layers": layers, "measures": measures, "tops": tops})
    if n_left:
        cuts["gram"] = (
            f"{n_left} of {n_left + len(sets)} sets of matrices (controls, heads) are left out to keep the page small; "
            "`modularity figures` draws all, and the run’s results hold all."
        )
    if not sets:
        return None
    ramps = {"light": diverging_ramp(dark=False), "dark": diverging_ramp(dark=True)}
    return _common(content) | {"sets": sets, "measures": MEASURE_WORDS, "ramps": ramps}


def _stacks(content: SimilarityContent) -> Iterator[tuple[str, str, list[str], FloatArray]]:
    """Key, label, layer names and Gram matrices of every set, the most important first."""
    for site in content.vectors:
        gram = content.gram(TEXTS, site)
        if gram is not None:
            yield (
                f"{site}|{TEXTS}",
                site_words(site),
                [layer_words(site, layer) for layer in content.layers(site)],
                gram,
            )
    heads_site = next((site for site in content.sites if site.endswith("attention.heads")), None)
    heads = None if heads_site is None else content.gram(TEXTS, heads_site)
    best = content.best_heads(N_HEADS)
    if heads_site is not None and heads is not None and best:
        layers = content.layers(heads_site)
        chosen = np.stack([heads[layers.index(layer), head] for layer, head in best])
        names = [f"head {layer}.{head}" for layer, head in best]
        yield f"{heads_site}|{TEXTS}", f"the {len(best)} heads with the largest scores", names, chosen
    for data in content.data[1:]:
        for site in content.vectors:
            gram = content.gram(data, site)
            if gram is not None:
                label = f"{site_words(site)}, {DATA_WORDS[data]}"
                yield f"{site}|{data}", label, [layer_words(site, layer) for layer in content.layers(site)], gram


def _streams(content: SimilarityContent, limits: ExplorerLimits, cuts: dict[str, str]) -> dict[str, object] | None:
    values_TLD = content.streams
    if values_TLD is None:
        return None
    best = content.best_dimensions
    n_texts, n_depths, n_dimensions = values_TLD.shape
    most = max(1, limits.stream_values // (n_texts * n_depths))
    shown = list(range(n_dimensions))
    if most < n_dimensions:
        shown = sorted(dimension for dimension, *_ in best[:most]) if best else shown[:most]
        cuts["streams"] = (
            f"{count(len(shown))} of {count(n_dimensions)} dimensions are on the page, those with the largest F; "
            "`modularity figures RUN --dimension NUMBER` draws any."
        )
    packed = [packed_shorts(values_TLD[:, :, dimension]) for dimension in shown]
    listed = [
        {"dimension": d, "label": f"{d}: F {significant(f)} at depth {layer}, q {p_cell(q)}"}
        for d, f, q, layer in best[:LISTED_DIMENSIONS]
    ]
    return _common(content) | {
        "depths": n_depths, "n_dimensions": n_dimensions, "dimensions": shown, "listed": listed,
        "values": [text for text, _ in packed], "factors": [factor for _, factor in packed],
    }  # fmt: skip


def _projection(content: SimilarityContent) -> dict[str, object] | None:
    sets = []
    for site in content.vectors:
        for method, words in METHODS.items():
            found = content.projections(site, method)
            if not found:
                continue
            planes = []
            for layer, (points_R2, shares) in found.items():
                text, factor = packed_shorts(points_R2)
                note = "" if np.isnan(shares[0]) else " × ".join(f"{100 * share:.0f} %" for share in shares)
                planes.append({"layer": layer_words(site, layer), "points": text, "factor": factor, "note": note})
            sets.append({"site": site_words(site), "method": words, "planes": planes})
    return _common(content) | {"sets": sets} if sets else None
