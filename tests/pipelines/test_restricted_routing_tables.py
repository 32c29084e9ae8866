"""Strategies compared in pairs of seeds, by hand: means over draws, signs of differences, the average over tasks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_jobs

from modularity.pipelines.restricted_routing_tables import compare_strategies, seed_values
from modularity.store import Manifest, Run, create_run, table_from_columns
from modularity.types import WorkItem

MEASURES = ("accuracy", "balanced_accuracy", "mcc", "margin")


def training(task: str, strategy: str, seed: int, value: float, draw: int = -1) -> dict[str, Any]:
    head = {"task": task, "strategy": strategy, "draw": draw, "seed": seed, "majority": 0.5, "n": 40}
    return head | dict.fromkeys(MEASURES, value)


@pytest.fixture
def trainings() -> list[dict[str, Any]]:
    """Two tasks alike under three seeds, and one without functional experts."""
    rows = []
    for seed, (functional, original) in enumerate([(0.9, 0.8), (0.8, 0.6), (0.7, 0.6)]):
        for task in ("a", "b"):
            rows += [
                training(task, "functional", seed, functional), training(task, "original", seed, original),
                training(task, "others", seed, 0.5), training(task, "random", seed, 0.4, 0),
                training(task, "random", seed, 0.6, 1),
            ]  # fmt: skip
        rows.append(training("c", "original", seed, 0.5))
    return rows


def compared(folder: Path, rows: list[dict[str, Any]]) -> Run:
    run = create_run(str(folder / "run"), Manifest.of("restricted_routing"))
    item = WorkItem.of("tune")
    table = table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
    run.commit(item, tables=[run.write_table("accuracy", item, table)])
    compare_strategies(run, WorkItem.of("compare"))
    return run


def test_pairs_of_seeds_are_compared_by_all_signs(tmp_path: Path, trainings: list[dict[str, Any]]) -> None:
    run = compared(tmp_path, trainings)
    found = {(row["task"], row["against"]): row for row in tiny_jobs.rows_of(run, "strategy_tests", measure="mcc")}
    assert set(found) == {(task, other) for task in ("a", "b", "average") for other in ("original", "others", "random")}
    row = found["a", "original"]
    assert (row["difference"], row["n_seeds"]) == pytest.approx((0.4 / 3, 3))
    assert row["p_value"] == row["q_value"] == row["smallest_p_value"] == 2 / 8
    assert row["sd"] == pytest.approx(np.std([0.1, 0.2, 0.1], ddof=1))
    assert row["low"] < row["difference"] < row["high"]
    assert found["a", "random"]["difference"] == pytest.approx(0.3)  # two draws, 0.5 on average
    assert found["average", "others"]["difference"] == pytest.approx(0.3)
    assert found["average", "others"]["q_value"] == found["average", "others"]["p_value"]


def test_the_summary_averages_draws_first_and_leaves_out_tasks_without_every_strategy(
    tmp_path: Path, trainings: list[dict[str, Any]]
) -> None:
    run = compared(tmp_path, trainings)
    rows = {(r["task"], r["strategy"]): r for r in tiny_jobs.rows_of(run, "strategies", measure="accuracy")}
    assert {task for task, _ in rows} == {"a", "b", "c", "average"}
    assert {strategy for task, strategy in rows if task == "c"} == {"original"}
    assert (rows["a", "random"]["mean"], rows["a", "random"]["sd"]) == pytest.approx((0.5, 0))
    assert (rows["a", "random"]["n_draws"], rows["a", "functional"]["n_draws"]) == (2, 1)
    average = rows["average", "functional"]
    assert (average["mean"], average["n_seeds"]) == pytest.approx((0.8, 3))


def test_values_of_a_seed_are_in_its_order(trainings: list[dict[str, Any]]) -> None:
    cells = seed_values(trainings[::-1], "accuracy")
    np.testing.assert_allclose(cells["b", "functional"], [0.9, 0.8, 0.7])


def test_one_task_has_no_average_and_none_restricted_no_tests(tmp_path: Path, trainings: list[dict[str, Any]]) -> None:
    one = compared(tmp_path / "one", [row for row in trainings if row["task"] == "a"])
    assert {row["task"] for row in tiny_jobs.rows_of(one, "strategies")} == {"a"}
    none = compared(tmp_path / "none", [row for row in trainings if row["task"] == "c"])
    assert "strategy_tests" not in none.tables()
