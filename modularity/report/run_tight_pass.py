"""The tables and spectra of a tight pass, brought into the form that its page shows."""

from collections.abc import Iterator, Sequence

import numpy as np

from modularity.report.content import Finding
from modularity.report.provenance import run_provenance
from modularity.report.run_tables import Row, table_rows
from modularity.report.tight_pass import (
    LOWEST,
    MEASURE_NAMES,
    SUB_BLOCK_NAMES,
    LayerLine,
    SpectrumLine,
    TightPass,
)
from modularity.report.wording import p_value, plural, significant
from modularity.store import Run

JOB = "tight_pass"
LEVEL = 0.05
MODEL = "model"
SHARES_X = np.array([0.002, 0.01, 0.03, 0.06, *np.arange(0.1, 0.95, 0.1), 0.94, 0.97, 0.99, 0.998])
"""Where sorted spectra are drawn: closer at both ends, where they bend."""
METHODS = {
    "blocks": "exact, by blocks of single tokens",
    "dense": "exact, from the whole Jacobian",
    "matrix_free": "estimated from products with random vectors",
}


def tight_pass_content(run: Run) -> TightPass:
    """Everything that the page of a tight pass shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `tight_pass`
    """
    manifest, notes = run.manifest, run.manifest.notes
    model = _model_name(str(manifest.identity["model"]["name"]))
    rows, layers = table_rows(run, "tight_pass"), tuple(notes["layers"])
    return TightPass(
        title=f"Tight passes in {model}",
        model=model,
        stack=str(notes["stack"]),
        layers=layers,
        width=int(notes["width"]),
        n_texts=len(notes["texts"]),
        n_tokens=sum(text["n_tokens"] for text in notes["texts"]),
        created=manifest.created,
        state=manifest.state,
        lines=tuple(_layer_lines(table_rows(run, "tight_pass_layers"), layers)),
        spectra=tuple(_spectrum_lines(run)),
        shares_X=SHARES_X,
        methods=tuple(_methods(rows)),
        findings=tuple(_findings(run)),
        notes=tuple(_notes(run, rows)),
        provenance=run_provenance(run),
    )


def _model_name(name: str) -> str:
    """Name to print: the hub id, or the last folders of a local path."""
    parts = [part for part in name.replace("\\", "/").split("/") if part]
    return "/".join(parts[-2:]) if len(parts) > 2 else name


def _layer_lines(rows: Sequence[Row], layers: Sequence[int]) -> Iterator[LayerLine]:
    keys = dict.fromkeys((row["sub_block"], row["control"]) for row in rows)
    for kind in (kind for kind in SUB_BLOCK_NAMES if any(key[0] == kind for key in keys)):
        for measure in MEASURE_NAMES:
            for condition in (key[1] for key in keys if key[0] == kind):
                yield from _line(rows, layers, kind, condition, measure, measure)
            if measure == "rank":
                yield from _line(rows, layers, kind, MODEL, "rank_bound", measure, shown_as="bound")


def _line(
    rows: Sequence[Row],
    layers: Sequence[int],
    kind: str,
    condition: str,
    measure: str,
    shown_with: str,
    shown_as: str | None = None,
) -> Iterator[LayerLine]:
    wanted = {"sub_block": kind, "control": condition, "measure": measure}
    own = {row["layer"]: row for row in rows if all(row[name] == value for name, value in wanted.items())}
    if not own:
        return
    mean, low, high = (
        np.array([own[layer][name] if layer in own else np.nan for layer in layers], dtype=np.float64)
        for name in ("mean", "low", "high")
    )
    yield LayerLine(kind, shown_with, shown_as or condition, mean, low, high)


def _spectrum_lines(run: Run) -> Iterator[SpectrumLine]:
    if f"{JOB}_spectra" not in run.result_names():
        return
    spectra = run.results(f"{JOB}_spectra", partial=True)
    points, values = spectra["point"].values, spectra["sorted_value"].values
    largest = spectra["leading_value"].values[..., :1]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.maximum(np.log10(values / largest), LOWEST)
    kinds, controls = spectra["sub_block"].values.tolist(), spectra["control"].values.tolist()
    for k, kind in enumerate(kinds):
        for layer, number in enumerate(spectra["layer"].values.tolist()):
            for c, control in enumerate(controls):
                own_NP = logs[c, k, layer]
                own_NP = own_NP[np.isfinite(own_NP).all(axis=1)]
                if len(own_NP):
                    at_NX = np.stack([np.interp(SHARES_X, points, row) for row in own_NP])
                    yield SpectrumLine(
                        kind, number, control, np.median(at_NX, axis=0), at_NX.min(axis=0), at_NX.max(axis=0)
                    )


def _methods(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for kind in dict.fromkeys(row["sub_block"] for row in rows):
        used = sorted({row["method"] for row in rows if row["sub_block"] == kind})
        yield SUB_BLOCK_NAMES[kind], "; ".join(METHODS[method] for method in used)


def _findings(run: Run) -> Iterator[Finding]:
    tests, layers = table_rows(run, "tight_pass_tests"), table_rows(run, "tight_pass_layer_tests")
    for kind in dict.fromkeys(row["sub_block"] for row in tests):
        for control in dict.fromkeys(row["control"] for row in tests):
            yield from _control_finding(tests, kind, control)
    for row in layers:
        if row["control"] == MODEL and row["measure"] == "effective_rank" and row["n_layers"] > 2:
            yield _layer_finding(row)
    yield from _rank_finding(table_rows(run, "tight_pass"))


def _control_finding(tests: Sequence[Row], kind: str, control: str) -> Iterator[Finding]:
    wanted = {"sub_block": kind, "control": control, "measure": "effective_rank"}
    own = [row for row in tests if all(row[name] == value for name, value in wanted.items())]
    if not own:
        return
    fewer = [row for row in own if row["q_value"] <= LEVEL and row["ratio"] < 1]
    more = [row for row in own if row["q_value"] <= LEVEL and row["ratio"] > 1]
    ratios = [row["ratio"] for row in own]
    name, against = SUB_BLOCK_NAMES[kind], control.replace("_", " ")
    bound = own[0]["smallest_p_value"]
    limit = (
        f"; with {plural(own[0]['n_texts'], 'text')} no p can be below {significant(bound, 2)}" if bound > LEVEL else ""
    )
    text = (
        f"{name}: against {against} the effective rank is lower in {len(fewer)} and higher in {len(more)} of "
        f"{plural(len(own), 'layer')} (false discovery rate 5 %, {plural(own[0]['n_texts'], 'text')}); ratio "
        f"{significant(min(ratios), 3)} to {significant(max(ratios), 3)}{limit}."
    )
    yield Finding(text, "supported" if fewer or more else "unsupported", name, "directions")


def _layer_finding(row: Row) -> Finding:
    name = SUB_BLOCK_NAMES[row["sub_block"]]
    text = (
        f"{name}: the effective rank per token is lowest in layer {row['lowest_layer']} "
        f"({significant(row['lowest_mean'], 3)}; in {row['n_lowest']} of {plural(row['n_texts'], 'text')}) and "
        f"highest in layer {row['highest_layer']} ({significant(row['highest_mean'], 3)}); Friedman test of equal "
        f"layers: {p_value(row['p_value'])}, corrected {p_value(row['q_value']).removeprefix('p ').removeprefix('= ')}."
    )
    return Finding(text, "supported" if row["q_value"] <= LEVEL else "unsupported", name, "directions")


def _rank_finding(rows: Sequence[Row]) -> Iterator[Finding]:
    own = [row for row in rows if row["control"] == MODEL and row["sub_block"] == "ffn"]
    total = sum(row["rank"] for row in own)
    if not total:
        return
    equal = sum(row["rank"] == row["rank_bound"] for row in own)
    float32 = sum(row["rank_float32"] for row in own) / total
    text = (
        f"FFN: in {equal} of {len(own)} spectra the rank is exactly its analytic bound (active neurons, width, what "
        "norms take away): there it counts neurons and says nothing of the weights. At the rounding of float32 "
        f"{100 * float32:.1f} % of all ranks together would be seen."
    )
    yield Finding(text, "descriptive", "FFN", "directions")


def _notes(run: Run, rows: Sequence[Row]) -> Iterator[str]:
    manifest = run.manifest
    cut = [text for text in manifest.notes["texts"] if text["n_cut"]]
    if cut:
        yield f"{plural(len(cut), 'text')} longer than {manifest.config['max_tokens']} tokens lost the end."
    if rows:
        worst = max(row["reproduction_error"] for row in rows)
        yield f"Sub-blocks in float64 differ from what the model computed by at most {worst:.1e} of the largest value."
    free = [row for row in rows if row["method"] == "matrix_free" and row["largest"] > 0]
    if free:
        worst = max(row["largest_residual"] / row["largest"] for row in free)
        width = max((row["effective_high"] - row["effective_low"]) / row["effective_rank"] for row in free)
        yield (
            f"Of attention, {len(free):,} {'spectrum is an estimate' if len(free) == 1 else 'spectra are estimates'}: "
            f"the largest value lies within {worst:.1e} of itself of a singular value, intervals of the effective rank "
            f"over random vectors are at most {100 * width:.1f} % wide."
        )
    if len(manifest.notes["texts"]) < 6:
        yield "With fewer than 6 texts the paired test cannot reach p = 0.05: take more."
    if not manifest.config["with_norm"]:
        yield "Norms are left out: derivatives are by what the norm gives."
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."
