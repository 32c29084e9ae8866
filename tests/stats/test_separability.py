"""Area between a pruning curve and the diagonal: by hand, with its closed end."""

import numpy as np
import pytest

from modularity.errors import DataError
from modularity.stats.separability import relative_drops, separability_area

DIAGONAL = np.array([0.8, 0.6, 0.4, 0.2])


@pytest.mark.parametrize(
    ("kept", "pruned", "area"),
    [
        ([0.5, 0.5, 0.0], [0.4, 0.0, 0.0], 1.0),  # the pruned one goes first and alone
        ([0.5, 0.0, 0.0], [0.4, 0.4, 0.0], -1.0),
        (DIAGONAL, DIAGONAL / 2, 0.0),
        ([0.5, 0.5], [0.4, 0.0], 1.0),  # stops early: closed by the line to the corner
        ([0.5, 0.5], [0.4, 0.2], 0.5),
        ([0.5, 0.25, 0.0], [0.4, 0.0, 0.0], 0.5),
        ([0.5, 0.6, 0.5, 0.0], [0.4, 0.4, 0.0, 0.0], 1.2),  # more than 1: the kept one improves at first
    ],
)
def test_areas_by_hand(kept: object, pruned: object, area: float) -> None:
    assert separability_area(np.asarray(kept, float), np.asarray(pruned, float)) == pytest.approx(area)


def test_many_curves_at_once() -> None:
    generator = np.random.default_rng(0)
    kept, pruned = generator.random((2, 5, 7))
    areas = separability_area(kept, pruned)
    assert areas.shape == (5,)
    assert areas[3] == separability_area(kept[3], pruned[3])


def test_without_accuracy_to_lose_there_is_no_area() -> None:
    assert np.isnan(separability_area(np.zeros(3), DIAGONAL[:3]))
    assert np.isnan(relative_drops(np.zeros(3))).all()
    with pytest.raises(DataError, match="expected one shape, and a step"):
        separability_area(np.ones(1), np.ones(1))
