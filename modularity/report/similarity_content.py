"""What the page of a similarity study shows, as plain arrays, and how it is read from a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modularity.errors import StoreError
from modularity.geometry.gram import MEASURES, similarity
from modularity.report.content import FloatArray
from modularity.store import Run
from modularity.types import Site

Row = dict[str, Any]
JOB = "similarity"
TEXTS = "texts"
SITE_WORDS = {
    "residual": "residual stream",
    "attention.output": "attention output",
    "attention.heads": "single heads",
    "ffn.output": "FFN output",
}
MEASURE_WORDS = {
    "cosine": "cosine",
    "scaled": "scaled inner product",
    "centred": "centred cosine",
    "components_removed": "cosine without mean and largest components",
}
DATA_WORDS = {TEXTS: "texts", "random_tokens": "random tokens", "shuffled_tokens": "shuffled tokens"}


def site_words(site: str) -> str:
    """Words for a site, as captions and menus have them."""
    return SITE_WORDS[site.rpartition("/")[2]]


def layer_words(site: str, layer: int) -> str:
    """Words for a layer; those of the residual stream are depths, the first one is the embedding."""
    if not site.endswith("/residual"):
        return f"layer {layer}"
    return "embedding" if layer == 0 else f"depth {layer}"


@dataclass(frozen=True, eq=False)
class SimilarityContent:
    """A run of the job `similarity`, with its tables read once."""

    run: Run
    model: str

    @cached_property
    def tables(self) -> Mapping[str, list[Row]]:
        """Rows of every table that there is, but of `dimension_tests`."""
        return {name: self.run.table(name).to_pylist() for name in self.run.tables() if name != "dimension_tests"}

    def rows(self, table: str, **wanted: Any) -> list[Row]:
        """Rows whose columns have these values; none where the table is not there yet."""
        found = self.tables.get(table, [])
        return [row for row in found if all(row[name] == value for name, value in wanted.items())]

    @property
    def config(self) -> Mapping[str, Any]:
        """Resolved config of the run."""
        return self.run.manifest.config

    @property
    def data(self) -> tuple[str, ...]:
        """Data sets: the texts, then the controls."""
        return (TEXTS, *self.config["controls"])

    @property
    def sites(self) -> tuple[str, ...]:
        """Compared sites, in the order of the job."""
        return tuple(self.run.manifest.notes["sites"])

    @property
    def vectors(self) -> tuple[str, ...]:
        """Compared sites without heads."""
        return tuple(site for site in self.sites if not site.endswith("attention.heads"))

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, in the order of their numbers."""
        return tuple(self.run.manifest.notes["categories"])

    @cached_property
    def texts(self) -> list[Row]:
        """Rows of the table `texts`, by number."""
        return sorted(self.rows(TEXTS), key=lambda row: row["text"])

    @property
    def title(self) -> str:
        """Title of the page."""
        return f"Similarity of texts in categories in {self.model}"

    def layers(self, site: str) -> tuple[int, ...]:
        """Layers, or depths, of a site."""
        return self.run.layers(TEXTS, Site.parse(site, "decoder"))

    def gram(self, data: str, site: str) -> FloatArray | None:
        """Gram matrices of a site, (layers, rows, rows) or (layers, heads, rows, rows); None while some are missing."""
        try:
            found: FloatArray = self.run.results(f"gram_{data}")[site.rpartition("/")[2]].values
        except StoreError:
            return None
        return found

    @cached_property
    def row_text(self) -> np.ndarray:
        """Number of the text of every row."""
        found: np.ndarray = self.run.coordinates(TEXTS)["example"]
        return found

    @cached_property
    def row_position(self) -> np.ndarray:
        """Token position of every row."""
        found: np.ndarray = self.run.coordinates(TEXTS)["position"]
        return found

    @cached_property
    def text_category(self) -> np.ndarray:
        """Number of the category of every text."""
        return np.array([self.categories.index(row["category"]) for row in self.texts])

    def similarities(self, gram: FloatArray, measure: str) -> FloatArray:
        """Similarities of all rows for every matrix of a stack."""
        n_removed = int(self.config["scores"]["n_removed"])
        return np.stack([similarity(each, measure, n_removed=n_removed) for each in gram])

    def best_heads(self, n: int, measure: str = "centred") -> list[tuple[int, int]]:
        """Layer and head of the largest category scores of the texts, best first; lowest numbers first under ties."""
        rows = [row for row in self.rows("category_scores", data=TEXTS, measure=measure) if row["head"] >= 0]
        rows.sort(key=lambda row: (-row["score"], row["layer"], row["head"]))
        return [(row["layer"], row["head"]) for row in rows[:n]]

    @cached_property
    def streams(self) -> FloatArray | None:
        """Mean over positions of every dimension of the residual stream: (texts, depths, dimensions)."""
        if "streams" not in self.run.result_names():
            return None
        try:
            found: FloatArray = self.run.results("streams")["value"].values
        except StoreError:
            return None
        return found

    @cached_property
    def best_dimensions(self) -> list[tuple[int, float, float, int]]:
        """Dimension, largest F over depths, its q, its depth; the largest F first."""
        if "dimension_tests" not in self.run.tables():
            return []
        table = self.run.table("dimension_tests").to_pandas()
        table = table[table["site"].str.endswith("/residual")]
        if not len(table):
            return []
        table = table.sort_values(["f_value", "layer", "dimension"], ascending=[False, True, True], kind="stable")
        best = table.drop_duplicates("dimension")
        names = ("dimension", "f_value", "q_value", "layer")
        return [(int(d), float(f), float(q), int(layer)) for d, f, q, layer in zip(*(best[name] for name in names))]

    def projections(self, site: str, method: str) -> dict[int, tuple[FloatArray, tuple[float, float]]]:
        """By layer: coordinates of the rows, and the shares of the variance along them (PCA only)."""
        found: dict[int, list[Row]] = {}
        for row in self.rows("projection", site=site, method=method):
            found.setdefault(row["layer"], []).append(row)
        order = {(int(t), int(p)): i for i, (t, p) in enumerate(zip(self.row_text, self.row_position))}
        result = {}
        for layer in sorted(found):
            points = np.full((len(order), 2), np.nan)
            for row in found[layer]:
                points[order[row["text"], row["position"]]] = row["x"], row["y"]
            result[layer] = points, (found[layer][0]["share_x"], found[layer][0]["share_y"])
        return result


def score_curves(content: SimilarityContent, site: str, measure: str) -> dict[str, list[Row]]:
    """By data set: rows of `category_scores` of a site without heads, by layer."""
    return {
        data: sorted(
            content.rows("category_scores", data=data, site=site, measure=measure, head=-1), key=lambda r: r["layer"]
        )
        for data in content.data
    }


def column(rows: Sequence[Row], name: str) -> FloatArray:
    """A column as float64."""
    return np.array([row[name] for row in rows], dtype=np.float64)


__all__ = [
    "DATA_WORDS", "JOB", "MEASURES", "MEASURE_WORDS", "TEXTS", "Row", "SimilarityContent", "column", "layer_words",
    "score_curves", "site_words",
]  # fmt: skip
