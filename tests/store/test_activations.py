import numpy as np
import pytest
import store_demo
import xarray as xr
import zarr
from store_demo import N_ROWS, NEURONS, manifest, row_coordinates, site_shape, values

from modularity.errors import DataError, IdentityError, InputError, NumericError, StoreError
from modularity.store import RowCoordinates, create_run
from modularity.types import Site, WorkItem


def one_item_run(tmp_path, shapes, *, dtype="float32", rows=None):
    run = create_run(tmp_path / "run", manifest())
    run.create_activations("demo", shapes, rows or row_coordinates(), storage_dtype=dtype, rows_per_item=N_ROWS)
    return run


def test_boxes_equal_what_was_written(run):
    expected = values()
    np.testing.assert_array_equal(run.read_activations("demo", NEURONS), expected)
    part = run.read_activations("demo", NEURONS, layer=1, rows=slice(90, 200), units=slice(90, 130))
    np.testing.assert_array_equal(part, expected[90:200, 1, 90:130])
    assert run.read_activations("demo", NEURONS, rows=slice(5, 5)).shape == (0, 2, 200)


def test_dataset_is_lazy_and_indexes_like_numpy(run):
    expected = values()
    run.space.delete("activations/demo/encoder/ffn.neurons/c/2/1/0")
    data = run.activations("demo")["ffn.neurons"]
    np.testing.assert_array_equal(data[5:190:7, 1, [3, 199, 4]].values, expected[5:190:7, 1, [3, 199, 4]])
    np.testing.assert_array_equal(data[::-3, 0, -1].values, expected[::-3, 0, -1])
    with pytest.raises(StoreError, match=r"c/2/1/0: the object is missing, although item capture-"):
        data[200:, 1].values  # noqa: B018


def test_coordinates(run):
    dataset = run.activations("demo")
    assert dataset["label"].sel(subfunction="second-half").values[:3].tolist() == [-1, -1, -1]
    assert dataset["selection"].dtype == bool
    assert dataset["example_id"].values[249] == "e249"
    assert dataset["layer"].values.tolist() == [0, 1]
    selected = dataset["ffn.neurons"].sel(layer=1).isel(row=dataset["selection"].values)
    np.testing.assert_array_equal(selected.values, values()[row_coordinates().selection_R, 1])


@pytest.mark.parametrize("pipeline", ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"])
def test_plain_readers_see_the_same_values(run, pipeline):
    pytest.importorskip(pipeline.split(".")[0])
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        opened = xr.open_zarr(run.uri, group="activations/demo/encoder", consolidated=False)
        np.testing.assert_array_equal(opened["ffn.neurons"].values, values())
        np.testing.assert_array_equal(zarr.open_array(f"{run.uri}/activations/demo/encoder/ffn.neurons")[...], values())
    assert {"label", "selection", "example_id", "subfunction", "layer"} <= set(opened.coords)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_decodes_to_float32(tmp_path, dtype):
    run = one_item_run(tmp_path, {NEURONS: site_shape()}, dtype=dtype)
    run.write_activations("demo", NEURONS, 0, values())
    read = run.read_activations("demo", NEURONS)
    assert read.dtype == run.activations("demo")["ffn.neurons"].dtype == np.float32
    np.testing.assert_allclose(read, values(), rtol=2**-8)
    stored = zarr.open_array(f"{run.uri}/activations/demo/encoder/ffn.neurons")
    assert stored.attrs["modularity:dtype"] == dtype
    assert stored.dtype == (np.float16 if dtype == "float16" else np.uint16)
    with pytest.raises(NumericError, match=f"do not fit {dtype}"):
        run.write_activations("demo", NEURONS, 0, np.full((N_ROWS, 2, 200), 3.4e38, np.float32))


def test_layers_of_different_width_end_in_nan(tmp_path):
    run = one_item_run(tmp_path, {NEURONS: site_shape(widths=(200, 150))})
    block = values()
    block[:, 1, 150:] = np.nan
    run.write_activations("demo", NEURONS, 0, block)
    np.testing.assert_array_equal(run.read_activations("demo", NEURONS, layer=1), block[:, 1])
    assert run.activations("demo")["ffn.neurons.width"].values.tolist() == [200, 150]


def test_sites_of_one_stack_share_a_group(tmp_path):
    heads, residual = Site("encoder", "attention.heads"), Site("encoder", "residual")
    shapes = {
        NEURONS: site_shape(),
        heads: site_shape(heads, dims=("head", "channel"), units=(4, 8), widths=(32, 32)),
        residual: site_shape(residual, layers=(0, 1, 2), widths=(32, 32, 32), dims=("channel",), units=(32,)),
    }
    run = one_item_run(tmp_path, shapes)
    block = np.arange(N_ROWS * 2 * 32, dtype=np.float32).reshape(N_ROWS, 2, 4, 8)
    run.write_activations("demo", heads, 0, block)
    np.testing.assert_array_equal(run.read_activations("demo", heads, layer=1, units=slice(1, 3)), block[:, 1, 1:3])
    opened = xr.open_zarr(run.uri, group="activations/demo/encoder", consolidated=False)
    assert opened["attention.heads"].dims == ("row", "layer", "head", "head_channel")
    assert opened["residual"].dims == ("row", "depth", "channel")
    assert run.layers("demo", residual) == (0, 1, 2)
    assert set(run.sites("demo")) == set(shapes)


def test_two_stacks_of_different_width(tmp_path):
    decoder = Site("decoder", "ffn.neurons")
    run = one_item_run(tmp_path, {NEURONS: site_shape(), decoder: site_shape(decoder, (0,), (70,), units=(70,))})
    run.write_activations("demo", decoder, 0, values()[:, :1, :70])
    dataset = run.activations("demo")
    np.testing.assert_array_equal(dataset["decoder/ffn.neurons"][:, 0].values, values()[:, 0, :70])
    assert dataset.sizes["encoder/neuron"] == 200
    assert dataset["label"].dims == ("subfunction", "row")


def test_token_rows(tmp_path):
    rows = RowCoordinates(
        example_id_R=["a", "a", "b"], example_R=np.array([0, 0, 1]), position_R=np.array([1, 2, 1]),
        subfunctions=("s",), labels_SR=np.array([[1, 1, 0]]), selection_R=np.array([True, True, False]),
        text_fingerprint_R=["x", "x", "y"],
        n_tokens_R=np.array([4, 4, 3]), token_id_R=np.array([7, 8, 9]), extra={"text": np.array(["ä", "ä", ""])},
    )  # fmt: skip
    run = one_item_run(tmp_path, {NEURONS: site_shape()}, rows=rows)
    assert run.coordinates("demo")["token_id"].tolist() == [7, 8, 9]
    assert run.coordinates("demo")["text"].tolist() == ["ä", "ä", ""]
    examples = run.example_table("demo").to_pydict()
    assert examples["example_id"] == ["a", "b"]
    assert examples["first_row"] == [0, 2]
    assert examples["n_rows"] == [2, 1]
    assert examples["label:s"] == [1, 0]


def test_creating_again_keeps_data_and_other_content_is_refused(run):
    store_demo.create_demo(run.uri)
    np.testing.assert_array_equal(run.read_activations("demo", NEURONS), values())
    with pytest.raises(IdentityError, match=r"was created for other data:\n(.|\n)*rows_per_item: recorded 96, now 192"):
        run.create_activations(
            "demo", {NEURONS: site_shape()}, row_coordinates(), storage_dtype="float32", rows_per_item=192
        )


def test_blocks_that_do_not_fit(run):
    with pytest.raises(
        DataError, match=r"row 5\.\.101 of 250 does not cover whole objects of 96; start at a multiple of 96"
    ):
        run.write_activations("demo", NEURONS, 5, values()[:96])
    with pytest.raises(DataError, match=r"row 0\.\.50 of 250"):
        run.write_activations("demo", NEURONS, 0, values()[:50])
    with pytest.raises(DataError, match=r"has shape \(96, 1, 200\), expected \(rows, 2, 200\)"):
        run.write_activations("demo", NEURONS, 0, values()[:96, :1])


def test_names_that_are_not_stored(run):
    with pytest.raises(InputError, match=r"function 'other' has no activations in .*; known: demo"):
        run.activations("other")
    with pytest.raises(
        InputError, match=r"site decoder/residual is not stored for function 'demo'; stored: encoder/ffn.neurons"
    ):
        run.read_activations("demo", Site("decoder", "residual"))
    with pytest.raises(InputError, match=r"layer=7 of encoder/ffn\.neurons is not stored .* stored: \[0, 1\]"):
        run.read_activations("demo", NEURONS, layer=7)
    with pytest.raises(InputError, match="has step 2; only contiguous parts are read"):
        run.read_activations("demo", NEURONS, rows=slice(0, 10, 2))


def test_rows_not_captured_yet(tmp_path):
    run = store_demo.create_demo(tmp_path / "run")
    store_demo.capture_item(run, store_demo.items()[0])
    np.testing.assert_array_equal(run.read_activations("demo", NEURONS, rows=slice(0, 96)), values()[:96])
    with pytest.raises(StoreError, match="no committed item wrote it: this part of the run is not computed yet"):
        run.read_activations("demo", NEURONS, rows=slice(0, 97))


def test_coordinates_of_wrong_length(tmp_path):
    run = create_run(tmp_path / "run", manifest())
    rows = RowCoordinates(**{**row_coordinates().__dict__, "n_tokens_R": np.ones(3)})
    with pytest.raises(
        DataError, match=r"coordinate 'n_tokens' of activations/demo/encoder has shape \(3,\), expected"
    ):
        run.create_activations("demo", {NEURONS: site_shape()}, rows, storage_dtype="float32", rows_per_item=96)


def test_flipped_bit_names_item_and_path(run):
    path = "activations/demo/encoder/ffn.neurons/c/1/0/0"
    data = bytearray(run.space.read(path))
    data[50] ^= 4
    run.space.write(path, bytes(data))
    item = store_demo.items()[1]
    with pytest.raises(StoreError, match=rf"{path}: the object is damaged: .*although item {item.id} \({item.kind}"):
        run.read_activations("demo", NEURONS, layer=0)


def test_damaged_coordinate_is_found(run):
    run.space.write("activations/demo/encoder/selection/c/0", run.space.read("activations/demo/encoder/position/c/0"))
    with pytest.raises(StoreError, match=r"encoder/selection is damaged|encoder/selection does not match"):
        run.coordinates("demo")
    run.space.delete("activations/demo/encoder/label/c/0/0")
    with pytest.raises(StoreError, match=r"encoder/(selection|label)"):
        run.activations("demo")


def test_item_may_hold_numpy_and_any_layout(run):
    item = WorkItem.of("capture", function="demo", start=0, stop=96)
    block = np.asfortranarray(values()[:96])
    again = run.write_activations("demo", NEURONS, 0, block, n_threads=1)
    assert again.objects == run.commits()[item.id].arrays[0].objects
