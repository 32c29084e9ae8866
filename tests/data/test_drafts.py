from collections.abc import Callable
from pathlib import Path
from typing import Any

from modularity.config import validate_config
from modularity.data import FunctionConfig
from modularity.data.drafts import Draft, read_drafts
from modularity.data.labels import label_scheme
from modularity.data.problems import Problems


def drafts_of(**values: Any) -> tuple[list[Draft], dict[str, int]]:
    config, problems = validate_config(FunctionConfig, {"name": "demo", **values}), Problems()
    drafts, left_out = read_drafts(config, label_scheme(config), problems)
    problems.raise_any()
    return drafts, dict(left_out)


def test_roles_become_fields(write_jsonl: Callable[..., str]) -> None:
    row = {
        "key": 7,
        "s1": "a b",
        "s2": "c",
        "y": True,
        "word": "bat",
        "from": "0",
        "to": 1,
        "at": -1,
        "pair": 3,
        "part": "dev",
    }
    columns = {"id": "key", "text": "s1", "text_pair": "s2", "label": "y", "subfunction": "word", "split": "part"}
    columns |= {"target_start": "from", "target_end": "to", "position": "at", "cluster": "pair"}
    (draft,), _ = drafts_of(source=write_jsonl([row]), columns=columns, splits={"dev": "evaluation"})
    assert draft == Draft("7", "a b", "c", "1", "bat", (0, 1), -1, "evaluation", "3", "rows.jsonl:1")


def test_a_template_takes_roles_and_columns_and_moves_the_span(write_jsonl: Callable[..., str]) -> None:
    row = {"sentence": "see the bank", "other": "so {it} is", "year": 1999, "label": 0, "start": 8, "end": 12}
    (draft,), _ = drafts_of(
        source=write_jsonl([row]),
        columns={"text": "sentence", "text_pair": "other", "target_start": "start", "target_end": "end"},
        template="in {year}: {text_pair} / {sentence}!",
    )
    assert draft.text == "in 1999: so {it} is / see the bank!"
    assert draft.text_pair is None
    assert draft.target is not None
    assert draft.text[slice(*draft.target)] == "bank"


def test_ids_are_file_and_line_wherever_the_file_lies(workdir: Path, write_jsonl: Callable[..., str]) -> None:
    rows = [{"text": "x", "label": 0}]
    for folder in ("a", "b"):
        (workdir / folder).mkdir()
        write_jsonl(rows, f"{folder}/train.jsonl")
    assert [draft.id for draft in drafts_of(source="a/train.jsonl")[0]] == ["train.jsonl:1"]
    assert [draft.id for draft in drafts_of(source=str(workdir / "a/train.jsonl"))[0]] == ["train.jsonl:1"]
    both, _ = drafts_of(source=["a/train.jsonl", "b/train.jsonl"])
    assert [draft.id for draft in both] == ["0/train.jsonl:1", "1/train.jsonl:1"]
    assert [draft.source for draft in both] == ["a/train.jsonl:1", "b/train.jsonl:1"]


def test_rows_left_out_on_purpose_are_counted_and_not_checked(write_jsonl: Callable[..., str]) -> None:
    rows = [
        {"text": "x", "label": 0, "part": "train", "word": "bat"},
        {"text": "", "label": None, "part": "test", "word": "bat"},
        {"text": "y", "label": "?", "part": "train", "word": "bank"},
    ]
    drafts, left_out = drafts_of(
        source=write_jsonl(rows),
        columns={"split": "part", "subfunction": "word"},
        splits={"train": "selection", "test": "ignore"},
        subfunctions=["bat"],
    )
    assert [draft.text for draft in drafts] == ["x"]
    assert left_out == {
        "rows of split 'test', which is ignored": 1,
        "rows of sub-functions that were not asked for": 1,
    }
