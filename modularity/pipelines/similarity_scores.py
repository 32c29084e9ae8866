"""Steps over Gram matrices: the matrices themselves, category scores, CKA between layers and sites, projections.

Table `category_scores`: one row for each data set, site, layer, head and measure. Table `category_blocks`: the mean
similarity of every pair of categories. Table `alignment`: CKA of every pair of layers. Table `projection`: coordinates.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from modularity.data import TEXTS
from modularity.geometry.alignment import alignment
from modularity.geometry.category_score import category_blocks, category_scores, score_intervals
from modularity.geometry.gram import MEASURES, gram_matrix, principal_coordinates, similarity, text_means
from modularity.geometry.labellings import labellings
from modularity.geometry.potential import potential_projection
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_layout import gram_name, layer_dim
from modularity.stats import benjamini_hochberg
from modularity.store import Run, table_from_columns
from modularity.types import Site, SiteShape, WorkItem

Columns = dict[str, Any]
NO_HEAD = -1
"""Head of a row that speaks of a whole site."""


def compute_gram(run: Run, item: WorkItem, shape: SiteShape, *, n_threads: int) -> Mapping[str, Any]:
    """Gram matrix of one layer of a site, of every head of it where the site has heads."""
    data, site, layer = item.text("data"), shape.site, item.integer("layer")
    values = run.read_activations(data, site, layer=layer, n_threads=n_threads)
    if values.ndim == 3:
        gram = np.stack([gram_matrix(values[:, head]) for head in range(values.shape[1])])
    else:
        gram = gram_matrix(values)
    at = {layer_dim(shape): shape.layers.index(layer)}
    written = run.write_result(gram_name(data), {site.name: gram[None]}, at=at)
    run.commit(item, arrays=written)
    return {"bytes": sum(stored.n_bytes for write in written for stored in write.objects)}


def gram_matrices(run: Run, data: str, shape: SiteShape) -> Iterator[tuple[int, int, np.ndarray]]:
    """Layer, head (-1 for a site without heads) and Gram matrix of each."""
    stored = run.results(gram_name(data), partial=True)[shape.site.name]
    for index, layer in enumerate(shape.layers):
        gram = stored[index].values
        if gram.ndim == 2:
            yield layer, NO_HEAD, gram
        else:
            for head in range(len(gram)):
                yield layer, head, gram[head]


@lru_cache(maxsize=8)
def row_texts(run: Run, data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Text and position of every row, number of the category of every text, and names of the categories."""
    coordinates = run.coordinates(data)
    text_R = coordinates["example"]
    first = np.unique(text_R, return_index=True)[1]
    category_T = np.argmax(coordinates["label"][:, first], axis=0)
    return text_R, coordinates["position"], category_T, [str(name) for name in coordinates["subfunction"]]


def score_site(run: Run, item: WorkItem, shape: SiteShape, config: SimilarityConfig) -> Mapping[str, Any]:
    """Category scores of all layers and heads of a site, under every measure, with one set of labellings."""
    data, settings = item.text("data"), config.scores
    text_R, _, category_T, names = row_texts(run, data)
    places, matrices, blocks = [], [], []
    for layer, head, gram in gram_matrices(run, data, shape):
        for measure in MEASURES:
            texts_TT = text_means(similarity(gram, measure, n_removed=settings.n_removed), text_R)
            places.append((layer, head, measure))
            matrices.append(texts_TT)
            if head == NO_HEAD:
                blocks.append((layer, measure, category_blocks(texts_TT, category_T)))
    null = labellings(category_T, limit=settings.max_labellings, n_draws=settings.n_draws, seed=settings.seed)
    found = category_scores(np.stack(matrices), category_T, null)
    ends = score_intervals(np.stack(matrices), category_T, n_resamples=settings.n_bootstrap, seed=settings.seed)
    q_value_M = np.empty(len(places))
    for measure in MEASURES:  # one family: all layers and heads of a site under one measure
        chosen = np.array([place[2] == measure for place in places])
        q_value_M[chosen] = benjamini_hochberg(found.p_value_M[chosen])
    n = len(places)
    columns: Columns = {
        "data": [data] * n, "site": [str(shape.site)] * n,
        "layer": [place[0] for place in places], "head": [place[1] for place in places],
        "measure": [place[2] for place in places],
        "within": found.within_M, "between": found.between_M, "score": found.score_M,
        "low": ends.low_M, "high": ends.high_M,
        "null_mean": found.null_mean_M, "null_sd": found.null_sd_M,
        "null_low": found.null_low_M, "null_high": found.null_high_M,
        "p_value": found.p_value_M, "q_value": q_value_M,
        "n_texts": [len(category_T)] * n, "n_rows": [len(text_R)] * n,
        "n_labellings": [null.n_all if null.is_exact else len(null.category_NT)] * n, "exact": [null.is_exact] * n,
    }  # fmt: skip
    tables = [run.write_table("category_scores", item, table_from_columns(columns))]
    if blocks:
        tables.append(run.write_table("category_blocks", item, _blocks(data, shape.site, blocks, names, category_T)))
    run.commit(item, tables=tables, info={"redrawn": ends.n_redrawn})
    return {}


def _blocks(
    data: str, site: Site, blocks: list[tuple[int, str, np.ndarray]], names: list[str], category_T: np.ndarray
) -> Any:
    sizes = np.bincount(category_T)
    rows = []
    for layer, measure, blocks_CC in blocks:
        for one in range(len(names)):
            for other in range(one, len(names)):
                n_pairs = sizes[one] * (sizes[one] - 1) // 2 if one == other else sizes[one] * sizes[other]
                value = float(blocks_CC[one, other])
                rows.append((data, str(site), layer, measure, names[one], names[other], value, int(n_pairs)))
    header = ("data", "site", "layer", "measure", "category", "other_category", "similarity", "n_pairs")
    return table_from_columns({name: [row[i] for row in rows] for i, name in enumerate(header)})


def align_layers(
    run: Run, item: WorkItem, shapes: tuple[SiteShape, ...], config: SimilarityConfig
) -> Mapping[str, Any]:
    """CKA of every pair of layers of all sites without heads."""
    data = item.text("data")
    text_R, *_ = row_texts(run, data)
    places, matrices = [], []
    for shape in shapes:
        for layer, _, gram in gram_matrices(run, data, shape):
            places.append((str(shape.site), layer))
            matrices.append(gram)
    found = alignment(np.stack(matrices), text_R, n_permutations=config.scores.n_permutations, seed=config.scores.seed)
    first, second = np.triu_indices(len(places), 1)
    columns: Columns = {
        "data": [data] * len(first),
        "site": [places[i][0] for i in first], "layer": [places[i][1] for i in first],
        "other_site": [places[i][0] for i in second], "other_layer": [places[i][1] for i in second],
        "cka": found.cka_MM[first, second], "cka_debiased": found.debiased_MM[first, second],
        "null_mean": found.null_mean_MM[first, second], "null_high": found.null_high_MM[first, second],
        "p_value": found.p_value_MM[first, second],
        "q_value": benjamini_hochberg(found.p_value_MM[first, second]),
        "n_texts": [int(text_R.max()) + 1] * len(first), "n_rows": [len(text_R)] * len(first),
    }  # fmt: skip
    run.commit(item, tables=[run.write_table("alignment", item, table_from_columns(columns))])
    return {}


def project(run: Run, item: WorkItem, shape: SiteShape, config: SimilarityConfig) -> Mapping[str, Any]:
    """Coordinates of the texts' rows in the plane, of every layer of a site, by PCA and by potential distances."""
    text_R, position_R, category_T, names = row_texts(run, TEXTS)
    settings, parts = config.projection, []
    for layer, _, gram in gram_matrices(run, TEXTS, shape):
        pca_R2, share_N = principal_coordinates(gram, 2)
        plane_R2 = potential_projection(gram, n_neighbours=settings.n_neighbours, seed=settings.seed)
        parts.append((layer, "pca", pca_R2, share_N))
        parts.append((layer, "potential", plane_R2, np.full(2, np.nan)))
    n = len(text_R)
    columns: Columns = {
        "site": [str(shape.site)] * (n * len(parts)),
        "layer": np.repeat([part[0] for part in parts], n),
        "method": [part[1] for part in parts for _ in range(n)],
        "text": np.tile(text_R, len(parts)).astype(np.int64),
        "position": np.tile(position_R, len(parts)).astype(np.int64),
        "category": [names[category] for category in category_T[text_R]] * len(parts),
        "x": np.concatenate([part[2][:, 0] for part in parts]),
        "y": np.concatenate([part[2][:, 1] for part in parts]),
        "share_x": np.repeat([part[3][0] for part in parts], n),
        "share_y": np.repeat([part[3][1] for part in parts], n),
    }
    run.commit(item, tables=[run.write_table("projection", item, table_from_columns(columns))])
    return {}
