"""Which experts a token needs: scores of experts, the selected ones, and the share of activation that they keep.

Source: MoEfication (Zhang et al. 2022, arXiv 2110.01786). The oracle knows the activations; the parameter router knows
the weights, and takes the experts whose mean normalised row is nearest to the normalised input; the MLP router is
trained (`modularity.interventions.train_routers`), here it is applied. All three keep the best 20 % in the paper: 20 of
96 experts.

Departure: the mass of an expert is the sum of |activation|, which is the paper's sum of ReLU(activation) in models with
ReLU, and counts what GELU and gated neurons write with a negative activation too; `mass="positive"` is the paper's.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modularity.errors import DataError, InputError
from modularity.experts.partitions import check_labels, check_rows, expert_sums, normalise_rows

Float64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Mass = Literal["absolute", "positive"]


@dataclass(frozen=True, eq=False)
class MassKept:
    """Share of the activation mass that the selected experts have."""

    total: float
    """Over all rows together: mass of selected experts by mass of all."""
    mean: float
    """Mean over rows of the share of each, rows without any mass left out (the paper's figure)."""
    chance: float
    """Expectation of both for experts drawn at random: mean share of experts that are selected."""
    n_rows: int
    """Rows with mass."""


def oracle_scores(
    activations_RF: ArrayLike, labels_F: ArrayLike, *, n_experts: int | None = None, mass: Mass = "absolute"
) -> Float64:
    """Activation mass of every expert: what a router would have to predict.

    Parameters
    ----------
    activations_RF : array of shape (n_rows, n_neurons), finite: rows are tokens
    labels_F : int array of shape (n_neurons,)
    n_experts : when the last experts have no neuron; by default the largest label + 1
    mass : `absolute` or `positive`, see above

    Returns
    -------
    scores_RE : float64 array of shape (n_rows, n_experts), not negative

    Raises
    ------
    DataError
        Activations are not a finite matrix, or there is not one label for each neuron.
    """
    activations = check_rows(activations_RF, "activations_RF")
    labels = check_labels(labels_F, activations.shape[1])
    weighed = np.abs(activations) if mass == "absolute" else np.maximum(activations, 0)
    return np.ascontiguousarray(expert_sums(np.ascontiguousarray(weighed.T), labels, _count(labels, n_experts)).T)


def expert_centres(rows_FD: ArrayLike, labels_F: ArrayLike, *, n_experts: int | None = None) -> Float64:
    """Mean normalised input weights of every expert: float64 array of shape (n_experts, n_dims).

    Parameters
    ----------
    rows_FD : array of shape (n_neurons, n_dims), finite: input weights, normalised here
    labels_F, n_experts : as in `oracle_scores`

    Raises
    ------
    DataError
        Rows or labels are not as described, or an expert has no neuron.
    """
    rows = normalise_rows(rows_FD)
    labels = check_labels(labels_F, len(rows))
    count_E = np.bincount(labels, minlength=_count(labels, n_experts))
    if not count_E.all():
        raise DataError(f"experts {np.flatnonzero(count_E == 0)[:10].tolist()} have no neuron, so no centre")
    return expert_sums(rows, labels, len(count_E)) / count_E[:, None]


def parameter_scores(inputs_RD: ArrayLike, centres_ED: ArrayLike) -> Float64:
    """Scores of the parameter router: minus the distance between normalised input and centre of each expert.

    Parameters
    ----------
    inputs_RD : array of shape (n_rows, n_dims), finite: inputs of the FFN
    centres_ED : array of shape (n_experts, n_dims), from `expert_centres`

    Returns
    -------
    scores_RE : float64 array of shape (n_rows, n_experts)

    Raises
    ------
    DataError
        Not finite matrices, or of different widths.
    """
    inputs, centres = _pair(inputs_RD, centres_ED, "centres_ED")
    squared_RE = (inputs**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * inputs @ centres.T
    return -np.sqrt(np.maximum(squared_RE, 0.0))


def mlp_scores(inputs_RD: ArrayLike, input_ED: ArrayLike, output_EE: ArrayLike) -> Float64:
    """Scores of a trained MLP router: tanh of the normalised input times `input_ED`, times `output_EE`.

    Parameters
    ----------
    inputs_RD : array of shape (n_rows, n_dims), finite: inputs of the FFN
    input_ED, output_EE : arrays of shape (n_experts, n_dims) and (n_experts, n_experts), rows are outputs

    Returns
    -------
    scores_RE : float64 array of shape (n_rows, n_experts)

    Raises
    ------
    DataError
        Not finite matrices, or widths that do not fit.
    """
    inputs, first = _pair(inputs_RD, input_ED, "input_ED")
    last = check_rows(output_EE, "output_EE").astype(np.float64)
    if last.shape != (len(first), len(first)):
        raise DataError(f"output_EE has shape {last.shape}: expected {(len(first), len(first))}, experts x experts")
    return np.tanh(inputs @ first.T) @ last.T


def selected_count(n_experts: int, share: float) -> int:
    """Experts that a share selects, rounded up: 20 of 96 for .2; InputError unless 0 < share <= 1."""
    if not 0 < share <= 1:
        raise InputError(f"share is {share}: expected more than 0, at most 1")
    return min(n_experts, ceil(share * n_experts - 1e-9))


def select_top(scores_RE: ArrayLike, n_selected: int) -> Bool:
    """The experts of highest score of every row, lowest index among equals.

    Parameters
    ----------
    scores_RE : array of shape (n_rows, n_experts), finite
    n_selected : 1 … n_experts

    Returns
    -------
    selected_RE : bool array, `n_selected` True in every row

    Raises
    ------
    InputError
        `n_selected` is out of range.
    DataError
        Scores are not a finite matrix.
    """
    scores = check_rows(scores_RE, "scores_RE")
    if not 1 <= n_selected <= scores.shape[1]:
        raise InputError(f"n_selected is {n_selected}: expected 1 to {scores.shape[1]}, the number of experts")
    selected = np.zeros(scores.shape, np.bool_)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :n_selected]
    np.put_along_axis(selected, best, True, axis=1)
    return selected


def mass_kept(mass_RE: ArrayLike, selected_RE: ArrayLike) -> MassKept:
    """How much of the activation mass lies in the selected experts.

    Parameters
    ----------
    mass_RE : array of shape (n_rows, n_experts), from `oracle_scores`
    selected_RE : bool array of that shape

    Returns
    -------
    MassKept

    Raises
    ------
    DataError
        Shapes differ, the mass is negative or not finite, or there is none at all.
    """
    mass = check_rows(mass_RE, "mass_RE").astype(np.float64)
    selected = np.asarray(selected_RE)
    if selected.shape != mass.shape or selected.dtype != np.bool_:
        raise DataError(f"selected_RE has shape {selected.shape}, dtype {selected.dtype}: expected bool, {mass.shape}")
    if mass.min() < 0 or mass.max() == 0:
        raise DataError(
            f"mass_RE has values from {mass.min()} to {mass.max()}: expected mass, none negative, not all 0"
        )
    all_R, kept_R = mass.sum(axis=1), (mass * selected).sum(axis=1)
    has_R = all_R > 0
    return MassKept(
        total=float(kept_R.sum() / all_R.sum()),
        mean=float((kept_R[has_R] / all_R[has_R]).mean()),
        chance=float(selected[has_R].mean()),
        n_rows=int(has_R.sum()),
    )


def _count(labels_F: NDArray[np.int64], n_experts: int | None) -> int:
    n_labels = int(labels_F.max()) + 1
    if n_experts is not None and n_experts < n_labels:
        raise InputError(f"n_experts is {n_experts}, but labels_F holds expert {n_labels - 1}: expected {n_labels}")
    return n_labels if n_experts is None else n_experts


def _pair(inputs_RD: ArrayLike, weights_ED: ArrayLike, name: str) -> tuple[Float64, Float64]:
    """Normalised inputs, and weights of the same width, in float64."""
    inputs = normalise_rows(np.asarray(inputs_RD, dtype=np.float64))
    weights = check_rows(weights_ED, name).astype(np.float64)
    if inputs.shape[1] != weights.shape[1]:
        raise DataError(f"{name} has width {weights.shape[1]}: expected {inputs.shape[1]}, that of inputs_RD")
    return inputs.astype(np.float64), weights
