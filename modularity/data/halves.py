"""Caps, clusters, and the split into a selection and an evaluation half.

Both draws order what there is by a SHA-256 of the seed and the content, so they do not depend on the order of the rows,
on ids, or on the machine; and raising a cap keeps the examples that were in before.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from modularity.data.drafts import Draft
from modularity.types import canonical_json


def capped(drafts: Sequence[Draft], cap: int | None, *, seed: int) -> list[Draft]:
    """At most `cap` examples of each original label of each value of the sub-function column, in source order.

    The examples with the smallest hash of (seed, cluster) stay, where the cluster is the declared one or else the text:
    the members of a minimal pair, which carry different labels, stay or go together.
    """
    if cap is None:
        return list(drafts)
    order = sorted(range(len(drafts)), key=lambda index: _cap_key(drafts[index], seed))
    taken: Counter[tuple[str | None, str]] = Counter()
    kept = []
    for index in order:
        stratum = (drafts[index].subfunction, drafts[index].label)
        if taken[stratum] < cap:
            taken[stratum] += 1
            kept.append(index)
    return [drafts[index] for index in sorted(kept)]


def _cap_key(draft: Draft, seed: int) -> tuple[str, str]:
    cluster = [draft.cluster] if draft.cluster is not None else list(draft.text_key)
    return _hash(seed, "cap", cluster), canonical_json(
        [draft.text_key, draft.subfunction, draft.target, draft.position]
    )


def _hash(seed: int, purpose: str, content: object) -> str:
    return hashlib.sha256(canonical_json([seed, purpose, content]).encode()).hexdigest()


def clusters(drafts: Sequence[Draft]) -> npt.NDArray[np.int32]:
    """Number of the cluster of each example: joined by an equal cluster value or by the same text, also in a chain.

    Returns
    -------
    cluster_E : int32, numbered from 0 in the order of first appearance
    """
    parent = list(range(len(drafts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[object, int] = {}
    for index, draft in enumerate(drafts):
        for key in (draft.text_key, draft.cluster):
            if key is not None:
                one, other = root(first.setdefault(key, index)), root(index)
                parent[max(one, other)] = min(one, other)
    numbers: dict[int, int] = {}
    return np.array([numbers.setdefault(root(index), len(numbers)) for index in range(len(drafts))], np.int32)


def split_halves(drafts: Sequence[Draft], cluster_E: npt.NDArray[np.int32], *, seed: int) -> npt.NDArray[np.bool_]:
    """True for the selection half: as declared, or drawn so that every stratum is halved and no cluster is cut.

    A stratum is an original label within a value of the sub-function column. Clusters go, the largest first and then by
    hash of (seed, content), to the half in which their strata are behind; without clusters every stratum is halved to
    within one example.

    Parameters
    ----------
    drafts : examples; either all or none of them declare a half
    cluster_E : their clusters
    seed : seed of the draw

    Returns
    -------
    selection_E : bool
    """
    if drafts and drafts[0].half is not None:
        return np.array([draft.half == "selection" for draft in drafts], bool)
    members: dict[int, list[int]] = {}
    for index, cluster in enumerate(cluster_E.tolist()):
        members.setdefault(cluster, []).append(index)
    keys = {cluster: min(_hash(seed, "half", drafts[i].text_key) for i in group) for cluster, group in members.items()}
    ahead: Counter[tuple[str | None, str]] = Counter()
    selection_E = np.zeros(len(drafts), bool)
    for cluster in sorted(members, key=lambda cluster: (-len(members[cluster]), keys[cluster])):
        strata = Counter((drafts[index].subfunction, drafts[index].label) for index in members[cluster])
        balance = sum(count * ahead[stratum] for stratum, count in strata.items())
        selected = balance < 0 or (balance == 0 and int(keys[cluster], 16) % 2 == 0)
        selection_E[members[cluster]] = selected
        for stratum, count in strata.items():
            ahead[stratum] += count if selected else -count
    return selection_E


def cut_clusters(drafts: Sequence[Draft]) -> dict[str, tuple[Draft, Draft]]:
    """Declared clusters with members in both declared halves, with one member of each."""
    first: dict[str, Draft] = {}
    cut: dict[str, tuple[Draft, Draft]] = {}
    for draft in drafts:
        if draft.cluster is not None and draft.half != first.setdefault(draft.cluster, draft).half:
            cut.setdefault(draft.cluster, (first[draft.cluster], draft))
    return cut
