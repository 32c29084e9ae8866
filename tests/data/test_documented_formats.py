"""The examples of docs/data.md read small files of the forms that they name."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modularity.config import validate_config
from modularity.data import FunctionConfig, FunctionData, load_functions
from modularity.pipelines import EmergentModularityConfig

TEXT = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()
YAML = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(workdir: Path) -> None:
    pass


def example(section: str) -> dict[str, Any]:
    """The first example of a config below a heading, or from a phrase on."""
    found: dict[str, Any] = yaml.safe_load(TEXT[TEXT.index(section) :].split("```yaml\n", 1)[1].split("```", 1)[0])
    return found


def load(values: Mapping[str, Any], **changes: Any) -> FunctionData:
    (function,) = load_functions([validate_config(FunctionConfig, {**values, **changes})])
    return function


def write(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_all_examples_are_valid_configs() -> None:
    functions = [block for block in YAML if "name" in block]
    kinds = [validate_config(FunctionConfig, block).kind for block in functions]
    assert kinds == ["semantic", "knowledge", "task", "task", "semantic", "knowledge", "knowledge"]
    (whole,) = [block for block in YAML if "functions" in block]
    config = validate_config(EmergentModularityConfig, {"model": {"name": "x"}, **whole})
    assert [function.name for function in config.functions] == ["task", "released"]


def test_parts() -> None:
    write("sst2/dev.jsonl", [{"sentence": f"s{n}", "label": n % 2} for n in range(8)])
    write("rte/dev.jsonl", [{"sentence1": f"a{n}", "sentence2": f"b{n}", "label": n % 2} for n in range(8)])
    assert load(example("## Parts")).subfunctions == ("sst2", "rte")


def test_sense_keys() -> None:
    write("senses.jsonl", [{"word": "bank", "sense": f"bank%1:{n % 2}", "text": f"a bank {n}", "start": 2, "end": 6}
                           for n in range(8)])  # fmt: skip
    function = load(example("## Word senses"))
    assert function.labels_SE.tolist() == [[0, 1] * 4]


def test_coarse_word_senses_with_the_two_most_frequent_of_three() -> None:
    for word in ("apple", "java"):
        folder = Path("CoarseWSD-20") / word
        folder.mkdir(parents=True)
        (folder / "train.data.txt").write_text("".join(f"2\tthe new{n} {word} fell\n" for n in range(9)))
        (folder / "train.gold.txt").write_text("\n".join("020202021"))
    exec(PYTHON[0], {})
    function = load(example("## Word senses"))
    assert (function.subfunctions, function.n_examples) == (("apple", "java"), 16)
    for one in function.examples:
        assert one.target is not None
        assert one.text[slice(*one.target)] in ("apple", "java")
    assert function.labels_SE[0].tolist() == [0, 1] * 4 + [-1] * 8


def test_facts_as_statements() -> None:
    write("trex/P36.jsonl", [{"predicate_id": "P36", "sub_label": f"s{n}", "obj_label": f"o{n}"} for n in range(8)])
    Path("patterns.json").write_text(json.dumps({"P36": ["The capital of [X] is [Y]."]}))
    function = load(example("## Facts"))
    assert (function.subfunctions, function.n_examples) == (("P36",), 16)


def test_knowledge_of_the_paper() -> None:
    Path("data/knowledge").mkdir(parents=True)
    rows = [f"P{n % 2}\tobject {n // 2 % 2}\t{mark}\ttext {n} {mark}\n" for mark in (0, 1) for n in range(16)]
    Path("data/knowledge/extracted_triples.txt").write_text("".join(rows))
    function = load(example("Knowledge, `data/knowledge"))
    assert (function.subfunctions, function.n_examples) == (("P0", "P1"), 16)


def test_words_of_the_paper() -> None:
    Path("data/semantic").mkdir(parents=True)
    ids = [f"{word}.{n}" for word in ("bank", "bass") for n in range(8)]
    Path("data/semantic/target_samples.txt").write_text(
        "".join(f"{name} {name.split('.')[0]}%1:0{int(name[-1]) % 2}:00::\n" for name in ids)
    )
    Path("data/semantic/extracted_samples.txt").write_text("".join(f"{name}\tx\ttext of {name}\n" for name in ids))
    exec(PYTHON[1], {})
    values = example("## Word senses")
    function = load(values, columns={"subfunction": "word", "label": "sense"})
    assert (function.subfunctions, function.n_examples) == (("bank", "bass"), 16)
    assert function.labels_SE[0].tolist() == [0, 1] * 4 + [-1] * 8


def test_tasks_of_the_paper() -> None:
    for task, columns in {"rte": ("sentence1", "sentence2"), "sst2": ("sentence",)}.items():
        lists = {str(label): [{name: f"{name} {label} {n}" for name in columns} for n in range(4)] for label in (0, 1)}
        Path(f"data/task/{task}").mkdir(parents=True)
        Path(f"data/task/{task}/validation.json").write_text(json.dumps(lists))
    entry = yaml.safe_load(re.findall(r"`(glue: \{source: \"data/task.*?\})`", TEXT)[0])
    entry["glue"]["tasks"] = ["rte", "sst2"]
    config = validate_config(EmergentModularityConfig, {"model": {"name": "x"}, "functions": [entry]})
    (function,) = load_functions(config.functions)
    assert function.labels_SE[1].tolist() == [-1] * 8 + [0] * 4 + [1] * 4
