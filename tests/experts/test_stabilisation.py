import numpy as np
import pytest
from scipy.stats import spearmanr

from modularity.errors import DataError
from modularity.experts.stabilisation import NEURON_LEVEL, RANDOM_LEVEL, stabilisation_levels

LABELS_F = np.repeat(np.arange(4, dtype=np.int32), 8)


def test_levels_against_scipy():
    score_TSF = np.random.default_rng(0).standard_normal((3, 2, 32))
    other_TSF = score_TSF + np.random.default_rng(1).standard_normal((3, 2, 32))
    found = stabilisation_levels(
        score_TSF, {"balanced": LABELS_F}, n_experts=4, other_half_TSF=other_TSF, n_random=3, seed=5
    )
    assert list(found) == [NEURON_LEVEL, "balanced", RANDOM_LEVEL]
    neuron, expert = found[NEURON_LEVEL], found["balanced"]
    means_TSE, other_TSE = (x.reshape(3, 2, 4, 8).mean(axis=3) for x in (score_TSF, other_TSF))
    for s in range(2):
        for t in range(2):
            wanted = spearmanr(score_TSF[t, s], score_TSF[t + 1, s]).statistic
            assert neuron.consecutive_TS[t, s] == pytest.approx(wanted)
            wanted = spearmanr(means_TSE[t, s], means_TSE[t + 1, s]).statistic
            assert expert.consecutive_TS[t, s] == pytest.approx(wanted)
        assert expert.final_TS[0, s] == pytest.approx(spearmanr(means_TSE[0, s], means_TSE[2, s]).statistic)
        wanted = spearmanr(means_TSE[1, s], other_TSE[1, s]).statistic
        assert expert.reliability_TS[1, s] == pytest.approx(wanted)
    assert np.isnan(neuron.consecutive_TS[-1]).all()
    assert neuron.final_TS[-1] == pytest.approx(1)


def test_settled_experts_among_restless_neurons():
    """Neurons are noise around the fixed mean of their expert: experts agree, neurons and random groups less."""
    generator = np.random.default_rng(2)
    labels_F = np.repeat(np.arange(16, dtype=np.int32), 64)
    means_E = generator.standard_normal(16)
    score_TSF = means_E[labels_F] + 2 * generator.standard_normal((5, 3, 1024))
    found = stabilisation_levels(score_TSF, {"balanced": labels_F}, n_experts=16, n_random=20)
    rho = {name: np.nanmean(level.consecutive_TS) for name, level in found.items()}
    assert rho["balanced"] > 0.85
    assert rho[NEURON_LEVEL] < 0.4
    assert rho[RANDOM_LEVEL] < 0.4


def test_random_partitions_are_the_same_at_every_step():
    score_SF = np.random.default_rng(3).standard_normal((2, 32))
    found = stabilisation_levels(np.stack([score_SF] * 3), {}, n_experts=4, n_random=2, seed=7)
    assert found[RANDOM_LEVEL].consecutive_TS[:-1] == pytest.approx(1)
    assert np.isnan(found[RANDOM_LEVEL].reliability_TS).all()


def test_wrong_shapes_and_values_are_refused():
    score_TSF = np.zeros((2, 1, 8))
    with pytest.raises(DataError, match=r"other_half_TSF has shape \(2, 1, 7\): expected finite scores"):
        stabilisation_levels(score_TSF, {}, n_experts=2, other_half_TSF=np.zeros((2, 1, 7)))
    score_TSF[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="score_TSF has shape"):
        stabilisation_levels(score_TSF, {}, n_experts=2)
