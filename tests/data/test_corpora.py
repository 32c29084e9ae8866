"""Texts of categories: every kind of source, duplicates counted, disjoint parts, messages for wrong input."""

import json
from pathlib import Path

import pytest

from modularity.data import LANGUAGES, FunctionConfig, HalvedTextsConfig, load_functions, load_halved_texts
from modularity.data.corpora import Corpus, CorpusConfig, load_corpora, split_texts
from modularity.errors import InputError

SHARES = {"one": 0.5, "two": 0.3, "three": 0.2}


def corpus(name: str, source: object, **changes: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"name": name, "source": source, **changes})


def test_files_folders_tables_and_lines(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "below").mkdir(parents=True)
    (folder / "b.txt").write_text("second\nline")
    (folder / "below" / "c.py").write_text("third")
    (folder / ".hidden").write_text("no")
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(2)))
    (found,) = load_corpora([corpus("all", str(folder))])
    assert found.texts == ("row 0", "row 1", "second\nline", "third")
    (lines,) = load_corpora([corpus("lines", str(folder / "*.txt"), lines=True)])
    assert lines.texts == ("second", "line")
    (both,) = load_corpora([corpus("both", [str(folder / "b.txt"), str(folder / "below" / "c.py")])])
    assert both.texts == ("second\nline", "third")


def test_repeated_blank_and_shared_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\none\n\ntwo\nboth")
    (tmp_path / "b.txt").write_text("three\nboth")
    configs = [corpus(name, str(tmp_path / f"{name}.txt"), lines=True) for name in "ab"]
    first, second = load_corpora(configs)
    assert (first.texts, second.texts) == (("one", "two"), ("three",))
    assert first.notes == (
        "a: 1 texts left out: also in another corpus", "a: 1 texts left out: blank", "a: 1 texts left out: repeated",
    )  # fmt: skip
    assert second.notes == ("b: 1 texts left out: also in another corpus",)
    assert first.fingerprint != second.fingerprint


def test_at_most_so_many_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(map(str, range(50))))
    config = corpus("a", str(tmp_path / "a.txt"), lines=True, max_texts=10)
    (found,) = load_corpora([config])
    assert len(found.texts) == 10
    assert found.notes == ("a: 40 texts left out: beyond max_texts=10",)
    assert load_corpora([config])[0].texts == found.texts
    assert load_corpora([config.replace(seed=1)])[0].texts != found.texts


def test_planted_languages_are_held_out_sentences() -> None:
    (found,) = load_corpora([corpus("both", ["planted:brackets", "planted:senses"], max_texts=60)])
    assert len(found.texts) == 60
    assert load_corpora([corpus("both", ["planted:brackets", "planted:senses"], max_texts=60)])[0] == found


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (corpus("a", "nowhere.txt"), r"corpus 'a': 'nowhere.txt' does not exist"),
        (corpus("a", "planted:latin"), rf"no such language; expected one of {LANGUAGES[0]}, "),
        (corpus("a", "sample:nothing"), r"is not a shipped sample"),
    ],
)
def test_wrong_sources_are_named(config: CorpusConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_corpora([config])


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": "x"}\n{"text": 3}\n')
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    configs = [corpus("a", str(tmp_path / name)) for name in ("rows.jsonl", "blank.txt", "bytes.txt")]
    with pytest.raises(InputError) as caught:
        load_corpora(configs)
    text = "\n".join(caught.value.problems)
    assert "3 corpora are named 'a'" in text
    assert "corpus 'a': " in text
    assert "rows.jsonl:1: no text (text=None)" in text
    assert "rows.jsonl:2: text=3 is int, expected text" in text
    assert "blank.txt holds no text" in text
    assert "is not UTF-8" in text


def test_parts_are_disjoint_and_do_not_depend_on_other_texts() -> None:
    texts = tuple(f"text {number}" for number in range(2000))
    parts = split_texts(Corpus("a", texts, ()), SHARES, seed=3)
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)
    for name, share in SHARES.items():
        assert len(parts[name]) == pytest.approx(2000 * share, rel=0.15)
    some = split_texts(Corpus("a", texts[::7], ()), SHARES, seed=3)
    assert all(set(some[name]) <= set(parts[name]) for name in SHARES)
    assert split_texts(Corpus("a", texts, ()), SHARES, seed=4) != parts
    halves = [int(text.split()[1]) < 1000 for text in parts["one"][:200]]
    assert 70 < sum(halves) < 130  # the first ones are drawn from the whole corpus


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
        "a.jsonl:2: empty text", "a.jsonl:3: body=5 is int, expected text", "nowhere.jsonl",
        "has no column 'text', but 'body': set column",
        "no text is left in the selection half",
    ):  # fmt: skip
        assert part in text
