"""One function over all layers: corrected p-values, best neurons with intervals, top neurons with their examples.

Tables: `best_neurons` (sub-function × layer), `function_curve` (layer), `top_neurons` (sub-function × rank) and
`top_examples` (top neuron × side × rank). Chosen on selection examples, reported on evaluation examples.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.neurons import evaluation_interval, top_neurons
from modularity.pipelines.config import PredictivityConfig, Variant
from modularity.pipelines.predictivity_step import polarity_rule, selection_half
from modularity.stats import PolarityScales, benjamini_hochberg, p_values, polarity_scales
from modularity.store import Run, table_from_columns
from modularity.types import Site, WorkItem

Row = dict[str, Any]
Z_95 = 1.959963984540054


@dataclass(frozen=True, eq=False)
class _Scores:
    """The dense results of a function, read once."""

    subfunctions: list[str]
    layers: list[int]
    widths: list[int]
    predictivity_SLF: np.ndarray
    normalised_SLF: np.ndarray
    score_SLF: np.ndarray
    """What ranks neurons, and what `null_max_SLN` is of."""
    polarity_SLF: np.ndarray
    p_value_SLF: np.ndarray
    evaluation_SLF: np.ndarray
    null_max_SLN: np.ndarray
    auroc_SLF: np.ndarray
    accuracy_SLF: np.ndarray

    @classmethod
    def read(cls, run: Run, function: str) -> "_Scores":
        results = run.results(function, partial=True)
        return cls(
            results["subfunction"].values.tolist(),
            results["layer"].values.tolist(),
            results["width"].values.tolist(),
            results["predictivity"].values,
            results["normalised"].values,
            results["score"].values,
            results["polarity"].values,
            results["p_value"].values,
            results["predictivity_evaluation"].values,
            results["null_max"].values.max(axis=2),
            results["auroc_evaluation"].values,
            results["accuracy"].values,
        )


@dataclass(frozen=True, eq=False)
class _Halves:
    """Labels and rows of one sub-function."""

    labels_R: np.ndarray
    evaluation_R: np.ndarray
    """Rows on which values are reported, as indices."""
    scales: PolarityScales
    """Of both polarities on the selection rows, arrays without dimensions."""
    share_positive: float
    """Share of label 1 on the evaluation rows: the chance level of polarity +1."""

    def floor(self, polarity: int) -> float:
        """Average precision on the selection rows that counts as 0."""
        return float(self.scales.of(polarity).floor_S)

    def chance(self, polarity: int) -> float:
        return self.share_positive if polarity == 1 else 1.0 - self.share_positive


def summarise_function(run: Run, item: WorkItem, config: PredictivityConfig, *, variant: Variant) -> Mapping[str, Any]:
    """Write `q_value` and the four tables of one function."""
    function = item.text("function")
    scores = _Scores.read(run, function)
    coordinates = run.coordinates(function)
    halves = [_halves(coordinates, s, variant) for s in range(len(scores.subfunctions))]
    q_value_SLF = _q_values(scores)
    reader = _NeuronReader(run, function, coordinates, config)
    best = [_best_row(function, scores, halves, q_value_SLF, s, index, reader)
            for s in range(len(scores.subfunctions)) for index in range(len(scores.layers))]  # fmt: skip
    curve = [_curve_row(function, scores, halves, best, index) for index in range(len(scores.layers))]
    top, examples = _top_rows(function, scores, halves, q_value_SLF, reader, config)
    tables = {"best_neurons": best, "function_curve": curve, "top_neurons": top, "top_examples": examples}
    written = [run.write_table(name, item, table_from_columns(_columns(rows))) for name, rows in tables.items()]
    arrays = run.write_result(function, {"q_value": q_value_SLF})
    run.commit(item, arrays=arrays, tables=written)
    return {}


def _columns(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _halves(coordinates: Mapping[str, np.ndarray], s: int, variant: Variant) -> _Halves:
    labels_R = coordinates["label"][s]
    chosen_R = selection_half(coordinates, variant)
    owned_R = labels_R >= 0
    selection = owned_R if chosen_R is None else owned_R & chosen_R
    evaluation = owned_R if chosen_R is None else owned_R & ~chosen_R
    scales = polarity_scales(labels_R[None, selection] == 1, rule=polarity_rule(variant))
    return _Halves(
        labels_R,
        np.flatnonzero(evaluation),
        scales.part(0),
        float((labels_R[evaluation] == 1).mean()),
    )


def _q_values(scores: _Scores) -> np.ndarray:
    """Benjamini-Hochberg over the neurons of all layers, each sub-function a family; NaN beyond a layer's width."""
    q_value_SLF = np.full(scores.p_value_SLF.shape, np.nan)
    for p_value_LF, q_value_LF in zip(scores.p_value_SLF, q_value_SLF):
        real_LF = ~np.isnan(p_value_LF)
        q_value_LF[real_LF] = benjamini_hochberg(p_value_LF[real_LF])
    return q_value_SLF


class _NeuronReader:
    """Reads single neurons and their intervals, each once."""

    def __init__(
        self, run: Run, function: str, coordinates: Mapping[str, np.ndarray], config: PredictivityConfig
    ) -> None:
        self._run, self._function, self._config = run, function, config
        self.coordinates = coordinates
        self._site = Site.parse(run.manifest.notes["analysed"], "decoder")
        self._columns: dict[tuple[int, int], np.ndarray] = {}
        self._intervals: dict[tuple[int, int, int], tuple[float, float]] = {}

    def column(self, layer: int, neuron: int) -> np.ndarray:
        """Activation of one neuron on all rows, float32."""
        key = (layer, neuron)
        if key not in self._columns:
            self._columns[key] = self._run.read_activations(
                self._function, self._site, layer=layer, units=slice(neuron, neuron + 1)
            )[:, 0]
        return self._columns[key]

    def interval(self, s: int, halves: _Halves, layer: int, neuron: int, polarity: int) -> tuple[float, float]:
        """95 % bootstrap interval of the average precision on the evaluation rows, over clusters of examples."""
        key = (s, layer, neuron)
        if key not in self._intervals:
            rows = halves.evaluation_R
            found = evaluation_interval(
                self.column(layer, neuron)[rows],
                halves.labels_R[rows] == 1,
                polarity,
                n_resamples=self._config.n_bootstrap,
                seed=self._config.seed,
                groups_R=self.coordinates["cluster"][rows],
            )
            self._intervals[key] = (found.low, found.high)
        return self._intervals[key]


def _neuron_row(
    function: str,
    scores: _Scores,
    halves: _Halves,
    q_value_SLF: np.ndarray,
    place: tuple[int, int, int],
    reader: _NeuronReader,
) -> Row:
    """Everything known of one neuron for one sub-function."""
    s, index, neuron = place
    layer, polarity = scores.layers[index], int(scores.polarity_SLF[place])
    chance = halves.chance(polarity)
    value = float(scores.evaluation_SLF[place])
    low, high = reader.interval(s, halves, layer, neuron, polarity)
    return {
        "function": function,
        "subfunction": scores.subfunctions[s],
        "layer": layer,
        "neuron": neuron,
        "polarity": polarity,
        "ap_selection": float(scores.predictivity_SLF[place]),
        "floor_selection": halves.floor(polarity),
        "normalised_selection": float(scores.normalised_SLF[place]),
        "score_selection": float(scores.score_SLF[place]),
        "ap_evaluation": value,
        "chance_evaluation": chance,
        "normalised_evaluation": (value - chance) / (1 - chance),
        "normalised_low": (low - chance) / (1 - chance),
        "normalised_high": (high - chance) / (1 - chance),
        "auroc_evaluation": float(scores.auroc_SLF[place]),
        "accuracy_evaluation": float(scores.accuracy_SLF[place]),
        "p_value": float(scores.p_value_SLF[place]),
        "q_value": float(q_value_SLF[place]),
        "n_evaluation": len(halves.evaluation_R),
    }


def _best_row(
    function: str,
    scores: _Scores,
    halves: list[_Halves],
    q_value_SLF: np.ndarray,
    s: int,
    index: int,
    reader: _NeuronReader,
) -> Row:
    """The best neuron of one layer with the p-value of having been the best of all.

    The null is of the score, of either polarity. It is shown as the average precision that has this score in the
    neuron's polarity.
    """
    values_F = scores.score_SLF[s, index, : scores.widths[index]]
    neuron = int(top_neurons(values_F, 1)[0])
    row = _neuron_row(function, scores, halves[s], q_value_SLF, (s, index, neuron), reader)
    null_N = scores.null_max_SLN[s, index]
    null_ap_N = halves[s].scales.of(row["polarity"]).average_precision(null_N)
    return row | {
        "p_value_max": float(p_values(np.array([row["score_selection"]]), null_N)[0]),
        "null_max_mean": float(null_ap_N.mean()),
        "null_max_high": float(np.quantile(null_ap_N, 0.95)),
        "n_neurons": scores.widths[index],
    }


def _curve_row(function: str, scores: _Scores, halves: list[_Halves], best: list[Row], index: int) -> Row:
    """Mean over sub-functions of the best neuron of one layer, and of its null.

    The interval takes the sampling errors of the sub-functions as independent; its null does not: permutation n
    exchanges the same rows for all sub-functions with the same examples. The p-values are of the mean score; the null
    is shown on the normalised scale, each sub-function in the polarity of its best neuron.
    """
    layer = scores.layers[index]
    rows = [row for row in best if row["layer"] == layer]
    mean = float(np.mean([row["normalised_evaluation"] for row in rows]))
    spread_S = np.array([(row["normalised_high"] - row["normalised_low"]) / (2 * Z_95) for row in rows])
    half_width = Z_95 * float(np.sqrt((spread_S**2).sum())) / len(rows)
    selection = float(np.mean([row["normalised_selection"] for row in rows]))
    score = float(np.mean([row["score_selection"] for row in rows]))
    null_LN = scores.null_max_SLN.mean(axis=0)
    null_N = _normalised_null(scores.null_max_SLN[:, index], halves, rows)
    return {
        "function": function,
        "layer": layer,
        "normalised_evaluation": mean,
        "low": mean - half_width,
        "high": min(1.0, mean + half_width),
        "normalised_selection": selection,
        "score_selection": score,
        "null_mean": float(null_N.mean()),
        "null_low": float(np.quantile(null_N, 0.05)),
        "null_high": float(np.quantile(null_N, 0.95)),
        "p_value": float(p_values(np.array([score]), null_LN[index])[0]),
        "p_value_all_layers": float(p_values(np.array([score]), null_LN.max(axis=0))[0]),
        "n_subfunctions": len(rows),
        "n_neurons": scores.widths[index],
    }


def _normalised_null(null_max_SN: np.ndarray, halves: list[_Halves], rows: list[Row]) -> np.ndarray:
    """Mean over sub-functions of the best under permuted labels, each on the normalised scale of its row's polarity."""
    null_SN = []
    for null_N, half, row in zip(null_max_SN, halves, rows, strict=True):
        floor, scale = row["floor_selection"], half.scales.of(row["polarity"])
        null_SN.append((scale.average_precision(null_N) - floor) / (1 - floor))
    mean_N: np.ndarray = np.mean(null_SN, axis=0)
    return mean_N


def _top_rows(
    function: str,
    scores: _Scores,
    halves: list[_Halves],
    q_value_SLF: np.ndarray,
    reader: _NeuronReader,
    config: PredictivityConfig,
) -> tuple[list[Row], list[Row]]:
    """The best neurons of all layers for each sub-function, and the examples at their two ends."""
    top: list[Row] = []
    examples: list[Row] = []
    width = scores.score_SLF.shape[2]
    for s, half in enumerate(halves):
        values = np.nan_to_num(scores.score_SLF[s].ravel(), nan=-np.inf)
        n_real = sum(scores.widths)
        for rank, flat in enumerate(top_neurons(values, min(config.n_top, n_real)).tolist(), 1):
            index, neuron = divmod(flat, width)
            row = _neuron_row(function, scores, half, q_value_SLF, (s, index, neuron), reader)
            top.append({"rank": rank} | row)
            examples += _example_rows(row, half, reader, config.n_examples)
    return top, examples


def _example_rows(row: Row, halves: _Halves, reader: _NeuronReader, n_examples: int) -> list[Row]:
    """The examples of the sub-function on which the neuron is most and least active."""
    owned = np.flatnonzero(halves.labels_R >= 0)
    values_R = reader.column(row["layer"], row["neuron"])
    ends = {"highest": -values_R[owned], "lowest": values_R[owned]}
    sides = {side: owned[np.argsort(keys, kind="stable")[:n_examples]] for side, keys in ends.items()}
    names = reader.coordinates["example_id"]
    return [
        {
            "function": row["function"],
            "subfunction": row["subfunction"],
            "layer": row["layer"],
            "neuron": row["neuron"],
            "side": side,
            "rank": rank,
            "example_id": str(names[r]),
            "value": float(values_R[r]),
            "label": int(halves.labels_R[r]),
        }
        for side, rows in sides.items()
        for rank, r in enumerate(rows.tolist(), 1)
    ]
