"""What the page shows of fine-tuning with some experts: accuracy of every task under every strategy, seed by seed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.report.content import Finding, FloatArray
from modularity.report.curves import Plot
from modularity.report.lines import Panel, Series, XAxis
from modularity.report.palette import category
from modularity.report.wording import number, p_value, plural, with_interval

STRATEGIES = {
    "original": "all",
    "functional": "functional",
    "others": "others",
    "random": "any",
}
"""Strategy and what is written at the axis, in order."""
MEAN_OF_TASKS = "mean of tasks"
"""Task of the rows that compare averages over tasks."""
HEADERS = ("task", "against", "functional", "other", "difference", "95 % interval", "p", "q over tasks")


@dataclass(frozen=True, eq=False)
class TunedTask:
    """Accuracy on the test examples of one task."""

    task: str
    accuracy_NX: FloatArray
    """Seeds × strategies; draws of a seed averaged."""
    majority: float
    """Share of the more frequent label."""


@dataclass(frozen=True, eq=False)
class FineTunings:
    """All tasks that were learnt, and how strategies compare."""

    tasks: tuple[TunedTask, ...]
    tests: tuple[Mapping[str, Any], ...]
    """Rows of `fine_tuning_tests` for the accuracy."""


def fine_tunings(rows: Sequence[Mapping[str, Any]], tests: Sequence[Mapping[str, Any]]) -> FineTunings | None:
    """From the rows of the tables `fine_tuning` and `fine_tuning_tests`; None while there is no test."""
    if not tests:
        return None
    tasks = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        seeds = sorted({row["seed"] for row in own})
        accuracy_NX = np.array(
            [
                [
                    np.mean([row["accuracy"] for row in own if (row["seed"], row["strategy"]) == (seed, strategy)])
                    for strategy in STRATEGIES
                ]
                for seed in seeds
            ]
        )
        tasks.append(TunedTask(task, accuracy_NX, float(own[0]["majority"])))
    return FineTunings(tuple(tasks), tuple(row for row in tests if row["measure"] == "accuracy"))


def fine_tuning_plot(shown: FineTunings) -> Plot:
    """A panel for each task: strategies along the axis, a grey line for each seed, their mean in colour."""
    places = np.arange(len(STRATEGIES), dtype=np.float64)
    panels = []
    for index, task in enumerate(shown.tasks):
        seeds = tuple(Series(places, accuracy_X, "other") for accuracy_X in task.accuracy_NX)
        floor = Series(places, np.full(len(places), task.majority), "null")
        mean_X, low_X, high_X = (f(task.accuracy_NX, axis=0) for f in (np.mean, np.min, np.max))
        tips = tuple(
            (
                f"{task.task} · {name}",
                f"accuracy {number(float(mean), 3)}",
                f"always one label {number(task.majority, 3)}",
            )
            for name, mean in zip(STRATEGIES.values(), mean_X)
        )
        panels.append(
            Panel(
                task.task,
                category(index),
                (floor, *seeds, Series(places, mean_X, "line", low_X, high_X, tips)),
                (),
                "accuracy",
            )
        )
    return Plot(
        name="fine-tuning",
        section="routing",
        title="Fine-tuning with the experts of a task only",
        description=f"Accuracy after fine-tuning under four strategies for {plural(len(shown.tasks), 'task')}.",
        caption=(
            "Accuracy on examples that the checkpoint was not chosen by, unless the notes say otherwise. Tokens were "
            "routed, in training and after, to all experts, to the functional ones of the task, to as many others, or "
            "to as many of all. Grey lines are seeds, the coloured line their mean, bars their range; dashed: always "
            "the more frequent label. The table compares pairs of one seed by all signs of their differences."
        ),
        panels=tuple(panels),
        axis=XAxis("experts that tokens may go to", places, tuple(STRATEGIES.values())),
        legend=(("line", "mean over seeds"), ("other", "one seed"), ("null", "always the more frequent label")),
        headers=HEADERS,
        rows=tuple(
            (
                row["task"], STRATEGIES[row["against"]], number(row["functional"], 3), number(row["other"], 3),
                number(row["difference"], 3),
                f"{number(row['difference_low'], 3)} to {number(row['difference_high'], 3)}",
                number(row["p_value"], 3), number(row["q_value"], 3),
            )
            for row in shown.tests
        ),
    )  # fmt: skip


def fine_tuning_findings(shown: FineTunings | None) -> Iterator[Finding]:
    """One sentence: functional experts against as many others, on the mean of tasks, or the only task."""
    if shown is None:
        return
    (row,) = [row for row in shown.tests if row["against"] == "others"][-1:]
    supported = row["p_value"] <= 0.05 and row["difference"] > 0
    where = "on average over the tasks" if row["task"] == MEAN_OF_TASKS else f"on {row['task']}"
    bound = ""
    if row["smallest_p_value"] > 0.05:
        bound = f"; with {plural(row['n_seeds'], 'seed')} no p-value can be below {number(row['smallest_p_value'], 3)}"
    text = (
        f"fine-tuning: {where}, with the functional experts only, the accuracy is "
        f"{number(row['functional'], 3)}, with as many others {number(row['other'], 3)}; difference "
        f"{with_interval(row['difference'], row['difference_low'], row['difference_high'])} over "
        f"{plural(row['n_seeds'], 'seed')}, {p_value(row['p_value'])}{bound}."
    )
    yield Finding(text, "supported" if supported else "unsupported", "fine-tuning", "routing")
