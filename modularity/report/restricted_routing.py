"""What the page shows of fine-tuning under restricted routing: accuracy of every task by strategy, and its course."""

from dataclasses import dataclass

import numpy as np

from modularity.report.content import FloatArray
from modularity.report.curves import Plot
from modularity.report.lines import Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import count, interval, number, plural

STRATEGY_NAMES = {
    "original": "all experts",
    "others": "others",
    "functional": "functional",
    "random": "random",
}
"""Which experts tokens may go to, in the order of the axis."""
_TICKS = ("all", "others", "func.", "rand.")
_LEGEND: tuple[tuple[Style, str], ...] = (
    ("line", "mean over seeds, bars: 95 % interval over seeds"),
    ("open", "one seed (random: mean over its draws)"),
    ("null", "constant answer"),
)
_SPREAD = 0.12
"""Half the width over which the seeds of a strategy are spread, in units of the axis."""


@dataclass(frozen=True, eq=False)
class StrategyValues:
    """Test accuracy of one task under one strategy, as shares."""

    strategy: str
    values_N: FloatArray
    """Of each seed."""
    mean: float
    sd: float
    low: float
    high: float
    """Interval of the mean over seeds."""
    step_X: FloatArray
    """Steps of the checkpoints, ascending, the untrained model (0) first."""
    validation_X: FloatArray
    """Mean validation accuracy at each, over seeds and draws."""


@dataclass(frozen=True, eq=False)
class TunedTask:
    """One task, or the average over all."""

    name: str
    strategies: tuple[StrategyValues, ...]
    majority: float
    """Accuracy of a constant answer."""
    n: int
    """Test examples."""


@dataclass(frozen=True, eq=False)
class RoutingStudy:
    """All tasks of a study, the average last."""

    tasks: tuple[TunedTask, ...]
    """The average has no course: tasks may differ in their steps."""
    n_draws: int
    chosen_on_reported: bool
    """Whether checkpoints were chosen on the examples that are reported."""


def strategy_plot(study: RoutingStudy) -> Plot:
    """Accuracy of every task by strategy, a panel for each."""
    n_seeds = max(len(each.values_N) for task in study.tasks for each in task.strategies)
    chosen = "the reported examples themselves" if study.chosen_on_reported else "other, validation examples"
    return Plot(
        name="strategies",
        section="routing",
        title="Accuracy after fine-tuning, by the experts that tokens may go to",
        description=f"Dot plots of test accuracy under {len(_TICKS)} routing strategies for {len(study.tasks)} tasks.",
        caption=(
            "Accuracy in per cent after fine-tuning with the original routing, with as many experts that are not "
            f"functional, with the functional ones only, and with as many drawn from all ({plural(n_seeds, 'seed')}, "
            f"{plural(study.n_draws, 'random draw')} for each). Checkpoints were chosen on {chosen}."
        ),
        panels=tuple(_panel(task, index) for index, task in enumerate(study.tasks)),
        axis=XAxis("experts in restricted layers", np.arange(len(_TICKS), dtype=np.float64), _TICKS),
        legend=_LEGEND,
        headers=("task", "experts", "accuracy %", "95 % interval", "s.d. over seeds", "constant answer", "n"),
        rows=tuple(
            (task.name, STRATEGY_NAMES[each.strategy], number(100 * each.mean, 1),
             interval(100 * each.low, 100 * each.high, 1), number(100 * each.sd, 1), number(100 * task.majority, 1),
             count(task.n))
            for task in study.tasks for each in task.strategies
        ),
    )  # fmt: skip


def _panel(task: TunedTask, index: int) -> Panel:
    order = list(STRATEGY_NAMES)
    ends = np.array([0.0, len(order) - 1.0])
    series = [Series(ends, np.full(2, 100 * task.majority), "null")]
    for each in task.strategies:
        place, n = float(order.index(each.strategy)), len(each.values_N)
        x = place + (np.linspace(-_SPREAD, _SPREAD, n) if n > 1 else np.zeros(1))
        head = f"{task.name} · {STRATEGY_NAMES[each.strategy]}"
        tips = tuple((head, f"seed {seed + 1} of {n}: {number(100 * value, 1)} %")
                     for seed, value in enumerate(each.values_N.tolist()))  # fmt: skip
        series.append(Series(x, 100 * each.values_N, "open", tips=tips))
        low, high = (np.clip([100 * end], 0, 100) for end in (each.low, each.high))
        mean = f"mean {number(100 * each.mean, 1)} % {interval(100 * each.low, 100 * each.high, 1)}".rstrip()
        series.append(Series(np.array([place]), np.array([100 * each.mean]), "line", low, high, ((head, mean),)))
    return Panel(task.name, category(index), tuple(series), (), "accuracy %")


_CURVES: tuple[tuple[str, Style, str], ...] = (
    ("functional", "line", "functional experts only"),
    ("others", "control1", "as many others"),
    ("random", "control2", "as many of all"),
    ("original", "control3", "all experts"),
)
"""Strategy, how its line is drawn, and its name in the legend."""


def learning_plot(study: RoutingStudy) -> Plot:
    """Validation accuracy by step, a panel for each task."""
    tasks = [task for task in study.tasks if len(task.strategies[0].step_X)]
    steps = np.unique(np.concatenate([each.step_X for task in tasks for each in task.strategies]))
    marks = steps[np.unique(np.linspace(0, len(steps) - 1, min(5, len(steps))).round().astype(int))]
    used = {each.strategy for task in tasks for each in task.strategies}
    return Plot(
        name="learning",
        section="routing",
        title="Accuracy on validation examples while the model is fine-tuned",
        description=f"Line plots of validation accuracy by step for {len(tasks)} tasks.",
        caption=(
            "Accuracy in per cent on the examples by which the checkpoint is chosen, mean over seeds and draws; step 0 "
            "is the untrained model, which is never chosen. The best of many checkpoints is higher than any mean here."
        ),
        panels=tuple(_course(task, index) for index, task in enumerate(tasks)),
        axis=XAxis("step", marks, tuple(f"{step:.0f}" for step in marks)),
        legend=(*((style, name) for key, style, name in _CURVES if key in used), ("null", "constant answer")),
        headers=("task", "experts", "untrained %", "best mean %", "at step", "last %"),
        rows=tuple(
            (task.name, STRATEGY_NAMES[each.strategy], number(100 * each.validation_X[0], 1),
             number(100 * each.validation_X.max(), 1), f"{each.step_X[each.validation_X.argmax()]:.0f}",
             number(100 * each.validation_X[-1], 1))
            for task in tasks for each in task.strategies
        ),
    )  # fmt: skip


def _course(task: TunedTask, index: int) -> Panel:
    by_name = {each.strategy: each for each in task.strategies}
    ends = by_name["original"].step_X[[0, -1]]
    series = [Series(ends, np.full(2, 100 * task.majority), "null")]
    for strategy, style, name in _CURVES[::-1]:
        if strategy not in by_name:
            continue
        each = by_name[strategy]
        tips: tuple[tuple[str, ...], ...] = ()
        if style == "line":
            tips = tuple(
                (f"{task.name} · step {step:.0f}", f"{name} {number(100 * value, 1)} %")
                for step, value in zip(each.step_X, each.validation_X)
            )
        series.append(Series(each.step_X, 100 * each.validation_X, style, tips=tips))
    return Panel(task.name, category(index), tuple(series), (), "accuracy %")
