import json

import numpy as np
import pytest
import zarr
from store_demo import create_demo

from modularity.errors import DataError, StoreError
from modularity.store import open_run
from modularity.store.documents import ArraySpec
from modularity.store.groups import GroupSpec, create_group, group_digests, group_paths
from modularity.store.space import open_space


def test_groups_of_a_run(run):
    assert group_paths(run.space) == ("activations/demo/encoder", "results/demo")
    assert [path for path, _ in group_digests(run.space)] == list(group_paths(run.space))


def test_a_group_that_was_not_sealed_is_made_again(tmp_path):
    run = create_demo(tmp_path / "run")
    sealed = run.space.read("results/demo/zarr.json")
    run.space.delete("results/demo/zarr.json")
    run.space.delete("results/demo/layer/c/0")
    create_demo(tmp_path / "run")
    assert run.space.read("results/demo/zarr.json") == sealed
    assert run.space.exists("results/demo/layer/c/0")


def test_the_hierarchy_opens_as_zarr_groups(run):
    assert list(zarr.open_group(run.uri, path="activations/demo", mode="r").group_keys()) == ["encoder"]
    root = zarr.open_group(run.uri, mode="r")
    assert root["activations/demo/encoder/ffn.neurons"].metadata.dimension_names == ("row", "layer", "neuron")


def test_one_size_for_a_dimension(tmp_path):
    arrays = {name: ArraySpec(("x",), (size,), "float32", (2,)) for name, size in (("a", 2), ("b", 3))}
    with pytest.raises(DataError, match="dimension 'x' of results/r has size 2, but 3 in array 'b'"):
        create_group(open_space(tmp_path), "results/r", GroupSpec(arrays, {}))


def test_group_metadata_is_plain_json(run):
    document = json.loads(run.space.read("activations/demo/encoder/zarr.json"))
    assert document["node_type"] == "group"
    assert "example_id" in document["attributes"]["coordinates"].split()
    assert np.isin(["label", "layer"], list(document["attributes"]["modularity:content"]["coordinates"])).all()


def test_missing_array_metadata_is_named(run):
    run.space.delete("results/demo/polarity/zarr.json")
    with pytest.raises(StoreError, match=r"results/demo/polarity/zarr\.json does not exist; delete results/demo/"):
        open_run(run.uri).results("demo")
