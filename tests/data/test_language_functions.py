"""The planted functions: read as declared, balanced, minimal pairs in one half, the shipped files as generated."""

import json
from pathlib import Path

import numpy as np
import pytest

from modularity.data import load_functions
from modularity.data.language_functions import (
    planted_functions,
    planted_label_words,
    planted_rows,
    write_planted_functions,
)
from modularity.data.language_words import LANGUAGES, SENSES
from modularity.data.languages import keeps_rule
from modularity.errors import InputError

SAMPLES = Path(__file__).parents[2] / "modularity" / "data" / "samples"


def test_the_generator_gives_the_shipped_files(tmp_path: Path) -> None:
    write_planted_functions(tmp_path)
    for path in tmp_path.iterdir():
        assert (SAMPLES / path.name).read_bytes() == path.read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


def test_all_functions_load_and_are_balanced() -> None:
    functions = {function.name: function for function in load_functions(planted_functions())}
    assert {function.kind for function in functions.values()} == {"semantic", "knowledge", "task"}
    assert functions["planted_senses"].subfunctions == tuple(sorted(SENSES))
    assert functions["planted_relations"].subfunctions == ("animal", "fruit", "home")
    assert functions["planted_rules"].subfunctions == ("agreement", "brackets", "counting", "senses")
    assert functions["planted_languages"].subfunctions == LANGUAGES
    for name, function in functions.items():
        positive = (function.labels_SE == 1).sum(axis=1) / (function.labels_SE >= 0).sum(axis=1)
        assert np.allclose(positive, 0.2 if name == "planted_languages" else 0.5)
        assert abs(function.selection_E.mean() - 0.5) < 0.02
        halves = [set(function.cluster_E[function.selection_E == half].tolist()) for half in (True, False)]
        assert not halves[0] & halves[1]


def test_labels_are_the_answers() -> None:
    rows = planted_rows(n_pairs=20)
    for row in rows["planted_relations"]:
        assert keeps_rule("relations", row["text"].removesuffix(" ?")) == bool(row["label"])
    for row in rows["planted_rules"]:
        assert keeps_rule(row["subfunction"], row["text"].removesuffix(" ?")) == bool(row["label"])
    for row in rows["planted_senses"]:
        word, topics = row["subfunction"], list(SENSES[row["subfunction"]])
        assert row["text"][row["start"] : row["end"]] == word
        follower = SENSES[word][topics[0] if row["label"] else topics[1]]
        assert keeps_rule("senses", f"{row['text']} {follower}")
    for row in rows["planted_languages"]:
        assert keeps_rule(row["label"], row["text"])


def test_a_pair_differs_in_what_is_asked_only() -> None:
    for name, n_words in (("planted_relations", 1), ("planted_rules", 1), ("planted_senses", 2)):
        pairs: dict[str, list[list[str]]] = {}
        for row in planted_rows(n_pairs=10)[name]:
            pairs.setdefault(row["pair"], []).append(row["text"].split())
        assert all(sum(a != b for a, b in zip(*pair)) == n_words for pair in pairs.values())


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    configs = write_planted_functions(tmp_path, n_pairs=6, seed=1)
    assert [function.n_examples for function in load_functions(configs)] == [72, 36, 48, 30]
    row = json.loads((tmp_path / "planted_rules.jsonl").read_text().splitlines()[0])
    assert set(row) == {"id", "text", "subfunction", "label", "pair"}


def test_too_few_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="n_pairs=3: expected 4 or more"):
        planted_rows(n_pairs=3)


def test_label_words_are_for_sub_functions_whose_texts_ask() -> None:
    words = planted_label_words()
    texts = {
        f"{function}/{row['subfunction']}": row["text"]
        for function, rows in planted_rows(n_pairs=4).items()
        for row in rows
        if "subfunction" in row
    }
    assert set(words) == {name for name, text in texts.items() if text.endswith("?")}
    assert set(words.values()) == {("yes", "no")}
