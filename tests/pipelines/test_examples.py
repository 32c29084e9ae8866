"""What a run keeps of its data: texts, halves, labels and fingerprints, or none of the texts if asked."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tiny_jobs

from modularity.store import Run, sql


def source_rows(function: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(function["source"]).read_text().splitlines()]


def test_examples_are_those_of_the_source(finished: Run, functions: list[dict[str, Any]]) -> None:
    for function in functions:
        rows = tiny_jobs.rows_of(finished, "examples", function=function["name"])
        source = source_rows(function)
        assert [row["text"] for row in rows] == [row["text"] for row in source]
        assert [row["n_tokens"] for row in rows] == [len(row["text"].split()) + 2 for row in source]
        assert {row["text_pair"] for row in rows} == {""}
        assert not any(row["truncated"] for row in rows)
    words = tiny_jobs.rows_of(finished, "examples", function="words")
    assert (words[3]["example_id"], words[3]["source"]) == ("river-3", "words.jsonl:4")


def test_rows_carry_labels_and_halves(finished: Run, functions: list[dict[str, Any]]) -> None:
    coordinates = finished.coordinates("words")
    source = source_rows(functions[0])
    expected = [[row["label"] if row["subfunction"] == name else -1 for row in source] for name in ("river", "stone")]
    np.testing.assert_array_equal(coordinates["label"], expected)
    halves = [row["half"] == "selection" for row in tiny_jobs.rows_of(finished, "examples", function="words")]
    np.testing.assert_array_equal(coordinates["selection"], halves)
    names = [row["label"] for row in source_rows(functions[1])]
    contrasts = {"night_or_day": {"night": 1, "day": 0}, "sky": {"night": 1, "day": 1, "plain": 0}}
    np.testing.assert_array_equal(
        finished.coordinates("topics")["label"],
        [[contrast.get(name, -1) for name in names] for contrast in contrasts.values()],
    )


def test_labels_join_with_texts_and_top_examples(finished: Run, functions: list[dict[str, Any]]) -> None:
    found = sql(finished, "select text, label from example_labels join examples using (function, example_id) "
                "where subfunction = 'stone' order by example_id").to_pylist()  # fmt: skip
    source = sorted((row for row in source_rows(functions[0]) if row["subfunction"] == "stone"), key=lambda r: r["id"])
    assert found == [{"text": row["text"], "label": row["label"]} for row in source]
    joined = sql(finished, "select t.label = l.label as same, t.function from top_examples t "
                 "join example_labels l using (function, subfunction, example_id)").to_pylist()  # fmt: skip
    assert len(joined) == finished.table("top_examples").num_rows
    assert all(row["same"] for row in joined)
    halves = sql(finished, "select distinct l.half = e.half as same from example_labels l "
                 "join examples e using (function, example_id)")  # fmt: skip
    assert halves.to_pylist() == [{"same": True}]


def test_both_halves_of_every_subfunction_are_balanced(finished: Run) -> None:
    rows = finished.table("subfunctions").to_pylist()
    assert Counter(row["half"] for row in rows) == {"selection": 4, "evaluation": 4}
    for row in rows:
        if row["function"] == "words":
            assert (row["n_examples"], row["n_positive"], row["kind"]) == (70, 35, "semantic")
    sky = [row for row in rows if row["subfunction"] == "sky"]
    assert sum(row["n_examples"] for row in sky) == 90
    assert sum(row["n_positive"] for row in sky) == 60


def test_a_run_without_texts_holds_none(folder: Path, bert: Path, tmp_path: Path) -> None:
    config = tiny_jobs.job(bert, [tiny_jobs.topic_function(folder)], analyses=[], store_text=False)
    run = tiny_jobs.run(config, tmp_path / "run")
    assert run.tables() == ("example_labels", "subfunctions")
    text = json.loads((folder / "topics.jsonl").read_text().splitlines()[0])["text"]
    assert all(text.encode() not in path.read_bytes() for path in Path(run.uri).rglob("*") if path.is_file())
