"""The dense results of a similarity study: Gram matrices of every data set, and the streams of every dimension."""

from typing import Any

import numpy as np

from modularity.data import TEXTS
from modularity.pipelines.similarity_prepare import PreparedSimilarity
from modularity.store import ResultArray, Run, table_from_columns
from modularity.types import SiteShape, WorkItem

STREAMS = "streams"


def gram_name(data: str) -> str:
    """Name of the result with the Gram matrices of a data set."""
    return f"gram_{data}"


def layer_dim(shape: SiteShape) -> str:
    """Name of the layer dimension: depths of the residual stream begin with the embedding."""
    return "depth" if shape.site.name == "residual" else "layer"


def allocate(run: Run, prepared: PreparedSimilarity) -> None:
    """Create every dense result and write the table `texts`; repeating it changes nothing."""
    for data in prepared.data:
        _create_gram(run, data, prepared)
    residual = [shape for shape in prepared.vectors if shape.site.name == "residual"]
    if residual:
        _create_streams(run, residual[0], prepared)
    _record_texts(run, prepared)


def _create_gram(run: Run, data: str, prepared: PreparedSimilarity) -> None:
    texts = prepared.data[data]
    rows = texts.table.row_example_R
    sizes = {"row": len(rows), "other_row": len(rows)}
    arrays: dict[str, ResultArray] = {}
    coordinates: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for shape in prepared.compared:
        dim = layer_dim(shape)
        sizes[dim] = len(shape.layers)
        coordinates[dim] = ((dim,), np.asarray(shape.layers, dtype=np.int64))
        dims: tuple[str, ...] = (dim, "row", "other_row")
        if len(shape.unit_shape) > 1:
            sizes["head"] = shape.unit_shape[0]
            dims = (dim, "head", "row", "other_row")
        meaning = {"long_name": f"inner products of the rows' vectors at {shape.site}"}
        arrays[shape.site.name] = ResultArray(dims, "float64", {dim: 1}, meaning)
    names = np.asarray(texts.categories, dtype=str)
    coordinates |= {
        "text": (("row",), rows),
        "position": (("row",), texts.table.row_position_R.astype(np.int32)),
        "category": (("row",), names[texts.category_E[rows]]),
    }
    run.create_result(gram_name(data), sizes=sizes, arrays=arrays, coordinates=coordinates, attributes={"data": data})


def _create_streams(run: Run, shape: SiteShape, prepared: PreparedSimilarity) -> None:
    texts = prepared.texts
    run.create_result(
        STREAMS,
        sizes={"text": len(texts.category_E), "depth": len(shape.layers), "channel": shape.unit_shape[0]},
        arrays={
            "value": ResultArray(
                ("text", "depth", "channel"), "float32", {}, {"long_name": "mean over the positions of a text"}
            )
        },
        coordinates={
            "text": (("text",), np.asarray([example.id for example in texts.function.examples], dtype=str)),
            "category": (("text",), np.asarray(texts.categories, dtype=str)[texts.category_E]),
            "depth": (("depth",), np.asarray(shape.layers, dtype=np.int64)),
        },
        attributes={"site": str(shape.site)},
    )


def _record_texts(run: Run, prepared: PreparedSimilarity) -> None:
    texts = prepared.texts
    item = WorkItem.of("texts", data=texts.table.fingerprint)
    if run.is_done(item):
        return
    examples, keep = texts.function.examples, prepared.config.store_text
    columns: dict[str, Any] = {
        "text": list(range(len(examples))),
        "text_id": [example.id for example in examples],
        "category": [texts.categories[index] for index in texts.category_E],
        "n_tokens": [int(n) for n in texts.table.lengths_E],
        "n_tokens_whole": [int(n) for n in texts.n_whole_E],
        "fingerprint": [example.fingerprint for example in examples],
        "content": [example.text if keep else "" for example in examples],
    }
    run.commit(item, tables=[run.write_table(TEXTS, item, table_from_columns(columns))])
