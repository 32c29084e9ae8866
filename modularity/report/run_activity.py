"""Reductions of a run, brought into the form that the page shows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr

from modularity.report.activity import ActiveNeuron, Activity, Context
from modularity.report.content import FloatArray
from modularity.report.wording import clipped
from modularity.store import Run

MOST_NEURONS = 60
"""Neurons with contexts on one page, of one function or corpus."""
MOST_IN_LAYER = 5
MOST_CHARACTERS = 400


def activities(run: Run) -> Iterator[Activity]:
    """Activity on every function and corpus of which the run has reductions."""
    config = run.manifest.config["reductions"]
    names = [each["name"] for each in (*run.manifest.config["functions"], *config["corpora"])]
    for name in names:
        result = f"{name}.reductions"
        if result not in run.result_names():
            continue
        found = run.results(result, partial=True)
        rate_LF = found["firing_rate"].values if "firing_rate" in found else None
        peak_LF = _peaks(found)
        top_LF = found["top_examples.value"].values[:, :, 0] if "top_examples.value" in found else None
        if rate_LF is None and top_LF is None:
            continue
        chosen = _chosen(top_LF if peak_LF is None else peak_LF)
        yield Activity(
            name,
            tuple(found["layer"].values.tolist()),
            _n_tokens(found, run, name),
            float(config["threshold"]),
            rate_LF,
            tuple(_neurons(run, name, found["layer"].values, chosen, peak_LF, rate_LF)) if top_LF is not None else (),
            is_peak=peak_LF is not None,
        )


def _n_tokens(found: xr.Dataset, run: Run, name: str) -> int:
    """Tokens that count; where no kind counts them, those that went through the model."""
    for kind in ("firing_rate.count", "moments.count"):
        if kind in found:
            return int(found[kind].values.max(initial=0))
    return int(run.manifest.notes.get("tokens", {}).get(name, 0))


def _peaks(found: xr.Dataset) -> FloatArray | None:
    """(Largest value - mean) / standard deviation of every neuron; 0 for constant ones, NaN where there is none."""
    if "moments.mean" not in found:
        return None
    mean, variance, largest = (found[f"moments.{name}"].values for name in ("mean", "variance", "max"))
    with np.errstate(divide="ignore", invalid="ignore"):
        peak: FloatArray = (largest - mean) / np.sqrt(variance)
    peak[variance == 0] = 0
    return peak


def _chosen(score_LF: FloatArray | None) -> list[tuple[int, int]]:
    """Places of the neurons of each layer with the largest scores, of equal ones the first."""
    if score_LF is None:
        return []
    score_LF = np.where(np.isfinite(score_LF), score_LF, -np.inf)
    n = max(1, min(MOST_IN_LAYER, MOST_NEURONS // len(score_LF)))
    order_LF = np.argsort(-score_LF, axis=1, kind="stable")[:, :n]
    places = [(layer, int(neuron)) for layer, row in enumerate(order_LF) for neuron in row]
    return [place for place in places if np.isfinite(score_LF[place])][:MOST_NEURONS]


def _neurons(
    run: Run,
    name: str,
    layers: np.ndarray,
    chosen: list[tuple[int, int]],
    peak_LF: FloatArray | None,
    rate_LF: FloatArray | None,
) -> Iterator[ActiveNeuron]:
    contexts = _contexts(run, name, {(int(layers[i]), neuron) for i, neuron in chosen})
    for i, neuron in chosen:
        layer = int(layers[i])
        yield ActiveNeuron(
            layer,
            neuron,
            None if peak_LF is None else float(peak_LF[i, neuron]),
            None if rate_LF is None else float(rate_LF[i, neuron]),
            tuple(contexts.get((layer, neuron), ())),
        )


def _contexts(run: Run, name: str, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], list[Context]]:
    """Contexts by layer and neuron, those of the largest values first."""
    if "neuron_examples" not in run.tables():
        return {}
    table = run.table("neuron_examples")
    neurons = pa.array({neuron for _, neuron in wanted}, type=table["neuron"].type)
    here = pc.and_(pc.equal(table["function"], name), pc.is_in(table["neuron"], value_set=neurons))
    rows: list[dict[str, Any]] = table.filter(here).to_pylist()
    found: dict[tuple[int, int], list[Context]] = {}
    for row in sorted(rows, key=lambda row: row["rank"]):
        place = (row["layer"], row["neuron"])
        if place in wanted:
            text = clipped(row["context"], MOST_CHARACTERS)
            found.setdefault(place, []).append(Context(row["value"], row["token"], text, row["example_id"]))
    return found
