import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.store.frames import CHECKSUM_BYTES, encode_frames, frames_bound


def encode(block, chunk, *, fill=0, density=0.1):
    grid = tuple(-(-size // step) for size, step in zip(block.shape, chunk))
    out = np.empty(frames_bound(int(np.prod(grid)), int(np.prod(chunk)) * block.dtype.itemsize), np.uint8)
    spans = np.empty((*grid, 2), np.uint64)
    end = encode_frames(block, chunk, fill, out, spans, 0, density=density)
    assert end == int(spans[..., 1].sum())
    return {
        place: out[int(offset) : int(offset) + int(length)].tobytes()
        for place in np.ndindex(grid)
        for offset, length in [spans[place]]
    }


def decoded(frame, chunk, dtype):
    return np.frombuffer(zstandard.ZstdDecompressor().decompress(frame[:-CHECKSUM_BYTES]), dtype).reshape(chunk)


def sparse_block(shape, dtype, share, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 2**8, shape).astype(dtype) if np.dtype(dtype).kind == "u" else rng.standard_normal(shape)
    values = values.astype(dtype)
    values[rng.random(shape) >= share] = 0
    return values


@given(
    st.sampled_from(["u1", "<u2", "<f2", "<f4", "<f8", "<i8"]),
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(1, 17),
    st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.9, 1.0]), st.sampled_from([None, 1e-6, 0.02, 0.3]), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_zstd_reads_every_frame_back(dtype, rows, units, chunk_rows, chunk_units, share, density, seed):
    block, chunk = sparse_block((rows, units), dtype, share, seed), (chunk_rows, chunk_units)
    for (r, u), frame in encode(block, chunk, fill=3, density=density).items():
        expected = np.full(chunk, 3, dtype)
        part = block[r * chunk_rows : (r + 1) * chunk_rows, u * chunk_units : (u + 1) * chunk_units]
        expected[: part.shape[0], : part.shape[1]] = part
        assert decoded(frame, chunk, dtype).tobytes() == expected.tobytes()


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.05, 0.3])
def test_runs_of_zeros_of_any_length_read_back_from_chunks_of_the_size_that_is_stored(share):
    block = sparse_block((96, 96), "<f4", share)
    assert decoded(encode(block, (96, 96))[0, 0], (96, 96), "<f4").tobytes() == block.tobytes()


def test_long_stretches_of_values_and_of_zeros_read_back():
    values = np.concatenate([np.zeros(3000), np.arange(1, 9000), np.zeros(20000), [1.0]]).astype(np.float32)[None]
    frame = encode(values, values.shape)[0, 0]
    assert decoded(frame, values.shape, "<f4").tobytes() == values.tobytes()
    assert len(frame) < 9000 * 4 + 200


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<f4", "<f8"])
def test_padding_that_is_not_zero_stays_within_a_chunk_at_the_edge(dtype):
    block, chunk = np.zeros((9, 13), dtype), (10, 13)
    block[2, 5] = 1
    frame = encode(block, chunk, fill=3)[0, 0]
    assert len(frame) < chunk[0] * chunk[1] * block.itemsize
    expected = np.concatenate([block, np.full((1, 13), 3, dtype)])
    assert decoded(frame, chunk, dtype).tobytes() == expected.tobytes()


def test_a_chunk_larger_than_a_block_is_left_as_it_is():
    block = np.zeros((1, 40_000), np.float32)
    frame = encode(block, block.shape)[0, 0]
    assert len(frame) == block.nbytes + 9 + 2 * 3 + 4
    assert decoded(frame, block.shape, "<f4").tobytes() == block.tobytes()


def test_sparse_activations_shrink_as_much_as_with_the_library():
    block = sparse_block((96, 96), "<f4", 0.05)
    ours = len(encode(block, block.shape, density=0.05)[0, 0])
    assert ours < 1.03 * len(zstandard.ZstdCompressor(level=1).compress(block.tobytes()))
    assert ours < block.nbytes / 12


def test_dense_values_cost_a_header_and_room_for_a_checksum():
    block = sparse_block((96, 96), "<f4", 1.0)
    assert len(encode(block, block.shape, density=None)[0, 0]) == block.nbytes + 9 + 3 + 4
    assert len(encode(block, block.shape, density=0.3)[0, 0]) == block.nbytes + 9 + 3 + 4


def test_bytes_do_not_depend_on_strides():
    block = sparse_block((30, 24), "<f4", 0.1)
    wide = np.zeros((30, 5, 24), np.float32)
    wide[:, 2] = block
    expected = encode(block, (16, 10))
    assert encode(np.asfortranarray(block), (16, 10)) == expected
    assert encode(wide[:, 2], (16, 10)) == expected
    assert encode(block[::-1][::-1], (16, 10)) == expected
    assert encode(np.ascontiguousarray(block[::-1])[::-1], (16, 10)) == expected
