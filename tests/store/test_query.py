import numpy as np
import pytest
import store_demo
from store_demo import N_ROWS, manifest, row_coordinates, site_shape, values

from modularity.errors import InputError
from modularity.store import create_run, query
from modularity.store import query as query_function
from modularity.types import Site


def test_one_neuron_of_one_subfunction(run):
    table = query(run, function="demo", site="ffn.neurons", layer=1, neuron=150, subfunction="odd")
    assert table.num_rows == N_ROWS
    np.testing.assert_array_equal(table["value"].to_numpy(), values()[:, 1, 150])
    assert table["label"].to_pylist() == [i % 2 for i in range(N_ROWS)]
    assert table.column_names == [
        "function", "site", "example_id", "example", "position", "selection", "row", "layer", "neuron", "value",
        "subfunction", "label",
    ]  # fmt: skip


def test_an_example_appears_once_for_each_of_its_subfunctions(run):
    table = query(run, function="demo", layer=0, neuron=0)
    assert table.num_rows == N_ROWS + N_ROWS // 2
    late = [row["subfunction"] for row in table.to_pylist() if row["example"] == 200]
    assert late == ["odd", "second-half"]


def test_label_and_example_and_several_neurons(run):
    table = query(run, function="demo", neuron=[150, 3], label=1, subfunction="odd", example=["e5", "e6", "e249"])
    rows = [(r["example_id"], r["layer"], r["neuron"]) for r in table.to_pylist()]
    assert rows == [(e, layer, n) for e in ("e5", "e249") for layer in (0, 1) for n in (150, 3)]
    expected = [values()[e, layer, n] for e in (5, 249) for layer in (0, 1) for n in (150, 3)]
    np.testing.assert_array_equal(table["value"].to_numpy(), np.array(expected))


def test_examples_of_no_subfunction_are_kept(tmp_path):
    rows = row_coordinates()
    labels = np.full_like(rows.labels_SR, -1)
    labels[0, 3] = 1
    run = create_run(tmp_path / "run", manifest())
    shapes = {store_demo.NEURONS: site_shape()}
    changed = type(rows)(**{**rows.__dict__, "labels_SR": labels})
    run.create_activations("demo", shapes, changed, storage_dtype="float32", rows_per_item=N_ROWS)
    run.write_activations("demo", store_demo.NEURONS, 0, values())
    table = query(run, function="demo", layer=0, neuron=1)
    assert table["row"].to_pylist() == list(range(N_ROWS))
    assert table["label"].to_pylist()[2:5] == [None, 1, None]
    assert table["subfunction"].to_pylist()[2:5] == [None, "odd", None]


@pytest.mark.parametrize("limit", [1, 7, 200, 201, 401, 1000])
def test_limit_gives_the_first_rows(run, limit):
    everything = query(run, function="demo", subfunction="odd", example=list(range(5)))
    assert query(run, function="demo", subfunction="odd", example=list(range(5)), limit=limit).equals(
        everything.slice(0, limit)
    )


def test_heads_count_units_over_head_and_channel(tmp_path):
    heads = Site("encoder", "attention.heads")
    run = create_run(tmp_path / "run", manifest())
    shape = site_shape(heads, dims=("head", "channel"), units=(4, 8), widths=(32, 32))
    run.create_activations("demo", {heads: shape}, row_coordinates(), storage_dtype="float32", rows_per_item=N_ROWS)
    block = np.arange(N_ROWS * 64, dtype=np.float32).reshape(N_ROWS, 2, 4, 8)
    run.write_activations("demo", heads, 0, block)
    table = query(run, function="demo", site=heads, layer=1, neuron=[31, 0, 9], example="e2", subfunction="odd")
    assert table["value"].to_pylist() == block[2, 1].reshape(-1)[[31, 0, 9]].tolist()


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"function": "x"}, "function 'x' has no activations .*; known: demo"),
        ({"site": "residual"}, "site 'residual' is not stored for function 'demo'; stored: encoder/ffn.neurons"),
        ({"layer": 9}, "layer of encoder/ffn.neurons 9 is not stored; stored: 0, 1"),
        ({"neuron": [3, 200]}, r"neuron of encoder/ffn.neurons 200 is not stored; stored: 0\.\.199"),
        ({"subfunction": "even"}, "subfunction='even' is not one of function 'demo'; known: odd, second-half"),
        ({"label": 2}, "label=2: expected 1 or 0"),
        ({"example": ["e1", "zz"]}, "example 'zz' is not in function 'demo'; its ids begin with 'e0', 'e1', 'e2'"),
        ({"limit": 0}, "limit=0: expected a positive number of rows"),
    ],
)
def test_what_is_not_there(run, choice, message):
    with pytest.raises(InputError, match=message):
        query(run, **{"function": "demo", **choice})


def test_huge_answers_are_refused(run, monkeypatch):
    monkeypatch.setitem(query_function.__globals__, "MAX_ROWS", 1000)
    message = r"the query would give 150,000 rows, about 0\.0 GB, more than 1,000 rows; name a layer, neuron, label"
    with pytest.raises(InputError, match=message):
        query(run, function="demo")
    assert query(run, function="demo", limit=1500).num_rows == 1500
