"""Exact balanced assignment: every expert receives the same number of neurons, at the least total cost.

With k experts of s = F / k places each, min sum_f cost[f, label_f] is a transportation problem with k sinks. It is
solved in the price (dual) form, which is far smaller than a flow over F * k arcs or an F x F linear assignment:

1. Prices: every neuron takes the expert of least `cost + price`; experts with too many neurons grow dearer. A few
   such updates get close to balance, and prices of an earlier, similar problem get closer still.
2. Shortest paths: the surplus moves one neuron at a time along shortest paths of the k x k graph of experts, whose arc
   a -> b costs min over the neurons f of a of cost[f, b] - cost[f, a]. The prices are the potentials that keep every
   reduced arc cost non-negative, so Dijkstra's method is exact and the end is the optimum (successive shortest paths;
   Ahuja, Magnanti, Orlin, Network Flows, 1993, section 9.7).

Equal costs go to the lowest index.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from modularity.errors import DataError, InputError

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Labels = NDArray[np.int32]

_COLD_UPDATES = 60
_WARM_UPDATES = 15
_MAX_STALLED = 6


def balanced_assignment(cost_FE: ArrayLike) -> Labels:
    """Assign neurons to experts at the least total cost, the same number to every expert.

    The optimum is that of `scipy.optimize.linear_sum_assignment` on the matrix with every column repeated F / E times.

    Parameters
    ----------
    cost_FE : array of shape (n_neurons, n_experts), finite; computed with in float64

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,), each of 0 … n_experts - 1 exactly n_neurons / n_experts times

    Raises
    ------
    DataError
        The costs are not a matrix or not finite.
    InputError
        The number of experts does not divide the number of neurons.
    """
    cost = np.ascontiguousarray(cost_FE, dtype=np.float64)
    if cost.ndim != 2:
        raise DataError(f"cost_FE has shape {cost.shape}: expected two dimensions, neurons x experts")
    require_divisible(*cost.shape)
    if not np.isfinite(cost).all():
        neuron, expert = np.argwhere(~np.isfinite(cost))[0]
        raise DataError(f"cost_FE[{neuron}, {expert}] is {cost[neuron, expert]}: expected finite costs")
    labels, _ = assign_with_prices(cost, None)
    return labels


def assign_with_prices(cost_FE: Float64, price_E: Float64 | None) -> tuple[Labels, Float64]:
    """Balanced assignment and its final prices, which start the next one when the costs have changed a little.

    Parameters
    ----------
    cost_FE : contiguous float64 array of shape (n_neurons, n_experts), checked by the caller
    price_E : float64 array of shape (n_experts,), or None for a first problem

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,)
    price_E : float64 array of shape (n_experts,), of mean zero
    """
    n_experts = cost_FE.shape[1]
    if n_experts == 1:
        return np.zeros(len(cost_FE), np.int32), np.zeros(1)
    start = np.zeros(n_experts) if price_E is None else price_E
    step = _typical_gap(cost_FE[:: max(1, len(cost_FE) // 512)])
    labels, price = _update_prices(cost_FE, start, step, _COLD_UPDATES if price_E is None else _WARM_UPDATES)
    price = _move_surplus(cost_FE, labels, price)
    return labels, price - price.mean()


def require_divisible(n_neurons: int, n_experts: int) -> int:
    """Neurons of one expert; InputError with the nearest possible numbers of experts when they do not come out even."""
    if not 1 <= n_experts <= n_neurons:
        raise InputError(f"n_experts is {n_experts}: expected 1 to {n_neurons}, the number of neurons")
    if n_neurons % n_experts:
        divisors = [d for d in range(1, n_neurons + 1) if n_neurons % d == 0]
        near = sorted(sorted(divisors, key=lambda d: (abs(d - n_experts), d))[:4])
        raise InputError(
            f"{n_neurons} neurons cannot be split into {n_experts} experts of equal size: "
            f"choose a divisor of {n_neurons}, nearest are {', '.join(map(str, near))}"
        )
    return n_neurons // n_experts


def _typical_gap(cost_FE: Float64) -> float:
    """Median difference between the second best and the best expert, the scale of the first price change."""
    two = np.partition(cost_FE, 1, axis=1)[:, :2]
    return max(float(np.median(two[:, 1] - two[:, 0])), 1e-12 * float(np.abs(two).max()), np.finfo(np.float64).tiny)


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _lowest(values_E: Float64) -> float:
    """Smallest value; with these two flags, harmless for finite costs, LLVM compares whole vectors."""
    lowest = values_E[0]
    for value in values_E:
        lowest = min(lowest, value)
    return lowest


@njit(cache=True, nogil=True)
def _choose(cost_FE: Float64, price_E: Float64, labels_F: Labels, count_E: Int64) -> int:
    """Write the cheapest expert of every neuron and the sizes; the return value is the number of surplus neurons."""
    n_neurons, n_experts = cost_FE.shape
    total_E = np.empty(n_experts)
    count_E[:] = 0
    for f in range(n_neurons):
        for e in range(n_experts):
            total_E[e] = cost_FE[f, e] + price_E[e]
        lowest = _lowest(total_E)
        best = 0
        while total_E[best] != lowest:
            best += 1
        labels_F[f] = best
        count_E[best] += 1
    size = n_neurons // n_experts
    surplus = 0
    for e in range(n_experts):
        surplus += max(count_E[e] - size, 0)
    return surplus


@njit(cache=True, nogil=True)
def _update_prices(cost_FE: Float64, price_E: Float64, step: float, n_updates: int) -> tuple[Labels, Float64]:
    """Make crowded experts dearer, with a step that grows after a gain and halves after a loss; keep the best."""
    n_neurons, n_experts = cost_FE.shape
    size = n_neurons / n_experts
    trial_F = np.empty(n_neurons, np.int32)
    trial_count_E = np.empty(n_experts, np.int64)
    best_F, best_E, best_count_E = trial_F.copy(), price_E.copy(), trial_count_E.copy()
    trial_E = price_E.copy()
    least = n_neurons + 1
    stalled = 0
    for _ in range(n_updates):
        surplus = _choose(cost_FE, trial_E, trial_F, trial_count_E)
        if surplus < least:
            least = surplus
            best_F[:], best_E[:], best_count_E[:] = trial_F, trial_E, trial_count_E
            step *= 1.3
            stalled = 0
        else:
            step *= 0.5
            stalled += 1
        # One update costs about as much as this many path searches.
        if least <= n_neurons / (n_experts + 4 * size) or stalled > _MAX_STALLED:
            break
        for e in range(n_experts):
            trial_E[e] = best_E[e] + step * min(max((best_count_E[e] - size) / size, -1.0), 3.0)
    return best_F, best_E


@njit(cache=True, nogil=True)
def _refresh_arcs(cost_FE: Float64, members: Int64, arc_EE: Float64, mover_EE: Int64, a: int) -> None:
    """Cheapest neuron of expert `a` for every other expert, lowest index first among equals."""
    n_experts = cost_FE.shape[1]
    arc_EE[a, :] = np.inf
    mover_EE[a, :] = -1
    for f in members:
        own = cost_FE[f, a]
        for e in range(n_experts):
            change = cost_FE[f, e] - own
            if change < arc_EE[a, e]:
                arc_EE[a, e] = change
                mover_EE[a, e] = f
    arc_EE[a, a] = np.inf


@njit(cache=True, nogil=True)
def _shortest_path(
    arc_EE: Float64,
    price_E: Float64,
    count_E: Int64,
    size: int,
    distance_E: Float64,
    previous_E: Int64,
    done_E: NDArray[np.bool_],
) -> int:
    """Dijkstra from all experts with a surplus to the nearest one with a free place; writes distances and path."""
    n_experts = len(price_E)
    for e in range(n_experts):
        distance_E[e] = 0.0 if count_E[e] > size else np.inf
        previous_E[e] = -1
        done_E[e] = False
    while True:
        a = -1
        nearest = np.inf
        for e in range(n_experts):
            if not done_E[e] and distance_E[e] < nearest:
                nearest = distance_E[e]
                a = e
        done_E[a] = True
        if count_E[a] < size:
            return a
        for e in range(n_experts):
            if not done_E[e]:
                # Reduced arc costs are non-negative; the clip absorbs the rounding.
                reached = nearest + max(arc_EE[a, e] + price_E[e] - price_E[a], 0.0)
                if reached < distance_E[e]:
                    distance_E[e] = reached
                    previous_E[e] = a


@njit(cache=True, nogil=True)
def _move_surplus(cost_FE: Float64, labels_F: Labels, price_E: Float64) -> Float64:
    """Move the surplus along shortest paths until every expert is full; changes `labels_F`, returns the prices."""
    n_neurons, n_experts = cost_FE.shape
    size = n_neurons // n_experts
    price_E = price_E.copy()
    count_E = np.bincount(labels_F, minlength=n_experts)
    arc_EE = np.empty((n_experts, n_experts))
    mover_EE = np.empty((n_experts, n_experts), np.int64)
    stale_E = np.ones(n_experts, np.bool_)
    distance_E, previous_E = np.empty(n_experts), np.empty(n_experts, np.int64)
    done_E = np.empty(n_experts, np.bool_)
    while count_E.max() > size:
        for a in range(n_experts):
            if stale_E[a]:
                _refresh_arcs(cost_FE, np.flatnonzero(labels_F == a), arc_EE, mover_EE, a)
                stale_E[a] = False
        target = _shortest_path(arc_EE, price_E, count_E, size, distance_E, previous_E, done_E)
        for e in range(n_experts):
            price_E[e] -= min(distance_E[e], distance_E[target])
        b = target
        stale_E[b] = True
        while previous_E[b] >= 0:
            a = previous_E[b]
            labels_F[mover_EE[a, b]] = b
            stale_E[a] = True
            b = a
        count_E[b] -= 1
        count_E[target] += 1
    return price_E
