import threading

import numpy as np
import pytest
import zarr
from store_demo import NEURONS, manifest, row_coordinates, site_shape
from zarr.codecs import ZstdCodec

from modularity.errors import StoreError
from modularity.store import Run, Space
from modularity.store.arrays import parallel_map
from modularity.store.documents import coordinate_sha256
from modularity.store.groups import open_group
from modularity.store.ledger import Ledger


class CountingSpace(Space):
    """Counts every byte that a read brings."""

    def __init__(self, uri):
        super().__init__(uri)
        self.n_bytes = 0
        self.lock = threading.Lock()

    def count(self, data):
        with self.lock:
            self.n_bytes += len(data)
        return data

    def read(self, path):
        return self.count(super().read(path))

    def read_range(self, path, start, stop):
        return self.count(super().read_range(path, start, stop))

    def read_tail(self, path, n_bytes):
        return self.count(super().read_tail(path, n_bytes))


@pytest.mark.parametrize("per_item", [1024, 1000, 960])
def test_either_pattern_reads_at_most_four_times_what_it_returns(tmp_path, per_item):
    n_rows, n_neurons = 3 * per_item - 100, 1536
    run = Run(CountingSpace(tmp_path / "run"), manifest())
    run.create_activations(
        "demo", {NEURONS: site_shape(layers=(0,), widths=(n_neurons,), units=(n_neurons,))}, row_coordinates(n_rows),
        storage_dtype="float32", rows_per_item=per_item,
    )  # fmt: skip
    # Random bits do not compress, so that this is the worst case.
    values = (
        np.random.default_rng(0).integers(0, 2**31 - 2**24, (n_rows, 1, n_neurons), dtype=np.int32).view(np.float32)
    )
    for start in range(0, n_rows, per_item):
        run.write_activations("demo", NEURONS, start, values[start : start + per_item])
    for start in (0, 33, 64, 95, 700, n_neurons - 64):
        run.space.n_bytes = 0
        part = run.read_activations("demo", NEURONS, layer=0, units=slice(start, start + 64))
        np.testing.assert_array_equal(part, values[:, 0, start : start + 64])
        assert run.space.n_bytes <= 4 * part.nbytes
    for start in (0, 33, 95, per_item - 64, per_item - 32, per_item, 2 * per_item - 1, n_rows - 64):
        run.space.n_bytes = 0
        part = run.read_activations("demo", NEURONS, layer=0, rows=slice(start, start + 64))
        np.testing.assert_array_equal(part, values[start : start + 64, 0])
        assert run.space.n_bytes <= 4 * part.nbytes


def test_array_of_another_writer_is_refused(tmp_path):
    group = zarr.create_group(tmp_path, path="g")
    group.create_array("a", shape=(4,), dtype="float32", compressors=None)
    space = Space(tmp_path)
    with pytest.raises(
        StoreError, match=r"/a has the codecs \['bytes'\], which this version of the package does not write"
    ):
        open_group(space, "g", "").array(Ledger(space), "a")


def test_coordinate_hash_depends_on_values_and_borders():
    assert coordinate_sha256(np.array(["ab", "c"])) != coordinate_sha256(np.array(["a", "bc"]))
    assert coordinate_sha256(np.array(["ab", "c"])) == coordinate_sha256(np.array(["ab", "c"], dtype=object))
    assert coordinate_sha256(np.zeros(4, np.int8)) != coordinate_sha256(np.zeros((2, 2), np.int8))


def test_parallel_map_keeps_order_and_raises():
    assert parallel_map(lambda n: n * n, [1, 2, 3], 2) == [1, 4, 9]
    with pytest.raises(ZeroDivisionError):
        parallel_map(lambda n: 1 / n, [1, 0], 2)


def test_shards_without_the_checksum_over_stored_bytes_are_refused(tmp_path):
    space, group = Space(tmp_path), zarr.create_group(tmp_path, path="g")
    group.create_array(
        "a", shape=(4,), chunks=(2,), shards=(4,), dtype="float32", compressors=(ZstdCodec(checksum=True),)
    )
    with pytest.raises(StoreError, match=r"\['sharding_indexed', 'bytes', 'zstd'\].*open it with zarr instead"):
        open_group(space, "g", "").array(Ledger(space), "a")
