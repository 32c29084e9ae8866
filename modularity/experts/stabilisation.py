"""What settles first in pre-training: how alike checkpoints rank neurons, experts, and random groups of neurons.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 4. For a sub-function the scores of neurons, or their means over the
neurons of each expert, are compared between two checkpoints by Spearman's correlation. A mean over many neurons is less
noisy than a neuron, so experts are to be compared with random groups of the same size, each partition fixed over steps.

Beyond the paper: similarity to the last checkpoint, which unlike that of neighbours does not rise because steps become
small; and split-half reliability, the correlation of the scores of one checkpoint on two halves of the examples. Where
the errors of both are independent no correlation of two scores can be expected above the root of the product of their
reliabilities; neighbouring checkpoints share their examples, and may exceed it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from modularity.errors import DataError
from modularity.experts.partitions import expert_predictivity, random_partition
from modularity.stats.stabilisation import correlation

Float64 = NDArray[np.float64]

NEURON_LEVEL, RANDOM_LEVEL = "neuron", "random partition"


@dataclass(frozen=True)
class Stabilisation:
    """Similarity of checkpoints at one level; float64 arrays of shape (n_checkpoints, n_subfunctions)."""

    consecutive_TS: Float64
    """Correlation with the next checkpoint; NaN at the last one."""
    final_TS: Float64
    """Correlation with the last checkpoint; 1 at the last one."""
    reliability_TS: Float64
    """Correlation of the halves of the examples within the checkpoint; NaN without halves."""


def stabilisation_levels(
    score_TSF: Float64,
    partitions: Mapping[str, NDArray[np.integer]],
    *,
    n_experts: int,
    other_half_TSF: Float64 | None = None,
    n_random: int = 50,
    seed: int = 0,
) -> dict[str, Stabilisation]:
    """Stabilisation of one layer at the level of neurons, of the experts of each partition, and of random partitions.

    Parameters
    ----------
    score_TSF : finite array of shape (n_checkpoints, n_subfunctions, n_neurons), checkpoints in training order
    partitions : expert of every neuron, int (n_neurons,), by the name of the level
    n_experts : experts of the random partitions; divides the number of neurons
    other_half_TSF : scores on other examples than those of `score_TSF`
    n_random : random balanced partitions whose correlations are averaged
    seed : of these partitions

    Returns
    -------
    levels : by name; `neuron`, the names of `partitions`, `random partition`

    Raises
    ------
    DataError
        A score is not finite, or the shapes differ.
    """
    for name, values in (("score_TSF", score_TSF), ("other_half_TSF", other_half_TSF)):
        if values is not None and (
            values.ndim != 3 or values.shape != score_TSF.shape or not np.isfinite(values).all()
        ):
            raise DataError(
                f"{name} has shape {values.shape}: expected finite scores (checkpoints, sub-functions, neurons), "
                f"as score_TSF {score_TSF.shape}"
            )
    levels = {NEURON_LEVEL: _of(score_TSF, other_half_TSF)}
    levels |= {name: _of_experts(score_TSF, other_half_TSF, labels_F) for name, labels_F in partitions.items()}
    generator = np.random.default_rng(seed)
    draws = [
        _of_experts(score_TSF, other_half_TSF, random_partition(score_TSF.shape[2], n_experts, seed=generator))
        for _ in range(n_random)
    ]
    levels[RANDOM_LEVEL] = Stabilisation(
        *(
            np.mean([getattr(draw, name) for draw in draws], axis=0)
            for name in ("consecutive_TS", "final_TS", "reliability_TS")
        )
    )
    return levels


def _of_experts(score_TSF: Float64, other_half_TSF: Float64 | None, labels_F: NDArray[np.integer]) -> Stabilisation:
    other = None if other_half_TSF is None else expert_predictivity(other_half_TSF, labels_F)
    return _of(expert_predictivity(score_TSF, labels_F), other)


def _of(score_TSX: Float64, other_TSX: Float64 | None) -> Stabilisation:
    ranks_TSX = rankdata(score_TSX, axis=-1)
    missing_TS = np.full(score_TSX.shape[:2], np.nan)
    consecutive_TS = missing_TS.copy()
    consecutive_TS[:-1] = correlation(ranks_TSX[:-1], ranks_TSX[1:])
    reliability_TS = missing_TS if other_TSX is None else correlation(ranks_TSX, rankdata(other_TSX, axis=-1))
    return Stabilisation(consecutive_TS, correlation(ranks_TSX, ranks_TSX[-1:]), reliability_TS)
