import numpy as np
import pytest

from modularity.store.run_coders import TABLE_LOG, run_coders


@pytest.mark.parametrize("density", [0.0, 1e-6, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("word_bytes", [1, 2, 4, 8])
def test_every_length_has_a_code_whose_extra_bits_reach_it(density, word_bytes):
    _, *kinds = run_coders(density, word_bytes)
    for (states, symbols, codes, smallest, bits), shortest in zip(kinds, (0, 3)):
        assert sorted(states) == list(range(2**TABLE_LOG, 2 ** (TABLE_LOG + 1)))
        assert len(symbols) == len(smallest) == len(bits)
        for length in range(shortest, len(codes)):
            code = codes[length]
            assert 0 <= length - int(smallest[code]) < 2 ** int(bits[code])


def test_a_shard_takes_the_tables_of_the_nearest_density():
    assert run_coders(0.05, 4) is run_coders(0.04, 4)
    assert run_coders(0.05, 4) is not run_coders(0.3, 4)


def test_likely_run_lengths_cost_fewer_bits():
    _, _, (_, symbols, codes, _, _) = run_coders(0.04, 4)
    # The first column holds the largest number of bits of the code in its upper half.
    bits = (symbols[:, 0] + np.uint64(1 << 16)) >> np.uint64(16)
    assert bits[codes[4 * 10 - 1]] < bits[codes[4 * 500 - 1]]
