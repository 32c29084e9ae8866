"""Resident memory follows what the process holds."""

import numpy as np

from modularity.runtime.memory import resident_bytes


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_bytes()
    held = np.ones(25_000_000)
    assert resident_bytes() - before > 0.9 * held.nbytes
