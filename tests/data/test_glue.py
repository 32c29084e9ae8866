"""The eight task sub-functions on files with the label counts of the GLUE validation sets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modularity.config import validate_config
from modularity.data import (
    FunctionConfig,
    FunctionData,
    GlueConfig,
    declared_function,
    glue_function,
    load_functions,
    tokenise,
)
from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig
from modularity.stats import floor

COLUMNS = {
    "cola": ("sentence",), "mrpc": ("sentence1", "sentence2"), "qnli": ("question", "sentence"),
    "qqp": ("question1", "question2"), "rte": ("sentence1", "sentence2"), "sst2": ("sentence",),
    "mnli": ("premise", "hypothesis"),
}  # fmt: skip
COUNTS = {
    "cola": (322, 721), "mrpc": (129, 279), "qnli": (2702, 2761), "qqp": (25545, 14885), "rte": (146, 131),
    "sst2": (428, 444), "mnli": (3479, 3123, 3213),
}  # fmt: skip
"""Examples with label 0, 1, … in the validation sets."""
FLOORS = {
    "cola": 0.691, "mrpc": 0.684, "qnli": 0.5, "qqp": 0.5, "rte": 0.527, "sst2": 0.509, "mnli/neutral": 0.667,
    "mnli/entailment": 0.5,
}  # fmt: skip


def write_glue(folder: Path, counts: Mapping[str, tuple[int, ...]], columns: Mapping[str, Any] = COLUMNS) -> str:
    """Parquet files as on the hub: `TASK/validation-00000-of-00001.parquet`, MNLI in two files."""
    for task, by_label in counts.items():
        labels = np.repeat(np.arange(len(by_label)), by_label)
        table = {name: [f"{task} {name} {row}" for row in range(len(labels))] for name in columns[task]}
        table |= {"label": labels.tolist(), "idx": list(range(len(labels)))}
        (folder / task).mkdir(parents=True)
        for split in ("validation_matched", "validation_mismatched") if task == "mnli" else ("validation",):
            pq.write_table(pa.table(table), folder / task / f"{split}-00000-of-00001.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FunctionData:
    folder = write_glue(tmp_path_factory.mktemp("glue"), COUNTS)
    (function,) = load_functions([glue_function(folder)])
    return function


def test_floors_are_those_of_card_a1(whole: FunctionData) -> None:
    assert whole.subfunctions == tuple(FLOORS)
    floors = [float(floor(row[None, row >= 0].astype(bool))[0]) for row in whole.labels_SE]
    assert np.round(floors, 3).tolist() == list(FLOORS.values())
    assert sum(floors) == pytest.approx(4.578, abs=5e-4)


def test_caps_are_of_each_original_label(whole: FunctionData) -> None:
    counts = {name: tuple(int((row == label).sum()) for label in (0, 1)) for name, row in
              zip(whole.subfunctions, whole.labels_SE)}  # fmt: skip
    assert counts == {
        "cola": (322, 721), "mrpc": (129, 279), "qnli": (1000, 1000), "qqp": (1000, 1000), "rte": (146, 131),
        "sst2": (428, 444), "mnli/neutral": (2000, 1000), "mnli/entailment": (1000, 1000),
    }  # fmt: skip
    assert not any("mismatched" in example.source for example in whole.examples)
    for labels_E in whole.labels_SE:
        for label in (0, 1):
            half = whole.selection_E[labels_E == label]
            assert abs(2 * int(half.sum()) - len(half)) <= 1, "each label is halved"


SMALL = {task: tuple(4 for _ in counts) for task, counts in COUNTS.items()}


def texts(folder: str, **options: Any) -> dict[str, str]:
    (function,) = load_functions([glue_function(folder, **options)])
    return {example.id.split("/")[0]: example.text for example in reversed(function.examples)}


def test_task_strings_and_the_swap_of_the_released_inputs(tmp_path: Path) -> None:
    folder = write_glue(tmp_path, SMALL)
    assert texts(folder) == {
        "cola": "cola sentence: cola sentence 0",
        "mrpc": "mrpc sentence1: mrpc sentence1 0 sentence2: mrpc sentence2 0",
        "qnli": "qnli question: qnli question 0 sentence: qnli sentence 0",
        "qqp": "qqp question1: qqp question1 0 question2: qqp question2 0",
        "rte": "rte sentence1: rte sentence1 0 sentence2: rte sentence2 0",
        "sst2": "sst2 sentence: sst2 sentence 0",
        "mnli": "mnli hypothesis: mnli hypothesis 0 premise: mnli premise 0",
    }
    released = texts(folder, variant="released")
    assert released.pop("mnli") == "mnli hypothesis: mnli premise 0 premise: mnli hypothesis 0"
    assert released == {task: text for task, text in texts(folder).items() if task != "mnli"}


def test_only_the_activations_of_the_released_variant_are_swapped() -> None:
    parts = glue_function("x", variant="released").part_configs()
    assert parts["mnli"].asked_template == glue_function("x").parts["mnli"].template
    assert [task for task, part in parts.items() if part.asked_template is not None] == ["mnli"]


def test_own_columns_tasks_and_a_pattern(tmp_path: Path) -> None:
    for task, labels in {"rte": (0, 1), "sst2": (0, 1)}.items():
        (tmp_path / task).mkdir()
        rows = [{"text": f"a{n}", "text_pair": f"b{n}", "label": labels[n % 2]} for n in range(12)]
        (tmp_path / task / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    function = glue_function(
        f"{tmp_path}/{{task}}/dev.jsonl", tasks=("rte", "sst2"), text_columns=("text", "text_pair"), cap_per_label=4
    )
    (data,) = load_functions([function])
    assert (data.subfunctions, data.n_examples) == (("rte", "sst2"), 16)
    made = {f"rte sentence1: a{n} sentence2: b{n}" for n in range(12)} | {f"sst2 sentence: a{n}" for n in range(12)}
    assert {example.text for example in data.examples} < made
    assert function.label_words == {"rte": ("not_entailment", "entailment"), "sst2": ("positive", "negative")}


def test_final_tokens_are_deleted_where_asked(tmp_path: Path, eos_tokenizer: Any) -> None:
    folder = write_glue(tmp_path, SMALL)
    kept, deleted = (
        tokenise(load_functions([glue_function(folder, drop_final_eos=drop)])[0], eos_tokenizer, max_tokens=512)
        for drop in (False, True)
    )
    assert kept.n_tokens - deleted.n_tokens == kept.n_rows
    assert eos_tokenizer.eos_token_id not in deleted.token_ids.tolist()


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_functions([glue_function(str(tmp_path))])
    assert len(caught.value.problems) >= 7
    assert f"{tmp_path}/mnli/validation_matched*' matches no file" in str(caught.value)


def test_an_entry_of_a_job_stands_for_the_function() -> None:
    for entry in ("folder", {"source": "folder", "variant": "corrected"}):
        values = {"model": {"name": "x"}, "functions": [{"glue": entry}, {"name": "a", "source": "a.jsonl"}]}
        config = validate_config(EmergentModularityConfig, values)
        assert config.functions[0] == glue_function("folder")
        assert config.functions[1] == FunctionConfig(name="a", source="a.jsonl")
        assert validate_config(EmergentModularityConfig, config.as_json()) == config
    assert declared_function({"name": "glue"}) == {"name": "glue"}


def test_wrong_entries_are_named() -> None:
    values = {"model": {"name": "x"}, "functions": [{"glue": {"source": "a", "variant": "paper", "task": ["cola"]}}]}
    with pytest.raises(InputError) as caught:
        validate_config(EmergentModularityConfig, values)
    assert "glue.variant='paper': Input should be 'corrected' or 'released'" in str(caught.value)
    assert "glue.task: unknown key; did you mean 'tasks'?" in str(caught.value)
    with pytest.raises(InputError, match="names a task twice"):
        validate_config(GlueConfig, {"source": "a", "tasks": ["cola", "cola"]})
    with pytest.raises(InputError, match=r"tasks\.0='wnli'"):
        glue_function("a", tasks=("wnli",))  # type: ignore[arg-type]
