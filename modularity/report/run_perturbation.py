"""The tables of a perturbation, brought into the form that the page shows."""

from collections.abc import Iterator, Sequence

import numpy as np

from modularity.report.content import (
    Finding,
    FunctionSummary,
    ReportContent,
    RunSummary,
    SubFunction,
)
from modularity.report.perturbation import Dose, DoseLine, DosePanel, DropMatrix, Perturbation, RoutingMatrix
from modularity.report.provenance import source_provenance
from modularity.report.run_tables import Row, table_rows
from modularity.report.wording import number, p_value, percent, plural, with_interval
from modularity.store import Run

UNCHANGED = "none"
JOB = "perturbation"
SHOWN = ("accuracy", "margin")


def perturbation_content(run: Run, model: str) -> ReportContent:
    """Everything that the page of a perturbation shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `perturbation`
    model : name of the model to print
    """
    manifest = run.manifest
    notes, tasks = manifest.notes, [task["name"] for task in manifest.notes["tasks"]]
    rows = table_rows(run, "perturbation")
    noises = [noise for noise in manifest.config["noises"] if any(row["noise"] == noise for row in rows)]
    shown = Perturbation(
        doses=tuple(_dose(rows, noise, tasks) for noise in noises),
        matrices=tuple(_matrix(rows, noise, tasks) for noise in noises),
        routing=_routing(table_rows(run, "routing_tests"), tasks),
    )
    return ReportContent(
        title=f"Neurons broken in {model}",
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
        perturbation=shown,
        sections=("perturbation", *(("routing",) if shown.routing else ())),
        notes=tuple(_notes(run, rows)),
        findings=(*_verdicts(table_rows(run, "dissociation")), *_routing_findings(table_rows(run, "routing_tests"))),
    )


def _role(row: Row, task: str) -> str | None:
    """What a ranking is to a task; None where it is not drawn in its panel."""
    if row["kind"] == "single":
        return "own" if row["of"] == task else "other"
    if row["kind"] == "matched":
        return "matched" if row["of"] == task else None
    return str(row["kind"])


def _dose(rows: Sequence[Row], noise: str, tasks: Sequence[str]) -> Dose:
    strengths = sorted({row["strength"] for row in rows if row["noise"] == noise})
    panels = [
        DosePanel(task, measure, tuple(_lines(rows, noise, task, measure, strengths)))
        for measure in SHOWN
        for task in tasks
    ]
    n_seeds = len({row["seed"] for row in rows if row["noise"] == noise and row["kind"] == "single"})
    return Dose(noise, np.array([0.0, *strengths]), tuple(panels), n_seeds)


def _lines(rows: Sequence[Row], noise: str, task: str, measure: str, strengths: Sequence[float]) -> Iterator[DoseLine]:
    of_task = [row for row in rows if row["task"] == task]
    (unchanged,) = (row[measure] for row in of_task if row["ranking"] == UNCHANGED)
    of_noise = [row for row in of_task if row["noise"] == noise]
    for ranking in dict.fromkeys(row["ranking"] for row in of_noise):
        cells = [row for row in of_noise if row["ranking"] == ranking]
        role = _role(cells[0], task)
        if role is None:
            continue
        values = [[row[measure] for row in cells if row["strength"] == strength] for strength in strengths]
        points = [[unchanged], *(value or [np.nan] for value in values)]
        yield DoseLine(
            ranking,
            role,
            np.array([np.mean(point) for point in points]),
            np.array([np.min(point) for point in points]),
            np.array([np.max(point) for point in points]),
        )


def _matrix(rows: Sequence[Row], noise: str, tasks: Sequence[str]) -> DropMatrix:
    """Drops at the largest strength."""
    strength = max(row["strength"] for row in rows if row["noise"] == noise)
    cells = [row for row in rows if row["noise"] == noise and row["strength"] == strength]
    found = list(dict.fromkeys(row["ranking"] for row in cells))
    rankings = [*(task for task in tasks if task in found), *sorted(name for name in found if name not in tasks)]
    shape = (len(rankings), len(tasks))
    drop, low, high = (np.full(shape, np.nan) for _ in range(3))
    for place in np.ndindex(*shape):
        key = rankings[place[0]], tasks[place[1]]
        values = [row["drop_margin"] for row in cells if (row["ranking"], row["task"]) == key]
        if values:
            drop[place], low[place], high[place] = np.mean(values), min(values), max(values)
    return DropMatrix(noise, strength, tuple(rankings), tuple(tasks), drop, low, high)


def _routing(rows: Sequence[Row], tasks: Sequence[str]) -> RoutingMatrix | None:
    margins = [row for row in rows if row["measure"] == "margin"]
    if not margins:
        return None
    experts_of = [task for task in tasks if any(row["experts_of"] == task for row in margins)]
    advantage, p = (np.full((len(experts_of), len(tasks)), np.nan) for _ in range(2))
    for row in margins:
        place = experts_of.index(row["experts_of"]), tasks.index(row["task"])
        advantage[place], p[place] = row["functional"] - row["others"], row["p_value"]
    return RoutingMatrix(tuple(tasks), tuple(experts_of), advantage, p, margins[0]["n_draws"])


def _verdicts(rows: Sequence[Row]) -> Iterator[Finding]:
    """One sentence for each noise: the logit margin at the largest strength."""
    for noise in dict.fromkeys(row["noise"] for row in rows):
        of_noise = [row for row in rows if row["noise"] == noise and row["measure"] == "margin"]
        row = max(of_noise, key=lambda row: row["strength"])
        yield Finding(
            _sentence(noise, row),
            "unsupported" if row["verdict"] == "not shown" else "supported",
            noise,
            "perturbation",
        )


def _sentence(noise: str, row: Row) -> str:
    lead = {
        "double dissociation": "a double dissociation; the neurons of each task are needed for this task more than for "
        "the others, in every pair of tasks",
        "dissociation": "a dissociation on the whole; tasks suffer more under their own neurons than under those of "
        "others, though not in every pair of tasks",
        "not shown": "it was not shown that the neurons of a task are needed for this task more than for others",
    }[row["verdict"]]
    bound = (
        f"; with {plural(row['n_tasks'], 'task')} no p can be below {number(row['smallest_p_value'])}"
        if row["verdict"] == "not shown" and row["smallest_p_value"] > 0.05
        else ""
    )
    control = f", under matched random neurons {number(row['matched'])}" if np.isfinite(row["matched"]) else ""
    return (
        f"{noise}: {lead}. With {percent(row['strength'])} of the neurons of each layer changed the margin falls by "
        f"{number(row['diagonal'])} under a task's own neurons, by {number(row['off_diagonal'])} under those of other "
        f"tasks{control}; dissociation index {with_interval(row['index'], row['low'], row['high'])}, "
        f"{p_value(row['p_value'])}, corrected over noises and strengths {number(row['q_value'])}{bound}."
    )


def _routing_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    own = [row for row in rows if row["own"] and row["measure"] == "margin"]
    if not own:
        return
    better = [row["task"] for row in own if row["q_value"] <= 0.05]
    text = (
        f"routing: restricted to its own functional experts, {len(better)} of {plural(len(own), 'task')} "
        f"keeps a larger margin than with as many other experts ({plural(own[0]['n_draws'], 'draw')}, false discovery "
        f"rate 5 %){': ' + ', '.join(better) if better else ''}."
    )
    yield Finding(text, "supported" if better else "unsupported", "routing", "routing")


def _notes(run: Run, rows: Sequence[Row]) -> Iterator[str]:
    manifest = run.manifest
    for task in manifest.notes["tasks"]:
        if task["n_truncated"]:
            yield f"{task['n_truncated']:,} texts of task {task['name']} were longer than the limit and lost their end."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in manifest.notes.get("plan", []))
    chance = [row["task"] for row in rows if row["ranking"] == UNCHANGED and row["accuracy"] <= row["majority"]]
    if chance:
        yield (f"The unchanged model answers {', '.join(chance)} no better than a constant answer: drops say little.")
    balance = table_rows(run, "perturbation_balance")
    poor = [row for row in balance if abs(row["difference"]) > 0.1]
    if poor:
        yield (
            f"Matched controls: in {len(poor):,} of {len(balance):,} comparisons, each of "
            "one feature in one layer, they differ from the neurons that they resemble by more than 0.1 standard "
            "deviations; see the table perturbation_balance."
        )
    if manifest.config["variant"] != "corrected":
        yield f"Variant {manifest.config['variant']}: neurons are chosen and tasks measured on the same examples."
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."


def _functions(run: Run) -> Iterator[FunctionSummary]:
    tasks = run.manifest.notes["tasks"]
    labels: dict[str, list[int]] = {}
    for row in table_rows(run, "task_examples"):
        labels.setdefault(row["task"], []).append(row["label"])
    for name in dict.fromkeys(task["function"] for task in tasks):
        own = [task for task in tasks if task["function"] == name]
        yield FunctionSummary(
            name=name,
            kind="asked by label words",
            source=str(run.manifest.config["source"]),
            pooling="none, answers are read",
            subfunctions=tuple(
                SubFunction(
                    f"{task['name']}: {' / '.join(task['words'])}",
                    task["n_selection"],
                    task["n_examples"],
                    float(np.mean(labels.get(task["name"], [0]))),
                )
                for task in own
            ),
            n_examples=sum(task["n_examples"] for task in own),
            n_tokens=sum(task["n_tokens"] for task in own),
            n_truncated=sum(task["n_truncated"] for task in own),
        )
