"""True and false statements from triples: each fact in words, once with its object and once with another's.

The false object is one of the relation's other objects: within a relation objects are exchanged between subjects, so
each object is as often false as true and the object alone says nothing about the label. An object that a subject has in
any triple is never false for it. Source of the templates: ParaRel, Elazar et al. 2021, arXiv 2102.01017; of the data
that they are for: T-REx in LAMA, Petroni et al. 2019, arXiv 1909.01066.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modularity.errors import InputError
from modularity.types import canonical_json

SUBJECT, OBJECT = "[X]", "[Y]"
MIXING_TURNS = 8
"""Random exchanges of each triple, after which its false object says next to nothing about the true one."""


@dataclass(frozen=True)
class Triple:
    """A fact."""

    relation: str
    subject: str
    object: str


@dataclass(frozen=True)
class Statement:
    """A sentence that says that a fact holds, or another object of its relation in place of the true one."""

    text: str
    label: int
    """1 true, 0 false."""
    triple: int
    """Index of the triple whose subject it is about."""
    object: str
    """The object that it names."""


def statements_from_triples(
    triples: Sequence[Triple], patterns: Mapping[str, str], *, seed: int = 0
) -> tuple[tuple[Statement, ...], tuple[int, ...]]:
    """Two statements of each triple, true and false.

    The draw orders triples by a SHA-256 of seed and content: it does not depend on the order of rows.

    Parameters
    ----------
    triples : the facts; repeated ones count once
    patterns : by relation, a text with one `[X]` for the subject and one `[Y]` for the object
    seed : seed of the exchange of objects

    Returns
    -------
    statements : in the order of the triples, the true one before the false one
    left_out : indices of triples without statements: repeats; those of an object beyond what other subjects can take,
        as they have it themselves or are fewer; and those for whose subject no other object is left

    Raises
    ------
    InputError
        A relation has no pattern, or a pattern lacks a place; all are listed.
    """
    check_patterns(patterns, {triple.relation for triple in triples})
    known: dict[str, list[int]] = defaultdict(list)
    seen: set[Triple] = set()
    left_out: list[int] = []
    for index, triple in enumerate(triples):
        if triple in seen:
            left_out.append(index)
        else:
            seen.add(triple)
            known[triple.relation].append(index)
    false_objects: dict[int, str] = {}
    for members in known.values():
        exchanged = _exchange(members, triples, seen, seed)
        left_out += [index for index in members if index not in exchanged]
        false_objects |= exchanged
    statements = [
        Statement(_filled(patterns[triples[index].relation], triples[index].subject, name), label, index, name)
        for index in sorted(false_objects)
        for label, name in ((1, triples[index].object), (0, false_objects[index]))
    ]
    return tuple(statements), tuple(sorted(left_out))


def check_patterns(patterns: Mapping[str, str], relations: set[str]) -> None:
    """Refuse relations without a pattern, and patterns without exactly one place for subject and object."""
    problems = [
        f"relation {name!r} has no pattern; known are {', '.join(sorted(patterns)) or 'none'}: add one, or leave it "
        "out with subfunctions"
        for name in sorted(relations - patterns.keys())
    ]
    problems += [
        f"pattern {patterns[name]!r} of relation {name!r}: expected {SUBJECT} and {OBJECT}, each once"
        for name in sorted(relations & patterns.keys())
        if patterns[name].count(SUBJECT) != 1 or patterns[name].count(OBJECT) != 1
    ]
    if problems:
        raise InputError(problems)


def _filled(pattern: str, subject: str, name: str) -> str:
    before, between, after = pattern.replace(OBJECT, SUBJECT).split(SUBJECT)
    first, second = (subject, name) if pattern.index(SUBJECT) < pattern.index(OBJECT) else (name, subject)
    return f"{before}{first}{between}{second}{after}"


def _exchange(members: Sequence[int], triples: Sequence[Triple], true: set[Triple], seed: int) -> dict[int, str]:
    """For each triple of one relation the object of another one, each object handed on once; those left out lack."""
    order = sorted(members, key=lambda index: _rank(triples[index], seed))
    order = _exchangeable(order, triples)
    groups: dict[str, list[int]] = defaultdict(list)
    for index in order:
        groups[triples[index].object].append(index)
    line = [index for group in groups.values() for index in group]
    shift = max((len(group) for group in groups.values()), default=0)
    given = {index: triples[line[(place + shift) % len(line)]].object for place, index in enumerate(line)}
    taken = Counter((triples[index].subject, name) for index, name in given.items())

    def fits(index: int, name: str) -> bool:
        """Whether no fact has this object, nor another false statement about the same subject."""
        subject = triples[index].subject
        others = taken[subject, name] - (given[index] == name)
        return others == 0 and Triple(triples[index].relation, subject, name) not in true

    def gives(index: int, name: str) -> None:
        taken[triples[index].subject, given[index]] -= 1
        taken[triples[index].subject, name] += 1
        given[index] = name

    def swaps(index: int, other: int) -> bool:
        one, another = given[index], given[other]
        if not (fits(index, another) and fits(other, one)):
            return False
        gives(index, another)
        gives(other, one)
        return True

    for turn in range(MIXING_TURNS):  # the shift hands whole groups on
        for index in order:
            swaps(index, order[int(_rank(triples[index], seed, f"partner {turn}"), 16) % len(order)])
        for index in order:
            if not fits(index, given[index]):
                any(swaps(index, other) for other in order)
    exchanged = {}
    for index in order:
        if fits(index, given[index]):
            exchanged[index] = given[index]
        else:
            taken[triples[index].subject, given[index]] -= 1
    return exchanged


def _exchangeable(order: list[int], triples: Sequence[Triple]) -> list[int]:
    """Without the last triples of objects that have more than others can take.

    An object can be false for the subjects that have no fact with it, once for each, and for at most half of the
    triples.
    """
    having: dict[str, set[str]] = defaultdict(set)
    for index in order:
        having[triples[index].object].add(triples[index].subject)
    n_subjects = len({triples[index].subject for index in order})
    while True:
        counts = Counter(triples[index].object for index in order)
        room = {name: min(n_subjects - len(having[name]), len(order) - count) for name, count in counts.items()}
        kept, seen = [], Counter[str]()
        for index in order:
            name = triples[index].object
            seen[name] += 1
            if seen[name] <= room[name]:
                kept.append(index)
        if len(kept) == len(order):
            return kept
        order = kept


def _rank(triple: Triple, seed: int, purpose: str = "order") -> str:
    content = canonical_json([seed, purpose, triple.relation, triple.subject, triple.object])
    return hashlib.sha256(content.encode()).hexdigest()
