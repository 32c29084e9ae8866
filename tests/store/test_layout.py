import pytest
from store_demo import site_shape

from modularity.errors import InputError
from modularity.store import rows_per_item
from modularity.store.layout import check_name, row_chunk, stored_dims, unit_chunk
from modularity.types import Site


@pytest.mark.parametrize(
    ("per_item", "n_rows", "expected"),
    [
        (960, 5000, (96, 960)), (1024, 5000, (64, 1024)), (500, 5000, (100, 500)), (2000, 5000, (100, 2000)),
        (96, 250, (96, 96)), (10, 250, (10, 10)), (1021, 1000, (96, 1056)), (512, 40, (40, 40)),
    ],
)  # fmt: skip
def test_row_chunk(per_item, n_rows, expected):
    assert row_chunk(per_item, n_rows) == expected


def test_row_chunk_that_cannot_be_cut():
    with pytest.raises(InputError, match=r"rows_per_item=1021 has no divisor between 48 and 112.*e\.g\. 960 or 1056"):
        row_chunk(1021, 5000)
    with pytest.raises(InputError, match="n_rows=0 and rows_per_item=5"):
        row_chunk(5, 0)


def test_unit_chunk():
    assert unit_chunk((3072,)) == (96,)
    assert unit_chunk((32,)) == (32,)
    assert unit_chunk((12, 64)) == (1, 64)
    assert unit_chunk((16, 16)) == (6, 16)
    assert unit_chunk((8, 256)) == (1, 96)


def test_rows_per_item():
    assert rows_per_item(100_000, 36_864 * 4, target_bytes=256 << 20) == 1728
    assert rows_per_item(50, 4, target_bytes=1 << 20) == 50
    assert rows_per_item(10_000, 1 << 30, target_bytes=1) == 96


def test_stored_dims():
    assert stored_dims(site_shape()) == ("row", "layer", "neuron")
    heads = site_shape(Site("decoder", "attention.heads"), dims=("head", "channel"), units=(4, 8))
    assert stored_dims(heads) == ("row", "layer", "head", "head_channel")
    assert stored_dims(site_shape(Site("decoder", "residual"), dims=("channel",))) == ("row", "depth", "channel")
    router = site_shape(Site("decoder", "router.choices"), dims=("expert",))
    assert stored_dims(router) == ("row", "sparse_layer", "expert")
    shared = site_shape(Site("decoder", "shared_expert.neurons"), dims=("shared_expert_neuron",))
    assert stored_dims(shared) == ("row", "sparse_layer", "shared_expert_neuron")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "x\n", "ä"])
def test_names_that_cannot_be_a_path(name):
    with pytest.raises(InputError, match="cannot be part of a path"):
        check_name(name, "function")
