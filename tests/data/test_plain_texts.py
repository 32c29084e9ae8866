"""Texts from rows, plain files and folders; everything that is wrong, at once."""

from pathlib import Path

import pytest

from modularity.data.plain_texts import PlainText, TextsConfig, read_texts, texts_fingerprint
from modularity.errors import InputError


def test_rows_have_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "kind": "x"}\n{"body": "two", "kind": "y"}\n')
    texts = read_texts(TextsConfig(source=str(path), text="body", category="kind"))
    assert [(t.text, t.category, t.id.rpartition(":")[2]) for t in texts] == [("one", "x", "1"), ("two", "y", "2")]


def test_folders_give_categories(tmp_path: Path) -> None:
    for name in ("news/a.txt", "news/b.txt", "code/c.py", "code/picture.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    texts = read_texts(TextsConfig(source=str(tmp_path), per_category=1))
    assert [(t.category, t.text) for t in texts] == [("code", "text of code/c.py"), ("news", "text of news/a.txt")]


def test_samples_are_texts() -> None:
    texts = read_texts(TextsConfig(source="sample:task", category="subfunction", id="id", per_category=2))
    assert len({text.category for text in texts}) * 2 == len(texts)


def test_all_problems_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": "x"}\n{"text": " ", "id": "x"}\n{"text": 3, "id": "z"}\n')
    (tmp_path / "b.jsonl").write_text('{"body": "one"}\n')
    (tmp_path / "empty").mkdir()
    sources = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "absent.txt", "empty")]
    with pytest.raises(InputError) as caught:
        read_texts(TextsConfig(source=tuple(sources), id="id"))
    message = str(caught.value)
    for part in ("no column 'text', 'id'", "two texts are named 'x'", "'x' is empty", "text=3 is no text",
                 "absent.txt' does not exist", "holds no texts"):  # fmt: skip
        assert part in message


def test_the_fingerprint_is_of_the_content() -> None:
    assert texts_fingerprint((PlainText("a", "b"),)) != texts_fingerprint((PlainText("a", "c"),))
