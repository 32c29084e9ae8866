"""What the page shows of a graph study: Q and n-cut of every layer against their nulls, and agreement of partitions."""

from dataclasses import dataclass

import numpy as np

from modularity.report.content import FloatArray, _set
from modularity.report.curves import Plot
from modularity.report.grids import Grid
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.wording import interval, p_cell, plural, significant

NULL_WORDS = {
    "permuted": "weights permuted",
    "permuted_nonzero": "weights that are not 0 permuted",
    "strengths": "weights permuted, strength of every node kept",
    "degrees": "edges rewired, edges of every neuron kept",
    "activity": "activity exchanged, that of every neuron and row kept",
}
_STYLES: dict[str, Style] = {
    "permuted": "null",
    "permuted_nonzero": "control3",
    "strengths": "control1",
    "degrees": "null",
    "activity": "control1",
}
MEASURE_WORDS = {"modularity": "Newman's Q", "ncut": "n-cut"}


@dataclass(frozen=True, eq=False)
class GraphNull:
    """Draws of one null by layer."""

    name: str
    """One of `NULL_WORDS`."""
    mean_L: FloatArray
    low_L: FloatArray
    high_L: FloatArray
    """5th and 95th percentile."""
    z_L: FloatArray
    q_value_L: FloatArray
    """Corrected over layers."""

    def __post_init__(self) -> None:
        for name in ("mean_L", "low_L", "high_L", "z_L", "q_value_L"):
            _set(self, name, np.shape(self.mean_L))


@dataclass(frozen=True, eq=False)
class GraphCurve:
    """One measure of one graph, partitioned by one method, by layer."""

    graph: str
    method: str
    measure: str
    """`modularity` or `ncut`."""
    layers: tuple[int, ...]
    observed_L: FloatArray
    nulls: tuple[GraphNull, ...]
    n_draws: int

    def __post_init__(self) -> None:
        for owner, name in ((self, "observed_L"), *((null, "mean_L") for null in self.nulls)):
            _set(owner, name, (len(self.layers),))


@dataclass(frozen=True, eq=False)
class GroupAgreement:
    """Agreement of partitions, mean over layers: those found in graphs (rows) with these and experts (columns)."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    value_YS: FloatArray
    """Adjusted Rand index; NaN for a partition with itself."""
    low_YS: FloatArray
    high_YS: FloatArray
    """Smallest and largest over layers."""
    information_YS: FloatArray
    """Adjusted mutual information."""
    n_found_YS: FloatArray
    """Layers in which q is at most 0.05."""
    n_layers: int
    n_permutations: int

    def __post_init__(self) -> None:
        for name in ("value_YS", "low_YS", "high_YS", "information_YS", "n_found_YS"):
            _set(self, name, (len(self.rows), len(self.columns)))


@dataclass(frozen=True, eq=False)
class GraphStudy:
    """Everything that the page shows of a graph study."""

    curves: tuple[GraphCurve, ...]
    agreement: GroupAgreement | None = None


def graph_plots(study: GraphStudy) -> list[Plot]:
    """One plot for each measure: a row of panels for each graph, a panel for each method."""
    found = []
    for measure, words in MEASURE_WORDS.items():
        curves = [curve for curve in study.curves if curve.measure == measure]
        if curves:
            found.append(_plot(measure, words, curves))
    return found


def _plot(measure: str, words: str, curves: list[GraphCurve]) -> Plot:
    graphs = list(dict.fromkeys(curve.graph for curve in curves))
    layers = sorted({layer for curve in curves for layer in curve.layers})
    nulls = list(dict.fromkeys(null.name for curve in curves for null in curve.nulls))
    better = "High values mean groups" if measure == "modularity" else "Low values mean groups"
    meaning = (
        "the share of weight within groups minus that expected from the strengths of the nodes"
        if measure == "modularity"
        else "the weight that leaves each group over all weight at it, summed over groups"
    )
    return Plot(
        name=f"graph-{measure}",
        section="graphs",
        title=f"{words} of every layer against its nulls",
        description=f"Line plots of {words} by layer, for {plural(len(graphs), 'graph')}.",
        caption=(
            f"{words}: {meaning}. {better}. Every draw of a null ({curves[0].n_draws:,} for each layer) is partitioned "
            "anew in the same way as the observed graph; grey areas reach from the 5th to the 95th percentile of the "
            "draws. Scales do not begin at zero, and differ between rows."
        ),
        panels=tuple(_panel(curve, graphs.index(curve.graph)) for curve in curves),
        axis=XAxis("layer", np.array(layers, dtype=np.float64), tuple(map(str, layers))),
        legend=(
            ("line", "observed"),
            *((_STYLES[null], f"mean of draws: {NULL_WORDS[null]}") for null in nulls),
            ("band", "5 to 95 % of the draws of a null"),
        ),
        headers=("graph", "method", "layer", words, "null", "mean", "5 to 95 %", "z", "q over layers"),
        rows=tuple(
            (curve.graph, curve.method, str(layer), significant(float(curve.observed_L[i]), 4), null.name,
             significant(float(null.mean_L[i]), 4), interval(float(null.low_L[i]), float(null.high_L[i]), 4),
             significant(float(null.z_L[i]), 2), p_cell(float(null.q_value_L[i])))
            for curve in curves for null in curve.nulls for i, layer in enumerate(curve.layers)
        ),
    )  # fmt: skip


def _panel(curve: GraphCurve, row: int) -> Panel:
    x = np.array(curve.layers, dtype=np.float64)
    series = [Series(x, null.mean_L, _STYLES[null.name]) for null in curve.nulls]
    tips = tuple(_tip(curve, index) for index in range(len(curve.layers)))
    series.append(Series(x, curve.observed_L, "line", tips=tips))
    bands = tuple(Band(x, null.low_L, null.high_L) for null in curve.nulls)
    title = f"{curve.graph}, {curve.method}"
    return Panel(title, category(row), tuple(series), bands, row=row, from_zero=False)


def _tip(curve: GraphCurve, index: int) -> tuple[str, ...]:
    words = MEASURE_WORDS[curve.measure]
    lines = [
        f"{null.name}: {significant(float(null.mean_L[index]), 4)}, z {significant(float(null.z_L[index]), 2)}, "
        f"q {p_cell(float(null.q_value_L[index]))}"
        for null in curve.nulls
    ]
    head = f"{curve.graph}, {curve.method} · layer {curve.layers[index]}"
    return (head, f"{words} {significant(float(curve.observed_L[index]), 4)}", *lines)


def agreement_grid(matrix: GroupAgreement) -> Grid:
    """The matrix as it is drawn: a dot where every layer agrees beyond chance."""
    return Grid(
        matrix.rows,
        matrix.columns,
        matrix.value_YS,
        "adjusted Rand index, mean over layers",
        "",
        marked=np.nan_to_num(matrix.n_found_YS) == matrix.n_layers,
        mark_label="q ≤ 0.05 in every layer",
        blank=np.array([[row == column for column in matrix.columns] for row in matrix.rows]),
        turned=True,
    )


def group_agreement_caption(matrix: GroupAgreement) -> str:
    """Caption of the matrix."""
    return (
        "Agreement of the groups of neurons found in graphs (rows) with each other and with the experts of the run "
        "(columns): adjusted Rand index, 1 for the same partition, 0 on average at chance; mean over "
        f"{plural(matrix.n_layers, 'layer')}. Each layer is tested with {matrix.n_permutations:,} permutations of "
        "which neuron has which label, corrected over all pairs and layers. Cells at or below zero have the lightest "
        "colour."
    )
