"""Label words and the texts in which a model is asked: from the job, or as the functions of the run declare them."""

import json
from pathlib import Path

import numpy as np
import pytest

from modularity.data import FunctionConfig, FunctionData, glue_function, load_functions
from modularity.errors import InputError
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.perturbation_tasks import asked_functions, chosen_words, task_names

COLUMNS = ("text", "text_pair")


@pytest.fixture
def released(tmp_path: Path) -> FunctionConfig:
    """RTE and MNLI as the released code has them, more than the cap."""
    for task, n_labels in (("rte", 2), ("mnli", 3)):
        rows = [{"text": f"first {n}", "text_pair": f"second {n}", "label": n % n_labels} for n in range(60)]
        (tmp_path / task).mkdir()
        (tmp_path / task / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"{tmp_path}/{{task}}/dev.jsonl"
    return glue_function(source, variant="released", tasks=("rte", "mnli"), text_columns=COLUMNS, cap_per_label=10)


def asked(function: FunctionConfig, templates: dict[str, str] | None = None) -> tuple[FunctionData, FunctionData]:
    (before,) = load_functions([function])
    return before, asked_functions(templates or {}, [function], [before])["task"]


def test_words_of_the_functions_name_the_tasks_of_glue() -> None:
    declared = EmergentModularityConfig.model_validate({"model": {"name": "x"}, "functions": [{"glue": "folder"}]})
    words = chosen_words(None, declared)
    single = [("task", name) for name in ("cola", "mrpc", "qnli", "qqp", "rte", "sst2")]
    subfunctions = [*single, ("task", "mnli/neutral"), ("task", "mnli/entailment")]
    names = {each.name: each.words for each in task_names(words, subfunctions)}
    assert names == {
        "cola": ("acceptable", "unacceptable"), "mrpc": ("equivalent", "not_equivalent"),
        "qnli": ("not_entailment", "entailment"), "qqp": ("duplicate", "not_duplicate"),
        "rte": ("not_entailment", "entailment"), "sst2": ("positive", "negative"),
        "mnli/entailment": ("entailment", "contradiction"),
    }  # fmt: skip
    own = {"a": ("yes", "no"), "b": ("yes", "no")}
    assert chosen_words(own, declared) == own


def test_without_two_tasks_the_remedy_is_told() -> None:
    values = {"name": "a", "source": "a.jsonl", "label_words": {"a": ["yes", "no"]}}
    declared = EmergentModularityConfig.model_validate({"model": {"name": "x"}, "functions": [values]})
    with pytest.raises(InputError, match=r"have them for 1 sub-functions \(a/a\); two tasks or more are needed: name"):
        chosen_words(None, declared)
    assert chosen_words(None, declared, n_least=1) == {"a/a": ("yes", "no")}


def test_a_model_is_asked_about_the_same_examples_with_fields_in_their_places(released: FunctionConfig) -> None:
    before, after = asked(released)
    assert [e.id for e in after.examples] == [e.id for e in before.examples]
    assert np.array_equal(after.labels_SE, before.labels_SE)
    assert np.array_equal(after.selection_E, before.selection_E)
    assert before.n_examples == 2 * 10 + 3 * 10
    for one, other in zip(before.examples, after.examples):
        n = one.text.split()[-1]
        if one.id.startswith("mnli"):
            assert one.text == f"mnli hypothesis: first {n} premise: second {n}"
            assert other.text == f"mnli hypothesis: second {n} premise: first {n}"
        else:
            assert one == other
    assert after.fingerprint != before.fingerprint


def test_a_template_of_the_job_is_for_a_part(released: FunctionConfig) -> None:
    _, after = asked(released, templates={"task/rte": "{text} {text_pair} rte"})
    assert {e.text.split()[-1] for e in after.examples if e.id.startswith("rte")} == {"rte"}
    assert {e.text.split()[0] for e in after.examples if e.id.startswith("mnli")} == {"mnli"}
    with pytest.raises(InputError, match="no task is from a function 'task'; known are task/mnli, task/rte"):
        asked(released, templates={"task": "{text} {text_pair}"})


def test_a_template_that_makes_texts_equal_is_refused(tmp_path: Path) -> None:
    rows = [{"text": f"t{n // 2}", "more": n, "label": n // 2 % 2} for n in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    function = FunctionConfig(
        name="task", source=str(tmp_path / "rows.jsonl"), template="{text} {more}", duplicates="drop"
    )
    with pytest.raises(InputError, match=r"templates.task: with this template 8 examples of the run are left out"):
        asked(function, templates={"task": "{text}"})
