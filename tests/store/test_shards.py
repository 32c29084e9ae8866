import numpy as np
import pytest
import zarr
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, ZstdCodec

from modularity.store.shards import (
    DamagedBytesError,
    decode_chunk,
    decode_index,
    encode_chunk,
    encode_shard,
    index_length,
    read_shard_box,
)

CHUNK, SHARD = (4, 1, 3), (12, 1, 9)


def read_box(data, box, shape, *, chunk=CHUNK, shard=SHARD):
    out = np.full(shape, np.nan, np.float32)
    index = decode_index(data[-index_length(chunk, shard) :], chunk, shard)
    ranges = []

    def read_range(start, stop):
        ranges.append((start, stop))
        return memoryview(data)[start:stop]

    read_shard_box(read_range, index, box, chunk, out)
    return out, ranges


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_box_of_any_block_reads_back(data):
    rows, units = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 9))
    block = np.arange(rows * units, dtype=np.float32).reshape(rows, 1, units)
    encoded = encode_shard(block, CHUNK, SHARD, np.nan)
    r0, u0 = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, units - 1))
    r1, u1 = data.draw(st.integers(r0 + 1, rows)), data.draw(st.integers(u0 + 1, units))
    out, _ = read_box(encoded, ((r0, r1), (0, 1), (u0, u1)), (r1 - r0, 1, u1 - u0))
    np.testing.assert_array_equal(out, block[r0:r1, :, u0:u1])


def test_zarr_reads_what_we_write_and_we_read_what_zarr_writes(tmp_path):
    values = np.random.default_rng(0).standard_normal((10, 1, 8)).astype(np.float32)
    array = zarr.create_array(
        tmp_path / "a", shape=(10, 1, 8), chunks=CHUNK, shards=SHARD, dtype="float32", fill_value=np.nan,
        compressors=(ZstdCodec(level=1), Crc32cCodec()), filters=None, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[...] = values
    path = tmp_path / "a/c/0/0/0"
    out, _ = read_box(path.read_bytes(), ((0, 10), (0, 1), (0, 8)), (10, 1, 8))
    np.testing.assert_array_equal(out, values)
    path.write_bytes(encode_shard(values, CHUNK, SHARD, np.nan))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[...], values)


def test_one_unit_block_over_all_rows_is_one_range():
    block = np.random.default_rng(0).standard_normal(SHARD).astype(np.float32)
    _, ranges = read_box(encode_shard(block, CHUNK, SHARD, np.nan), ((0, 12), (0, 1), (3, 5)), (12, 1, 2))
    assert len(ranges) == 1


def test_bytes_are_the_same_for_any_memory_order():
    block = np.random.default_rng(0).standard_normal((12, 1, 9)).astype(np.float32)
    assert encode_shard(block, CHUNK, SHARD, np.nan) == encode_shard(np.asfortranarray(block), CHUNK, SHARD, np.nan)


def test_a_flipped_bit_is_found_or_harmless():
    # A few bits of a zstd frame header mean nothing; `verify` finds those too, by the hash of the stored bytes.
    block = np.random.default_rng(0).standard_normal(SHARD).astype(np.float32)
    data = encode_shard(block, CHUNK, SHARD, np.nan)
    found = 0
    for position in np.random.default_rng(1).integers(0, len(data), 200):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(position) % 8
        try:
            out, _ = read_box(bytes(damaged), tuple((0, n) for n in SHARD), SHARD)
        except DamagedBytesError:
            found += 1
        else:
            np.testing.assert_array_equal(out, block)
    assert found > 190


def test_a_flipped_bit_in_stored_bytes_of_a_chunk_does_not_pass_its_checksum():
    data = bytearray(encode_shard(np.random.default_rng(0).standard_normal(SHARD).astype(np.float32), CHUNK, SHARD, 0))
    data[40] ^= 1
    with pytest.raises(DamagedBytesError, match=r"the checksum of a chunk of \d+ bytes does not match"):
        read_box(bytes(data), tuple((0, n) for n in SHARD), SHARD)
    index = np.zeros((3, 1, 3, 2), np.uint64)
    index[..., 1] = 2
    with pytest.raises(DamagedBytesError, match="the checksum of a chunk of 2 bytes does not match"):
        read_shard_box(
            lambda start, stop: memoryview(b"ab")[start:stop],
            index,
            ((0, 1), (0, 1), (0, 1)),
            CHUNK,
            np.zeros((1, 1, 1)),
        )


def test_messages_of_damage():
    data = encode_shard(np.zeros(SHARD, np.float32), CHUNK, SHARD, np.nan)
    with pytest.raises(DamagedBytesError, match="the shard is cut short: its index needs 148 bytes, 20 are there"):
        decode_index(data[:20], CHUNK, SHARD)
    with pytest.raises(DamagedBytesError, match="the checksum of the shard index does not match"):
        decode_index(bytes(148), CHUNK, SHARD)
    with pytest.raises(DamagedBytesError, match="does not decompress"):
        decode_chunk(b"nonsense", CHUNK, np.dtype("float32"))
    with pytest.raises(DamagedBytesError, match="a chunk holds 48 bytes, expected 96"):
        decode_chunk(encode_chunk(np.zeros(CHUNK, np.float32), CHUNK, 0), CHUNK, np.dtype("float64"))


def test_edge_chunk_is_padded():
    decoded = decode_chunk(encode_chunk(np.ones((2, 1, 3), np.float32), CHUNK, np.nan), CHUNK, np.dtype("float32"))
    assert np.isnan(decoded[2:]).all()
    assert (decoded[:2] == 1).all()


@pytest.mark.parametrize(("share_of_zeros", "largest", "smallest"), [(0.95, 0.2, 0.0), (0.1, 1.01, 1.0)])
def test_sparse_shards_shrink_and_dense_ones_are_stored_as_they_are(tmp_path, share_of_zeros, largest, smallest):
    chunk, shard = (96, 1, 96), (192, 1, 288)
    rng = np.random.default_rng(0)
    values = np.where(rng.random(shard) < share_of_zeros, 0, rng.standard_normal(shard)).astype(np.float32)
    data = encode_shard(values, chunk, shard, np.nan)
    assert smallest <= len(data) / values.nbytes <= largest
    array = zarr.create_array(
        tmp_path / "a", shape=shard, chunks=chunk, shards=shard, dtype="float32", fill_value=np.nan,
        compressors=(ZstdCodec(level=1), Crc32cCodec()), filters=None,
    )  # fmt: skip
    array[...] = values
    (tmp_path / "a/c/0/0/0").write_bytes(data)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[...], values)


def test_a_chunk_that_claims_another_size_is_not_unpacked():
    bomb = zstandard.ZstdCompressor().compress(bytes(10**6))
    with pytest.raises(DamagedBytesError, match="holds 1000000 bytes, expected 48"):
        decode_chunk(bomb, CHUNK, np.dtype("float32"))
