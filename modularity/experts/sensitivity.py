"""Functional experts for several definitions of "best neurons": a finding should not hang on the 1 % of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from modularity.errors import DataError, InputError
from modularity.experts.functional import FunctionalExperts, functional_experts
from modularity.experts.partitions import check_labels

TOP_FRACTIONS = (0.005, 0.01, 0.02, 0.05)
"""Shares of a layer's neurons that count as best by default; the paper has 0.01."""


@dataclass(frozen=True)
class FractionRow:
    """Functional experts with one definition of "best neurons"."""

    fraction: float
    """Share of the layer's neurons that count as best."""
    result: FunctionalExperts


def top_fraction_sensitivity(
    predictivity_F: ArrayLike,
    labels_F: ArrayLike,
    *,
    fractions: Sequence[float] = TOP_FRACTIONS,
    alpha: float = 0.001,
) -> tuple[FractionRow, ...]:
    """Functional experts of one sub-function for several top fractions: a finding should not hang on the paper's 1 %.

    The int(fraction * n_neurons) best neurons are taken, at least one; ties go to the lowest index.

    Parameters
    ----------
    predictivity_F : array of shape (n_neurons,), finite
    labels_F, alpha : as in `functional_experts`
    fractions : each in (0, 1]

    Returns
    -------
    One row for every fraction, in the order given

    Raises
    ------
    DataError, InputError
        As `functional_experts`; also for predictivity that is not finite and fractions outside (0, 1].
    """
    predictivity = np.asarray(predictivity_F, dtype=np.float64)
    if predictivity.ndim != 1 or not np.isfinite(predictivity).all():
        raise DataError(f"predictivity_F of shape {predictivity.shape}: expected one finite value per neuron")
    wrong = [fraction for fraction in fractions if not 0 < fraction <= 1]
    if wrong:
        raise InputError([f"top fraction {fraction} is not in (0, 1]: 0.01 means one per cent" for fraction in wrong])
    check_labels(labels_F, len(predictivity))
    order = np.argsort(-predictivity, kind="stable")
    top_counts = [max(1, int(fraction * len(order))) for fraction in fractions]
    return tuple(
        FractionRow(fraction, functional_experts(order[:k], labels_F, alpha=alpha))
        for fraction, k in zip(fractions, top_counts, strict=True)
    )
