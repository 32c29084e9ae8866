"""Average precision and AUROC of ordered neurons for many label vectors, eight at a time.

With positions k = 1 … n in descending order, y the label and t the positives so far, a neuron without ties has

    n₊·AP(y) = Σ y·t/k        n₋·AP(1 − y) = n₋ − Σ t/k + Σ y·t/k        n₊·(n + 1) − Σ t = rank sum of the positives

so one walk with three running sums gives both polarities and the AUROC. A tie run of g rows with d positives that ends
at k adds d·t/k, g·t/k and g·(t − d) + d·(g + 1)/2. The rarer label is always taken as positive, because the subtraction
in the second formula loses digits when n₋ is small.

The walk over untied rows is written as vector instructions (`_walk_untied`): its state, eight label vectors of four
float64 sums, stays in registers. The same loop left to the compiler keeps it in memory and takes twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from modularity.stats.ordering import OrderedTile

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LANES = 8
SUMS = 4  # positives so far, Σ t/k, Σ y·t/k, Σ t


@dataclass(frozen=True)
class PackedLabels:
    """Label vectors in the layout of the kernels: groups of eight, the eight side by side for each row."""

    labels_GRW: Array
    """float32 array of shape (groups, n_rows, 8): 1 for the rarer label; unused vectors of the last group are 0."""
    n_rarer_S: Array
    """int64: how many rows have the rarer label."""
    flipped_S: Array
    """bool: the rarer label is False."""
    reciprocal_R: Array
    """float64: 1/1, 1/2, … 1/n_rows."""

    @property
    def n_vectors(self) -> int:
        """Number of label vectors."""
        return len(self.n_rarer_S)


def pack_labels(labels_SR: Array) -> PackedLabels:
    """Pack bool label vectors of shape (n_vectors, n_rows); both classes are known to be present."""
    n_vectors, n_rows = labels_SR.shape
    n_true_S = labels_SR.sum(axis=1, dtype=np.int64)
    flipped_S = n_true_S > n_rows - n_true_S
    n_groups = -(-n_vectors // LANES)
    labels_GRW = np.zeros((n_groups, n_rows, LANES), np.float32)
    for s in range(n_vectors):
        labels_GRW[s // LANES, :, s % LANES] = labels_SR[s] ^ flipped_S[s]
    n_rarer_S = np.minimum(n_true_S, n_rows - n_true_S)
    return PackedLabels(labels_GRW, n_rarer_S, flipped_S, 1.0 / np.arange(1, n_rows + 1))


def score_tile(
    tile: OrderedTile, labels: PackedLabels, ap_positive_SF: Array, ap_negative_SF: Array, auroc_SF: Array
) -> None:
    """Write the scores of one tile into float64 arrays of shape (n_vectors, neurons of the tile)."""
    _score_tile(
        tile.rows_FR, tile.runs_FR, tile.counts, tile.n_positive, tile.n_runs,
        labels.labels_GRW, labels.n_rarer_S, labels.flipped_S, labels.reciprocal_R,
        ap_positive_SF, ap_negative_SF, auroc_SF,
    )  # fmt: skip


@intrinsic
def _walk_untied(typing, rows, labels_RW, reciprocal, sums, start, stop, base):  # type: ignore[no-untyped-def]
    """For k in [start, stop): y = labels_RW[rows[k]], and one step of the four sums at position base + k + 1."""
    signature = types.void(rows, labels_RW, reciprocal, sums, types.intp, types.intp, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [
            context.make_array(kind)(context, builder, argument).data
            for kind, argument in zip(signature.args[:4], arguments[:4])
        ]
        start, stop, base = arguments[4:]
        _emit_walk(builder, pointers, start, stop, base)
        return context.get_dummy_value()

    return signature, generate


def _emit_walk(builder: Any, pointers: list[Any], start: Any, stop: Any, base: Any) -> None:
    """The loop of `_walk_untied` in LLVM's vector types."""
    rows, labels, reciprocal, sums = pointers
    i64, doubles, floats = ir.IntType(64), ir.VectorType(ir.DoubleType(), LANES), ir.VectorType(ir.FloatType(), LANES)

    def vector_at(pointer: Any, index: Any, kind: Any) -> Any:
        return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())

    def load(pointer: Any, alignment: int) -> Any:
        value = builder.load(pointer)
        value.align = alignment
        return value

    places = [vector_at(sums, ir.Constant(i64, LANES * i), doubles) for i in range(SUMS)]
    before = [load(place, 8) for place in places]
    entry, loop, end = builder.block, builder.append_basic_block("walk"), builder.append_basic_block("walked")
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, end)
    builder.position_at_end(loop)
    k = builder.phi(i64)
    k.add_incoming(start, entry)
    held = [builder.phi(doubles) for _ in range(SUMS)]
    row = builder.zext(builder.load(builder.gep(rows, [k])), i64)
    label = builder.fpext(load(vector_at(labels, builder.mul(row, ir.Constant(i64, LANES)), floats), 4), doubles)
    weight = builder.load(builder.gep(reciprocal, [builder.add(k, base)]))
    after = _emit_step(builder, held, label, _splat(builder, weight, doubles))
    following = builder.add(k, ir.Constant(i64, 1))
    k.add_incoming(following, loop)
    for phi, first, value in zip(held, before, after):
        phi.add_incoming(first, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, end)
    builder.position_at_end(end)
    results = [builder.phi(doubles) for _ in range(SUMS)]
    for result, first, value in zip(results, before, after):
        result.add_incoming(first, entry)
        result.add_incoming(value, loop)
    for result, place in zip(results, places):
        builder.store(result, place).align = 8


def _emit_step(builder: Any, held: list[Any], label: Any, weight: Any) -> list[Any]:
    """T += y; Σ t/k, Σ y·t/k, Σ t. The product y·t/k is exact, so a fused multiply-add changes nothing."""
    so_far = builder.fadd(held[0], label)
    share = builder.fmul(so_far, weight)
    product = builder.fmul(label, share, flags=("contract",))
    return [
        so_far,
        builder.fadd(held[1], share),
        builder.fadd(held[2], product, flags=("contract",)),
        builder.fadd(held[3], so_far),
    ]


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    i32 = ir.IntType(32)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(i32, 0))
    zeros = ir.Constant(ir.VectorType(i32, LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), zeros)


@njit(cache=True, nogil=True)
def _close_tie(sums, n_tied, n_labelled_W, end):  # type: ignore[no-untyped-def]
    """One tie run of `n_tied` rows that ends at position `end`, with this many positives per label vector."""
    for w in range(LANES):
        before, labelled = sums[w], n_labelled_W[w]
        share = (before + labelled) / end
        sums[w] = before + labelled
        sums[LANES + w] += n_tied * share
        sums[2 * LANES + w] += labelled * share
        sums[3 * LANES + w] += n_tied * before + labelled * (n_tied + 1) / 2


@njit(cache=True, nogil=True)
def _walk(rows, runs, n_runs, start, stop, base, labels_RW, reciprocal, sums):  # type: ignore[no-untyped-def]
    """Walk over rows[start:stop], tied or not; position in the whole order is `base` more than the index."""
    n_labelled_W = np.empty(LANES)
    k = start
    for run in range(n_runs):
        first, last = np.int64(runs[2 * run]), np.int64(runs[2 * run + 1])
        if first < start or first >= stop:
            continue
        _walk_untied(rows, labels_RW, reciprocal, sums, k, first, base)
        n_labelled_W[:] = 0
        for index in range(first, last):
            for w in range(LANES):
                n_labelled_W[w] += labels_RW[rows[index], w]
        _close_tie(sums, last - first, n_labelled_W, base + last)
        k = last
    _walk_untied(rows, labels_RW, reciprocal, sums, k, stop, base)


@njit(cache=True, nogil=True)
def _walk_zeros(rows, n_positive, n_rows, n_rarer, labels_RW, sums):  # type: ignore[no-untyped-def]
    """The tie run of the zeros: its positives are those that no other row has."""
    n_labelled_W = np.zeros(LANES)
    for w in range(n_rarer.shape[0]):
        n_labelled_W[w] = n_rarer[w] - sums[w]
    for index in range(n_positive, rows.shape[0]):
        for w in range(LANES):
            n_labelled_W[w] -= labels_RW[rows[index], w]
    n_zeros = n_rows - rows.shape[0]
    _close_tie(sums, n_zeros, n_labelled_W, n_positive + n_zeros)


@njit(cache=True, nogil=True)
def _score_tile(  # type: ignore[no-untyped-def]
    rows_FR, runs_FR, counts, n_positive, n_runs, labels_GRW, n_rarer_S, flipped_S, reciprocal,
    ap_positive_SF, ap_negative_SF, auroc_SF,
):  # fmt: skip
    """Both average precisions and the AUROC of every neuron of a tile; a group of labels stays in the cache."""
    n_rows = reciprocal.shape[0]
    sums = np.empty(SUMS * LANES)
    for g in range(labels_GRW.shape[0]):
        labels_RW = labels_GRW[g]
        first = g * LANES
        n_rarer = n_rarer_S[first : first + LANES]
        for i in range(counts.shape[0]):
            mine = rows_FR[i, : counts[i]]
            my_runs = runs_FR[i]
            n_zeros = n_rows - counts[i]
            sums[:] = 0
            _walk(mine, my_runs, n_runs[i], 0, n_positive[i], 0, labels_RW, reciprocal, sums)
            if n_zeros > 0:
                _walk_zeros(mine, n_positive[i], n_rows, n_rarer, labels_RW, sums)
            _walk(mine, my_runs, n_runs[i], n_positive[i], counts[i], n_zeros, labels_RW, reciprocal, sums)
            all_tied = n_zeros == n_rows or (n_runs[i] == 1 and my_runs[1] - my_runs[0] == np.uint32(n_rows))
            for w in range(n_rarer.shape[0]):
                _finish(sums, w, n_rarer[w], n_rows, all_tied, flipped_S[first + w], first + w, i,
                        ap_positive_SF, ap_negative_SF, auroc_SF)  # fmt: skip


@njit(cache=True, nogil=True)
def _finish(sums, w, n_rarer, n_rows, all_tied, flipped, s, i, ap_positive_SF, ap_negative_SF, auroc_SF):  # type: ignore[no-untyped-def]
    """From sums to scores; a constant neuron gets exactly the share of each label."""
    n_other = n_rows - n_rarer
    if all_tied:
        rarer, other = n_rarer / n_rows, n_other / n_rows
    else:
        rarer = sums[2 * LANES + w] / n_rarer
        other = (n_other - (sums[LANES + w] - sums[2 * LANES + w])) / n_other
    n_pairs = np.float64(n_rarer) * np.float64(n_other)
    rank_sum = np.float64(n_rarer) * (n_rows + 1) - sums[3 * LANES + w]
    n_ordered = np.float64(n_rarer) * n_rows - rank_sum - np.float64(n_rarer) * (n_rarer - 1) / 2
    ap_positive_SF[s, i] = other if flipped else rarer
    ap_negative_SF[s, i] = rarer if flipped else other
    auroc_SF[s, i] = (n_pairs - n_ordered if flipped else n_ordered) / n_pairs
