"""Rows of the tables along steps, from numbers by hand."""

import numpy as np
import pytest

from modularity.pipelines.scan_steps import ScanStep, stabilisation_rows

STEPS = [ScanStep("step1", 1, ""), ScanStep("step5", 5, ""), ScanStep("step9", 9, "")]


def rows(comparison: str, rho_VTSL: np.ndarray) -> list[dict]:
    return stabilisation_rows("task", comparison, STEPS, ["neuron"], rho_VTSL, n_bootstrap=2000, seed=0)


def test_means_over_subfunctions_then_layers_with_bands() -> None:
    rho_VTSL = np.full((1, 3, 2, 2), np.nan)
    rho_VTSL[0, 0] = [[0.2, 0.4], [0.6, 0.8]]
    rho_VTSL[0, 1] = 0.5
    first, second = rows("consecutive", rho_VTSL)
    assert (first["rho"], first["step"], first["step_to"]) == (pytest.approx(0.5), 1, 5)
    assert (first["low"], first["high"]) == (pytest.approx(0.3), pytest.approx(0.7))
    assert (second["step"], second["step_to"], second["low"], second["high"]) == (5, 9, 0.5, 0.5)
    assert (first["n_subfunctions"], first["n_layers"]) == (2, 2)


def test_the_last_step_and_halves() -> None:
    rho_VTSL = np.full((1, 3, 1, 2), 0.4)
    assert [row["step_to"] for row in rows("final", rho_VTSL)] == [9, 9, 9]
    assert [row["step_to"] for row in rows("reliability", rho_VTSL)] == [1, 5, 9]
    assert np.isnan(rows("final", rho_VTSL)[0]["low"]), "one sub-function has no bootstrap"


def test_a_layer_without_correlation_is_left_out() -> None:
    rho_VTSL = np.full((1, 3, 2, 2), 0.4)
    rho_VTSL[0, 0, 1, 0] = np.nan
    assert [row["n_layers"] for row in rows("final", rho_VTSL)] == [1, 2, 2]
