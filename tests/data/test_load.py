import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from modularity.data import FunctionData, Pooling

Load = Callable[..., FunctionData]
NLI = ["entailment", "neutral", "contradiction"]
CONTRASTS = {
    "neutral-vs-rest": {"positive": ["neutral"], "negative": ["entailment", "contradiction"]},
    "entailment-vs-contradiction": {"positive": ["entailment"], "negative": ["contradiction"]},
}


def balanced(n_per_label: int = 4, **extra: Any) -> list[dict[str, Any]]:
    """Rows with texts of their own and labels 0 and 1 in turn."""
    return [{"text": f"text number {n}", "label": n % 2, **extra} for n in range(2 * n_per_label)]


def test_a_plain_binary_function(load: Load) -> None:
    function = load(balanced(6))
    assert function.subfunctions == ("demo",)
    np.testing.assert_array_equal(function.labels_SE, [[0, 1] * 6])
    assert [example.id for example in function.examples[:2]] == ["rows.jsonl:1", "rows.jsonl:2"]
    counts = [int(function.selection_E[function.labels_SE[0] == label].sum()) for label in (0, 1)]
    assert counts == [3, 3]
    assert function.cluster_E.tolist() == list(range(12))
    assert (function.labels_SE.dtype, function.selection_E.dtype, function.cluster_E.dtype) == (np.int8, bool, np.int32)
    assert function.notes == ()


def test_natural_language_inference_as_in_card_a0(load: Load) -> None:
    rows = [{"premise": f"p{n}", "hypothesis": f"h{n}", "label": n % 3} for n in range(60)]
    function = load(
        rows,
        columns={"text": "premise", "text_pair": "hypothesis"},
        label_names=NLI,
        labels=CONTRASTS,
        template="mnli hypothesis: {text_pair} premise: {text}",
        cap_per_label=10,
        kind="task",
    )
    assert function.subfunctions == tuple(CONTRASTS)
    assert function.labels_SE.shape == (2, 30)
    assert [(row == value).sum() for row in function.labels_SE for value in (1, 0, -1)] == [10, 20, 0, 10, 10, 10]
    assert function.examples[0].text.startswith("mnli hypothesis: h")
    assert function.examples[0].text_pair is None
    assert function.notes == ("demo: 30 left out: cap of 10 per label",)
    for name in (0, 1):
        for label in (0, 1):
            half = function.selection_E[function.labels_SE[name] == label]
            assert half.sum() * 2 == len(half)


def test_declared_halves_by_source_and_by_column(load: Load, write_jsonl: Callable[..., str]) -> None:
    rows = balanced(4)
    one, two = write_jsonl(rows[:4], "train.jsonl"), write_jsonl(rows[4:], "dev.jsonl")
    by_source = load(source={"selection": one, "evaluation": two})
    by_column = load(
        [{**row, "split": "train" if n < 4 else "dev"} for n, row in enumerate(rows)],
        columns={"split": "split"},
        splits={"train": "selection", "dev": "evaluation"},
    )
    assert by_source.selection_E.tolist() == by_column.selection_E.tolist() == [True] * 4 + [False] * 4


def test_dropped_duplicates_are_noted(load: Load) -> None:
    rows = [*balanced(5), {"text": "text number 0", "label": 0}, {"text": "text number 1", "label": 0}]
    function = load(rows, duplicates="drop")
    assert function.n_examples == 9
    assert function.notes == ("demo: 2 left out: contradictory copies", "demo: 1 left out: repeated examples")


def test_notes_say_which_sub_functions_lost_examples(load: Load) -> None:
    rows = [{**row, "word": word} for word, n in (("bat", 7), ("seal", 5)) for row in balanced(n)]
    rows += [{"text": "text number 0", "label": 0, "word": "seal"}]
    function = load(rows, columns={"subfunction": "word"}, cap_per_label=4, duplicates="drop")
    assert function.notes == (
        "demo: 8 left out: cap of 4 per label (bat 6, seal 2)",
        "demo: 1 left out: repeated examples (seal 1)",
    )


def test_labels_outside_all_contrasts_are_left_out_and_noted(load: Load) -> None:
    rows = [{"text": f"t{n}", "label": n % 3} for n in range(24)]
    taste = {"taste": {"positive": ["good"], "negative": ["bad"]}}
    function = load(rows, label_names=["bad", "so-so", "good"], labels=taste)
    assert function.n_examples == 16
    assert function.notes == ("demo: 8 left out: label 'so-so' is in no sub-function",)
    assert (function.labels_SE >= 0).all()


def test_minimal_pairs_stay_together(load: Load) -> None:
    rows = [
        {"text": f"{side} {n}", "label": int(side == "good"), "pair": n} for n in range(20) for side in ("good", "bad")
    ]
    function = load(rows, columns={"cluster": "pair"}, cap_per_label=8)
    assert function.n_examples == 16
    for cluster in range(8):
        members = function.cluster_E == cluster
        assert members.sum() == 2
        assert len(set(function.selection_E[members].tolist())) == 1


def test_one_text_in_two_subfunctions_is_one_cluster(load: Load) -> None:
    rows = [{"text": f"t{n}", "label": n % 2, "word": word} for n in range(8) for word in ("bat", "bank")]
    function = load(rows, columns={"subfunction": "word"})
    assert function.cluster_E.tolist() == [n // 2 for n in range(16)]
    assert function.subfunctions == ("bank", "bat")


def test_fingerprints_follow_what_results_depend_on(load: Load, write_jsonl: Callable[..., str]) -> None:
    rows: list[dict[str, Any]] = balanced(4)
    base = load(rows)
    assert (
        base.examples[0].fingerprint
        == hashlib.sha256(json.dumps(["text number 0", None], separators=(",", ":")).encode()).hexdigest()[:16]
    )
    assert len(base.fingerprint) == 16
    assert load(rows, name="other").fingerprint == load(rows, name="other").fingerprint
    changed = [
        load(rows, seed=1),
        load(rows, pooling=Pooling(kind="mean").as_json()),
        load([{**rows[0], "text": "changed"}, *rows[1:]]),
        load(source=write_jsonl(rows, "elsewhere.jsonl")),
    ]
    assert len({base.fingerprint, *(function.fingerprint for function in changed)}) == 5
    named = [{**row, "id": n} for n, row in enumerate(rows)]
    here, there = write_jsonl(named, "here.jsonl"), write_jsonl(named, "there.jsonl")
    prints = {load(source=source, columns={"id": "id"}).fingerprint for source in (here, there)}
    assert len(prints) == 1, "with ids of their own, the place of the data does not matter"


def test_twelve_thousand_examples_load_in_seconds(load: Load) -> None:
    rows = [{"text": f"text number {n} " * 10, "label": n % 2, "word": str(n // 200)} for n in range(12_000)]
    start = time.perf_counter()
    function = load(rows, columns={"subfunction": "word"}, cap_per_label=90)
    assert function.n_examples == 60 * 180
    assert time.perf_counter() - start < 10
