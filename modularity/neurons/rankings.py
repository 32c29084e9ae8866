"""Which neurons to break: masks from rankings by predictivity, and random controls with as many neurons per layer.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 2: the best neurons of one task, of the average over tasks, whole
experts by their mean, and random ones. Added here: random neurons matched to the chosen ones on mean activation and on
the norm of the output weights, since noise that scales with a neuron's own activation hits active neurons harder.

A mask is a bool array of shape (n_layers, n_neurons), True for the chosen neurons; scores have the same shape, larger
is better. Variants, as in the project's methods, card A6: `paper` takes the neurons strictly above the linearly
interpolated percentile of their layer, so that ties at the boundary shorten the list; `corrected` takes exactly
`n_selected` of each layer, ties by lowest index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from modularity.errors import DataError
from modularity.stats import top_neurons

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Variant = Literal["paper", "corrected"]

N_NEAREST = 5
"""Candidates among which a matched control is drawn: more give more different draws and a poorer match."""


@dataclass(frozen=True)
class Balance:
    """How alike chosen and control neurons are in one feature; arrays of shape (n_layers,), float64.

    NaN where a layer has no chosen neuron.
    """

    feature: str
    """Name of the feature (`mean_activation`)."""
    mean_chosen_L: Array
    """Mean over the chosen neurons."""
    mean_control_L: Array
    """Mean over the control neurons."""
    difference_before_L: Array
    """Standardised difference of the chosen neurons from all others: that of means over the layer's standard
    deviation."""
    difference_L: Array
    """The same from the control neurons; beyond 0.1 in size the match is usually called poor."""


@dataclass(frozen=True)
class MatchedMask:
    """Random neurons that resemble the chosen ones."""

    mask_LF: Array
    """bool: as many neurons per layer as were chosen, none of them chosen."""
    balance: tuple[Balance, ...]
    """What the matching reached, one entry for each feature."""


def average_scores(predictivity_SLF: Array) -> Array:
    """Mean predictivity over sub-functions, float64 of shape (n_layers, n_neurons): the ranking that knows no task."""
    if predictivity_SLF.ndim != 3 or not len(predictivity_SLF):
        raise DataError(
            f"predictivity has shape {predictivity_SLF.shape}: expected (sub-functions, layers, neurons), at least one"
        )
    mean_LF: Array = predictivity_SLF.mean(axis=0, dtype=np.float64)
    return mean_LF


def select_neurons(scores_LF: Array, n_selected: int, *, variant: Variant = "corrected") -> Array:
    """Mask of the neurons with the highest scores of each layer.

    Parameters
    ----------
    scores_LF : float array of shape (n_layers, n_neurons), finite: predictivity for one sub-function, or an average
    n_selected : neurons per layer, 0 … n_neurons
    variant : see the head of the module. With different scores both choose the same neurons, unless all are wanted:
        the lowest is not strictly above itself

    Returns
    -------
    mask_LF : bool array of the same shape

    Raises
    ------
    DataError
        Scores are not finite or not of two dimensions, or `n_selected` is impossible.
    """
    scores = _checked_scores(scores_LF, n_selected)
    if variant == "paper":
        threshold_L1 = np.quantile(scores, 1 - n_selected / scores.shape[1], axis=1, keepdims=True)
        above_LF: Array = scores > threshold_L1
        return above_LF
    mask_LF = np.zeros(scores.shape, dtype=bool)
    if n_selected:
        np.put_along_axis(mask_LF, top_neurons(scores, n_selected), True, axis=1)
    return mask_LF


def select_experts(scores_LF: Array, labels_LF: Array, n_selected: int, *, variant: Variant = "corrected") -> Array:
    """Mask of whole experts, those with the highest mean score of each layer, that hold `n_selected` neurons.

    Parameters
    ----------
    scores_LF : as for `select_neurons`
    labels_LF : int array of the same shape: expert of every neuron, numbered from 0 in each layer
    n_selected : neurons per layer; what the best experts hold together, so that masks of neurons and of experts are
        of one size
    variant : `corrected`: experts in descending order of their mean, ties by lowest number. `paper`: members of
        experts strictly above the interpolated percentile, over neurons, of the mean; experts of one size only

    Returns
    -------
    mask_LF : bool array of the same shape

    Raises
    ------
    DataError
        As `select_neurons`; labels do not fit; or no number of whole experts holds `n_selected` neurons: the message
        names what the best ones hold.
    """
    scores = _checked_scores(scores_LF, n_selected)
    labels = np.asarray(labels_LF)
    if labels.shape != scores.shape or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"labels have shape {labels.shape} and dtype {labels.dtype}: expected integers from 0 of shape "
            f"{scores.shape}, the expert of every neuron"
        )
    means = [_expert_means(*layer) for layer in zip(scores, labels)]
    if variant == "paper":
        broadcast_LF = np.stack([mean_E[labels_F] for (mean_E, _), labels_F in zip(means, labels)])
        _require_equal_sizes([size_E for _, size_E in means], n_selected)
        return select_neurons(broadcast_LF, n_selected, variant="paper")
    chosen = [_best_experts(mean_E, size_E, n_selected, layer) for layer, (mean_E, size_E) in enumerate(means)]
    return np.stack([np.isin(labels_F, experts) for labels_F, experts in zip(labels, chosen)])


def random_mask(mask_LF: Array, *, seed: int) -> Array:
    """As many random neurons in each layer as `mask_LF` has there: the mask, permuted within layers.

    Chosen neurons may be drawn again, as in the paper; `matched_random_mask` leaves them out.
    """
    mask = _checked_mask(mask_LF)
    shuffled: Array = np.random.default_rng(seed).permuted(mask, axis=1)
    return shuffled


def matched_random_mask(
    mask_LF: Array,
    mean_activation_LF: Array,
    output_norm_LF: Array,
    *,
    seed: int,
    n_nearest: int = N_NEAREST,
) -> MatchedMask:
    """Random neurons that are as active and write as strongly as the chosen ones, and are not among them.

    Matching without replacement, within layers: the chosen neurons, the most unusual first, each draw one of their
    `n_nearest` free neighbours. Distances are Euclidean in both features, each divided by its standard deviation in the
    layer. What a draw lacks is asked of the next ones, so that the means come close where single neurons have no equal.

    Parameters
    ----------
    mask_LF : bool array of shape (n_layers, n_neurons), the chosen neurons; at most half of each layer
    mean_activation_LF : float array of the same shape, finite: mean activation over tokens or rows
    output_norm_LF : float array of the same shape, finite: Euclidean norm of the neuron's row of the output weights
    seed : random state
    n_nearest : neighbours among which is drawn, at least 1

    Returns
    -------
    MatchedMask

    Raises
    ------
    DataError
        Shapes differ, a feature is not finite, or more than half of a layer is chosen.
    """
    mask = _checked_mask(mask_LF)
    features = {"mean_activation": mean_activation_LF, "output_norm": output_norm_LF}
    features_LFK = _stacked_features(features, mask.shape)
    _check_room(mask, n_nearest)
    control = np.zeros_like(mask)
    for layer, generator in enumerate(np.random.default_rng(seed).spawn(len(mask))):
        drawn = _match_layer(mask[layer], features_LFK[layer], n_nearest, generator)
        control[layer, drawn] = True
    balance = tuple(_balance(name, features_LFK[..., k], mask, control) for k, name in enumerate(features))
    return MatchedMask(control, balance)


def _checked_scores(scores_LF: Array, n_selected: int) -> Array:
    scores = np.asarray(scores_LF, dtype=np.float64)
    if scores.ndim != 2 or 0 in scores.shape or not np.isfinite(scores).all():
        raise DataError(f"scores of shape {scores.shape}: expected finite numbers of shape (layers, neurons)")
    if not 0 <= n_selected <= scores.shape[1]:
        raise DataError(f"{n_selected} neurons of each layer of {scores.shape[1]}: expected from none to all")
    return scores


def _checked_mask(mask_LF: Array) -> Array:
    mask = np.asarray(mask_LF)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise DataError(f"mask has shape {mask.shape} and dtype {mask.dtype}: expected bool of shape (layers, neurons)")
    return mask


def _expert_means(scores_F: Array, labels_F: Array) -> tuple[Array, Array]:
    """Mean score and size of every expert; an expert without neurons gets minus infinity."""
    size_E = np.bincount(labels_F)
    sum_E = np.bincount(labels_F, weights=scores_F)
    return np.where(size_E > 0, sum_E / np.maximum(size_E, 1), -np.inf), size_E


def _best_experts(mean_E: Array, size_E: Array, n_selected: int, layer: int) -> Array:
    """Best experts that hold exactly `n_selected` neurons."""
    order = np.argsort(-mean_E, kind="stable")
    held = np.concatenate(([0], np.cumsum(size_E[order])))
    n_experts = int(np.searchsorted(held, n_selected))
    if held[n_experts] != n_selected:
        raise DataError(
            f"layer {layer}: the best experts hold {held[n_experts - 1]} or {held[n_experts]} neurons, {n_selected} "
            "are wanted: choose as many neurons as whole experts hold"
        )
    return order[:n_experts]


def _require_equal_sizes(sizes: Sequence[Array], n_selected: int) -> None:
    different = np.unique(np.concatenate(sizes))
    if len(different) > 1 or n_selected % int(different[0]):
        raise DataError(
            f"experts of {different[:5].tolist()} neurons and {n_selected} to choose: variant 'paper' needs experts of "
            "one size that divides the number; use variant 'corrected' or another number"
        )


def _stacked_features(features: dict[str, Array], shape: tuple[int, ...]) -> Array:
    for name, values in features.items():
        if np.shape(values) != shape or not np.isfinite(values).all():
            raise DataError(f"{name} has shape {np.shape(values)}: expected finite numbers of shape {shape}")
    return np.stack([np.asarray(values, dtype=np.float64) for values in features.values()], axis=-1)


def _check_room(mask_LF: Array, n_nearest: int) -> None:
    count_L = mask_LF.sum(axis=1)
    if n_nearest < 1:
        raise DataError(f"n_nearest is {n_nearest}: expected at least 1")
    if (2 * count_L > mask_LF.shape[1]).any():
        layer = int(count_L.argmax())
        raise DataError(
            f"layer {layer}: {count_L[layer]} of {mask_LF.shape[1]} neurons are chosen, which leaves too few for a "
            "control of the same size: choose at most half of a layer"
        )


def _match_layer(mask_F: Array, features_FK: Array, n_nearest: int, generator: np.random.Generator) -> list[int]:
    """A free neighbour for every chosen neuron of a layer."""
    sd_K = features_FK.std(axis=0)
    scaled_FK = features_FK / np.where(sd_K > 0, sd_K, 1.0)
    free = np.flatnonzero(~mask_F)
    free_K = scaled_FK[free]
    is_free = np.ones(len(free), dtype=bool)
    drawn = []
    chosen = generator.permutation(np.flatnonzero(mask_F))
    distance_C = ((scaled_FK[chosen] - scaled_FK.mean(axis=0)) ** 2).sum(axis=1)
    missing_K = np.zeros(features_FK.shape[1])
    for neuron in chosen[np.argsort(-distance_C, kind="stable")]:
        target_K = scaled_FK[neuron] + missing_K
        distance = np.where(is_free, ((free_K - target_K) ** 2).sum(axis=1), np.inf)
        n_candidates = min(n_nearest, int(is_free.sum()))
        nearest = np.argsort(distance, kind="stable")[:n_candidates]
        pick = int(nearest[generator.integers(n_candidates)])
        missing_K = target_K - free_K[pick]
        is_free[pick] = False
        drawn.append(int(free[pick]))
    return drawn


def _balance(name: str, values_LF: Array, mask_LF: Array, control_LF: Array) -> Balance:
    chosen_L, matched_L, others_L = (_masked_mean(values_LF, which) for which in (mask_LF, control_LF, ~mask_LF))
    sd_L = values_LF.std(axis=1)
    scale_L = np.where(sd_L > 0, sd_L, 1.0)
    return Balance(name, chosen_L, matched_L, (chosen_L - others_L) / scale_L, (chosen_L - matched_L) / scale_L)


def _masked_mean(values_LF: Array, mask_LF: Array) -> Array:
    count_L = mask_LF.sum(axis=1)
    total_L = (values_LF * mask_LF).sum(axis=1)
    mean_L: Array = np.divide(total_L, count_L, out=np.full(len(count_L), np.nan), where=count_L > 0)
    return mean_L
