"""Minimal pairs and inferences: both sides of every filling, one cluster for each frame."""

from collections.abc import Iterator

import pytest

from modularity.data.sample_generation import pairs
from modularity.data.sample_generation.pairs import inference_rows, pair_rows

FILES = {
    "pairs.txt": [
        "## sentiment 2",
        "- things",
        "the {soup|stew} was <good ~ bad>",
        "my {coat|hat} is <fine ~ awful>",
        "we <liked ~ hated> it",
        "## question 1",
        "<is she ~ she is> here",
    ],
    "inference.txt": ["the {cat|dog} sleeps / the {cat|dog} runs / it rests / it moves", "a / b / c / d"],
}


@pytest.fixture(autouse=True)
def few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines(name: str) -> Iterator[str]:
        return iter(FILES[name])

    monkeypatch.setattr(pairs, "read_lines", lines)


def test_both_sides_of_every_filling() -> None:
    rows = list(pair_rows())
    assert [(row.id, row.text, row.label) for row in rows[:4]] == [
        ("sentiment-00-0-1", "The soup was good.", 1),
        ("sentiment-00-0-0", "The soup was bad.", 0),
        ("sentiment-00-1-1", "The stew was good.", 1),
        ("sentiment-00-1-0", "The stew was bad.", 0),
    ]
    assert len(rows) == 3 * 2 * 2 + 2
    assert {row.subfunction for row in rows} == {"sentiment", "question"}


def test_two_frames_go_to_one_half_and_the_next_two_to_the_other() -> None:
    halves = {row.pair: row.split for row in pair_rows()}
    assert halves == {
        "sentiment-00": "selection", "sentiment-01": "selection", "sentiment-02": "evaluation",
        "question-00": "selection",
    }  # fmt: skip


def test_questions_and_statements_lose_their_marks() -> None:
    assert [row.text for row in pair_rows() if row.subfunction == "question"] == ["Is she here", "She is here"]


def test_each_premise_meets_each_hypothesis() -> None:
    rows = list(inference_rows())
    assert [(row.id, row.text, row.text_pair, row.label) for row in rows[:4]] == [
        ("inference-00-0-aa", "The cat sleeps.", "It rests.", 1),
        ("inference-00-0-ab", "The cat sleeps.", "It moves.", 0),
        ("inference-00-0-ba", "The cat runs.", "It rests.", 0),
        ("inference-00-0-bb", "The cat runs.", "It moves.", 1),
    ]
    assert [row.split for row in rows] == ["selection"] * 8 + ["evaluation"] * 8
    assert rows[4].text == "The dog sleeps."
