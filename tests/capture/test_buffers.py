import numpy as np
import pytest

from modularity.capture import BackgroundWriter, BufferPool, row_bytes
from modularity.errors import InputError
from modularity.types import Site, SiteShape

NEURONS, HEADS = Site("decoder", "ffn.neurons"), Site("decoder", "attention.heads")
SHAPES = {
    NEURONS: SiteShape(NEURONS, (0, 1, 2), (10, 10, 10), ("neuron",), (10,)),
    HEADS: SiteShape(HEADS, (0, 1), (8, 8), ("head", "channel"), (2, 4)),
}


def test_shapes_dtype_and_bytes():
    pool = BufferPool(SHAPES, 256, storage_dtype="bfloat16")
    buffer = pool.acquire(200)
    assert {site: array.shape for site, array in buffer.arrays.items()} == {
        NEURONS: (200, 3, 10),
        HEADS: (200, 2, 2, 4),
    }
    assert buffer.arrays[NEURONS].dtype == np.uint16
    assert row_bytes(SHAPES, "bfloat16") == 2 * (30 + 16)
    assert pool.nbytes_each == 256 * 92
    assert sum(array.nbytes for array in buffer.memory.values()) == pool.nbytes_each


def test_one_layer_of_a_buffer_is_contiguous():
    layer = BufferPool(SHAPES, 128).acquire(100).arrays[HEADS][:, 1]
    assert layer.flags.c_contiguous


def test_memory_is_recycled():
    pool = BufferPool(SHAPES, 128)
    first = pool.acquire(128)
    pool.release(first)
    again = pool.acquire(5)
    assert np.shares_memory(first.arrays[NEURONS], again.arrays[NEURONS])
    assert pool.n_allocated == 1
    other = pool.acquire(5)
    assert not np.shares_memory(other.arrays[NEURONS], again.arrays[NEURONS])


def test_with_a_writer_the_number_of_buffers_does_not_grow_with_the_items():
    pool = BufferPool(SHAPES, 128)
    seen = []

    def write(item):
        number, buffer = item
        seen.append((number, int(buffer.arrays[NEURONS][0, 0, 0])))
        pool.release(buffer)

    with BackgroundWriter(write, max_pending=2) as writer:
        for number in range(50):
            buffer = pool.acquire(128)
            buffer.arrays[NEURONS][:] = number
            writer.put((number, buffer))
    assert seen == [(number, number) for number in range(50)]
    assert pool.n_allocated <= 3


def test_misuse_is_refused():
    pool = BufferPool(SHAPES, 128)
    buffer = pool.acquire(1)
    pool.release(buffer)
    with pytest.raises(ValueError, match="released twice"):
        pool.release(buffer)
    with pytest.raises(InputError, match="n_rows=129: expected 1 to rows_per_item=128"):
        pool.acquire(129)
