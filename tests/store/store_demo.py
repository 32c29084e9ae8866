"""A small run that the tests of the store share; imported by name, also from child processes."""

import numpy as np
import pyarrow as pa

from modularity.store import Manifest, ResultArray, RowCoordinates, Run, create_run
from modularity.types import Site, SiteShape, WorkItem

NEURONS = Site("encoder", "ffn.neurons")
N_ROWS, N_LAYERS, N_NEURONS, ROWS_PER_ITEM = 250, 2, 200, 96


def manifest(**changes):
    values = {
        "config": {"capture": {"dtype": "float32", "layers": None}, "functions": [{"name": "demo"}]},
        "identity": {"model": "tiny", "parameter_hash": "abc"},
        "versions": {"modularity": "0.1.0"},
        "seeds": {"labels": 0},
    }
    return Manifest.of("demo_job", **{**values, **changes})


def site_shape(site=NEURONS, layers=(0, 1), widths=(N_NEURONS, N_NEURONS), dims=("neuron",), units=(N_NEURONS,)):
    return SiteShape(site, tuple(layers), tuple(widths), tuple(dims), tuple(units))


def row_coordinates(n_rows=N_ROWS):
    example = np.arange(n_rows)
    labels = np.stack([example % 2, np.where(example < n_rows // 2, -1, (example // 2) % 2)])
    return RowCoordinates(
        example_id_R=[f"e{i}" for i in example],
        example_R=example,
        position_R=np.full(n_rows, -1),
        subfunctions=("odd", "second-half"),
        labels_SR=labels,
        selection_R=example % 4 < 2,
        text_fingerprint_R=[f"{i:016x}" for i in example],
        n_tokens_R=example % 9 + 1,
    )


def values(n_rows=N_ROWS, n_layers=N_LAYERS, n_neurons=N_NEURONS):
    return np.random.default_rng(0).standard_normal((n_rows, n_layers, n_neurons)).astype(np.float32)


def items(n_rows=N_ROWS):
    return [
        WorkItem.of("capture", function="demo", start=start, stop=min(start + ROWS_PER_ITEM, n_rows))
        for start in range(0, n_rows, ROWS_PER_ITEM)
    ]


def create_demo(uri) -> Run:
    run = create_run(uri, manifest())
    run.create_activations(
        "demo", {NEURONS: site_shape()}, row_coordinates(), storage_dtype="float32", rows_per_item=ROWS_PER_ITEM
    )
    run.create_result(
        "demo",
        sizes={"layer": N_LAYERS, "neuron": N_NEURONS},
        arrays={
            "predictivity": ResultArray(("layer", "neuron"), "float64", {"layer": 1, "neuron": 100}, {"units": "1"}),
            "polarity": ResultArray(("layer", "neuron"), "int8", {"layer": 1, "neuron": 100}),
        },
        coordinates={"layer": (("layer",), np.array([0, 1]))},
    )
    return run


def capture_item(run: Run, item: WorkItem):
    start, stop = item.integer("start"), item.integer("stop")
    write = run.write_activations("demo", NEURONS, start, values()[start:stop])
    table = pa.table({"example_id": [f"e{i}" for i in range(start, stop)], "start": pa.array([start] * (stop - start))})
    return run.commit(item, arrays=[write], tables=[run.write_table("rows", item, table)], info={"seconds": 0.1})


def predict_item(run: Run, layer: int, start: int):
    item = WorkItem.of("predict", function="demo", layer=layer, start=start)
    block = np.arange(100.0)[None] + 1000 * layer + start
    writes = run.write_result(
        "demo", {"predictivity": block, "polarity": np.ones((1, 100), np.int8)}, at={"layer": layer, "neuron": start}
    )
    return run.commit(item, arrays=writes)


def finish_demo(run: Run) -> Run:
    for item in items():
        capture_item(run, item)
    for layer in range(N_LAYERS):
        for start in (0, 100):
            predict_item(run, layer, start)
    return run
