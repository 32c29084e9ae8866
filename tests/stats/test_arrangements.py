"""Numbers of arrangements by hand, and against the label vectors that permutations really give."""

import math

import numpy as np
import pytest

from modularity.stats.arrangements import n_arrangements
from modularity.stats.permutation import permute_labels

CASES = [
    ([1, 0, 1, 0, 0], None, 10),  # 5 choose 2
    ([1, 1, 0, 0], [0, 0, 1, 1], 2),  # two clusters of constant labels change places
    ([1, 0, 1, 0], [0, 0, 1, 1], 4),  # two pairs of opposite labels turn each on its own
    ([1, 1, 0, 0, 0], [0, 0, 1, 1, 1], 1),  # sizes of their own: nothing moves
    ([1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 2, 3], 4),
    ([1, 1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 1, 2], 18),  # 2 · 3 · 3
]


@pytest.mark.parametrize(("labels", "clusters", "number"), CASES)
def test_by_hand_and_as_drawn(labels: list[int], clusters: list[int] | None, number: int) -> None:
    assert n_arrangements(labels, clusters) == number
    clusters_R = None if clusters is None else np.array(clusters)
    drawn = permute_labels(np.array(labels), n_permutations=2000, seed=0, clusters_R=clusters_R)
    assert len(np.unique(drawn, axis=0)) == number


def test_large_numbers_do_not_overflow() -> None:
    assert n_arrangements(np.arange(60) % 2) == pytest.approx(math.comb(60, 30), rel=1e-9)
    assert n_arrangements(np.arange(4000) % 2) == math.inf
