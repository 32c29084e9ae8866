"""The figures of a checkpoint scan: predictivity, functional experts and similarity of checkpoints along the steps."""

import numpy as np

from modularity.report.content import FloatArray
from modularity.report.curves import Plot
from modularity.report.lines import Band, Panel, Series, Style, XAxis
from modularity.report.palette import category
from modularity.report.scan_content import SHOWN_LEVELS, ScanContent, ScanFunction, Similarity, StepCurve
from modularity.report.wording import count, number, p_value, with_interval

_LEVEL_STYLES: dict[str, Style] = {"experts": "line", "neurons": "control1", "random partitions": "null"}
_COMPARISONS = (
    ("consecutive", "next"),
    ("final", "last"),
    ("reliability", "halves"),
)


def is_log_spaced(steps_T: FloatArray) -> bool:
    """Whether the ratios of the steps vary less than their differences, beyond step 0."""
    positive = steps_T[steps_T > 0]
    if len(positive) < 3 or positive[-1] / positive[0] < 10:
        return False
    index = np.arange(len(positive))
    return bool(np.corrcoef(index, np.log(positive))[0, 1] > np.corrcoef(index, positive)[0, 1])


def step_axis(steps_T: FloatArray) -> tuple[XAxis, FloatArray]:
    """The axis of steps and the place of each step on it; on a logarithmic axis step 0 stands one octave before."""
    places = np.array(steps_T, dtype=np.float64)
    label = "training step"
    if is_log_spaced(places):
        positive = places[places > 0]
        places, label = np.log2(np.where(places > 0, places, positive.min() / 2)), "training step (logarithmic)"
    return XAxis(label, places, tuple(_short(int(step)) for step in steps_T)), places


def _short(step: int) -> str:
    return f"{step / 1000:g}k" if step >= 1000 else str(step)


def scan_plots(content: ScanContent) -> tuple[Plot, ...]:
    """All plots of the page, in its order."""
    plots = [_best_plot(content)]
    if any(
        function.degree is not None and np.isfinite(function.degree.value_T).any() for function in content.functions
    ):
        plots.append(_expert_plot(content))
    return (*plots, _similarity_plot(content))


def _best_plot(content: ScanContent) -> Plot:
    axis, x = step_axis(content.steps_T)
    where = "held-out examples" if content.held_out else "the examples they were chosen on"
    return Plot(
        name="scan-predictivity",
        section="predictivity",
        title="Best neurons of the best layer over training",
        description=f"Line plot of normalised AP by training step for {len(content.functions)} functions.",
        caption=(
            "Normalised AP (0 is a constant neuron, 1 perfect separation), mean over sub-functions, of the best "
            "neurons of the layer in which they are best; neurons and layer are chosen on selection examples, scored "
            f"on {where}. The band is that of the best neuron of this layer under permuted labels, on selection "
            "examples; the p in the tooltip is that of the best neuron of all layers. Whiskers: 95 % bootstrap "
            "intervals over examples."
        ),
        panels=tuple(_curve_panel(content, f, f.best, x, "normalised AP", 0, f.name) for f in content.functions),
        axis=axis,
        legend=(
            ("line", f"best neurons on {where}"),
            ("null", "under permuted labels (mean)"),
            ("band", "5–95 % of permutations"),
        ),
        headers=("function", "step", "best layer", "normalised AP", "low", "high", "null mean"),
        rows=tuple(
            (
                f.name,
                count(int(step)),
                str(f.best_layer_T[t]),
                *(number(float(a[t])) for a in (f.best.value_T, f.best.low_T, f.best.high_T, f.best.null_T)),
            )
            for f in content.functions
            for t, step in enumerate(content.steps_T)
        ),
    )


def _colour(content: ScanContent, function: ScanFunction) -> str:
    return category([each.name for each in content.functions].index(function.name))


def _curve_panel(
    content: ScanContent, function: ScanFunction, curve: StepCurve, x: FloatArray, label: str, row: int, title: str
) -> Panel:
    tips = tuple(
        (
            f"{title} · step {count(int(step))}",
            f"{label} {with_interval(float(curve.value_T[t]), float(curve.low_T[t]), float(curve.high_T[t]))}",
            f"under permuted labels {number(float(curve.null_T[t]))}, 95 % below {number(float(curve.null_high_T[t]))}",
            p_value(float(curve.p_value_T[t])),
            *((f"best in layer {function.best_layer_T[t]}",) if curve is function.best else ()),
        )
        for t, step in enumerate(content.steps_T)
    )
    has_ends = bool(np.isfinite(curve.low_T).any())
    low, high = (curve.low_T, curve.high_T) if has_ends else (None, None)
    series = (Series(x, curve.null_T, "null"), Series(x, curve.value_T, "line", low, high, tips))
    band = Band(x, curve.null_low_T, curve.null_high_T)
    return Panel(title, _colour(content, function), series, (band,), label, row)


def _expert_plot(content: ScanContent) -> Plot:
    axis, x = step_axis(content.steps_T)
    panels = [
        _curve_panel(content, f, curve, x, label, row, f"{f.name}: {measure}")
        for row, (measure, label) in enumerate(
            (("proportion", "functional experts"), ("degree", "modularisation degree"))
        )
        for f in content.functions
        if (curve := getattr(f, measure)) is not None
    ]
    return Plot(
        name="scan-experts",
        section="experts",
        title="Functional experts over training",
        description="Line plots of proportion and degree of functional experts by training step.",
        caption=(
            "Share of experts that are functional, and modularisation degree, means over sub-functions and layers. The "
            f"experts are those of {content.partition_of} at every step, so that an expert is always the same neurons. "
            "The null has the same experts and the top neurons of permuted labels."
        ),
        panels=tuple(panels),
        axis=axis,
        legend=(("line", "observed"), ("null", "under permuted labels (mean)"), ("band", "5–95 % of permutations")),
        headers=("function", "step", "proportion", "null", "degree", "null degree"),
        rows=tuple(
            (
                f.name,
                count(int(step)),
                *(
                    number(float(a[t]), 3)
                    for curve in (f.proportion, f.degree)
                    if curve is not None
                    for a in (curve.value_T, curve.null_T)
                ),
            )
            for f in content.functions
            for t, step in enumerate(content.steps_T)
        ),
    )


def _similarity_plot(content: ScanContent) -> Plot:
    axis, x = step_axis(content.steps_T)
    shown = [c for c in _COMPARISONS if any(_known(f.similarity.get((c[0], "neurons"))) for f in content.functions)]
    panels = [
        _similarity_panel(content, f, name, f"{f.name}: {words}", x, row)
        for row, (name, words) in enumerate(shown)
        for f in content.functions
    ]
    return Plot(
        name="scan-stabilisation",
        section="stabilisation",
        title="What settles first: similarity of checkpoints",
        description="Line plots of the Spearman correlation between checkpoints by training step and level.",
        caption=(
            "Spearman correlation of the scores of neurons, of the mean scores of experts, and of those of random "
            "groups of the same size (each partition the same at all steps), mean over sub-functions, then layers. "
            "Means over many neurons are less noisy than neurons, so experts are to be compared with random groups. A "
            "correlation with the next checkpoint stands at the earlier one, and rises when checkpoints lie closer "
            "together (`next`; `last`: with the last one). Reliability (`halves`), the correlation between halves of "
            "the examples of one checkpoint, limits what "
            "similarity is to be expected where errors are independent; checkpoints share their examples, so that "
            "theirs may exceed it. Whiskers: 95 % bootstrap over sub-functions."
        ),
        panels=tuple(panels),
        axis=axis,
        legend=tuple((_LEVEL_STYLES[level], level) for level in SHOWN_LEVELS),
        headers=("function", "comparison", "step", *SHOWN_LEVELS),
        rows=tuple(
            (
                f.name,
                words,
                count(int(step)),
                *(
                    number(float(found.rho_T[t])) if (found := f.similarity.get((name, level))) is not None else "–"
                    for level in SHOWN_LEVELS
                ),
            )
            for f in content.functions
            for name, words in shown
            for t, step in enumerate(content.steps_T)
        ),
    )


def _known(similarity: Similarity | None) -> bool:
    return similarity is not None and bool(np.isfinite(similarity.rho_T).any())


def _similarity_panel(
    content: ScanContent, function: ScanFunction, comparison: str, title: str, x: FloatArray, row: int
) -> Panel:
    found = {level: function.similarity.get((comparison, level)) for level in SHOWN_LEVELS}
    series = []
    for level in reversed(SHOWN_LEVELS):
        similarity = found[level]
        if similarity is None:
            continue
        if level != "experts" and not (level == "neurons" and found["experts"] is None):
            series.append(Series(x, similarity.rho_T, _LEVEL_STYLES[level]))
            continue
        tips = tuple(
            (
                f"{title} · step {count(int(step))}",
                *(
                    f"{name} {with_interval(float(each.rho_T[t]), float(each.low_T[t]), float(each.high_T[t]))}"
                    for name, each in found.items()
                    if each is not None
                ),
            )
            for t, step in enumerate(content.steps_T)
        )
        series.append(Series(x, similarity.rho_T, "line", similarity.low_T, similarity.high_T, tips))
    return Panel(title, _colour(content, function), tuple(series), (), "Spearman correlation", row)
