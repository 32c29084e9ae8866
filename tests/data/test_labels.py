import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modularity.config import validate_config
from modularity.data import FunctionConfig
from modularity.data.labels import LabelScheme, label_scheme, subfunction_labels
from modularity.data.problems import RowError
from modularity.errors import InputError

NLI = ["entailment", "neutral", "contradiction"]
CONTRASTS = {
    "neutral-vs-rest": {"positive": ["neutral"], "negative": ["entailment", "contradiction"]},
    "entailment-vs-contradiction": {"positive": [0], "negative": ["contradiction"]},
}


def scheme_of(**config: Any) -> LabelScheme:
    return label_scheme(validate_config(FunctionConfig, {"name": "demo", "source": "x.jsonl", **config}))


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "0"), (1, "1"), (True, "1"), (False, "0"), ("true", "1"), ("False", "0"), (1.0, "1"), (" 1 ", "1")],
)
def test_binary_labels_in_their_spellings(value: Any, name: str) -> None:
    assert scheme_of().read(value, "label") == name


def test_numbers_and_names_of_named_labels() -> None:
    scheme = scheme_of(label_names=["bad", "good"])
    assert [scheme.read(value, "label") for value in (0, "1", "good", 0.0)] == ["bad", "good", "good", "bad"]
    assert scheme.contrasts == {"": (frozenset({"good"}), frozenset({"bad"}))}


def test_names_from_a_file(workdir: Path) -> None:
    (workdir / "labels.json").write_text(json.dumps({"0": "bad", "1": "good"}))
    assert scheme_of(label_names="labels.json").read(1, "label") == "good"


def test_letters_as_keys_of_names() -> None:
    scheme = scheme_of(label_names={"e": "entailment", "c": "contradiction"}, labels="one_vs_rest")
    assert scheme.read("e", "label") == "entailment"


def test_a_label_outside_all_contrasts_is_known_only_by_its_name() -> None:
    contrast = {"taste": {"positive": ["good"], "negative": ["bad"]}}
    assert scheme_of(labels=contrast, label_names=["bad", "so-so", "good"]).read(1, "label") == "so-so"
    with pytest.raises(RowError, match="unknown label label='so-so'; known: good, bad"):
        scheme_of(labels=contrast).read("so-so", "label")


def test_booleans_in_contrasts_match_the_texts_of_csv() -> None:
    scheme = scheme_of(labels={"truth": {"positive": [True], "negative": [False]}})
    assert [scheme.read(value, "label") for value in (True, "True", "FALSE")] == ["true", "true", "false"]


def test_natural_language_inference_as_two_subfunctions_over_the_same_texts() -> None:
    scheme = scheme_of(labels=CONTRASTS, label_names=NLI)
    names, labels_SE = subfunction_labels(scheme, [*NLI, "neutral"], [None] * 4, default="mnli")
    assert names == tuple(CONTRASTS)
    np.testing.assert_array_equal(labels_SE, [[0, 1, 0, 1], [1, -1, 0, -1]])
    assert labels_SE.dtype == np.int8


def test_one_vs_rest_in_the_order_of_names_or_sorted() -> None:
    named, labels_SE = subfunction_labels(
        scheme_of(labels="one_vs_rest", label_names=["World", "Sports", "Art"]),
        ["Sports", "World"],
        [None] * 2,
        default="d",
    )
    assert named == ("World", "Sports")
    np.testing.assert_array_equal(labels_SE, [[0, 1], [1, 0]])
    assert subfunction_labels(scheme_of(labels="one_vs_rest"), ["b", "a", "c"], [None] * 3, default="d")[0] == (
        "a",
        "b",
        "c",
    )


def test_words_each_with_their_own_labels() -> None:
    names, labels_SE = subfunction_labels(scheme_of(), ["0", "1", "1"], ["bat", "bank", "bat"], default="senses")
    assert names == ("bank", "bat")
    np.testing.assert_array_equal(labels_SE, [[-1, 1, -1], [0, -1, 1]])


def test_words_times_contrasts() -> None:
    scheme = scheme_of(labels="one_vs_rest")
    names, _ = subfunction_labels(scheme, ["x", "y", "z"], ["bat", "bat", "bank"], default="d")
    assert names == ("bank/z", "bat/x", "bat/y")
    assert subfunction_labels(scheme_of(), ["0", "1"], [None, None], default="sst2")[0] == ("sst2",)


def test_two_labels_of_each_sub_function(load: Any) -> None:
    rows = [{"text": f"t{n}", "word": "ab"[n % 2], "label": f"{'ab'[n % 2]}%{n // 2 % 2 + 1}"} for n in range(16)]
    function = load(rows, columns={"subfunction": "word"}, labels="two")
    assert function.subfunctions == ("a", "b")
    assert function.labels_SE.tolist() == [[0, -1, 1, -1] * 4, [-1, 0, -1, 1] * 4]
    more = [*rows, {"text": "t", "word": "b", "label": "b%3"}]
    with pytest.raises(InputError, match="sub-function 'b' has the labels b%1, b%2, b%3; expected two: leave others"):
        load(more, columns={"subfunction": "word"}, labels="two")
    assert load(more, columns={"subfunction": "word"}, labels="two", subfunctions=["a"]).n_examples == 8
    with pytest.raises(InputError, match="sub-function 'demo' has the labels a%1, a%2, b%1, b%2; expected two"):
        load(rows, labels="two")
