import numpy as np
import pytest

from modularity.errors import DataError, InputError
from modularity.experts import (
    adjusted_rand,
    functional_experts,
    functional_profile_experts,
    profile_partition,
    standardised_profiles,
)
from modularity.stats import predictivity, ranking_scores, top_neurons

HALF = np.arange(200) % 2 == 0


def half_scores(activations, labels, rows):
    scores = ranking_scores(activations[rows], labels[:, rows])
    return predictivity(scores.ap_positive_SF, scores.ap_negative_SF)


def planted(n_neurons=120, n_subfunctions=5, strength=1.5, seed=0):
    """Activations of which a sixth of the neurons each follows one sub-function, and a sixth none."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n_subfunctions, len(HALF))) < 0.5
    experts = rng.permutation(n_neurons) % (n_subfunctions + 1)
    signal = np.vstack([labels, np.zeros(len(HALF))])[experts].T
    return rng.normal(size=signal.shape) + strength * signal, labels, experts


def test_planted_functions_are_found_and_tested_on_new_rows():
    activations, labels, experts = planted()
    selection, evaluation = (half_scores(activations, labels, rows) for rows in (HALF, ~HALF))
    partition = profile_partition(selection, 6, selection_R=HALF, n_restarts=3)
    assert adjusted_rand(partition.labels_F, experts) > 0.95
    assert (np.bincount(partition.labels_F) == 20).all()
    assert partition.explained > 0.6
    tests = functional_profile_experts(partition, evaluation, evaluation_R=~HALF, k=12)
    assert len(tests) == 5
    for subfunction, found in enumerate(tests):
        assert found.functional_E.sum() == 1
        assert partition.centres_ES[:, subfunction].argmax() == found.functional_E.argmax()


def test_on_their_own_rows_experts_of_meaningless_labels_look_functional_on_new_rows_not():
    circular, fair = [], []
    for seed in range(6):
        activations, labels, _ = planted(n_neurons=240, strength=0.0, seed=seed)
        selection, evaluation = (half_scores(activations, labels, rows) for rows in (HALF, ~HALF))
        partition = profile_partition(selection, 8, selection_R=HALF, seed=seed)
        circular += [functional_experts(top, partition.labels_F).proportion for top in top_neurons(selection, 12)]
        tests = functional_profile_experts(partition, evaluation, evaluation_R=~HALF, k=12)
        fair += [found.proportion for found in tests]
    assert np.mean(circular) > 0.05
    assert np.mean(fair) < 0.01


def test_profiles_are_standardised():
    scores = np.random.default_rng(0).random((4, 50)) * [[1], [100], [1e-6], [0]] + 0.7
    profiles = standardised_profiles(scores)
    assert profiles.shape == (50, 4)
    assert np.allclose(profiles.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(profiles.std(axis=0), [1, 1, 1, 0])


def test_scale_of_a_subfunction_does_not_matter():
    scores = np.random.default_rng(1).random((4, 48))
    one = profile_partition(scores, 6, selection_R=[True, False])
    other = profile_partition(scores * [[1], [2], [0.25], [8]] + 1, 6, selection_R=[True, False])
    assert (one.labels_F == other.labels_F).all()


def test_circular_use_is_refused():
    scores = np.random.default_rng(0).random((2, 12))
    with pytest.raises(InputError, match=r"selection_R takes all 4 rows: .* functional by construction"):
        profile_partition(scores, 3, selection_R=np.ones(4, bool))
    partition = profile_partition(scores, 3, selection_R=[True, True, False, False])
    with pytest.raises(InputError, match="1 of the 2 evaluation rows made the experts: the test would be circular"):
        functional_profile_experts(partition, scores, evaluation_R=[False, True, True, False], k=2)
    with pytest.raises(DataError, match="evaluation_R has 3 rows, selection_R 4"):
        functional_profile_experts(partition, scores, evaluation_R=[False, False, True], k=2)
    with pytest.raises(InputError, match="evaluation_R takes none of 4 rows"):
        functional_profile_experts(partition, scores, evaluation_R=np.zeros(4, bool), k=2)


def test_bad_input():
    rows = [True, False]
    with pytest.raises(DataError, match=r"selection_R has shape \(2,\) and dtype int64: expected one bool"):
        profile_partition(np.ones((2, 12)), 3, selection_R=[1, 0])
    with pytest.raises(DataError, match=r"predictivity_SF of shape \(12,\): expected finite values"):
        profile_partition(np.ones(12), 3, selection_R=rows)
    with pytest.raises(DataError, match="all 12 neurons have the same predictivity"):
        profile_partition(np.ones((2, 12)), 3, selection_R=rows)
    partition = profile_partition(np.random.default_rng(0).random((2, 12)), 3, selection_R=rows)
    with pytest.raises(DataError, match=r"predictivity_SF has shape \(2, 11\): expected sub-functions x 12 neurons"):
        functional_profile_experts(partition, np.ones((2, 11)), evaluation_R=[False, True], k=2)
