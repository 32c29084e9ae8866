import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modularity.data.drafts import Draft
from modularity.data.halves import capped, clusters, cut_clusters, split_halves


def draft(text: str, label: str = "0", **fields: Any) -> Draft:
    values: dict[str, Any] = {"text_pair": None, "subfunction": None, "target": None, "position": None}
    values |= {"half": None, "cluster": None, "id": text, "source": f"x:{text}"} | fields
    return Draft(text=text, label=label, **values)


def pairs(n_pairs: int) -> list[Draft]:
    """Minimal pairs: the two members carry different labels and share a cluster."""
    return [draft(f"{side} {n}", side, cluster=str(n)) for n in range(n_pairs) for side in ("good", "bad")]


def shuffled(drafts: list[Draft]) -> list[Draft]:
    return random.Random(1).sample(drafts, len(drafts))


def test_caps_hold_for_each_label_of_each_subfunction_and_ignore_the_order() -> None:
    drafts = [draft(f"t{n}", str(n % 3), subfunction="ab"[n % 2]) for n in range(120)]
    kept = capped(drafts, 7, seed=0)
    assert len(kept) == 7 * 6
    assert kept == [one for one in drafts if one in kept], "source order stays"
    assert set(capped(shuffled(drafts), 7, seed=0)) == set(kept)
    assert set(capped(drafts, 7, seed=1)) != set(kept)
    assert set(kept) < set(capped(drafts, 9, seed=0)), "a higher cap keeps what was in"
    assert capped(drafts, None, seed=0) == drafts


def test_the_cap_keeps_minimal_pairs_whole() -> None:
    kept = capped(pairs(50), 10, seed=3)
    assert len({one.cluster for one in kept}) == 10
    assert len(kept) == 20


def test_clusters_join_by_value_and_by_text_in_a_chain() -> None:
    drafts = [
        draft("a", cluster="1"),
        draft("b"),
        draft("c", cluster="2"),
        draft("a", cluster="2"),
        draft("b", text_pair="p"),
        draft("c", subfunction="other"),
    ]
    assert clusters(drafts).tolist() == [0, 1, 0, 0, 2, 0]
    assert clusters(drafts).dtype == np.int32


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(0, 15), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_without_clusters_every_stratum_is_halved(counts: list[int], seed: int) -> None:
    drafts = [draft(f"{stratum} {n}", str(stratum)) for stratum, count in enumerate(counts) for n in range(count)]
    selection_E = split_halves(drafts, clusters(drafts), seed=seed)
    for stratum, count in enumerate(counts):
        chosen = sum(bool(selection_E[i]) for i, one in enumerate(drafts) if one.label == str(stratum))
        assert abs(2 * chosen - count) <= 1


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=25), seed=st.integers(0, 99))
def test_no_cluster_is_cut_and_halves_stay_near(sizes: list[int], seed: int) -> None:
    drafts = [draft(f"{c} {n}", str(n % 2), cluster=str(c)) for c, size in enumerate(sizes) for n in range(size)]
    cluster_E = clusters(drafts)
    selection_E = split_halves(drafts, cluster_E, seed=seed)
    for cluster in range(len(sizes)):
        assert len(set(selection_E[cluster_E == cluster].tolist())) == 1
    assert abs(2 * int(selection_E.sum()) - len(drafts)) <= 2 * max(sizes)


def test_pairs_are_halved_exactly_whatever_the_order() -> None:
    drafts = pairs(40)
    selection_E = split_halves(drafts, clusters(drafts), seed=5)
    chosen = {one.id for one, selected in zip(drafts, selection_E) if selected}
    assert len(chosen) == 40
    mixed = shuffled(drafts)
    selection_E = split_halves(mixed, clusters(mixed), seed=5)
    assert {one.id for one, selected in zip(mixed, selection_E) if selected} == chosen
    assert {one.id for one, s in zip(mixed, split_halves(mixed, clusters(mixed), seed=6)) if s} != chosen


def test_odd_strata_do_not_all_lean_to_one_half() -> None:
    drafts = [draft(f"t{n}", subfunction=str(n)) for n in range(400)]
    share = split_halves(drafts, clusters(drafts), seed=0).mean()
    assert share == pytest.approx(0.5, abs=0.1)


def test_declared_halves_win_and_cut_clusters_are_found() -> None:
    drafts = [
        draft("a", half="selection", cluster="1"),
        draft("b", half="evaluation", cluster="1"),
        draft("c", half="selection"),
    ]
    assert split_halves(drafts, clusters(drafts), seed=0).tolist() == [True, False, True]
    assert cut_clusters(drafts) == {"1": (drafts[0], drafts[1])}
    assert cut_clusters(pairs(3)) == {}
