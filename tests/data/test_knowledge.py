"""Statements of facts: every fact once true and once false, in one template, with the objects of its half."""

from collections import Counter
from collections.abc import Iterator

import pytest

from modularity.data.sample_generation import knowledge
from modularity.data.sample_generation.knowledge import knowledge_rows, read_relations, swapped_objects

FACTS = [
    "## diet",
    "s: {a} {s} eats {o}",
    "e: the food of {a} {s} is {o}",
    "= animals",
    "cow, ox: grass",
    "owl: mice",
    "seal: fish",
    "! owl: fish",
]


@pytest.fixture
def few_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(name: str) -> Iterator[str]:
        assert name == "facts.txt"
        return iter(FACTS)

    monkeypatch.setattr(knowledge, "read_lines", lines)


@pytest.mark.usefixtures("few_facts")
def test_relations_are_read_with_their_templates_blocks_and_bars() -> None:
    [relation] = read_relations()
    assert relation.name == "diet"
    assert relation.templates == {"selection": ["{a} {s} eats {o}"], "evaluation": ["the food of {a} {s} is {o}"]}
    facts = [("cow", "grass"), ("ox", "grass"), ("owl", "mice"), ("seal", "fish")]
    assert relation.blocks == [facts]
    assert relation.barred == {*facts, ("owl", "fish")}


@pytest.mark.usefixtures("few_facts")
def test_statements_by_hand() -> None:
    rows = list(knowledge_rows())
    # Facts alternate between the halves: cow and owl, ox and seal. With two facts the swap has one solution.
    assert [(row.id, row.text, row.label, row.split) for row in rows] == [
        ("diet-cow-1", "A cow eats grass.", 1, "selection"),
        ("diet-cow-0", "A cow eats mice.", 0, "selection"),
        ("diet-owl-1", "An owl eats mice.", 1, "selection"),
        ("diet-owl-0", "An owl eats grass.", 0, "selection"),
        ("diet-ox-1", "The food of an ox is grass.", 1, "evaluation"),
        ("diet-ox-0", "The food of an ox is fish.", 0, "evaluation"),
        ("diet-seal-1", "The food of a seal is fish.", 1, "evaluation"),
        ("diet-seal-0", "The food of a seal is grass.", 0, "evaluation"),
    ]
    assert {(row.subfunction, row.pair) for row in rows[:2]} == {("diet", "diet-cow")}


def test_swapped_objects_are_a_permutation_without_true_or_barred_pairs() -> None:
    facts = [("hot", "cold"), ("dark", "light"), ("wet", "dry"), ("big", "small")]
    barred = {*facts, ("dark", "cold")}
    objects = swapped_objects(facts, barred)
    assert sorted(objects) == ["cold", "dry", "light", "small"]
    assert not {(subject, value) for (subject, _), value in zip(facts, objects)} & barred


def test_swapped_objects_refuses_a_block_without_a_solution() -> None:
    with pytest.raises(ValueError, match="'hot': no object is left for a false statement; add facts to its block"):
        swapped_objects([("hot", "cold")], {("hot", "cold")})


def test_shipped_facts_give_as_many_true_as_false_statements_in_each_half() -> None:
    counts = Counter((row.subfunction, row.split, row.label) for row in knowledge_rows())
    for name, half, _ in counts:
        assert counts[name, half, 0] == counts[name, half, 1] >= 50
