"""The shipped sample data: counts, balance, halves, spans, facts, and no surface feature that gives the label away."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modularity.data import load_functions
from modularity.data.language_functions import planted_functions
from modularity.data.sample_functions import inference_function, sample_functions
from modularity.data.sample_generation import generate_files, generate_rows
from modularity.data.sample_generation.__main__ import main
from modularity.data.sample_generation.knowledge import read_relations

SAMPLES = Path(__file__).parents[2] / "modularity" / "data" / "samples"
FILES = ("semantic", "knowledge", "task", "inference")
SUBFUNCTIONS = {
    "semantic": ("bank", "bat", "crane", "seal", "pitcher", "match", "palm", "mouse"),
    "knowledge": (
        "capital", "continent", "animal_class", "kind_of", "opposite", "book_author", "element_symbol",
    ),
    "task": ("sentiment", "acceptability", "question", "science_or_sport", "finance_or_cooking"),
    "inference": ("inference",),
}  # fmt: skip
Rows = list[dict[str, Any]]


def read(name: str) -> Rows:
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


ROWS = {name: read(name) for name in FILES}
BY_SUBFUNCTION: dict[str, Rows] = {
    subfunction: [row for row in ROWS[name] if row["subfunction"] == subfunction]
    for name in FILES
    for subfunction in SUBFUNCTIONS[name]
}
each_subfunction = pytest.mark.parametrize("rows", BY_SUBFUNCTION.values(), ids=BY_SUBFUNCTION)


def whole_text(row: dict[str, Any]) -> str:
    return f"{row['text']} {row.get('text_pair', '')}".strip()


def words(row: dict[str, Any]) -> list[str]:
    return re.findall(r"[\w'-]+", whole_text(row).lower())


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Of all pairs of a positive and a negative, the share where the positive has the larger score; ties count half."""
    difference = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_the_generator_gives_the_files_byte_for_byte() -> None:
    for name, content in generate_files().items():
        assert (SAMPLES / name).read_bytes() == content.encode(), (
            f"run python -m modularity.data.sample_generation: {name}"
        )
    planted = sorted(function.name for function in planted_functions())
    assert sorted(path.stem for path in SAMPLES.glob("*.jsonl")) == sorted([*FILES, *planted])


def test_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"], folder=tmp_path) == 1
    assert main([], folder=tmp_path) == 0
    assert main(["--check"], folder=tmp_path) == 0
    (tmp_path / "task.jsonl").write_text("")
    capsys.readouterr()
    assert main(["--check"], folder=tmp_path) == 1
    assert capsys.readouterr().err == (
        "task.jsonl is not what the generator gives; run python -m modularity.data.sample_generation\n"
    )


def test_functions_load_with_the_declared_halves() -> None:
    functions = load_functions([*sample_functions(), inference_function()])
    assert [function.name for function in functions] == list(FILES)
    assert [function.kind for function in functions] == ["semantic", "knowledge", "task", "task"]
    for function in functions:
        rows = ROWS[function.name]
        assert sorted(function.subfunctions) == sorted(SUBFUNCTIONS[function.name])
        assert [example.id for example in function.examples] == [row["id"] for row in rows]
        np.testing.assert_array_equal(function.selection_E, [row["split"] == "selection" for row in rows])
        assert function.notes == ()
    assert functions[0].examples[0].target is not None
    assert functions[3].examples[0].text_pair is not None


@each_subfunction
def test_counts_and_balance(rows: Rows) -> None:
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert sum(counts.values()) >= 200
    for half in ("selection", "evaluation"):
        assert counts[half, 0] == counts[half, 1] >= 50
    assert abs(counts["selection", 1] - counts["evaluation", 1]) <= 1


@each_subfunction
def test_halves_share_no_cluster_and_no_text(rows: Rows) -> None:
    for column in ("pair", "text"):
        halves: dict[str, set[str]] = defaultdict(set)
        for row in rows:
            halves[row["split"]].add(row[column])
        assert not halves["selection"] & halves["evaluation"]


def test_ids_and_texts_are_unique_and_clean() -> None:
    ids = [row["id"] for rows in ROWS.values() for row in rows]
    texts = [(name, whole_text(row)) for name, rows in ROWS.items() for row in rows]
    assert len(set(ids)) == len(ids)
    assert [text for text, count in Counter(texts).items() if count > 1] == []
    for _, text in texts:
        assert not re.search(r"[{}\[\]<>|~_]|\s\s|\.\.|\s[.,?]|^\s|\s$", text), text
        assert text[0] == text[0].upper(), text
        assert not re.search(r"\b[Aa] (?!one-)[aeio]|\b[Aa]n [^aeiouhAEIOU]|\b(\w+) \1\b", text), text
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 1_500_000


@pytest.mark.parametrize("row", ROWS["semantic"][::50], ids=lambda row: row["id"])
def test_ids_name_word_sense_and_frame(row: dict[str, Any]) -> None:
    assert re.fullmatch(rf"{row['pair']}-\d", row["id"])
    assert row["id"].startswith(row["subfunction"])


def test_spans_hold_the_word_and_nothing_else() -> None:
    for row in ROWS["semantic"]:
        assert row["text"][row["start"] : row["end"]].lower() == row["subfunction"], row["id"]
        assert words(row).count(row["subfunction"]) == 1, row["id"]


@pytest.mark.parametrize("name", ["semantic", "task"])
def test_fillings_of_a_frame_differ_in_two_words(name: str) -> None:
    frames: dict[tuple[str, int], Rows] = defaultdict(list)
    for row in ROWS[name]:
        frames[row["pair"], row["label"]].append(row)
    for rows in frames.values():
        for index, row in enumerate(rows):
            for other in rows[:index]:
                shared = sum((Counter(words(row)) & Counter(words(other))).values())
                assert max(len(words(row)), len(words(other))) - shared >= 2, (row["text"], other["text"])


SURFACE: dict[str, Callable[[dict[str, Any]], float]] = {
    "words": lambda row: len(words(row)),
    "characters": lambda row: len(whole_text(row)),
    "punctuation": lambda row: len(re.findall(r"[^\w\s]", whole_text(row))),
    "capitals": lambda row: sum(letter.isupper() for letter in whole_text(row)),
    "negations": lambda row: len(
        re.findall(r"\b(?:no|not|never|nothing|nobody|cannot)\b|n't", whole_text(row).lower())
    ),
    "position of the word": lambda row: row.get("start", 0),
}


@each_subfunction
@pytest.mark.parametrize("feature", SURFACE)
def test_no_surface_feature_tells_the_label(rows: Rows, feature: str) -> None:
    labels = np.array([row["label"] for row in rows])
    values = np.array([SURFACE[feature](row) for row in rows], dtype=float)
    assert 0.4 <= auroc(labels, values) <= 0.6
    for half in ("selection", "evaluation"):
        in_half = np.array([row["split"] == half for row in rows])
        assert 0.35 <= auroc(labels[in_half], values[in_half]) <= 0.65


@each_subfunction
@pytest.mark.parametrize("place", [0, -1], ids=["first word", "last word"])
@pytest.mark.parametrize("fitted_on", ["selection", "evaluation"])
def test_a_word_at_the_edge_learned_in_one_half_does_not_tell_the_label_in_the_other(
    rows: Rows, place: int, fitted_on: str
) -> None:
    seen: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row["split"] == fitted_on:
            seen[words(row)[place]].append(row["label"])
    others = [row for row in rows if row["split"] != fitted_on]
    scores = [(sum(seen[word]) + 0.5) / (len(seen[word]) + 1) for word in (words(row)[place] for row in others)]
    assert auroc(np.array([row["label"] for row in others]), np.array(scores)) <= 0.65


@pytest.mark.parametrize("name", ["sentiment", "acceptability", "question", "inference", *SUBFUNCTIONS["knowledge"]])
def test_frames_are_balanced_over_the_labels(name: str) -> None:
    counts = Counter((row["pair"], row["label"]) for row in BY_SUBFUNCTION[name])
    for pair, _ in counts:
        assert counts[pair, 0] == counts[pair, 1] > 0


def test_questions_and_statements_end_alike() -> None:
    assert all(row["text"][-1].isalpha() for row in BY_SUBFUNCTION["question"])


def test_neither_sentence_of_an_inference_tells_the_label() -> None:
    for column in ("text", "text_pair"):
        labels: dict[str, list[int]] = defaultdict(list)
        for row in BY_SUBFUNCTION["inference"]:
            labels[row[column]].append(row["label"])
        assert all(np.mean(values) == 0.5 for values in labels.values())


@pytest.mark.parametrize("relation", read_relations(), ids=lambda relation: relation.name)
def test_facts_are_consistent_and_objects_balanced(relation: Any) -> None:
    facts = [fact for block in relation.blocks for fact in block]
    subjects = Counter(subject for subject, _ in facts)
    assert [subject for subject, count in subjects.items() if count > 1] == []
    assert {template for templates in relation.templates.values() for template in templates}
    assert not set(relation.templates["selection"]) & set(relation.templates["evaluation"])
    known = {subject for subject, _ in facts}
    assert {subject for subject, _ in relation.barred} <= known, "a barred subject is misspelt"
    if relation.name == "opposite":
        words_of_facts = [word for fact in facts for word in fact]
        objects = [value for _, value in facts]
        assert [w for w, n in Counter(objects).items() if n > 1] in ([], ["answer"])
        assert not set(relation.barred) - {(s, o) for s in known for o in words_of_facts}, "a barred object is misspelt"


@pytest.mark.parametrize("name", SUBFUNCTIONS["knowledge"])
def test_no_statement_is_true_and_false_and_words_are_balanced(name: str) -> None:
    rows = BY_SUBFUNCTION[name]
    texts = {label: {row["text"] for row in rows if row["label"] == label} for label in (0, 1)}
    assert not texts[0] & texts[1]
    for half in ("selection", "evaluation"):
        bags = [Counter[str](), Counter[str]()]
        for row in rows:
            if row["split"] == half:
                bags[row["label"]].update(words(row))
        assert set((bags[0] - bags[1]) + (bags[1] - bags[0])) <= {"a", "an"}


def test_readme_counts_are_those_of_the_files() -> None:
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    table = {
        (file, subfunction): (int(examples), int(ones), int(selection), int(clusters))
        for file, subfunction, examples, ones, selection, clusters in re.findall(
            r"^\| (\w+)\.jsonl \| (\w+) \|.*?\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", text, flags=re.MULTILINE
        )
    }
    assert table == {
        (name, subfunction): (
            len(rows),
            sum(row["label"] for row in rows),
            sum(row["split"] == "selection" for row in rows),
            len({row["pair"] for row in rows}),
        )
        for name in FILES
        for subfunction in SUBFUNCTIONS[name]
        for rows in [BY_SUBFUNCTION[subfunction]]
    }


def test_rows_are_what_the_files_hold() -> None:
    generated = generate_rows()
    assert [row.as_json() for row in generated["semantic.jsonl"]] == ROWS["semantic"]
