import numpy as np
import pytest
import xarray as xr
from store_demo import create_demo, predict_item

from modularity.errors import DataError, InputError, StoreError
from modularity.store import ResultArray


def test_complete_result(run):
    result = run.results("demo")
    expected = np.arange(200.0)[None] + np.array([[0], [1000]])
    np.testing.assert_array_equal(result["predictivity"].values, expected)
    assert result["predictivity"].attrs["units"] == "1"
    assert result["polarity"].dtype == np.int8
    assert result["layer"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(
        xr.open_zarr(run.uri, group="results/demo", consolidated=False)["predictivity"].values, expected
    )
    assert run.result_names() == ("demo",)


def test_incomplete_result_is_an_error_unless_partial(tmp_path):
    run = create_demo(tmp_path / "run")
    predict_item(run, 1, 100)
    message = (
        r"'demo' of .* is not complete: polarity has 1 of 4 blocks; predictivity has 1 of 4 blocks; run the job again"
    )
    with pytest.raises(StoreError, match=message):
        run.results("demo")
    partial = run.results("demo", partial=True)
    assert np.isnan(partial["predictivity"].values[0]).all()
    assert partial["predictivity"].values[1, 100:].tolist() == list(range(1100, 1200))
    assert (partial["polarity"].values[1, :100] == -1).all()


def test_missing_block_of_a_committed_item_is_an_error_even_when_partial(run):
    run.space.delete("results/demo/predictivity/c/0/1")
    with pytest.raises(StoreError, match=r"predictivity/c/0/1: the object is missing, although item predict-"):
        run.results("demo", partial=True)["predictivity"].values  # noqa: B018


def test_blocks_are_aligned_and_named(run):
    with pytest.raises(DataError, match=r"neuron 50\.\.150 of 200 does not cover whole objects of 100"):
        run.write_result("demo", {"predictivity": np.zeros((1, 100))}, at={"layer": 0, "neuron": 50})
    with pytest.raises(DataError, match=r"no array or dimension \['other', 'rows'\]; arrays: polarity, predictivity"):
        run.write_result("demo", {"other": np.zeros(1)}, at={"rows": 0})
    with pytest.raises(DataError, match="'polarity' of result 'demo' holds int8, got float64; convert it first"):
        run.write_result("demo", {"polarity": np.zeros((1, 100))})


def test_whole_array_in_one_block_with_string_coordinate(run):
    run.create_result(
        "partition",
        sizes={"kind": 2, "neuron": 5},
        arrays={"expert": ResultArray(("kind", "neuron"), "int32"), "converged": ResultArray(("kind",), "bool")},
        coordinates={"kind": (("kind",), np.array(["kmeans", "random"]))},
        attributes={"n_experts": 2},
    )
    from modularity.types import WorkItem

    writes = run.write_result("partition", {"expert": np.ones((2, 5), np.int32), "converged": np.array([True, False])})
    run.commit(WorkItem.of("partition"), arrays=writes)
    result = run.results("partition").sel(kind="random")
    assert result["expert"].values.tolist() == [1] * 5
    assert not result["converged"].item()
    assert result.attrs == {"n_experts": 2}


def test_names_and_sizes(run):
    with pytest.raises(StoreError, match=r"result 'none' does not exist in .*; known: demo"):
        run.results("none")
    with pytest.raises(InputError, match="result 'x' has no size for 'layer'"):
        run.create_result("x", sizes={}, arrays={"a": ResultArray(("layer",))})
