"""The table of bad inputs: what each says, with the file and the line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.config import validate_config
from modularity.data import FunctionConfig, load_functions
from modularity.errors import InputError

GOOD = [{"text": f"text number {n}", "label": n % 2} for n in range(8)]
PAIRED = [{"text": f"one {n}", "text_pair": f"two {n}", "label": n % 2} for n in range(8)]
SPANNED = [{"text": f"text number {n}", "label": n % 2, "start": 0, "end": 4} for n in range(8)]
HALVES = ("selection", "evaluation")
SPAN = {"target_start": "start", "target_end": "end"}
CSV = "text,label\n" + "".join(f"text number {n},{n % 2}\n" for n in range(8))
TSV = CSV.replace(",", "\t")


def jsonl(*rows: Any, base: list[dict[str, Any]] = GOOD) -> str:
    """JSONL text of good rows (lines 1-8) and the given ones (from line 9); text stays as it is."""
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in [*base, *rows]) + "\n"


def bad(row: Any, base: list[dict[str, Any]] = GOOD) -> dict[str, str | bytes]:
    """One file with a bad row in line 9."""
    return {"a.jsonl": jsonl(row, base=base)}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def parquet_columns(*columns: dict[str, list[Any]]) -> bytes:
    """Parquet of columns whose names may repeat."""
    pairs = [next(iter(column.items())) for column in columns]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays([pa.array(v) for _, v in pairs], names=[name for name, _ in pairs]), sink)
    return sink.getvalue().to_pybytes()


# name: (files, config beside name and source, fragments of the message)
Case = tuple[dict[str, str | bytes], dict[str, Any], list[str]]
FILES: dict[str, Case] = {
    "missing file": ({}, {"source": "nowhere.jsonl"}, ["'nowhere.jsonl' does not exist", "relative paths start at"]),
    "glob without match": ({}, {"source": "no/*.jsonl"}, ["'no/*.jsonl' matches no file"]),
    "folder": ({"folder/a.jsonl": jsonl()}, {"source": "folder"}, ["'folder' is a folder", "folder/*.jsonl"]),
    "unknown protocol": ({}, {"source": "gopher://x/y.jsonl"}, ["'gopher://x/y.jsonl' cannot be opened", "gopher"]),
    "unknown sample": ({}, {"source": "sample:no-such"}, ["'sample:no-such' is not a shipped sample; known:"]),
    "unknown ending": (
        {"a.txt": jsonl()}, {},
        ["format of 'a.txt' does not follow from its ending", ".jsonl", "set format"],
    ),
    "empty file": ({"a.jsonl": "\n"}, {}, ["'a.jsonl' holds no rows"]),
    "header only": ({"a.csv": "text,label\n"}, {}, ["'a.csv' holds no rows"]),
    "not UTF-8": (
        {"a.jsonl": jsonl().encode() + b'{"text": "caf\xe9", "label": 1}\n'}, {},
        ["a.jsonl:9: byte 0xe9 is not UTF-8"],
    ),
    "invalid JSON": (bad('{"text": "x" "label": 1}'), {}, ["a.jsonl:9: not valid JSON", "column 14"]),
    "JSON without object": ({"a.jsonl": jsonl("[1, 2]")}, {}, ["a.jsonl:9: holds list '[1, 2]', expected an object"]),
    "list called jsonl": ({"a.jsonl": json.dumps(GOOD)}, {}, ["'a.jsonl' holds a JSON list", "set format to json"]),
    "broken JSON list": ({"a.json": '[\n{"text": "x",\n}]'}, {}, ["a.json:3: not valid JSON"]),
    "JSON object": ({"a.json": '{"rows": []}'}, {}, ["'a.json' does not hold a JSON list"]),
    "JSON list of texts": ({"a.json": '[\n"x",\n"y"]'}, {}, ["a.json:2: holds str 'x'", "a.json:3: holds str 'y'"]),
    "CSV cells": (
        {"a.csv": CSV + "one, two,1\n"}, {},
        ["a.csv:10: 3 cells, expected 2 as in the header (text, label)"],
    ),
    "CSV quotes": ({"a.csv": CSV + '"never closed,1\n'}, {}, ["a.csv:10: not valid CSV"]),
    "CSV header": ({"a.csv": "text,text,label\n1,2,3\n"}, {}, ["a.csv:1: column names ['text'] appear twice"]),
    "not Parquet": ({"a.parquet": jsonl()}, {}, ["'a.parquet' is not a readable parquet file"]),
    "not Arrow": ({"a.arrow": jsonl()}, {}, ["'a.arrow' is not a readable arrow file"]),
    "missing column": (
        {"a.jsonl": json.dumps({"sentence": "x", "label": 1})}, {},
        ["a.jsonl: no column 'text' (role text); it has 'sentence', 'label'", "declare the right one in columns"],
    ),
    "missing column in Parquet": (
        {"a.parquet": parquet([{"sentence": "x", "label": 1}])}, {},
        ["a.parquet: no column 'text' (role text); it has 'sentence', 'label'"],
    ),
    "integer that is too long": (
        bad('{"text": "x", "label": 1, "n": ' + "9" * 5000 + "}"), {},
        ["a.jsonl:9: JSON that cannot be read (too many digits)"],
    ),
    "JSON that is too deep": (
        {"a.json": "[" * 100_000 + "]" * 100_000}, {}, ["a.json:1: JSON that cannot be read (lists or objects too"],
    ),
    "column twice in Parquet": (
        {"a.parquet": parquet_columns({"text": ["a"]}, {"text": ["b"]}, {"label": [1]})}, {},
        ["a.parquet: column names ['text'] appear twice in the file"],
    ),
    "missing template field": (
        {"a.jsonl": jsonl()}, {"template": "{text} {topic}"}, ["no column 'topic' (a field of the template)"],
    ),
}  # fmt: skip
ROWS: dict[str, Case] = {
    "no label": (bad({"text": "x"}), {}, ["a.jsonl:9: no label (label=None)"]),
    "NaN label": (bad('{"text": "x", "label": NaN}'), {}, ["a.jsonl:9: no label (label=nan)"]),
    "NaN label in Parquet": (
        {"a.parquet": parquet([{"text": "x", "label": float("nan")}, {"text": "y", "label": 1.0}])}, {},
        ["a.parquet:row 1: no label (label=nan)"],
    ),
    "blank label in CSV": ({"a.csv": CSV + "x,\n"}, {}, ["a.csv:10: no label (label='')"]),
    "label of odd type": (bad({"text": "x", "label": [1]}), {}, ["a.jsonl:9: label label=[1] is list"]),
    "fraction as label": (bad({"text": "x", "label": 0.5}), {}, ["a.jsonl:9: label label=0.5 is float"]),
    "unknown binary label": (bad({"text": "x", "label": 2}), {}, ["a.jsonl:9: unknown label label=2; known: 0, 1,"]),
    "unknown named label": (
        bad({"text": "x", "label": "so-so"}), {"label_names": ["bad", "good"]},
        ["a.jsonl:9: unknown label label='so-so'; known: 0, 1, bad, good", "Declare it in labels or label_names"],
    ),
    "empty text": (bad({"text": " \n", "label": 1}), {}, ["a.jsonl:9: empty text (text=' \\n')"]),
    "no text": (bad({"label": 1}), {}, ["a.jsonl:9: no text (text=None)"]),
    "text that is a number": (bad({"text": 7, "label": 1}), {}, ["a.jsonl:9: text=7 is int, expected text"]),
    "half a surrogate pair": (
        bad('{"text": "x\\ud800", "label": 1}'), {},
        ["a.jsonl:9: text holds half of a surrogate"],
    ),
    "empty pair": (
        bad({"text": "x", "text_pair": "", "label": 1}, base=PAIRED), {"columns": {"text_pair": "text_pair"}},
        ["a.jsonl:9: empty text (text_pair='')"],
    ),
    "no field for the template": (
        bad({"text": "x", "label": 1}, base=PAIRED), {"template": "{text} and {text_pair}"},
        ["a.jsonl:9: no text (text_pair=None)"],
    ),
    "no sub-function": (
        bad({"text": "x", "label": 1, "word": None}), {"columns": {"subfunction": "word"}},
        ["a.jsonl:9: no sub-function (word=None)"],
    ),
    "no id": (bad({"text": "x", "label": 1, "key": ""}), {"columns": {"id": "key"}}, ["a.jsonl:9: no id (key='')"]),
    "id of odd type": (
        bad({"text": "x", "label": 1, "key": True}), {"columns": {"id": "key"}},
        ["a.jsonl:9: id key=True is not a name"],
    ),
    "span outside": (
        bad({"text": "abc", "label": 1, "start": 1, "end": 9}, base=SPANNED), {"columns": SPAN},
        ["a.jsonl:9: target span [1, 9) is not inside the text of 3 characters"],
    ),
    "span backwards": (
        bad({"text": "abc", "label": 1, "start": 2, "end": 1}, base=SPANNED), {"columns": SPAN},
        ["a.jsonl:9: target span [2, 1)", "expected 0 <= start < end <= length"],
    ),
    "span of white space": (
        bad({"text": "a b", "label": 1, "start": 1, "end": 2}, base=SPANNED), {"columns": SPAN},
        ["a.jsonl:9: target span [1, 2) of 'a b' holds white space only"],
    ),
    "span without end": (
        bad({"text": "abc", "label": 1, "start": 1}, base=SPANNED), {"columns": SPAN},
        ["a.jsonl:9: target end end=None is not an integer"],
    ),
    "position beyond any text": (
        bad({"text": "abc", "label": 1, "at": 10**400}), {"columns": {"position": "at"}},
        ["a.jsonl:9: position at=1000", "… (401 characters) is not an integer below"],
    ),
    "broken id": (
        bad('{"text": "x", "label": 1, "key": "\\ud800"}'), {"columns": {"id": "key"}},
        ["a.jsonl:9: key holds half of a surrogate"],
    ),
    "broken label": (
        bad('{"text": "x", "label": "\\ud800"}'), {"labels": "one_vs_rest"},
        ["a.jsonl:9: label holds half of a surrogate"],
    ),
    "long label": (bad({"text": "x", "label": "z" * 5000}), {}, ["zzz… (5,002 characters); known: 0, 1,"]),
    "position": (
        bad({"text": "abc", "label": 1, "at": "last"}), {"columns": {"position": "at"}},
        ["a.jsonl:9: position at='last' is not an integer"],
    ),
    "split without meaning": (
        bad({"text": "x", "label": 1, "split": "validation"}), {"columns": {"split": "split"}},
        ["a.jsonl:9: split='validation' has no meaning; known: selection, evaluation", '{"validation": "evaluation"}'],
    ),
}  # fmt: skip
TOGETHER: dict[str, Case] = {
    "repeated example": (
        {"a.jsonl": jsonl(GOOD[2])}, {}, ["a.jsonl:9: text 'text number 2' repeats a.jsonl:3", 'duplicates to "drop"'],
    ),
    "contradiction": (
        bad({"text": "text number 2", "label": 1}), {},
        ["a.jsonl:3: text 'text number 2' has the labels 0, 1: it contradicts a.jsonl:9", "contradicts a.jsonl:3;"],
    ),
    "copy across halves": (
        {"a.jsonl": jsonl(), "b.jsonl": jsonl({"text": "new", "label": 1}, base=GOOD[:3])},
        {"source": {"selection": "a.jsonl", "evaluation": "b.jsonl"}},
        ["a.jsonl:3: text 'text number 2' of the selection half is in the evaluation half too (b.jsonl:3)"],
    ),
    "cluster across halves": (
        {"a.jsonl": jsonl(base=[{**row, "pair": n // 2, "half": HALVES[n > 4]} for n, row in enumerate(GOOD)])},
        {"columns": {"split": "half", "cluster": "pair"}, "min_per_label": 1},
        ["a.jsonl:6: cluster '2' is in the other half too (a.jsonl:5)"],
    ),
    "repeated id": (
        {"a.jsonl": jsonl(base=[{**row, "id": max(n, 1)} for n, row in enumerate(GOOD)])}, {"columns": {"id": "id"}},
        ["a.jsonl:2: id '1' is taken by a.jsonl:1"],
    ),
    "single class": (
        {"a.jsonl": jsonl(base=GOOD[1::2])}, {}, ["sub-function 'demo' has a single class: 4 positive and 0 negative"],
    ),
    "single class of one word": (
        {"a.jsonl": jsonl({"text": "x", "label": 1, "word": "bank"}, base=[{**row, "word": "bat"} for row in GOOD])},
        {"columns": {"subfunction": "word"}}, ["sub-function 'bank' has a single class: 1 positive and 0 negative"],
    ),
    "too few": (
        {"a.jsonl": jsonl(base=GOOD[:4])}, {},
        ["'demo' has 1 positive examples in the selection half, expected at least 2", "lower min_per_label"],
    ),
    "unknown sub-function": (
        {"a.jsonl": jsonl(base=[{**row, "word": "bat"} for row in GOOD])},
        {"columns": {"subfunction": "word"}, "subfunctions": ["bat", "bank"]},
        ["no row of sub-function 'bank', which subfunctions asks for"],
    ),
    "nothing kept": (
        {"a.jsonl": jsonl()}, {"keep": {"label": ["7"]}},
        ["no example is left; left out were 8 (rows with another label than 7)"],
    ),
    "nothing left in a half": (
        {"a.jsonl": jsonl()}, {"source": {"selection": "a.jsonl", "evaluation": "a.jsonl"}, "duplicates": "drop"},
        ["0 positive examples in the selection half", "; left out were 8 (copies across the halves)"],
    ),
    "sub-functions with one name": (
        {"a.jsonl": jsonl(base=[{"text": f"t{n}", "label": n % 4, "s": ("a", "a/x")[n // 4 % 2]} for n in range(64)])},
        {
            "columns": {"subfunction": "s"},
            "labels": {"x": {"positive": [0], "negative": [1]}, "x/x": {"positive": [2], "negative": [3]}},
        },
        ["two sub-functions are named 'a/x/x'", "rename"],
    ),
    "label names that are lists": (
        {"a.jsonl": jsonl(), "n.json": '[["a"], ["b"]]'}, {"label_names": "n.json"},
        ["label_names=[['a'], ['b']]: expected a text or a number as the name of each label"],
    ),
    "contrast of an unknown label": (
        {"a.jsonl": jsonl()},
        {"label_names": ["bad", "good"], "labels": {"taste": {"positive": ["fine"], "negative": ["bad"]}}},
        ["labels.taste: 'fine' is not among label_names (bad, good)"],
    ),
    "binary with three names": (
        {"a.jsonl": jsonl()}, {"label_names": ["a", "b", "c"]},
        ['labels="binary"', "'c'", "one_vs_rest"],
    ),
    "names that clash": (
        {"a.jsonl": jsonl()}, {"label_names": ["1", "0"]},
        ["label_names: the names ['1', '0'] stand for two labels"],
    ),
    "no file of names": ({"a.jsonl": jsonl()}, {"label_names": "names.json"}, ["'names.json' does not exist"]),
    "broken file of names": (
        {"a.jsonl": jsonl(), "n.json": "[1,\n}"}, {"label_names": "n.json"},
        ["n.json:2: not valid JSON"],
    ),
    "file without names": (
        {"a.jsonl": jsonl(), "n.json": "3"}, {"label_names": "n.json"},
        ["label_names='n.json' holds int"],
    ),
}  # fmt: skip
CONFIGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "long name": ({"name": "a" * 101}, ["should have at most 100 characters"]),
    "broken template": ({"template": "\ud800 {text}"}, ["template holds half of a surrogate pair"]),
    "position out of range": (
        {"pooling": {"kind": "positions", "positions": [0, 2**40]}}, ["pooling.positions.1=1099511627776: Input"],
    ),
    "name": ({"name": "a/b"}, ["name='a/b'", "pattern"]),
    "kind": ({"kind": "vision"}, ["kind='vision'", "'semantic', 'knowledge', 'task' or 'other'"]),
    "no source": ({"source": []}, ["source=[]: names no file"]),
    "half a source": ({"source": {"selection": "a.jsonl"}}, ["source.mapping.evaluation: required and missing"]),
    "unknown key": ({"colums": {}}, ["colums: unknown key"]),
    "unknown role": ({"columns": {"txt": "sentence"}}, ["columns.txt: unknown key"]),
    "labels": ({"labels": "multi"}, ["labels='multi': expected \"binary\", \"two\", \"one_vs_rest\" or"]),
    "label on both sides": (
        {"labels": {"taste": {"positive": ["good", "bad"], "negative": ["bad"]}}},
        ["labels ['bad'] are positive and negative at once"],
    ),
    "one label name": ({"label_names": ["good"]}, ["label_names=['good']: expected the names of two labels or more"]),
    "cap": ({"cap_per_label": 0}, ["cap_per_label=0", "greater than or equal to 1"]),
    "span without columns": ({"pooling": {"kind": "span"}}, ['"span" needs the columns target_start and target_end']),
    "half a span": ({"columns": {"target_start": "start"}}, ["declare both or neither"]),
    "position without column": ({"pooling": {"kind": "position"}}, ['"position" needs the column position']),
    "positions without list": ({"pooling": {"kind": "positions"}}, ["positions=[] with kind='positions'"]),
    "position twice": (
        {"pooling": {"kind": "positions", "positions": [1, 1]}},
        ["positions=[1, 1] names a position twice"],
    ),
    "halves twice": (
        {"source": {"selection": "a.jsonl", "evaluation": "b.jsonl"}, "columns": {"split": "split"}},
        ["halves are declared twice"],
    ),
    "splits without column": ({"splits": {"train": "selection"}}, ["columns.split is not declared"]),
    "sub-functions without column": ({"subfunctions": ["bank"]}, ["columns.subfunction is not declared"]),
    "template braces": ({"template": "{text"}, ["template='{text'", "write a literal brace twice"]),
    "template format": ({"template": "{text!r}"}, ["a field is the plain name of a role or column"]),
    "template without text": ({"template": "{topic}"}, ["does not use {text}"]),
    "template without pair": (
        {"template": "{text}", "columns": {"text_pair": "b"}}, ["does not use {text_pair}, which columns declares"],
    ),
    "template with two texts": (
        {"template": "{text} {text}", "columns": SPAN}, ["uses {text} more than once: the target span is ambiguous"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES | ROWS | TOGETHER)
def test_bad_data_is_refused_with_its_place(case: str, workdir: Path) -> None:
    files, config, fragments = (FILES | ROWS | TOGETHER)[case]
    for name, content in files.items():
        (workdir / name).parent.mkdir(exist_ok=True)
        (workdir / name).write_bytes(content.encode() if isinstance(content, str) else content)
    values = {"name": "demo", "source": next(iter(files), ""), **config}
    with pytest.raises(InputError) as caught:
        load_functions([validate_config(FunctionConfig, values)])
    for fragment in ["function 'demo': ", *fragments]:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("case", CONFIGS)
def test_bad_configs_are_refused_without_reading_anything(case: str) -> None:
    values, fragments = CONFIGS[case]
    with pytest.raises(InputError) as caught:
        validate_config(FunctionConfig, {"name": "demo", "source": "nowhere.jsonl", **values})
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_problems_of_all_functions_come_at_once_and_long_lists_are_cut(write_jsonl: Callable[..., str]) -> None:
    one = write_jsonl([{"text": "", "label": 0}] * 25 + [{"text": "x", "label": 5}] + GOOD, "one.jsonl")
    two = write_jsonl([{"sentence": "x", "label": 1}], "two.jsonl")
    with pytest.raises(InputError) as caught:
        load_functions([FunctionConfig(name="a", source=one), FunctionConfig(name="b", source=two)])
    problems = caught.value.problems
    assert sum("empty text" in problem and ".jsonl:" in problem for problem in problems) == 20
    assert "function 'a': and 5 more of this kind (empty text)" in problems
    assert any("one.jsonl:26: unknown label" in problem for problem in problems)
    assert any(problem.startswith("function 'b': two.jsonl: no column 'text'") for problem in problems)


def test_functions_need_names_of_their_own(write_jsonl: Callable[..., str]) -> None:
    config = FunctionConfig(name="demo", source=write_jsonl(GOOD))
    with pytest.raises(InputError, match="function 'demo': 2 functions have this name"):
        load_functions([config, config])
    with pytest.raises(InputError, match="no function is named"):
        load_functions([])
