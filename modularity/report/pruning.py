"""What the page shows of a pruning: accuracies along the removal, drops against each other, and what models write."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modularity.errors import DataError
from modularity.report.curves import Plot
from modularity.report.lines import Band, Panel, Series, XAxis
from modularity.report.palette import category
from modularity.report.wording import MISSING, number, p_cell, percent, plural, with_interval
from modularity.stats.separability import relative_drops

FloatArray = npt.NDArray[np.float64]
GRID = np.linspace(0.0, 1.0, 21)
"""Drops of the kept category at which the band of random units is drawn."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Top-1 accuracy along one trajectory, on evaluation texts; arrays of shape (n_steps + 1,)."""

    name: str
    """Score and schedule."""
    kept_N: FloatArray
    pruned_N: FloatArray


@dataclass(frozen=True, eq=False)
class PruningPlot:
    """One direction: the chosen trajectory, the others, and random units."""

    pruned: str
    kept: str
    share_N: FloatArray
    """Share of the FFN neurons that is removed at each step."""
    chosen: Curve
    others: tuple[Curve, ...]
    random: tuple[Curve, ...]
    step: int
    """Step that was chosen on validation texts."""
    interval_N: dict[str, tuple[FloatArray, FloatArray]]
    """Ends of the 95 % interval of the chosen curve, by `kept` and `pruned`."""

    def __post_init__(self) -> None:
        for curve in (self.chosen, *self.others, *self.random):
            if curve.kept_N.shape != self.share_N.shape or curve.pruned_N.shape != self.share_N.shape:
                raise DataError(f"curve {curve.name!r} has {len(curve.kept_N)} points, expected {len(self.share_N)}")

    @property
    def title(self) -> str:
        """The direction in words."""
        return f"{self.pruned} removed, {self.kept} kept"


@dataclass(frozen=True)
class Written:
    """P(kept category) of what the models write after prompts of one category."""

    pruned: str
    kept: str
    prompts_of: str
    before: tuple[float, float, float]
    """Mean over prompts, with its 95 % interval."""
    after: tuple[float, float, float]
    random: tuple[float, float, float]
    """Mean over random trajectories, smallest, largest."""
    p_value: float
    q_value: float
    p_random: float
    n_prompts: int
    n_random: int


@dataclass(frozen=True, eq=False)
class Pruning:
    """Everything that the page shows of a pruning."""

    plots: tuple[PruningPlot, ...]
    written: tuple[Written, ...]
    areas: tuple[tuple[str, ...], ...]
    """Rows of the table of areas."""
    corpora: tuple[str, ...]


AREA_HEADERS = ("removed", "kept", "chosen by", "accuracy", "area", "random units", "excess over them", "p", "q")


def pruning_plots(shown: Pruning) -> list[Plot]:
    """The figures; parts that are not computed yet give none."""
    found = []
    if shown.plots:
        found.append(_trajectory_plot(shown))
    lost = [plot for plot in shown.plots if np.isfinite(_drops(plot.chosen)).all()]
    if lost:
        found.append(_diagonal_plot(shown, lost))
    if shown.written:
        found.append(_written_plot(shown))
    return found


def _trajectory_plot(shown: Pruning) -> Plot:
    first = shown.plots[0]
    legend = [("line", "chosen on validation texts; bars: 95 % interval over texts")]
    if any(plot.others for plot in shown.plots):
        legend.append(("other", "other scores and schedules"))
    legend += [("null", "as many random units, mean"), ("band", "range over random seeds")]
    return Plot(
        name="pruning-trajectories",
        section="pruning",
        title="Accuracy while units are removed",
        description=f"Line plots of top-1 accuracy by share of removed neurons for {len(shown.plots)} directions.",
        caption=(
            "Share of tokens that the model predicts at first place, on evaluation texts of the category that is kept "
            "(left) and of the one that is removed (right), by the share of FFN neurons that are out. "
            f"As many units are removed at random with {plural(len(first.random), 'seed')}. {_steps(shown)}"
        ),
        panels=tuple(
            _accuracy_panel(plot, role, shown.corpora, row)
            for row, plot in enumerate(shown.plots)
            for role in ("kept", "pruned")
        ),
        axis=_share_axis(first.share_N),
        legend=tuple(legend),
        headers=("direction", "category", "removed", "top-1", "95 % interval", "random units"),
        rows=tuple(
            _accuracy_row(plot, role, index)
            for plot in shown.plots
            for role in ("kept", "pruned")
            for index in range(0, len(plot.share_N), max(1, len(plot.share_N) // 12))
        ),
    )


def _steps(shown: Pruning) -> str:
    texts = [f"step {plot.step} ({percent(float(plot.share_N[plot.step]))} of the neurons) for “{plot.title}”"
             for plot in shown.plots]  # fmt: skip
    return f"The pruned models are those of {' and '.join(texts)}, chosen on validation texts."


def _share_axis(share_N: FloatArray) -> XAxis:
    last = float(share_N[-1])
    step = next(step for step in (0.2, 0.1, 0.05, 0.02, 0.01, last) if last >= 3 * step or step == last)
    ticks = np.append(np.arange(0.0, last - step / 4, step), last)
    return XAxis("removed FFN neurons (%)", ticks, tuple(f"{100 * value:.3g}" for value in ticks))


def _of(curve: Curve, role: str) -> FloatArray:
    return curve.kept_N if role == "kept" else curve.pruned_N


def _accuracy_panel(plot: PruningPlot, role: str, corpora: tuple[str, ...], row: int) -> Panel:
    name = plot.kept if role == "kept" else plot.pruned
    random_SN = np.stack([_of(curve, role) for curve in plot.random])
    low_N, high_N = plot.interval_N[role]
    tips = tuple(
        (
            f"{plot.title}: {name}",
            f"{percent(float(share))} removed: top-1 {percent(float(_of(plot.chosen, role)[index]))}",
            f"random units {percent(float(random_SN[:, index].mean()))}",
        )
        for index, share in enumerate(plot.share_N)
    )
    series = [Series(plot.share_N, 100 * _of(curve, role), "other") for curve in plot.others]
    series.append(Series(plot.share_N, 100 * random_SN.mean(0), "null"))
    series.append(Series(plot.share_N, 100 * _of(plot.chosen, role), "line", 100 * low_N, 100 * high_N, tips))
    band = Band(plot.share_N, 100 * random_SN.min(0), 100 * random_SN.max(0))
    title = f"{name}, {'kept' if role == 'kept' else 'removed'}"
    return Panel(title, category(corpora.index(name)), tuple(series), (band,), "top-1 accuracy (%)", row)


def _accuracy_row(plot: PruningPlot, role: str, index: int) -> tuple[str, ...]:
    random_S = [float(_of(curve, role)[index]) for curve in plot.random]
    low_N, high_N = plot.interval_N[role]
    return (
        plot.title,
        plot.kept if role == "kept" else plot.pruned,
        percent(float(plot.share_N[index])),
        percent(float(_of(plot.chosen, role)[index])),
        f"{percent(float(low_N[index]))} to {percent(float(high_N[index]))}",
        percent(float(np.mean(random_S))),
    )


def _diagonal_plot(shown: Pruning, plots: Sequence[PruningPlot]) -> Plot:
    """Of the directions whose unchanged model has accuracy to lose; the table has all."""
    legend = [("line", "chosen on validation texts"), ("other", "other scores and schedules")]
    legend += [("null", "as many random units, mean"), ("band", "range over random seeds"), ("control2", "diagonal")]
    lowest = min(float(_drops(curve)[0].min()) for plot in plots for curve in (plot.chosen, *plot.others))
    ticks = 100 * np.arange(np.floor(min(lowest, 0.0) * 5) / 5, 1.001, 0.2)
    return Plot(
        name="pruning-diagonal",
        section="pruning",
        title="What is lost of one category against the other",
        description="Line plots of the drop of accuracy on the removed category by the drop on the kept one.",
        caption=(
            "Share of the original top-1 accuracy that is lost on the removed category (up) against that on the kept "
            "one (right), step by step. Twice the area between curve and diagonal is the separability A: 1 when one "
            "goes without the other, 0 on the diagonal. Curves that stop early are closed by the line to the upper "
            "right corner."
        ),
        panels=tuple(_diagonal_panel(plot, shown.corpora) for plot in plots),
        axis=XAxis("accuracy lost on the kept category (%)", ticks, tuple(f"{value:.0f}" for value in ticks)),
        legend=tuple(entry for entry in legend if entry[0] != "other" or any(plot.others for plot in plots)),
        headers=AREA_HEADERS,
        rows=shown.areas,
    )


def _drops(curve: Curve) -> tuple[FloatArray, FloatArray]:
    return relative_drops(curve.kept_N), relative_drops(curve.pruned_N)


def _on_grid(curve: Curve) -> FloatArray:
    """Drop on the removed category where the drop on the kept one first reaches each point of the grid."""
    x, y = _drops(curve)
    reached = np.maximum.accumulate(np.append(np.maximum(x, 0.0), 1.0))
    found: FloatArray = np.interp(GRID, reached, np.append(y, 1.0))
    return found


def _diagonal_panel(plot: PruningPlot, corpora: tuple[str, ...]) -> Panel:
    random_SG = np.stack([_on_grid(curve) for curve in plot.random])
    x, y = _drops(plot.chosen)
    tips = tuple(
        (
            plot.title,
            f"{percent(float(plot.share_N[index]))} removed",
            f"{plot.kept} lost {percent(float(x[index]))}, {plot.pruned} lost {percent(float(y[index]))}",
        )
        for index in range(len(x))
    )
    ends = np.array([0.0, 100.0])
    series = [Series(100 * _drops(curve)[0], 100 * _drops(curve)[1], "other") for curve in plot.others]
    series += [
        Series(ends, ends, "control2"),
        Series(100 * GRID, 100 * random_SG.mean(0), "null"),
        Series(100 * x, 100 * y, "line", tips=tips),
    ]
    band = Band(100 * GRID, 100 * random_SG.min(0), 100 * random_SG.max(0))
    label = "accuracy lost on the removed (%)"
    return Panel(plot.title, category(corpora.index(plot.kept)), tuple(series), (band,), label)


def _written_plot(shown: Pruning) -> Plot:
    pairs = list(dict.fromkeys((each.pruned, each.kept) for each in shown.written))
    return Plot(
        name="pruning-continuations",
        section="pruning",
        title="What the models write before and after",
        description="Dots of the probability of the kept category for texts written before and after pruning.",
        caption=(
            "Mean probability, by a classifier trained on other texts, that what the model writes is of the kept "
            "category: the unchanged model, the pruned one, and models without as many random units; after prompts of "
            "the removed category (left of each pair) and of the kept one. "
            f"{plural(shown.written[0].n_prompts, 'prompt')}; 95 % intervals over prompts. A model pruned to one "
            "capability writes in the kept category whatever the prompt."
        ),
        panels=tuple(_written_panel(each, shown.corpora, pairs.index((each.pruned, each.kept)))
                     for each in shown.written),
        axis=XAxis("pruning", np.array([-0.4, 0.0, 1.0, 2.0, 2.4]), ("", "before", "after", "random", "")),
        legend=(("line", "before and after pruning"), ("open", "as many random units; bars: range over seeds")),
        headers=("direction", "prompts of", "unchanged", "pruned", "random units", "p", "q", "p against random"),
        rows=tuple(
            (f"{each.pruned} removed, {each.kept} kept", each.prompts_of, with_interval(*each.before),
             with_interval(*each.after), with_interval(*each.random), p_cell(each.p_value), p_cell(each.q_value),
             p_cell(each.p_random))
            for each in shown.written
        ),
    )  # fmt: skip


def _written_panel(each: Written, corpora: tuple[str, ...], row: int) -> Panel:
    def tip(name: str, values: tuple[float, float, float]) -> tuple[str, ...]:
        return (f"prompts of {each.prompts_of} · {name}", f"P({each.kept}) {with_interval(*values)}")

    own = [each.before, each.after]
    line = Series(
        np.array([0.0, 1.0]), np.array([v[0] for v in own]), "line", np.array([v[1] for v in own]),
        np.array([v[2] for v in own]), (tip("unchanged", each.before), tip("pruned", each.after)),
    )  # fmt: skip
    random = Series(
        np.array([2.0]), np.array([each.random[0]]), "open", np.array([each.random[1]]), np.array([each.random[2]]),
        (tip(f"as many random units, {each.n_random} seeds", each.random),),
    )  # fmt: skip
    title = f"prompts of {each.prompts_of}"
    return Panel(title, category(corpora.index(each.kept)), (random, line), (), f"P({each.kept})", row)


def area_cell(value: float, low: float, high: float) -> str:
    """A value with its interval, or a dash."""
    return with_interval(value, low, high) if np.isfinite(value) else MISSING


def trimmed(text: str, length: int = 120) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def points(value: float) -> str:
    """A drop as per cent without decimals."""
    return f"{number(100 * value, 0)} %"
