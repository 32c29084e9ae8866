"""Texts in categories from a folder, from rows, and as shipped; every problem is listed."""

import json
from collections import Counter
from pathlib import Path

import pytest

from modularity.config import validate_config
from modularity.data import PlainTextsConfig, TextsConfig, load_plain_texts, load_texts
from modularity.data.texts import positions_of
from modularity.errors import InputError

SAMPLES = Path(__file__).parents[2] / "modularity" / "data" / "samples"


def folder(path: Path, **categories: list[str]) -> Path:
    for category, texts in categories.items():
        (path / category).mkdir(parents=True)
        for index, text in enumerate(texts):
            (path / category / f"{index}.txt").write_text(text, encoding="utf-8")
    return path


def problems(**values: object) -> tuple[str, ...]:
    with pytest.raises(InputError) as refused:
        load_texts(TextsConfig(**values))  # type: ignore[arg-type]
    return refused.value.problems


def test_positions_are_those_of_a_slice() -> None:
    assert positions_of("475:512:4") == (475, 479, 483, 487, 491, 495, 499, 503, 507, 511)
    assert positions_of("-4:0") == (-4, -3, -2, -1)


@pytest.mark.parametrize("text", ["475", "a:b", "5:5", "1:9:0", "9:1", "1:2:3:4", ""])
def test_other_forms_of_positions_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="positions="):
        positions_of(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 100}, "lie outside of texts of length=100"),
        ({"positions": [1, -511]}, "name a token twice"),
        ({"positions": "x"}, "expected start:stop"),
        ({"positions": 66}, "YAML reads an unquoted 1:6 as 66: quote it"),
        ({"categories": ["a", "a"]}, "name a category twice"),
    ],
)
def test_configs_that_contradict_themselves(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate_config(TextsConfig, values)


def test_a_folder_of_folders_in_the_order_of_names(tmp_path: Path) -> None:
    source = folder(tmp_path, prose=["a b", "c d"], code=["x = 1", "y = 2"])
    (source / ".hidden").mkdir()
    found = load_texts(TextsConfig(source=str(source)))
    assert [(text.id, text.category) for text in found] == [
        ("code/0.txt", "code"), ("code/1.txt", "code"), ("prose/0.txt", "prose"), ("prose/1.txt", "prose"),
    ]  # fmt: skip
    chosen = load_texts(TextsConfig(source=str(source), categories=("prose", "code")))
    assert [text.text for text in chosen] == ["a b", "c d", "x = 1", "y = 2"]


def test_rows_of_a_file_keep_their_places(tmp_path: Path) -> None:
    rows = [{"body": f"text {i}", "topic": "ab"[i % 2], "name": f"n{i}"} for i in range(4)]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"text_column": "body", "category_column": "topic"}
    found = load_texts(TextsConfig(source=str(path), **columns))
    assert [text.id.rpartition(":")[2] for text in found] == ["1", "3", "2", "4"]
    named = load_texts(TextsConfig(source=str(path), id_column="name", **columns))
    assert [text.id for text in named] == ["n0", "n2", "n1", "n3"]
    assert "text_column" in " ".join(problems(source=str(path)))


def test_every_problem_of_a_folder_is_listed(tmp_path: Path) -> None:
    source = folder(tmp_path, one=["a", ""], two=["same", "same", "b"])
    (source / "loose.txt").write_text("x")
    (source / "two" / "deeper").mkdir()
    (source / "two" / "deeper" / "c.txt").write_text("c")
    (source / "two" / "latin.txt").write_bytes(b"caf\xe9")
    found = "\n".join(problems(source=str(source), categories=("one", "two", "three")))
    for part in (
        "categories ['three'] are not in", "one/1.txt is empty", "loose.txt stands in no category",
        "deeper is a folder in a folder", "latin.txt:1: byte 0xe9 is not UTF-8", "has the same text as",
        "category 'one' has 1 text",
    ):  # fmt: skip
        assert part in found


def test_missing_places_and_bad_rows(tmp_path: Path) -> None:
    assert "does not exist" in problems(source=str(tmp_path / "nowhere"))[0]
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "", "category": "a"}\n{"text": "b", "category": null}\n')
    assert [line.partition(": ")[2] for line in problems(source=str(path))[:2]] == [
        "empty text (text=''); remove the row or fill it in", "no category (category=None); expected a name",
    ]  # fmt: skip
    assert "expected two or more" in " ".join(problems(source=str(folder(tmp_path / "one", only=["a", "b"]))))


def test_the_shipped_texts_are_balanced_long_and_described() -> None:
    found = load_texts(TextsConfig())
    assert Counter(text.category for text in found) == {"code": 5, "news": 5, "papers": 5}
    for text in found:
        assert len(text.text) > 2300, text.id
        assert text.category == "code" or 450 < len(text.text.split()) < 600
        assert not any(line.rstrip() != line for line in text.text.splitlines())
    readme = (SAMPLES / "README.md").read_text()
    assert all(text.id.partition("/")[2] in readme for text in found)


def test_single_texts_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "kind": "x"}\n{"body": "two", "kind": "y"}\n')
    texts = load_plain_texts(PlainTextsConfig(source=str(path), text="body", category="kind"))
    assert [(t.text, t.category, t.id.rpartition(":")[2]) for t in texts] == [("one", "x", "1"), ("two", "y", "2")]


def test_folders_give_the_categories_of_single_texts(tmp_path: Path) -> None:
    for name in ("news/a.txt", "news/b.txt", "code/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    texts = load_plain_texts(PlainTextsConfig(source=str(tmp_path), per_category=1))
    assert [(t.category, t.text) for t in texts] == [("code", "text of code/c.py"), ("news", "text of news/a.txt")]


def test_samples_are_texts() -> None:
    texts = load_plain_texts(PlainTextsConfig(source="sample:task", category="subfunction", id="id", per_category=2))
    assert len({text.category for text in texts}) * 2 == len(texts)


def test_all_problems_of_single_texts_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one", "id": "x"}\n{"text": " ", "id": "y"}\n{"text": 3, "id": "z"}\n{"text": "two", "id": "x"}\n'
    )
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "absent.txt", "empty")]
    with pytest.raises(InputError) as caught:
        load_plain_texts(PlainTextsConfig(source=tuple(sources), id="id"))
    message = str(caught.value)
    for part in ("b.jsonl has no column 'text', but 'body': set texts.text", "a.jsonl:2: empty",
                 "id 'x' is used by 2 texts",
                 "a.jsonl:3: text=3 is int, expected text",
                 "absent.txt' does not exist", "empty' holds no files"):  # fmt: skip
        assert part in message
