"""Does breaking the neurons of a task hurt this task more than the others? Brings a perturbation together (card A6).

Table `dissociation`: one row for each noise, strength and measure, from the drops of every task under the ranking of
every task. What random neurons that resemble those of a task do to it stands beside it.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from modularity.interventions import drop_array
from modularity.pipelines.perturbation_config import PerturbationConfig
from modularity.stats import Dissociation, benjamini_hochberg, dissociation_index
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]
MEASURES = ("accuracy", "balanced_accuracy", "mcc", "margin")
LEVEL = 0.05
DOUBLE, SINGLE, NOT_SHOWN = "double dissociation", "dissociation", "not shown"


def dissociate(run: Run, item: WorkItem, config: PerturbationConfig, tasks: Sequence[str]) -> Mapping[str, Any]:
    """Write the table `dissociation`.

    `p_value` is the share of the assignments of rankings to tasks with an index as large, the larger of that of the
    drops and that of drops standardised by task. q is its Benjamini-Hochberg value over noises and strengths, by
    measure.
    """
    every = run.table("perturbation").to_pylist()
    rows: list[Row] = []
    for measure in MEASURES:
        cells = list(product(config.noises, config.strengths))
        found = [_dissociation(every, noise, strength, measure, tasks) for noise, strength in cells]
        p_value = np.array([max(each.p_value, each.p_value_standardised) for each in found])
        for (noise, strength), each, p, q in zip(cells, found, p_value, benjamini_hochberg(p_value)):
            at = [row for row in every if row["noise"] == noise and row["strength"] == strength]
            rows.append(
                {"noise": noise, "strength": strength, "measure": measure}
                | _columns(each, p_value=float(p), q_value=float(q))
                | {"n_tasks": len(tasks), "n_examples": sum(row["n"] for row in every if row["ranking"] == "none")}
                | _controls(at, tasks, measure)
            )
    table = table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
    run.commit(item, tables=[run.write_table("dissociation", item, table)])
    return {}


def verdict(dissociation: Dissociation, q_value: float) -> str:
    """What the index says: `double dissociation` where every pair of tasks shows one and chance is excluded."""
    if q_value > LEVEL or dissociation.index <= 0:
        return NOT_SHOWN
    return DOUBLE if dissociation.share_double == 1 else SINGLE


def _dissociation(rows: Sequence[Row], noise: str, strength: float, measure: str, tasks: Sequence[str]) -> Dissociation:
    drop = drop_array(
        rows,
        noise=noise,
        strength=strength,
        measure=measure,  # type: ignore[arg-type]  # of MEASURES
        rankings=tasks,
        tasks=tasks,
    )
    return dissociation_index(drop)


def _columns(each: Dissociation, *, p_value: float, q_value: float) -> Row:
    return {
        "index": each.index,
        "low": float(each.interval.low),
        "high": float(each.interval.high),
        "p_value": p_value,
        "q_value": q_value,
        "smallest_p_value": each.smallest_p_value,
        "diagonal": each.diagonal,
        "off_diagonal": each.off_diagonal,
        "share_double": each.share_double,
        "verdict": verdict(each, q_value),
        "n_seeds": len(each.index_by_seed),
    }


def _controls(rows: Sequence[Row], tasks: Sequence[str], measure: str) -> Row:
    """Mean drop of the tasks under the matched control of their own neurons, and under random ones."""

    def mean(ranking: str, task: str) -> float:
        drops = [row[f"drop_{measure}"] for row in rows if (row["ranking"], row["task"]) == (ranking, task)]
        return float(np.mean(drops)) if drops else float("nan")

    return {
        "matched": float(np.mean([mean(f"matched {task}", task) for task in tasks])),
        "random": float(np.mean([mean("random", task) for task in tasks])),
    }
