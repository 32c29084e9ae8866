"""True and false statements: exchanged objects keep their frequency and never make a true statement false."""

from collections import Counter

import numpy as np
import pytest

from modularity.data import Triple, statements_from_triples
from modularity.errors import InputError

BORN = {"born": "[X] was born in [Y]."}


def born(*pairs: tuple[str, str]) -> list[Triple]:
    return [Triple("born", subject, place) for subject, place in pairs]


def random_triples(n: int, n_objects: int, seed: int) -> list[Triple]:
    """Subjects with one to three objects each, objects of unequal frequency."""
    generator = np.random.default_rng(seed)
    made = {
        ("born", f"subject {generator.integers(n // 2)}", f"place {int(n_objects * generator.random() ** 2)}")
        for _ in range(n)
    }
    return [Triple(*each) for each in sorted(made)]


def test_two_facts_exchange_their_objects() -> None:
    statements, left_out = statements_from_triples(born(("Ada", "London"), ("Emmy", "Erlangen")), BORN)
    assert [(s.text, s.label, s.triple, s.object) for s in statements] == [
        ("Ada was born in London.", 1, 0, "London"),
        ("Ada was born in Erlangen.", 0, 0, "Erlangen"),
        ("Emmy was born in Erlangen.", 1, 1, "Erlangen"),
        ("Emmy was born in London.", 0, 1, "London"),
    ]
    assert left_out == ()


@pytest.mark.parametrize("seed", range(5))
def test_every_object_is_as_often_false_as_true_and_no_false_one_is_true(seed: int) -> None:
    triples = random_triples(200, 12, seed)
    statements, left_out = statements_from_triples(triples, BORN, seed=seed)
    true, false = (Counter(s.object for s in statements if s.label == label) for label in (1, 0))
    assert len(left_out) <= 20, "some objects belong to more than half of the subjects"
    assert max((true - false).total(), (false - true).total()) <= 1
    facts = {(t.subject, t.object) for t in triples}
    assert all(((triples[s.triple].subject, s.object) in facts) == bool(s.label) for s in statements)
    assert len({s.text for s in statements}) == len(statements), "no false statement is made twice"
    assert [s.triple for s in statements if s.label == 1] == [s.triple for s in statements if s.label == 0]


def test_the_true_object_does_not_tell_the_false_one() -> None:
    triples = born(*((f"s{n}", f"o{n % 4}") for n in range(200)))
    statements, _ = statements_from_triples(triples, BORN)
    pairs = Counter((triples[s.triple].object, s.object) for s in statements if s.label == 0)
    assert len(pairs) == 12
    assert min(pairs.values()) >= 5, "about 17 of each pair of different objects"


def test_the_order_of_facts_does_not_matter_and_the_seed_does() -> None:
    triples = random_triples(100, 8, 3)

    def texts(rows: list[Triple], seed: int = 0) -> set[tuple[str, int]]:
        return {(s.text, s.label) for s in statements_from_triples(rows, BORN, seed=seed)[0]}

    assert texts(triples) == texts(triples[::-1])
    assert texts(triples) != texts(triples, seed=1)


def test_repeats_and_facts_without_another_object_are_left_out() -> None:
    pairs = [("a", "x"), ("a", "x"), ("b", "x"), ("c", "x"), ("d", "y")]
    statements, left_out = statements_from_triples(born(*pairs), BORN)
    assert 1 in left_out
    assert len(left_out) == 3, "of three with x one can exchange with the only y"
    assert {s.object for s in statements} == {"x", "y"}
    assert statements_from_triples(born(("a", "x"), ("b", "x")), BORN) == ((), (0, 1))
    both = born(("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"))
    assert statements_from_triples(both, BORN) == ((), (0, 1, 2, 3)), "every other object is true as well"
    assert statements_from_triples([], {}) == ((), ())


def test_relations_do_not_exchange_objects_and_names_are_taken_literally() -> None:
    triples = [
        *born(("[Y]", "x[X]"), ("b", "y")), Triple("capital", "c", "z"), Triple("capital", "d", "w"),
    ]  # fmt: skip
    statements, _ = statements_from_triples(triples, BORN | {"capital": "[Y] is the capital of [X]"})
    assert {s.text for s in statements} == {
        "[Y] was born in x[X].", "[Y] was born in y.", "b was born in y.", "b was born in x[X].",
        "z is the capital of c", "w is the capital of c", "w is the capital of d", "z is the capital of d",
    }  # fmt: skip


def test_patterns_that_are_missing_or_wrong_are_all_named() -> None:
    triples = [Triple("born", "a", "x"), Triple("died", "a", "x"), Triple("lives", "a", "x")]
    with pytest.raises(InputError) as caught:
        statements_from_triples(triples, {"born": "[X] was born.", "lives": "[X] lives in [Y]"})
    assert list(caught.value.problems) == [
        "relation 'died' has no pattern; known are born, lives: add one, or leave it out with subfunctions",
        "pattern '[X] was born.' of relation 'born': expected [X] and [Y], each once",
    ]
