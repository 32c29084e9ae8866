"""Public data sets from a folder beside the checkout, in the shapes in which they are published."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from modularity.config import validate_config
from modularity.data import (
    T5_TEMPLATES,
    FunctionConfig,
    FunctionData,
    glue_function,
    load_functions,
    row_ranges,
    token_batches,
    tokenise,
)
from modularity.errors import InputError
from modularity.stats import floor

pytestmark = pytest.mark.shared_data
SHARED = Path(__file__).parent.parent.parent.parent / "shared" / "data"
NLI = {
    "neutral-vs-rest": {"positive": ["neutral"], "negative": ["entailment", "contradiction"]},
    "entailment-vs-contradiction": {"positive": ["entailment"], "negative": ["contradiction"]},
}
PAIRS = ("mrpc", "qqp", "qnli", "rte")


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "gpt2")


def classification(name: str, **config: Any) -> FunctionData:
    folder = SHARED / "classification" / name
    values = {
        "name": name,
        "kind": "task",
        "source": {"selection": str(folder / "train.jsonl"), "evaluation": str(folder / "dev.jsonl")},
        "label_names": str(folder / "labels.json"),
        **config,
    }
    (function,) = load_functions([validate_config(FunctionConfig, values)])
    return function


@pytest.mark.parametrize("name", ["sst2", "cola", *PAIRS])
def test_binary_tasks_with_their_task_strings(name: str) -> None:
    columns = {"text_pair": "text_pair"} if name in PAIRS else {}
    function = classification(name, columns=columns, template=T5_TEMPLATES[name], cap_per_label=300)
    assert function.subfunctions == (name,)
    assert (function.labels_SE == 1).sum() == (function.labels_SE == 0).sum() == 300
    assert 0.6 < function.selection_E.mean() < 0.95
    assert function.examples[0].text.startswith(f"{name} ")


def test_natural_language_inference() -> None:
    function = classification("mnli", columns={"text_pair": "text_pair"}, labels=NLI, cap_per_label=1000)
    assert [int((row >= 0).sum()) for row in function.labels_SE] == [3000, 2000]


def test_topics_each_against_the_rest() -> None:
    assert len(classification("ag_news", labels="one_vs_rest").subfunctions) == 4
    names = json.loads((SHARED / "classification/dbpedia14/labels.json").read_text())
    assert classification("dbpedia14", labels="one_vs_rest").subfunctions == tuple(names.values())


def test_the_ten_sets_hold_every_class_they_name() -> None:
    for folder in sorted((SHARED / "classification").iterdir()):
        names = json.loads((folder / "labels.json").read_text())
        pair = folder.name in (*PAIRS, "mnli")
        columns = {"text_pair": "text_pair"} if pair else {}
        function = classification(folder.name, columns=columns, labels="one_vs_rest", duplicates="drop")
        assert function.subfunctions == tuple(names.values())
        assert (function.examples[0].text_pair is not None) == pair


def test_glue_of_the_validation_sets_that_are_whole() -> None:
    """MRPC, RTE and SST-2 are the GLUE validation sets; of the others there are at most 1,000 rows."""
    pattern = str(SHARED / "classification" / "{task}" / "test.jsonl")
    (function,) = load_functions([glue_function(pattern, text_columns=("text", "text_pair"))])
    floors = {
        name: round(float(floor(row[None, row >= 0].astype(bool))[0]), 3)
        for name, row in zip(function.subfunctions, function.labels_SE)
    }
    assert {name: floors[name] for name in ("mrpc", "rte", "sst2")} == {"mrpc": 0.684, "rte": 0.527, "sst2": 0.509}
    assert len(floors) == 8
    assert function.n_examples == 5069
    assert function.notes == ()


def test_pairs_of_sentences_with_one_word_in_the_same_sense() -> None:
    config = {
        "name": "pairs",
        "kind": "semantic",
        "source": str(SHARED / "word_senses" / "pairs.jsonl"),
        "columns": {"text_pair": "text_pair", "subfunction": "key"},
        "duplicates": "drop",
    }
    (function,) = load_functions([validate_config(FunctionConfig, config)])
    assert len(function.subfunctions) == 60
    assert 2390 <= function.n_examples <= 2400
    assert all(example.text_pair for example in function.examples)


def test_triples_become_statements_whose_object_does_not_tell_the_label() -> None:
    config = {
        "name": "facts",
        "kind": "knowledge",
        "source": str(SHARED / "knowledge" / "triples.jsonl"),
        "columns": {"subfunction": "relation"},
        "triples": {"patterns": str(SHARED / "knowledge" / "patterns.json")},
    }
    (function,) = load_functions([validate_config(FunctionConfig, config)])
    assert len(function.subfunctions) == 39
    rows = [json.loads(line) for line in (SHARED / "knowledge" / "triples.jsonl").read_text().splitlines()]
    facts = {(row["relation"], row["subject"], row["object"]) for row in rows}
    assert 0.9 * 2 * len(facts) < function.n_examples <= 2 * len(facts)
    patterns = json.loads((SHARED / "knowledge" / "patterns.json").read_text())
    for number, name in enumerate(function.subfunctions):
        pattern, balance = patterns[name][0], Counter[str]()
        objects = {row["object"] for row in rows if row["relation"] == name}
        for index in np.flatnonzero(function.labels_SE[number] >= 0):
            example, label = function.examples[index], function.labels_SE[number, index]
            subject = rows[int(example.id.split(":")[1].split("/")[0]) - 1]["subject"]
            (found,) = (o for o in objects if example.text == pattern.replace("[X]", subject).replace("[Y]", o))
            assert ((name, subject, found) in facts) == (label == 1), example.text
            balance[found] += 1 if label else -1
        assert set(balance.values()) <= {-1, 0, 1}, (name, balance)


def test_facts_with_names_of_their_own_for_subject_and_object() -> None:
    patterns = json.loads((SHARED / "knowledge" / "patterns.json").read_text())
    path = SHARED / "knowledge" / "known_1000.jsonl"
    counts = Counter(json.loads(line)["relation_id"] for line in path.read_text().splitlines())
    relations = sorted(name for name, count in counts.items() if count >= 10 and name in patterns)
    config = {
        "name": "facts",
        "source": str(path),
        "columns": {"subfunction": "relation_id", "id": "known_id"},
        "subfunctions": relations,
        "triples": {"subject": "subject", "object": "attribute", "patterns": str(path.parent / "patterns.json")},
    }
    (function,) = load_functions([validate_config(FunctionConfig, config)])
    assert len(function.subfunctions) == len(relations) == 30
    assert 2100 < function.n_examples < 2200
    assert function.examples[0].text == "Beats Music is owned by Apple."


def test_word_senses_by_span(gpt2: Any) -> None:
    config = {
        "name": "senses",
        "kind": "semantic",
        "source": str(SHARED / "word_senses" / "samples.jsonl"),
        "columns": {"subfunction": "key", "target_start": "start", "target_end": "end"},
        "pooling": {"kind": "span"},
    }
    (function,) = load_functions([validate_config(FunctionConfig, config)])
    assert (len(function.subfunctions), function.n_examples) == (60, 11795)
    for labels_E in function.labels_SE:
        for label in (0, 1):
            half = function.selection_E[labels_E == label]
            assert abs(2 * int(half.sum()) - len(half)) <= 2, "texts with several marked words go as one"
    table = tokenise(function, gpt2, max_tokens=256)
    assert table.pool_mask is not None
    for index in range(0, 11795, 131):
        example = function.examples[index]
        assert example.target is not None
        begin, end = table.offsets_E1[index : index + 2]
        word = gpt2.decode(table.token_ids[begin:end][table.pool_mask[begin:end]].tolist())
        assert example.text[slice(*example.target)] in word


def test_statements_by_relation_repeat_and_contradict(gpt2: Any) -> None:
    config = {
        "name": "facts",
        "kind": "knowledge",
        "source": str(SHARED / "knowledge" / "statements.jsonl"),
        "columns": {"subfunction": "relation", "cluster": "subject"},
    }
    with pytest.raises(InputError, match=r"statements.jsonl:\d+: text .* repeats .*statements.jsonl:\d+; remove one"):
        load_functions([validate_config(FunctionConfig, config)])
    (function,) = load_functions([validate_config(FunctionConfig, {**config, "duplicates": "drop"})])
    assert len(function.subfunctions) == 39
    assert any("repeated examples" in note for note in function.notes)
    table = tokenise(function, gpt2, max_tokens=64)
    rows: list[int] = []
    padded = 0
    for start, stop in row_ranges(table.n_rows, 1024):
        for batch in token_batches(table, start, stop, tokens_per_batch=4096, pad_id=0):
            rows += batch.row_ids.tolist()
            padded += batch.input_ids_BT.size
    assert sorted(rows) == list(range(function.n_examples))
    assert padded < 1.02 * table.n_tokens
    halves = [set(function.cluster_E[half].tolist()) for half in (function.selection_E, ~function.selection_E)]
    assert not halves[0] & halves[1]
    assert np.array_equal(np.unique(function.labels_SE), [-1, 0, 1])


def test_minimal_pairs_of_two_columns_are_refused_with_the_columns_that_exist() -> None:
    with pytest.raises(InputError, match=r"no column 'text' \(role text\); it has 'paradigm'.*'good', 'bad'"):
        load_functions([FunctionConfig(name="blimp", source=str(SHARED / "circuits" / "blimp.jsonl"))])
