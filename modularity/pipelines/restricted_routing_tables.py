"""Does training with the functional experts only suffice? Brings the trainings of all strategies together.

Table `strategies`: mean, spread and interval over seeds of every task under every strategy, and of their average (card
A7). Table `strategy_tests`: functional experts against each other strategy, paired by seed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modularity.pipelines.perturbation_measure import MEASURES
from modularity.pipelines.restricted_routing_prepare import ORIGINAL, RANDOM, STRATEGIES
from modularity.pipelines.restrictions import FUNCTIONAL, OTHERS
from modularity.stats import benjamini_hochberg, mean_interval, sign_flip_test
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

AVERAGE = "average"
"""Task in the rows of the mean over tasks."""
Row = dict[str, Any]
Cells = dict[tuple[str, str], np.ndarray]


def compare_strategies(run: Run, item: WorkItem) -> Mapping[str, Any]:
    """Write the tables `strategies` and `strategy_tests`.

    Draws of random experts are averaged within each seed, so that every strategy has one value for each seed. Tests are
    two-sided sign flips over seeds; q is the Benjamini-Hochberg value over the tasks, by comparison and measure. The
    average over tasks is one test by itself, its q is its p.
    """
    every = run.table("accuracy").to_pylist()
    summary: list[Row] = []
    tests: list[Row] = []
    for measure in MEASURES:
        cells = seed_values(every, measure)
        summary += [_summary_row(every, task, strategy, measure, cells[task, strategy]) for task, strategy in cells]
        for other in (ORIGINAL, OTHERS, RANDOM):
            tests += _tests(cells, other, measure)
    tables = [run.write_table("strategies", item, _table(summary))]
    if tests:
        tables.append(run.write_table("strategy_tests", item, _table(tests)))
    run.commit(item, tables=tables)
    return {}


def seed_values(rows: Sequence[Mapping[str, Any]], measure: str) -> Cells:
    """Values by (task, strategy), one for each seed in ascending order, the mean over draws; and those of the average.

    The average is over the tasks that have every strategy, and is there where they are two or more.
    """
    values: dict[tuple[str, str], dict[int, list[float]]] = {}
    for row in rows:
        values.setdefault((row["task"], row["strategy"]), {}).setdefault(row["seed"], []).append(row[measure])
    tasks = list(dict.fromkeys(task for task, _ in values))
    cells: Cells = {
        (task, strategy): np.array([np.mean(values[task, strategy][seed]) for seed in sorted(values[task, strategy])])
        for task in tasks
        for strategy in STRATEGIES
        if (task, strategy) in values
    }
    complete = [task for task in tasks if all((task, strategy) in cells for strategy in STRATEGIES)]
    if len(complete) > 1:
        for strategy in STRATEGIES:
            cells[AVERAGE, strategy] = np.mean([cells[task, strategy] for task in complete], axis=0)
    return cells


def _summary_row(rows: Sequence[Row], task: str, strategy: str, measure: str, values_N: np.ndarray) -> Row:
    own = [row for row in rows if row["strategy"] == strategy and task in (row["task"], AVERAGE)]
    interval = mean_interval(values_N)
    return {
        "task": task, "strategy": strategy, "measure": measure, "mean": interval.estimate,
        "sd": float(values_N.std(ddof=1)), "low": interval.low, "high": interval.high, "n_seeds": len(values_N),
        "n_draws": len({row["draw"] for row in own}),
        "majority": float(np.mean([row["majority"] for row in own])),
        "n": int(sum({row["task"]: row["n"] for row in own}.values())),
    }  # fmt: skip


def _tests(cells: Cells, other: str, measure: str) -> list[Row]:
    """Functional experts minus another strategy, of every task that has both."""
    tasks = [task for task, strategy in cells if strategy == FUNCTIONAL and (task, other) in cells]
    rows = []
    for task in tasks:
        found = sign_flip_test(cells[task, FUNCTIONAL] - cells[task, other])
        rows.append(
            {"task": task, "measure": measure, "against": other, "difference": found.mean, "sd": found.sd,
             "low": found.interval.low, "high": found.interval.high, "p_value": found.p_value,
             "smallest_p_value": found.smallest_p_value, "n_seeds": found.n}
        )  # fmt: skip
    family = [row for row in rows if row["task"] != AVERAGE]
    if not family:
        return []
    q_values = benjamini_hochberg(np.array([row["p_value"] for row in family]))
    q_of = {row["task"]: float(q) for row, q in zip(family, q_values)}
    return [row | {"q_value": q_of.get(row["task"], row["p_value"])} for row in rows]


def _table(rows: Sequence[Row]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
