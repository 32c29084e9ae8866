"""Labellings: the counts of the card, no labelling twice, one representative of those that exchange names."""

from itertools import permutations

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.geometry.labellings import labellings, n_labellings


def test_the_study_has_4200_labellings() -> None:
    assert n_labellings((4, 3, 3)) == 4200
    found = labellings(np.repeat([0, 1, 2], [4, 3, 3]), by_name=True)
    assert found.is_exact
    assert len(np.unique(found.category_NT, axis=0)) == found.n_all == 4200
    assert (np.sort(found.category_NT, axis=1) == np.repeat([0, 1, 2], [4, 3, 3])).all()


@pytest.mark.parametrize("sizes", [(4, 3, 3), (2, 2, 2), (3, 1, 1), (2, 2), (3, 3, 2)])
def test_representatives_cover_every_labelling_once(sizes: tuple[int, ...]) -> None:
    observed = np.repeat(np.arange(len(sizes)), sizes)
    alike = [c for c in range(len(sizes)) if sizes[c] == min(sizes)]
    found: list[tuple[int, ...]] = []
    for row in labellings(observed).category_NT.tolist():
        for names in permutations(alike):
            renamed = dict(zip(alike, names))
            found.append(tuple(renamed.get(c, c) for c in row))
    assert len(set(found)) == len(found) == n_labellings(sizes)


def test_too_many_labellings_are_drawn() -> None:
    observed = np.repeat([0, 1, 2], 5)
    found = labellings(observed, limit=1000, n_draws=199, seed=3)
    assert (found.is_exact, found.n_all, found.category_NT.shape) == (False, 756_756, (199, 15))
    assert (np.sort(found.category_NT, axis=1) == observed).all()
    assert found.p_values(np.array([0, 199])).tolist() == [1 / 200, 1.0]
    again = labellings(observed, limit=1000, n_draws=199, seed=3)
    assert (again.category_NT == found.category_NT).all()


def test_a_single_category_is_refused() -> None:
    with pytest.raises(DataError, match="two or more categories"):
        labellings(np.zeros(4, int))
