"""Exchange refinement of a balanced partition: swaps of two neurons of different experts that lower the inertia.

With S_c the sum of the rows of expert c and s its size, inertia = sum_f |x_f|^2 - sum_c |S_c|^2 / s. Swapping i of a
with j of b changes S_a by x_j - x_i and S_b by x_i - x_j, so the inertia falls by exactly

    2 (B_b + A_j - 2 x_i . x_j) / s,    A_j = S_a . x_j - S_b . x_j + |x_j|^2,    B_b = S_b . x_i - S_a . x_i + |x_i|^2

Everything comes from the Gram matrix x_i . x_j and the projections S_c . x_f, which a swap updates from two Gram
rows. Lloyd steps stall on nearly orthogonal rows, because the centre of an expert contains each of its own neurons;
swaps do not.

Most pairs are ruled out without a look at the Gram matrix: the largest A_j of an expert and the smallest entry of row
i bound the gain. An expert that was visited without a swap is compared again only with experts that have changed
since.

Rows must be centred and of unit mean square length (`balanced_kmeans` sees to that): the arithmetic is float32.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from modularity.experts.partitions import expert_sums

Labels = NDArray[np.int32]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

_MAX_PASSES = 1000
_MAX_REFRESHES = 4
_ORDERS = 64
"""Visiting orders drawn at a time; pass p uses order p modulo this."""


@dataclass(frozen=True)
class Gram:
    """Scalar products of all pairs of some rows: 4 F^2 bytes."""

    products_FF: Float32
    smallest_F: Float32
    """Smallest entry of every row."""

    @classmethod
    def of(cls, rows_FD: Float32) -> "Gram":
        """Gram matrix of the rows."""
        products = rows_FD @ rows_FD.T
        return cls(products, products.min(axis=1))


def refine(
    rows_FD: Float32, labels_F: Labels, n_experts: int, gram: Gram, *, rng: np.random.Generator
) -> tuple[Labels, int, bool]:
    """Swap pairs of neurons until no swap lowers the inertia.

    Parameters
    ----------
    rows_FD : contiguous float32 array of shape (n_neurons, n_dims), centred, of unit mean square length
    labels_F : int32 array of shape (n_neurons,), a balanced partition; not changed
    gram : of all rows
    rng : order of the visits

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,)
    n_swaps : int
    converged : bool, no swap is left that lowers the inertia by more than the float32 rounding
    """
    labels = labels_F.copy()
    sums_ED = expert_sums(rows_FD, labels, n_experts)
    _, n_swaps, converged = _refine_rows(rows_FD, labels, sums_ED, gram, rng)
    return labels, n_swaps, converged


def refine_weights(
    weights_FF: NDArray[np.floating], labels_F: Labels, n_experts: int, *, rng: np.random.Generator
) -> tuple[Labels, int, bool]:
    """Swap pairs of neurons until no swap raises the weight within experts: `refine` for a graph instead of rows.

    The weights take the place of the scalar products; the sum of a swap's gains is the same with a diagonal of zeros.

    Parameters
    ----------
    weights_FF : array of shape (n_neurons, n_neurons), symmetric, not negative; the diagonal is ignored
    labels_F, n_experts, rng : as in `refine`

    Returns
    -------
    labels_F, n_swaps, converged : as from `refine`
    """
    products = np.array(weights_FF, dtype=np.float64)
    np.fill_diagonal(products, 0.0)
    products /= max(products.max(), np.finfo(np.float64).tiny)
    gram = Gram(products.astype(np.float32), products.min(axis=1).astype(np.float32))
    labels, n_swaps = labels_F.copy(), 0
    for _ in range(_MAX_REFRESHES):
        projection_EF = expert_sums(gram.products_FF, labels, n_experts).astype(np.float32)
        _, swaps, stable = _converge(gram, projection_EF, labels, rng)
        n_swaps += swaps
        if swaps == 0:
            return labels, n_swaps, stable
    return labels, n_swaps, False


def refine_blockwise(
    rows_FD: Float32,
    labels_F: Labels,
    n_experts: int,
    *,
    block_rows: int,
    rng: np.random.Generator,
    max_rounds: int = 30,
    tolerance: float = 1e-5,
) -> tuple[Labels, int, bool]:
    """Swap pairs within random blocks of neurons, new blocks in every round: for a Gram matrix that would not fit.

    The gains are exact (sums of experts are over all neurons); only which pairs meet is left to chance.

    Parameters
    ----------
    rows_FD, labels_F, rng : as in `refine`
    block_rows : most neurons in a block, whose Gram matrix takes 4 block_rows^2 bytes
    max_rounds : most rounds
    tolerance : stop when a round lowers the inertia by less than this share of the total sum of squares

    Returns
    -------
    labels_F : int32 array of shape (n_neurons,)
    n_swaps : int
    converged : bool, the last round gained less than the tolerance
    """
    labels = labels_F.copy()
    sums_ED = expert_sums(rows_FD, labels, n_experts)
    size = len(labels) // n_experts
    n_blocks = -(-len(labels) // block_rows)
    n_swaps = 0
    for _ in range(max_rounds):
        gain = 0.0
        for block in np.array_split(rng.permutation(len(labels)), n_blocks):
            part_FD, part_F = rows_FD[block], labels[block]
            block_gain, swaps, _ = _refine_rows(part_FD, part_F, sums_ED, Gram.of(part_FD), rng)
            labels[block] = part_F
            gain += 2 * block_gain / size
            n_swaps += swaps
        if gain <= tolerance * len(labels):
            return labels, n_swaps, True
    return labels, n_swaps, False


def _refine_rows(
    rows_FD: Float32, labels_F: Labels, sums_ED: Float64, gram: Gram, rng: np.random.Generator
) -> tuple[float, int, bool]:
    """Swap among these rows, changing their labels and the sums of the experts, which may hold further rows.

    The projections are computed afresh after every convergence, so that rounding does not pile up in them.
    """
    n_experts = len(sums_ED)
    gain, n_swaps = 0.0, 0
    for _ in range(_MAX_REFRESHES):
        projection_EF = sums_ED.astype(np.float32) @ rows_FD.T
        before_F = labels_F.copy()
        more, swaps, stable = _converge(gram, projection_EF, labels_F, rng)
        if swaps == 0:
            return gain, n_swaps, stable
        gain, n_swaps = gain + more, n_swaps + swaps
        moved = np.flatnonzero(before_F != labels_F)
        sums_ED -= expert_sums(rows_FD[moved], before_F[moved], n_experts)
        sums_ED += expert_sums(rows_FD[moved], labels_F[moved], n_experts)
    return gain, n_swaps, False


def _converge(
    gram: Gram, projection_EF: Float32, labels_F: Labels, rng: np.random.Generator
) -> tuple[float, int, bool]:
    """Swap until a pass has no swap, changing the labels and the projections."""
    smallest_gain = 4 * float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(projection_EF).max()))
    order_PE = np.stack([rng.permutation(len(projection_EF)) for _ in range(_ORDERS)])
    table = _Table.of(gram, projection_EF, labels_F)
    return _swap_until_stable(table, order_PE, np.float32(smallest_gain))


class _Table(NamedTuple):
    """What the kernels read and change. A slot is a place in the neurons sorted by expert; a swap exchanges two."""

    gram_FF: Float32
    smallest_F: Float32
    projection_EF: Float32
    labels_F: Labels
    slot_F: Int64
    """Neuron of every slot."""
    start_E: Int64
    """First slot of every expert, and the number of slots."""
    rest_F: Float32
    """|x_j|^2 - S_b . x_j of the neuron j of every slot, b its expert."""
    score_F: Float32
    """A_j of every slot, for the expert that is visited."""
    highest_E: Float32
    """Largest A_j of every expert, minus infinity for the expert that is visited."""

    @classmethod
    def of(cls, gram: Gram, projection_EF: Float32, labels_F: Labels) -> "_Table":
        slot_F = np.argsort(labels_F, kind="stable")
        start_E = np.concatenate(([0], np.cumsum(np.bincount(labels_F, minlength=len(projection_EF)))))
        rest_F = gram.products_FF.diagonal()[slot_F] - projection_EF[labels_F[slot_F], slot_F]
        unset_F, unset_E = np.empty_like(rest_F), np.empty(len(projection_EF), np.float32)
        return cls(
            gram.products_FF, gram.smallest_F, projection_EF, labels_F, slot_F, start_E, rest_F, unset_F, unset_E
        )


@njit(cache=True, nogil=True)
def _score_partners(table: _Table, a: int) -> None:
    """Write A_j of every neuron outside expert `a`, and the largest of every expert."""
    for e in range(len(table.highest_E)):
        highest = np.float32(-np.inf)
        if e != a:
            for u in range(table.start_E[e], table.start_E[e + 1]):
                score = table.projection_EF[a, table.slot_F[u]] + table.rest_F[u]
                table.score_F[u] = score
                highest = max(highest, score)
        table.highest_E[e] = highest


@njit(cache=True, nogil=True)
def _best_partner(table: _Table, i: int, a: int, looked_E: Int64, least: float) -> tuple[float, int, int]:
    """Gain, slot and expert of the best partner of neuron `i` of expert `a`; slot -1 if none gains over `least`."""
    gram_F = table.gram_FF[i]
    base = gram_F[i] - table.projection_EF[a, i]
    best, best_slot, best_expert = least, -1, -1
    for e in looked_E:
        own = table.projection_EF[e, i] + base
        if own + table.highest_E[e] - 2 * table.smallest_F[i] >= best:
            for u in range(table.start_E[e], table.start_E[e + 1]):
                j = table.slot_F[u]
                gain = own + table.score_F[u] - 2 * gram_F[j]
                if gain > best or (gain == best and best_slot >= 0 and j < table.slot_F[best_slot]):
                    best, best_slot, best_expert = gain, u, e
    return best, best_slot, best_expert


@njit(cache=True, nogil=True)
def _swap(table: _Table, t: int, u: int, a: int, b: int) -> None:
    """Swap the neurons of slot `t` in expert `a` and slot `u` in expert `b`; the scores of `a` are then up to date."""
    i, j = table.slot_F[t], table.slot_F[u]
    for f in range(len(table.labels_F)):
        change = table.gram_FF[j, f] - table.gram_FF[i, f]
        table.projection_EF[a, f] += change
        table.projection_EF[b, f] -= change
    table.slot_F[t], table.slot_F[u] = j, i
    table.labels_F[i], table.labels_F[j] = b, a
    for e in (a, b):
        for v in range(table.start_E[e], table.start_E[e + 1]):
            f = table.slot_F[v]
            table.rest_F[v] = table.gram_FF[f, f] - table.projection_EF[e, f]
    _score_partners(table, a)


@njit(cache=True, nogil=True)
def _to_look_at(a: int, changed_E: Int64, visited: int) -> Int64:
    """Experts that may hold a partner: all when `a` has changed since its last visit, else those that have."""
    looked_E = np.empty(len(changed_E), np.int64)
    n = 0
    for e in range(len(changed_E)):
        if e != a and (changed_E[a] > visited or changed_E[e] > visited):
            looked_E[n] = e
            n += 1
    return looked_E[:n]


@njit(cache=True, nogil=True)
def _swap_until_stable(table: _Table, order_PE: Int64, least: float) -> tuple[float, int, bool]:
    """Passes over all neurons, expert by expert, until a pass has no swap; the gain is in units of s / 2."""
    n_experts = len(table.highest_E)
    changed_E, visited_E = np.zeros(n_experts, np.int64), np.full(n_experts, -1)
    total, n_swaps = 0.0, 0
    for p in range(_MAX_PASSES):
        n_before = n_swaps
        for a in order_PE[p % len(order_PE)]:
            looked_E = _to_look_at(a, changed_E, visited_E[a])
            visited_E[a] = n_swaps
            if len(looked_E) == 0:
                continue
            _score_partners(table, a)
            for t in range(table.start_E[a], table.start_E[a + 1]):
                gain, u, b = _best_partner(table, table.slot_F[t], a, looked_E, least)
                if u >= 0:
                    _swap(table, t, u, a, b)
                    n_swaps += 1
                    changed_E[a] = changed_E[b] = n_swaps
                    looked_E = _to_look_at(a, changed_E, visited_E[a])
                    total += gain
        if n_swaps == n_before:
            return total, n_swaps, True
    return total, n_swaps, False
