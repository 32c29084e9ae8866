"""The projection by potential distances: clusters stay together, order along a curve is kept, the same every time."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from modularity.errors import DataError
from modularity.geometry.gram import gram_matrix
from modularity.geometry.potential import adaptive_kernel, potential_projection, squared_distances


def test_distances_from_the_gram_matrix() -> None:
    values = np.random.default_rng(0).normal(size=(9, 4))
    np.testing.assert_allclose(np.sqrt(squared_distances(gram_matrix(values))), squareform(pdist(values)), atol=1e-9)


def test_planted_clusters_stay_apart() -> None:
    rng = np.random.default_rng(1)
    label = np.repeat([0, 1, 2], 15)
    found = potential_projection(gram_matrix(rng.normal(size=(45, 20)) + 6 * rng.normal(size=(3, 20))[label]))
    centre = np.stack([found[label == c].mean(axis=0) for c in range(3)])
    nearest = np.linalg.norm(found[:, None] - centre, axis=2).argmin(axis=1)
    assert (nearest == label).all()


def test_a_curve_keeps_its_order_and_the_result_repeats() -> None:
    t = np.linspace(0, 1, 40)
    curve = np.stack([np.cos(2 * t), np.sin(2 * t), t], axis=1)
    found = potential_projection(gram_matrix(curve))
    along = found[:, 0] if np.ptp(found[:, 0]) > np.ptp(found[:, 1]) else found[:, 1]
    assert abs(np.corrcoef(np.argsort(np.argsort(along)), np.arange(40))[0, 1]) > 0.95
    assert (potential_projection(gram_matrix(curve)) == found).all()


def test_equal_rows_and_repeated_rows() -> None:
    assert not potential_projection(gram_matrix(np.ones((8, 3)))).any()
    repeated = np.repeat(np.random.default_rng(2).normal(size=(3, 4)), 8, axis=0)
    assert np.isfinite(potential_projection(gram_matrix(repeated))).all()
    assert np.isfinite(adaptive_kernel(np.zeros((3, 3)), 1)).all()


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(DataError, match="fewer than the rows"):
        potential_projection(np.eye(4), n_neighbours=4)
