import numpy as np
import pytest

from modularity.store.run_coders import FAR, N_CODES, SHORT, TABLE_LOG, TABLE_SIZE, run_coders

STATES = 2**TABLE_LOG


def fields(entries):
    """Bits of the entropy code (times 2**16, less), extra bits and smallest length of entries."""
    return entries & 0xFFFFF, entries >> 32 & 0xFF, entries >> 40


@pytest.mark.parametrize("density", [0.0, 1e-6, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("word_bytes", [1, 2, 4, 8])
def test_every_length_has_a_code_whose_extra_bits_reach_it(density, word_bytes):
    _, both = run_coders(density, word_bytes)
    for table, shortest, n_codes in zip(both.astype(np.int64).reshape(2, TABLE_SIZE), (0, 3), (36, 53)):
        assert sorted(table[:STATES]) == list(range(STATES, 2 * STATES))
        _, extra_bits, smallest = fields(table[STATES : STATES + SHORT])
        beyond = np.arange(SHORT) - smallest
        assert (beyond[shortest:] >= 0).all()
        assert (beyond < 2**extra_bits).all()
        first, entries = table[FAR : FAR + N_CODES][:n_codes], table[FAR + N_CODES :][:n_codes]
        _, extra_bits, smallest = fields(entries)
        np.testing.assert_array_equal(first, smallest)
        np.testing.assert_array_equal(smallest[1:], smallest[:-1] + 2 ** extra_bits[:-1])
        assert smallest[-1] + 2 ** extra_bits[-1] > 2**16


def test_a_shard_takes_the_tables_of_the_nearest_density():
    assert run_coders(0.05, 4) is run_coders(0.04, 4)
    assert run_coders(0.05, 4) is not run_coders(0.3, 4)


def test_likely_run_lengths_cost_fewer_bits():
    _, both = run_coders(0.04, 4)
    most, _, _ = fields(both.astype(np.int64)[TABLE_SIZE + STATES :])
    bits = (most + (1 << 16)) >> 16
    assert bits[4 * 10 - 1] < bits[4 * 500 - 1]
