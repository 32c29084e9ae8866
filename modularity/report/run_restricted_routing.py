"""The tables of a restricted-routing study, brought into the form that the page shows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modularity.report.content import Finding, FunctionSummary, ReportContent, RunSummary, SubFunction
from modularity.report.provenance import source_provenance
from modularity.report.restricted_routing import STRATEGY_NAMES, RoutingStudy, StrategyValues, TunedTask
from modularity.report.run_tables import table_rows
from modularity.report.wording import joined, number, p_value, percent, plural, with_interval
from modularity.store import Run

Row = Mapping[str, Any]
JOB = "restricted_routing"
AVERAGE = "average"
LEVEL = 0.05


def restricted_routing_content(run: Run, model: str) -> ReportContent:
    """Everything that the page of a study shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `restricted_routing`
    model : name of the model to print
    """
    manifest, notes = run.manifest, run.manifest.notes
    summary = [row for row in table_rows(run, "strategies") if row["measure"] == "accuracy"]
    tests = [row for row in table_rows(run, "strategy_tests") if row["measure"] == "accuracy"]
    return ReportContent(
        title=f"Fine-tuning with some experts of {model}",
        run=RunSummary(
            model=model,
            site=str(notes["analysed"]),
            layers=tuple(notes["layers"]),
            n_neurons=sum(notes["n_neurons"]),
            n_permutations=0,
            created=manifest.created,
        ),
        functions=tuple(_functions(run)),
        provenance=source_provenance(run),
        tuning=_study(run, summary) if summary else None,
        sections=("routing",),
        notes=tuple(_notes(run)),
        findings=tuple(_findings(summary, tests)),
    )


def _study(run: Run, summary: Sequence[Row]) -> RoutingStudy:
    trainings, curve = table_rows(run, "accuracy"), table_rows(run, "tuning_curve")
    names = [*dict.fromkeys(row["task"] for row in summary if row["task"] != AVERAGE)]
    members = {row["task"] for row in summary if row["task"] != AVERAGE and row["strategy"] == "functional"}
    names += [AVERAGE] if any(row["task"] == AVERAGE for row in summary) else []
    tasks = []
    for name in names:
        rows = [
            row for strategy in STRATEGY_NAMES for row in summary if (row["task"], row["strategy"]) == (name, strategy)
        ]
        shown = members if name == AVERAGE else {name}
        strategies = tuple(
            StrategyValues(
                row["strategy"], _by_seed(trainings, shown, row["strategy"]), row["mean"], row["sd"], row["low"],
                row["high"], *_course(curve, name, row["strategy"]),
            )
            for row in rows
        )  # fmt: skip
        tasks.append(TunedTask(name, strategies, rows[0]["majority"], rows[0]["n"]))
    config = run.manifest.config
    return RoutingStudy(tuple(tasks), config["n_draws"], config["variant"] != "corrected")


def _course(curve: Sequence[Row], task: str, strategy: str) -> tuple[Any, Any]:
    """Steps of the checkpoints, and the mean validation accuracy at each; empty for the average over tasks."""
    values: dict[int, list[float]] = {}
    for row in curve:
        if (row["task"], row["strategy"]) == (task, strategy):
            values.setdefault(row["step"], []).append(row["accuracy"])
    steps = sorted(values)
    return np.array(steps, dtype=np.float64), np.array([np.mean(values[step]) for step in steps], dtype=np.float64)


def _by_seed(trainings: Sequence[Row], tasks: set[str], strategy: str) -> Any:
    """Accuracy of every seed: the mean over draws, then over tasks."""
    rows = [row for row in trainings if row["strategy"] == strategy and row["task"] in tasks]
    seeds = sorted({row["seed"] for row in rows})
    values = [
        [np.mean([row["accuracy"] for row in rows if (row["task"], row["seed"]) == (task, seed)]) for task in tasks]
        for seed in seeds
    ]
    return np.mean(np.array(values, dtype=np.float64), axis=1)


def _findings(summary: Sequence[Row], tests: Sequence[Row]) -> Iterator[Finding]:
    """For each comparison one sentence: over all tasks where there are several, and which tasks show it."""
    lead = {
        "others": "as many experts that are not functional",
        "random": "as many random experts",
        "original": "all experts",
    }
    for against, words in lead.items():
        rows = [row for row in tests if row["against"] == against]
        if not rows:
            continue
        whole = next((row for row in rows if row["task"] == AVERAGE), rows[0])
        mean = {row["strategy"]: row["mean"] for row in summary if row["task"] == whole["task"]}
        tasks = [row for row in rows if row["task"] != AVERAGE]
        better = [row["task"] for row in tasks if row["q_value"] <= LEVEL and row["difference"] > 0]
        worse = [row["task"] for row in tasks if row["q_value"] <= LEVEL and row["difference"] < 0]
        text = (
            f"{whole['task']}: trained with the functional experts only, accuracy is {percent(mean['functional'])}, "
            f"with {words} {percent(mean[against])}: a difference of "
            f"{with_interval(100 * whole['difference'], 100 * whole['low'], 100 * whole['high'], 1)} points, "
            f"{p_value(whole['p_value'])}"
            f"{_bound(whole)}. Of {plural(len(tasks), 'task')}, {_which(better)} better and {_which(worse)} worse with "
            "the functional experts (corrected over tasks)."
        )
        yield Finding(text, "supported" if whole["q_value"] <= LEVEL else "unsupported", whole["task"], "routing")


def _bound(row: Row) -> str:
    if row["smallest_p_value"] <= LEVEL:
        return ""
    return f" (with {plural(row['n_seeds'], 'seed')} no p can be below {number(row['smallest_p_value'])})"


def _which(tasks: list[str]) -> str:
    return f"{len(tasks)} ({joined(tasks)})" if tasks else "none"


def _notes(run: Run) -> Iterator[str]:
    manifest = run.manifest
    for task in manifest.notes["tasks"]:
        if task["n_truncated"]:
            yield f"{task['n_truncated']:,} texts of task {task['name']} were longer than the limit and lost their end."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in manifest.notes.get("plan", []))
    rows = table_rows(run, "accuracy")
    poor = [
        name
        for name in dict.fromkeys(row["task"] for row in rows)
        if np.mean([row["accuracy"] - row["majority"] for row in rows
                    if (row["task"], row["strategy"]) == (name, "original")]) <= 0
    ]  # fmt: skip
    if poor:
        yield f"Trained with all experts, {joined(poor)} is answered no better than by a constant answer."
    yield "Tests are over seeds, on the same test examples: they say nothing of other examples or checkpoints."
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."


def _functions(run: Run) -> Iterator[FunctionSummary]:
    tasks = run.manifest.notes["tasks"]
    for name in dict.fromkeys(task["function"] for task in tasks):
        own = [task for task in tasks if task["function"] == name]
        yield FunctionSummary(
            name=name,
            kind="asked by label words",
            source=str(run.manifest.config["source"]),
            pooling="none, answers are read",
            subfunctions=tuple(
                SubFunction(
                    f"{task['name']}: {' / '.join(task['words'])}", task["training"], task["test"],
                    task["share_positive"],
                )
                for task in own
            ),
            n_examples=sum(task["n_examples"] for task in own),
            n_tokens=sum(task["n_tokens"] for task in own),
            n_truncated=sum(task["n_truncated"] for task in own),
        )  # fmt: skip
