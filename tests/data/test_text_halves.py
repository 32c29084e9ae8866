"""Texts without labels: halves, repeats, and messages that name the place."""

import json
from pathlib import Path

import pytest

from modularity.data import FunctionConfig, HalvedTextsConfig, load_functions, load_halved_texts
from modularity.errors import InputError


def write(path: Path, texts: list[object]) -> str:
    path.write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    return str(path)


def load(**values: object):
    (found,) = load_halved_texts([HalvedTextsConfig(column="body", **values)])  # type: ignore[arg-type]
    return found


def test_halves_are_equal_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(9)]
    found = load(source=write(tmp_path / "a.jsonl", texts))
    assert (found.subfunctions, found.labels_SE.shape, found.n_examples) == ((), (0, 9), 9)
    assert found.selection_E.sum() == 4
    other = load(source=write(tmp_path / "b.jsonl", texts[::-1]))
    chosen = [{e.text for e, half in zip(each.examples, each.selection_E) if half} for each in (found, other)]
    assert chosen[0] == chosen[1]
    assert found.examples[2].id.endswith("a.jsonl:3")
    assert load(source=str(tmp_path / "a.jsonl"), seed=1).selection_E.tolist() != found.selection_E.tolist()


def test_repeats_are_dropped_and_counted_and_stay_in_the_evaluation_half(tmp_path: Path) -> None:
    source = {
        "selection": write(tmp_path / "a.jsonl", ["one", "two", "one"]),
        "evaluation": write(tmp_path / "b.jsonl", ["two", "three"]),
    }
    found = load(source=source)
    assert [(e.text, bool(half)) for e, half in zip(found.examples, found.selection_E)] == [
        ("one", True), ("two", False), ("three", False),
    ]  # fmt: skip
    assert found.notes == ("texts: 2 left out: repeated texts",)


def test_equal_texts_have_the_fingerprint_of_labelled_ones(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": number % 2} for number in range(8)]
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (function,) = load_functions([FunctionConfig(name="f", source=str(path))])
    (texts,) = load_halved_texts([HalvedTextsConfig(source=str(path))])
    assert {e.fingerprint for e in texts.examples} == {e.fingerprint for e in function.examples}


def test_all_problems_are_told_with_their_place(tmp_path: Path) -> None:
    broken = write(tmp_path / "a.jsonl", ["one", "", 5])
    with pytest.raises(InputError) as refused:
        load_halved_texts(
            [
                HalvedTextsConfig(name="a", source=broken, column="body"),
                HalvedTextsConfig(name="b", source=str(tmp_path / "nowhere.jsonl")),
                HalvedTextsConfig(name="c", source=write(tmp_path / "c.jsonl", ["one"])),
                HalvedTextsConfig(name="d", source=write(tmp_path / "d.jsonl", ["one"]), column="body"),
            ]
        )
    text = str(refused.value)
    for part in (
        "a.jsonl:2: empty text", "a.jsonl:3: body=5 is int, expected text", "nowhere.jsonl", "has no column 'text'",
        "known are body", "no text is left in the selection half",
    ):  # fmt: skip
        assert part in text
