"""Functions in parts: sub-functions with sources, columns, templates and labels of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from modularity.config import validate_config
from modularity.data import FunctionConfig, FunctionData
from modularity.errors import InputError

Load = Callable[..., FunctionData]
NLI = {
    "columns": {"text": "premise", "text_pair": "hypothesis"},
    "label_names": ["entailment", "neutral", "contradiction"],
    "labels": {
        "neutral": {"positive": ["neutral"], "negative": ["entailment", "contradiction"]},
        "entailment": {"positive": ["entailment"], "negative": ["contradiction"]},
    },
    "template": "nli {text} / {text_pair}",
}


def sources(write_jsonl: Callable[..., str]) -> dict[str, Any]:
    mood = [{"text": f"mood {n}", "label": n % 2, "idx": n} for n in range(8)]
    pairs = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 3, "idx": n} for n in range(12)]
    return {
        "mood": {"source": write_jsonl(mood, "rows.jsonl")},
        "nli": {"source": write_jsonl(pairs, "pairs.jsonl"), **NLI},
    }


def test_parts_with_columns_and_labels_of_their_own(load: Load, write_jsonl: Callable[..., str]) -> None:
    function = load(parts=sources(write_jsonl))
    assert function.subfunctions == ("mood", "nli/neutral", "nli/entailment")
    assert [example.id for example in function.examples[7:9]] == ["mood/rows.jsonl:8", "nli/pairs.jsonl:1"]
    assert function.examples[8].text == "nli p0 / h0"
    np.testing.assert_array_equal(function.labels_SE[0], [0, 1] * 4 + [-1] * 12)
    np.testing.assert_array_equal(function.labels_SE[1], [-1] * 8 + [0, 1, 0] * 4)
    np.testing.assert_array_equal(function.labels_SE[2], [-1] * 8 + [1, -1, 0] * 4)


def test_ids_and_clusters_of_parts_do_not_meet(load: Load, write_jsonl: Callable[..., str]) -> None:
    parts = sources(write_jsonl)
    parts["mood"]["columns"] = {"id": "idx", "cluster": "idx"}
    parts["nli"]["columns"] = {**parts["nli"]["columns"], "id": "idx", "cluster": "idx"}
    function = load(parts=parts)
    assert len(set(function.cluster_E.tolist())) == function.n_examples == 20


def test_caps_count_within_a_part_and_selected_parts_are_read_alone(
    load: Load, write_jsonl: Callable[..., str]
) -> None:
    function = load(parts=sources(write_jsonl), cap_per_label=3, min_per_label=1)
    assert function.notes == ("demo: 5 left out: cap of 3 per label (mood 2, nli 3)",)
    alone = load(parts=sources(write_jsonl), subfunctions=["mood"])
    assert (alone.subfunctions, alone.n_examples) == (("mood",), 8)


def test_a_part_may_have_a_sub_function_column(load: Load, write_jsonl: Callable[..., str]) -> None:
    parts = sources(write_jsonl)
    rows = [{"text": f"word {n}", "label": n % 2, "word": "ab"[n // 4 % 2]} for n in range(16)]
    parts["senses"] = {"source": write_jsonl(rows, "senses.jsonl"), "columns": {"subfunction": "word"}}
    assert load(parts=parts).subfunctions == ("mood", "nli/neutral", "nli/entailment", "senses/a", "senses/b")


def test_halves_are_declared_in_all_parts_or_in_none(load: Load, write_jsonl: Callable[..., str]) -> None:
    parts = sources(write_jsonl)
    parts["mood"]["source"] = {"selection": "rows.jsonl", "evaluation": "pairs.jsonl"}
    with pytest.raises(InputError, match=r"parts \['mood'\] declare halves and the others do not"):
        load(parts=parts)


def test_label_words_belong_to_sub_functions_and_identify_no_data(load: Load, write_jsonl: Callable[..., str]) -> None:
    parts = sources(write_jsonl)
    words = {"mood": ["good", "bad"], "nli/entailment": ["yes", "no"]}
    assert load(parts=parts, label_words=words).fingerprint == load(parts=parts).fingerprint
    with pytest.raises(InputError, match="no sub-function 'nli'; known are mood, nli/neutral, nli/entailment"):
        load(parts=parts, label_words={"nli": ["yes", "no"]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "source is missing; name a file, a glob or a URI, or declare parts that have sources"),
        ({"parts": {"a": {}}}, "parts.a: source is missing"),
        ({"source": "a.jsonl", "parts": {"a": {"source": "a.jsonl"}}}, "source is declared beside parts; move it into"),
        (
            {"parts": {"a": {"source": "a.jsonl"}}, "subfunctions": ["b"]},
            r"subfunctions \['b'\] are no parts; known: a",
        ),
        (
            {"parts": {"a": {"source": "a.jsonl"}, "b": {"source": "b.jsonl", "columns": {"text_pair": "two"}}}},
            r"parts \['b'\] have a second segment and the others have none; give each a template",
        ),
        ({"parts": {"a": {"source": "a.jsonl", "template": "{x}"}}}, "parts.a: template='{x}' does not use {text}"),
        (
            {"source": "a.jsonl", "asked_template": "{x}"},
            "asked_template='{x}' does not use {text}",
        ),
        ({"parts": {"a": {"source": "a"}}, "pooling": {"kind": "span"}}, 'parts.a: pooling kind "span" needs'),
        ({"parts": {"a": {"sauce": "a"}}}, r"parts\.a\.sauce: unknown key"),
        ({"source": "a", "label_words": {"a": ["x", "x"]}}, "label_words of 'a' are 'x' twice"),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate_config(FunctionConfig, {"name": "demo", **changes})
