"""What the page shows of a perturbation: accuracy and margin against strength, and drops of every task by ranking."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from modularity.errors import DataError
from modularity.report.curves import Plot
from modularity.report.grids import Grid
from modularity.report.lines import Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import number, percent, plural

FloatArray = npt.NDArray[np.float64]
ROLES: dict[str, tuple[Style, str]] = {
    "own": ("line", "neurons of this task, bars: range over seeds"),
    "other": ("other", "neurons of another task"),
    "average": ("control1", "best neurons by the average over sub-functions"),
    "experts": ("control2", "best whole experts"),
    "matched": ("control3", "random neurons matched to those of this task"),
    "random": ("null", "random neurons"),
}
"""Role of a line for one task, its style, and its meaning; in drawing order of the legend."""
MEASURE_NAMES = {"accuracy": "accuracy", "margin": "logit margin"}


@dataclass(frozen=True, eq=False)
class DoseLine:
    """One measure of one task under one ranking, at every strength, the unchanged model first."""

    ranking: str
    role: str
    """One of `ROLES`."""
    mean_X: FloatArray
    """Mean over seeds."""
    low_X: FloatArray
    high_X: FloatArray
    """Smallest and largest over seeds."""


@dataclass(frozen=True, eq=False)
class DosePanel:
    """One task and measure."""

    task: str
    measure: str
    lines: tuple[DoseLine, ...]


@dataclass(frozen=True, eq=False)
class Dose:
    """All tasks under one kind of noise."""

    noise: str
    strengths_X: FloatArray
    """Shares of the neurons of each layer; 0 is the unchanged model."""
    panels: tuple[DosePanel, ...]
    n_seeds: int

    def __post_init__(self) -> None:
        for panel in self.panels:
            for line in panel.lines:
                if line.mean_X.shape != self.strengths_X.shape:
                    raise DataError(
                        f"line {line.ranking!r} of task {panel.task!r} has {len(line.mean_X)} points, expected "
                        f"{len(self.strengths_X)}, one for each strength"
                    )


@dataclass(frozen=True, eq=False)
class DropMatrix:
    """Drops of the margin of every task (columns) under every ranking (rows) at one noise and strength."""

    noise: str
    strength: float
    rankings: tuple[str, ...]
    tasks: tuple[str, ...]
    drop_YS: FloatArray
    """Mean over seeds."""
    low_YS: FloatArray
    high_YS: FloatArray

    def __post_init__(self) -> None:
        if self.drop_YS.shape != (len(self.rankings), len(self.tasks)):
            raise DataError(
                f"drops have shape {self.drop_YS.shape}, expected ({len(self.rankings)}, {len(self.tasks)}), a row for "
                "each ranking and a column for each task"
            )

    @property
    def own_YS(self) -> npt.NDArray[np.bool_]:
        """Cells of a task under its own ranking."""
        return np.array([[ranking == task for task in self.tasks] for ranking in self.rankings])


@dataclass(frozen=True, eq=False)
class RoutingMatrix:
    """Change of the margin of every task (columns) with routing restricted to the experts of a task (rows)."""

    tasks: tuple[str, ...]
    experts_of: tuple[str, ...]
    advantage_YS: FloatArray
    """Margin with the functional experts minus the mean margin with as many others."""
    p_value_YS: FloatArray
    n_draws: int


@dataclass(frozen=True, eq=False)
class Perturbation:
    """Everything that the page shows of a perturbation."""

    doses: tuple[Dose, ...]
    matrices: tuple[DropMatrix, ...]
    routing: RoutingMatrix | None = None
    headers: tuple[str, ...] = field(default=("task", "measure", "ranking", "neurons", "value", "range over seeds"))


def dose_plot(dose: Dose, tasks: tuple[str, ...]) -> Plot:
    """Accuracy and margin of every task against strength, a panel for each."""
    used = {line.role for panel in dose.panels for line in panel.lines}
    names = tuple(percent(float(x)) for x in dose.strengths_X)
    return Plot(
        name=f"dose-{dose.noise}",
        section="perturbation",
        title=f"Tasks while neurons are changed, noise: {dose.noise}",
        description=f"Line plots of accuracy and logit margin by share of changed neurons for {len(tasks)} tasks.",
        caption=(
            f"Each task on evaluation examples while a share of the neurons of each layer is changed ({dose.noise}), "
            f"chosen in several ways; {plural(dose.n_seeds, 'seed')}. Zero is the unchanged model. The margin is the "
            "logit of the right label word minus that of the other."
        ),
        panels=tuple(_panel(panel, dose, tasks, row) for row, panel in _with_rows(dose)),
        axis=XAxis("changed neurons of each layer", dose.strengths_X, names),
        legend=tuple(ROLES[role] for role in ROLES if role in used),
        headers=("task", "measure", "ranking", "neurons", "value", "range over seeds"),
        rows=tuple(
            (panel.task, MEASURE_NAMES[panel.measure], line.ranking, names[i], number(float(line.mean_X[i]), 3),
             f"{number(float(line.low_X[i]), 3)} to {number(float(line.high_X[i]), 3)}")
            for panel in dose.panels for line in panel.lines for i in range(len(names))
        ),
    )  # fmt: skip


def _with_rows(dose: Dose) -> list[tuple[int, DosePanel]]:
    measures = list(dict.fromkeys(panel.measure for panel in dose.panels))
    ordered = sorted(dose.panels, key=lambda panel: measures.index(panel.measure))
    return [(measures.index(panel.measure), panel) for panel in ordered]


def _panel(panel: DosePanel, dose: Dose, tasks: tuple[str, ...], row: int) -> Panel:
    order = list(ROLES)[::-1]
    lines = sorted(panel.lines, key=lambda line: order.index(line.role))
    series = []
    for line in lines:
        if line.role != "own":
            series.append(Series(dose.strengths_X, line.mean_X, ROLES[line.role][0]))
            continue
        tips = tuple(_tip(panel, dose, index) for index in range(len(dose.strengths_X)))
        series.append(Series(dose.strengths_X, line.mean_X, "line", line.low_X, line.high_X, tips))
    name = MEASURE_NAMES[panel.measure]
    return Panel(f"{panel.task}: {name}", category(tasks.index(panel.task)), tuple(series), (), name, row)


def _tip(panel: DosePanel, dose: Dose, index: int) -> tuple[str, ...]:
    head = f"{panel.task} · {percent(float(dose.strengths_X[index]))} of neurons"
    return (head, *(f"{line.ranking} {number(float(line.mean_X[index]), 3)}" for line in panel.lines))


def drop_grid(matrix: DropMatrix) -> Grid:
    """The matrix as it is drawn: the diagonal has a dot."""
    return Grid(
        matrix.rankings,
        matrix.tasks,
        matrix.drop_YS,
        "drop of the logit margin",
        "task that is measured",
        marked=matrix.own_YS,
        mark_label="the task's own neurons",
        turned=True,
        reference=0.0,
        reference_label="no effect",
    )


def drop_caption(matrix: DropMatrix) -> str:
    """Caption of the matrix."""
    return (
        f"How much the logit margin of each task (column) falls when {percent(matrix.strength)} of the neurons of each "
        f"layer, chosen by each ranking (row), are changed ({matrix.noise}); mean over seeds. A dot marks a task under "
        "its own ranking. A double dissociation has its largest drop of each column on the dot. Cells at or below zero "
        "have the lightest colour."
    )


def routing_caption(matrix: RoutingMatrix) -> str:
    """Caption of the matrix of restricted routing."""
    return (
        "Logit margin of each task (column) with tokens routed only to the functional experts of a task (row), minus "
        f"the mean over {plural(matrix.n_draws, 'draw')} of as many other experts. No weight is trained. A dot marks "
        "p ≤ 0.05, not corrected: the share of draws that are at least as good. Cells at or below zero have the "
        "lightest colour."
    )
