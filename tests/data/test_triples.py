"""Facts in files, read as functions of true and false statements."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modularity.config import validate_config
from modularity.data import FunctionConfig, FunctionData
from modularity.errors import InputError

Load = Callable[..., FunctionData]
COLUMNS = {"subfunction": "predicate_id"}
TRIPLES = {"patterns": {"P19": "[X] was born in [Y].", "P36": "The capital of [X] is [Y]."}, "subject": "sub_label",
           "object": "obj_label"}  # fmt: skip


def facts(n: int = 8) -> list[dict[str, Any]]:
    """Rows as in LAMA's T-REx files."""
    return [
        {"predicate_id": relation, "sub_label": f"{relation} subject {i}", "obj_label": f"object {i % 4}", "uuid": i}
        for relation in ("P19", "P36")
        for i in range(n)
    ]


def test_each_fact_is_a_true_and_a_false_statement_in_one_half(load: Load) -> None:
    function = load(facts(), triples=TRIPLES, columns=COLUMNS)
    assert (function.subfunctions, function.n_examples) == (("P19", "P36"), 32)
    assert [example.id for example in function.examples[:2]] == ["rows.jsonl:1/true", "rows.jsonl:1/false"]
    assert function.examples[0].text == "P19 subject 0 was born in object 0."
    assert function.labels_SE[0].tolist() == [1, 0] * 8 + [-1] * 16
    assert (function.selection_E[::2] == function.selection_E[1::2]).all()
    assert (function.cluster_E[::2] == function.cluster_E[1::2]).all()
    assert function.notes == ()


def test_patterns_from_files_and_declared_ids(load: Load, workdir: Path) -> None:
    listed = {"P19": ["[X] was born in [Y].", "[Y] is the birthplace of [X]."], "P36": "The capital of [X] is [Y]."}
    (workdir / "patterns.json").write_text(json.dumps(listed))
    columns = {**COLUMNS, "id": "uuid"}
    second = {**TRIPLES, "patterns": "patterns.json", "pattern": 1}
    function = load(facts(), triples=second, columns=columns, subfunctions=["P19"])
    assert function.examples[0].text == "object 0 is the birthplace of P19 subject 0."
    assert [example.id for example in function.examples[:2]] == ["0/true", "0/false"]
    assert function.notes == ("demo: 8 left out: rows of sub-functions that were not asked for",)
    with pytest.raises(InputError, match="relation 'P36' has 1 patterns, pattern=1 asks for one more; lower it"):
        load(facts(), triples=second, columns=COLUMNS)
    rows = [{"relation": name, "template": text} for name, text in TRIPLES["patterns"].items()]  # type: ignore[attr-defined]
    (workdir / "relations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from_rows = load(facts(), triples={**TRIPLES, "patterns": "relations.jsonl"}, columns=COLUMNS)
    assert from_rows.fingerprint == load(facts(), triples=TRIPLES, columns=COLUMNS).fingerprint


def test_facts_of_several_files_exchange_objects(load: Load, write_jsonl: Callable[..., str]) -> None:
    write_jsonl(facts()[:8:2], "a.jsonl")
    write_jsonl(facts()[1:8:2], "b.jsonl")
    function = load(source="*.jsonl", triples=TRIPLES, columns=COLUMNS, min_per_label=1)
    assert {example.source.split(":")[0] for example in function.examples} == {"a.jsonl", "b.jsonl"}
    false = {
        example.text for example in function.examples if example.id.startswith("a") and example.id.endswith("false")
    }
    assert any("object 1" in text or "object 3" in text for text in false)


def test_facts_that_repeat_are_counted(load: Load) -> None:
    function = load([*facts(), facts()[0]], triples=TRIPLES, columns=COLUMNS)
    assert function.notes == ("demo: 1 left out: facts that repeat, or without another object to exchange (P19 1)",)


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"triples": {**TRIPLES, "subject": "sub"}}, facts(), r"no column 'sub' \(subject of triples\)"),
        ({"triples": {**TRIPLES, "patterns": {"P19": "[X] [Y]"}}}, facts(), "triples: relation 'P36' has no pattern"),
        ({"triples": {**TRIPLES, "patterns": "none.json"}}, facts(), "triples: 'none.json' does not exist"),
        ({}, [*facts(), {**facts()[0], "obj_label": ""}], r"rows.jsonl:17: empty text \(obj_label=''\)"),
    ],
)
def test_bad_facts_are_named(load: Load, changes: dict[str, Any], rows: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(rows, **{"triples": TRIPLES, "columns": COLUMNS, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {}}, "triples need the relation as sub-function: declare its column in columns.subfunction"),
        ({"labels": "one_vs_rest"}, "triples make texts with the labels 0 and 1: labels, text_pair and target spans"),
    ],
)
def test_triples_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {"name": "a", "source": "a.jsonl", "triples": TRIPLES, "columns": COLUMNS, **changes}
    with pytest.raises(InputError, match=message):
        validate_config(FunctionConfig, values)
