"""Steps over stored rows: dimensions that differ by category, streams, and components that light up or go dark.

Table `dimension_tests`: F of every dimension (texts themselves only). Table `dimension_summary`: one row for each
layer. Table `activity`: one row for each component and category.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from modularity.data import TEXTS
from modularity.geometry.activity import activity_effects, root_mean_square
from modularity.geometry.anova import Anova, anova, largest_f_p_value, mean_by_text
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_layout import STREAMS
from modularity.pipelines.similarity_scores import row_texts
from modularity.stats import benjamini_hochberg
from modularity.store import Run, table_from_columns
from modularity.types import PARTITION, Site, SiteShape, WorkItem

LEVEL = 0.05
"""Dimensions with q at or below it are counted."""
SITES = {"head": "attention.heads", "attention": "attention.output", "ffn": "ffn.output", "expert": "ffn.neurons"}
"""Where the activity of each kind of component is read."""


def test_dimensions(
    run: Run, item: WorkItem, shape: SiteShape, config: SimilarityConfig, *, n_threads: int
) -> Mapping[str, Any]:
    """Analysis of variance of every dimension of all layers of a site; all of them are one family."""
    data, settings = item.text("data"), config.scores
    text_R, _, category_T, names = row_texts(run, data)
    found: list[Anova] = []
    largest_p: list[float] = []
    for layer in shape.layers:
        values_TD = mean_by_text(run.read_activations(data, shape.site, layer=layer, n_threads=n_threads), text_R)
        found.append(anova(values_TD, category_T))
        largest_p.append(
            largest_f_p_value(values_TD, category_T, n_permutations=settings.n_permutations, seed=settings.seed)
        )
    n_D = len(found[0].f_value_D)
    q_value_LD = benjamini_hochberg(np.stack([each.p_value_D for each in found]))
    best = [int(np.argmax(each.f_value_D)) for each in found]
    n = len(shape.layers)
    summary: dict[str, Any] = {
        "data": [data] * n, "site": [str(shape.site)] * n, "layer": list(shape.layers), "n_dimensions": [n_D] * n,
        "n_significant": [int((q <= LEVEL).sum()) for q in q_value_LD],
        "mean_eta_squared": [float(each.eta_squared_D.mean()) for each in found],
        "largest_f": [float(each.f_value_D[i]) for each, i in zip(found, best)],
        "dimension": best,
        "p_value_largest": largest_p,
        "n_texts": [len(category_T)] * n, "n_permutations": [settings.n_permutations] * n,
    }  # fmt: skip
    tables = [run.write_table("dimension_summary", item, table_from_columns(summary))]
    if data == TEXTS:
        columns: dict[str, Any] = {
            "site": [str(shape.site)] * (n * n_D),
            "layer": np.repeat(np.asarray(shape.layers), n_D),
            "dimension": np.tile(np.arange(n_D), n),
            "f_value": np.concatenate([each.f_value_D for each in found]),
            "eta_squared": np.concatenate([each.eta_squared_D for each in found]),
            "p_value": np.concatenate([each.p_value_D for each in found]),
            "q_value": q_value_LD.ravel(),
            "highest": [names[c] for each in found for c in each.highest_D],
            "n_texts": [len(category_T)] * (n * n_D),
        }
        tables.append(run.write_table("dimension_tests", item, table_from_columns(columns)))
    run.commit(item, tables=tables)
    return {}


def collect_streams(run: Run, item: WorkItem, shape: SiteShape, *, n_threads: int) -> Mapping[str, Any]:
    """Mean over positions of every dimension of the residual stream, for every text and depth."""
    text_R, *_ = row_texts(run, TEXTS)
    values_TLD = np.stack(
        [
            mean_by_text(run.read_activations(TEXTS, shape.site, layer=layer, n_threads=n_threads), text_R)
            for layer in shape.layers
        ],
        axis=1,
    )
    run.commit(item, arrays=run.write_result(STREAMS, {"value": values_TLD.astype(np.float32)}))
    return {}


def compare_activity(
    run: Run, item: WorkItem, shapes: Mapping[Site, SiteShape], config: SimilarityConfig, *, n_threads: int
) -> Mapping[str, Any]:
    """Effect of every category on the activity of every component of one kind; all of them are one family."""
    data, kind, settings = item.text("data"), item.text("kind"), config.scores
    text_R, _, category_T, names = row_texts(run, data)
    (shape,) = (shape for site, shape in shapes.items() if site.name == SITES[kind])
    places: list[tuple[int, int]] = []
    parts = []
    for layer, activity_RK in _activities(run, data, kind, shape, n_threads):
        places += [(layer, index) for index in range(activity_RK.shape[1])]
        parts.append(mean_by_text(activity_RK, text_R))
    found = activity_effects(
        np.concatenate(parts, axis=1), category_T,
        limit=settings.max_labellings, n_draws=settings.n_draws, seed=settings.seed,
    )  # fmt: skip
    q_value_CK = benjamini_hochberg(found.p_value_CK)
    n_C, n_K = found.p_value_CK.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_CK = np.log2(found.mean_CK / found.rest_CK)
    columns = {
        "data": [data] * (n_C * n_K),
        "kind": [kind] * (n_C * n_K),
        "layer": [layer for layer, _ in places] * n_C,
        "component": [index for _, index in places] * n_C,
        "category": [name for name in names for _ in range(n_K)],
        "mean": found.mean_CK.ravel(),
        "rest": found.rest_CK.ravel(),
        "log2_ratio": ratio_CK.ravel(),
        "effect": found.effect_CK.ravel(),
        "p_value": found.p_value_CK.ravel(),
        "q_value": q_value_CK.ravel(),
        "n_category": np.repeat(np.bincount(category_T), n_K),
        "n_texts": [len(category_T)] * (n_C * n_K),
        "exact": [found.is_exact] * (n_C * n_K),
    }
    run.commit(item, tables=[run.write_table("activity", item, table_from_columns(columns))])
    return {}


def _activities(run: Run, data: str, kind: str, shape: SiteShape, n_threads: int) -> Iterator[tuple[int, np.ndarray]]:
    """Layer, and activity of its components in every row, (R, K)."""
    if kind == "expert":
        partition = run.results(PARTITION)
        layers = partition["layer"].values.tolist()
        labels_LF = partition["expert"].values[0]
    else:
        layers = list(shape.layers)
    for index, layer in enumerate(layers):
        values = run.read_activations(data, shape.site, layer=layer, n_threads=n_threads)
        if kind == "expert":
            yield layer, _expert_activity(values, labels_LF[index])
        elif kind == "head":
            yield layer, root_mean_square(values)
        else:
            yield layer, root_mean_square(values[:, None, :])


def _expert_activity(values_RF: np.ndarray, labels_F: np.ndarray) -> np.ndarray:
    """Root mean square over the neurons of every expert, (R, E)."""
    experts = range(int(labels_F.max()) + 1)
    return np.stack([root_mean_square(values_RF[:, None, labels_F == expert])[:, 0] for expert in experts], axis=1)
