"""Knowledge examples: true statements, and false ones made by swapping the objects of the facts of one half.

Every fact gives one true and one false statement in the same template. The false objects are a permutation of the true
ones, so that label and object are independent; the halves have other facts and other templates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from modularity.data.sample_generation.frames import half_of, read_lines, sentence, stable_rank
from modularity.data.sample_generation.row import Row

HALVES = ("selection", "evaluation")


@dataclass
class Relation:
    """One relation as `facts.txt` declares it."""

    name: str
    templates: dict[str, list[str]] = field(default_factory=lambda: {half: [] for half in HALVES})
    blocks: list[list[tuple[str, str]]] = field(default_factory=list)
    """Facts (subject, object) in blocks; objects are swapped within a block."""
    barred: set[tuple[str, str]] = field(default_factory=set)
    """Pairs that must not stand as false statements."""


def read_relations() -> list[Relation]:
    """Relations of `facts.txt`."""
    relations: list[Relation] = []
    for line in read_lines("facts.txt"):
        if line.startswith("## "):
            relations.append(Relation(line[3:]))
        elif line.startswith(("s: ", "e: ")):
            relations[-1].templates["selection" if line[0] == "s" else "evaluation"].append(line[3:])
        elif line.startswith("= "):
            relations[-1].blocks.append([])
        else:
            subjects, values = line.removeprefix("! ").split(": ")
            pairs = [(subject, value) for subject in subjects.split(", ") for value in values.split(", ")]
            relations[-1].barred.update(pairs)
            if not line.startswith("! "):
                relations[-1].blocks[-1].extend(pairs)
    return relations


def knowledge_rows() -> Iterator[Row]:
    """Rows of all relations, the true statement of a fact before its false one."""
    for relation in read_relations():
        for half in HALVES:
            for block in relation.blocks:
                facts = [fact for index, fact in enumerate(block) if half_of(index) == half]
                yield from _statements(relation, half, facts, swapped_objects(facts, relation.barred))


def swapped_objects(facts: Sequence[tuple[str, str]], barred: set[tuple[str, str]]) -> list[str]:
    """A permutation of the objects in which no fact keeps an object that is true of it or barred.

    Starts from an order by hash and exchanges the object of every conflicting fact with the first one that solves it.
    """
    objects = [value for _, value in sorted(facts, key=lambda fact: stable_rank("swap", *fact))]
    for index, (subject, _) in enumerate(facts):
        if (subject, objects[index]) not in barred:
            continue
        for other, (other_subject, _) in enumerate(facts):
            fits = (subject, objects[other]) not in barred and (other_subject, objects[index]) not in barred
            if fits:
                objects[index], objects[other] = objects[other], objects[index]
                break
        else:
            raise ValueError(f"{subject!r}: no object is left for a false statement; add facts to its block")
    return objects


def _statements(
    relation: Relation, half: str, facts: Sequence[tuple[str, str]], false_objects: Sequence[str]
) -> Iterator[Row]:
    for (subject, true_object), false_object in zip(facts, false_objects, strict=True):
        cluster = f"{relation.name}-{subject}".lower().replace(" ", "-")
        templates = relation.templates[half]
        template = templates[stable_rank(relation.name, subject) % len(templates)]
        for label, value in ((1, true_object), (0, false_object)):
            text = template.format(s=subject, o=value, a=_article(subject), ao=_article(value))
            yield Row(f"{cluster}-{label}", sentence(text), relation.name, label, cluster, half)


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"
