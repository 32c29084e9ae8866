import numpy as np

from modularity.stats.ordering import order_tile
from modularity.stats.ranking_kernels import LANES, pack_labels, score_tile


def scores(values_R, labels_SR):
    tile = order_tile(np.array(values_R, np.float32)[:, None], np.arange(len(values_R)), 0, 1)
    out = [np.empty((len(labels_SR), 1)) for _ in range(3)]
    score_tile(tile, pack_labels(np.array(labels_SR, bool)), *out)
    return [a[:, 0] for a in out]


def test_packing_takes_the_rarer_label_and_fills_groups():
    labels_SR = np.zeros((LANES + 1, 5), bool)
    labels_SR[:, :2] = True
    labels_SR[-1] = ~labels_SR[-1]
    packed = pack_labels(labels_SR)
    assert packed.labels_GRW.shape == (2, 5, LANES)
    assert packed.n_rarer_S.tolist() == [2] * (LANES + 1)
    assert packed.flipped_S.tolist() == [False] * LANES + [True]
    assert packed.labels_GRW[1, :, 0].tolist() == [1, 1, 0, 0, 0]
    assert not packed.labels_GRW[1, :, 1:].any()


def test_golden_without_ties():
    # order y: 1 0 1 0; AP = 1/2 · 1 + 1/2 · 2/3; inverted: 1/2 · 1/2 + 1/2 · 2/4; pairs in order: 2 + 1 of 4
    positive, negative, auroc = scores([4, 3, 2, 1], [[1, 0, 1, 0]])
    np.testing.assert_allclose([positive[0], negative[0], auroc[0]], [5 / 6, 1 / 2, 3 / 4], rtol=1e-15)


def test_golden_with_zeros_between():
    # 2 | 0 0 0 | -1 with y: 1 | 1 0 0 | 1; AP = 1/3 + 1/3 · 2/4 + 1/3 · 3/5; inverted: 1 · 2/4
    positive, negative, auroc = scores([0, -1, 2, 0, 0], [[1, 1, 1, 0, 0]])
    np.testing.assert_allclose(
        [positive[0], negative[0], auroc[0]], [1 / 3 + 1 / 6 + 1 / 5, 1 / 2, (2 + 1 + 0) / 6], rtol=1e-15
    )


def test_one_rare_label_keeps_all_digits():
    n_rows = 100_000
    labels_SR = np.ones((1, n_rows), bool)
    labels_SR[0, 77_776] = False
    positive, negative, auroc = scores(np.arange(n_rows, 0, -1), labels_SR)
    np.testing.assert_allclose(negative[0], 1 / 77_777, rtol=1e-13)
    assert auroc[0] == 77_776 / (n_rows - 1)
    assert 0 < positive[0] < 1
