"""Sums over the spectrum from random probes against the dense spectrum."""

import numpy as np
import pytest
import torch
from planted_spectra import with_spectrum

from modularity.errors import DataError
from modularity.geometry import (
    DenseOperator,
    count_above,
    leading_singular_values,
    measures_of_quadrature,
    probe_vectors,
    spectral_quadrature,
    spectrum_measures,
)

MATRIX = with_spectrum(0.96 ** np.arange(120), 150, 120)


def test_full_steps_give_exact_quadratic_forms() -> None:
    matrix = with_spectrum(np.linspace(1, 3, 12), 14, 12)
    quadrature = spectral_quadrature(DenseOperator(matrix), n_probes=3, n_steps=12, seed=7)
    probes = probe_vectors(3, 12, seed=7, signs=True)
    eigenvalues, vectors = torch.linalg.eigh(matrix.T @ matrix)
    for power in (1, 2, 3):
        direct = ((probes @ vectors) ** 2 * eigenvalues.clamp_min(0) ** (power / 2)).sum(dim=1)
        np.testing.assert_allclose(quadrature.sums_V(lambda s, p=power: s**p), direct.numpy(), rtol=1e-9)


@pytest.mark.parametrize("n_known", [0, 10])
def test_error_bars_cover_the_dense_measures(n_known: int) -> None:
    operator, exact = DenseOperator(MATRIX), torch.linalg.svdvals(MATRIX).numpy()
    leading = leading_singular_values(operator, max(1, n_known), n_iterations=8)
    truth = spectrum_measures(exact, (150, 120))
    covered = {"stable_rank": 0, "effective_rank": 0, "frobenius": 0}
    for seed in range(20):
        quadrature = spectral_quadrature(
            operator,
            n_probes=8,
            n_steps=30,
            seed=seed,
            known_K=leading.values_K[:n_known],
            known_right_KN=leading.right_KN[:n_known],
        )
        found = measures_of_quadrature(quadrature, leading.values_K[0])
        for name in covered:
            estimate = getattr(found, name)
            covered[name] += estimate.low <= getattr(truth, name).value <= estimate.high
        cuts = np.array([1e-3, 0.01, 0.1])
        counts, low, high = count_above(quadrature, cuts)
        true_counts = (exact[:, None] > cuts).sum(axis=0)
        assert (low <= true_counts).all()
        assert (true_counts <= high).all()
        np.testing.assert_allclose(counts, true_counts, atol=12)
    assert min(covered.values()) >= 16


@pytest.mark.parametrize("n_steps", [2, 5, 20])
def test_the_two_rules_enclose_what_a_probe_sees(n_steps: int) -> None:
    """Of the square root of JᵀJ, whose derivatives alternate in sign; squares are exact in both."""
    quadrature = spectral_quadrature(DenseOperator(MATRIX), n_probes=4, n_steps=n_steps, seed=3)
    probes = probe_vectors(4, 120, seed=3, signs=True)
    eigenvalues, vectors = torch.linalg.eigh(MATRIX.T @ MATRIX)
    parts = (probes @ vectors) ** 2
    roots = (parts * eigenvalues.clamp_min(0).sqrt()).sum(dim=1).numpy()
    gauss, radau = (quadrature.sums_V(lambda s: s, rule=rule) for rule in ("gauss", "radau"))
    assert (radau <= roots).all()
    assert (roots <= gauss).all()
    assert (gauss - radau).max() / roots.mean() < {2: 0.5, 5: 0.2, 20: 0.05}[n_steps]
    squares = (parts * eigenvalues).sum(dim=1).numpy()
    for rule in ("gauss", "radau"):
        np.testing.assert_allclose(quadrature.sums_V(np.square, rule=rule), squares, rtol=1e-9)


def test_known_values_make_estimates_sharper() -> None:
    operator = DenseOperator(MATRIX)
    leading = leading_singular_values(operator, 20, n_iterations=8)
    plain = spectral_quadrature(operator, n_probes=8, n_steps=30)
    sharper = spectral_quadrature(
        operator, n_probes=8, n_steps=30, known_K=leading.values_K, known_right_KN=leading.right_KN
    )
    assert sharper.sums_V(np.square).std() < 0.7 * plain.sums_V(np.square).std()


def test_low_rank_breaks_down_cleanly() -> None:
    operator = DenseOperator(with_spectrum(np.array([2.0, 1.0]), 30, 40))
    quadrature = spectral_quadrature(operator, n_probes=4, n_steps=20)
    np.testing.assert_allclose(quadrature.radau_weights_VK.sum(axis=1), 40)
    assert count_above(quadrature, np.array([3.0]))[0].tolist() == [0]
    np.testing.assert_allclose(quadrature.weights_VK.sum(axis=1), 40)
    assert np.isfinite(quadrature.nodes_VK).all()
    assert ((quadrature.nodes_VK > 1e-8).sum(axis=1) <= 2).all()
    zero = spectral_quadrature(DenseOperator(torch.zeros(5, 4, dtype=torch.float64)), n_probes=2, n_steps=3)
    assert zero.sums_V(np.square).tolist() == [0, 0]


def test_nodes_that_are_rounding_count_as_zero() -> None:
    operator = DenseOperator(with_spectrum(np.linspace(1, 2, 20), 200, 200))
    quadrature = spectral_quadrature(operator, n_probes=8, n_steps=64)
    counts, low, high = count_above(quadrature, 2 * np.array([1e-2, 1e-3, 1e-4]))
    np.testing.assert_allclose(counts, 20, atol=3)
    assert (low <= 20).all()
    assert (high >= 20).all()
    np.testing.assert_allclose(high, high[0], rtol=0.01)


def test_probes_may_go_in_parts() -> None:
    operator = DenseOperator(MATRIX)
    whole = spectral_quadrature(operator, n_probes=5, n_steps=6)
    parts = spectral_quadrature(operator, n_probes=5, n_steps=6, probes_at_once=2)
    np.testing.assert_allclose(whole.nodes_VK, parts.nodes_VK, rtol=1e-9)


def test_one_probe_is_refused() -> None:
    with pytest.raises(DataError, match=r"n_probes=1.*2 probes or more"):
        spectral_quadrature(DenseOperator(MATRIX), n_probes=1, n_steps=3)
