"""The tables of a MoEfication, brought into the form that the page shows, and what they say."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modularity.report.content import (
    Finding,
    FunctionSummary,
    ReportContent,
    RunSummary,
    SubFunction,
)
from modularity.report.moefication import (
    CONTROL,
    ROUTERS,
    ExpertSelection,
    SelectionLine,
    SelectionPanel,
    main_router,
    partition_name,
)
from modularity.report.provenance import run_provenance
from modularity.report.run_tables import Row, table_rows
from modularity.report.wording import number, p_value, percent, with_interval
from modularity.store import Run

JOB = "moefication"
LEVEL = 0.05
PLACES = {"mass": "all layers", "loss": "all texts", "kl": "all texts", "agreement": "all texts",
          "accuracy": "mean of tasks", "margin": "mean of tasks"}  # fmt: skip
"""Place of each measure that stands for all others."""
MEASURE_SUBJECTS = {
    "mass": "mass",
    "loss": "loss",
    "kl": "predictions",
    "agreement": "agreement",
    "accuracy": "accuracy",
}
"""What a finding about each measure is about."""


def moefication_content(run: Run, model: str) -> ReportContent:
    """Everything that the page of a MoEfication shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `moefication`
    model : name of the model to print
    """
    manifest, notes = run.manifest, run.manifest.notes
    curve, tests = table_rows(run, "selection_curve"), table_rows(run, "selection_tests")
    shown = _selection(run, curve) if curve else None
    return ReportContent(
        title=f"Experts in the dense layers of {model}",
        run=RunSummary(
            model=model,
            site=str(notes["analysed"]),
            layers=tuple(notes["layers"]),
            n_neurons=sum(notes["n_neurons"]),
            n_permutations=0,
            n_experts=int(notes["n_experts"]),
            created=manifest.created,
        ),
        functions=tuple(_functions(run)),
        provenance=run_provenance(
            run, origin=[("partitions from", str(manifest.config["source"] or "the job itself"))]
        ),
        selection=shown,
        sections=("selection",),
        notes=tuple(_notes(run, curve)),
        findings=(*_findings(run, curve, tests), *_export_finding(table_rows(run, "moefied_export"))),
    )


def _drawn(curve: Sequence[Row]) -> list[str]:
    """Measures that are drawn: mass, the model's own loss or its divergence, and the best score there is."""
    known = {row["measure"] for row in curve}
    return ["mass", "loss" if "loss" in known else "kl", "accuracy" if "accuracy" in known else "agreement"]


def _selection(run: Run, curve: Sequence[Row]) -> ExpertSelection:
    config, notes = run.manifest.config, run.manifest.notes
    partitions = list(config["partitions"])
    together = [row for row in curve if row["place"] == PLACES[row["measure"]]]
    shares = tuple(
        _panel(
            [row for row in together if (row["measure"], row["partition"]) == (measure, partition)], config["shares"]
        )
        for measure in _drawn(curve)
        for partition in partitions
    )
    share = headline_share(config)
    by_layer = [row for row in curve if row["measure"] == "mass" and row["share"] == share]
    places = [f"layer {layer}" for layer in notes["layers"]]
    layers = tuple(
        _layer_panel([row for row in by_layer if row["partition"] == partition], places) for partition in partitions
    )
    return ExpertSelection(shares, layers, by_layer[0]["selected"], notes["n_experts"], len(config["seeds"]))


def headline_share(config: Mapping[str, Any]) -> float:
    """The share that findings speak of: the one nearest to that by which routers were trained, below 1 if there is."""
    wanted = float(config["training"]["share"])
    below = [share for share in config["shares"] if share < 1] or config["shares"]
    return float(min(below, key=lambda share: (round(abs(share - wanted), 9), share)))


def _panel(rows: Sequence[Row], shares: Sequence[float]) -> SelectionPanel:
    ordered = sorted(shares)
    routers = list(dict.fromkeys(row["router"] for row in rows))
    by_place = {(row["router"], row["share"]): row for row in rows}
    x_X = np.array([by_place[routers[0], share]["selected"] for share in ordered])
    lines = tuple(_line(router, [by_place[router, share] for share in ordered]) for router in routers)
    return SelectionPanel(rows[0]["partition"], rows[0]["measure"], x_X, lines, rows[0]["whole"])


def _layer_panel(rows: Sequence[Row], places: Sequence[str]) -> SelectionPanel:
    routers = list(dict.fromkeys(row["router"] for row in rows))
    by_place = {(row["router"], row["place"]): row for row in rows}
    x_X = np.array([float(place.removeprefix("layer ")) for place in places])
    lines = tuple(_line(router, [by_place[router, place] for place in places]) for router in routers)
    return SelectionPanel(rows[0]["partition"], "mass", x_X, lines, 1.0)


def _line(router: str, rows: Sequence[Row]) -> SelectionLine:
    def column(name: str) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=np.float64)

    rises = rows[0]["measure"] == "loss"
    names = ("change", "change_low", "change_high") if rises else ("value", "low", "high")
    value_X, low_X, high_X = map(column, names)
    base_X = column("whole") if rises else np.zeros(len(rows))
    low_X, high_X = np.fmin(low_X, column("seed_low") - base_X), np.fmax(high_X, column("seed_high") - base_X)
    return SelectionLine(router, value_X, low_X, high_X, column("ffn_flops"))


def _findings(run: Run, curve: Sequence[Row], tests: Sequence[Row]) -> Iterator[Finding]:
    """For each partition but the control: what its experts hold, and what the model loses with them alone."""
    if not curve:
        return
    config = run.manifest.config
    share, router = headline_share(config), main_router(config["routers"])
    for partition in config["partitions"]:
        if partition == CONTROL or router == CONTROL:
            continue
        for measure in _drawn(curve):
            at = {"measure": measure, "place": PLACES[measure], "share": share}
            rows = {(r["partition"], r["router"]): r for r in curve if all(r[key] == v for key, v in at.items())}
            own = [
                r for r in tests
                if all(r[key] == v for key, v in at.items()) and (r["partition"], r["router"]) == (partition, router)
            ]  # fmt: skip
            beyond = bool(own) and all(_is_better(row) for row in own)
            subject = f"{partition_name(partition)}, {MEASURE_SUBJECTS[measure]}"
            text = f"{subject}: {_sentence(measure, rows, partition, router)}{_test_text(own, beyond)}."
            yield Finding(text, "supported" if beyond else "unsupported", subject, "selection")


def _is_better(row: Row) -> bool:
    """Better than a control over the texts, and under each of several seeds."""
    sure = row["q_value"] <= LEVEL and row["n_seeds"] > 1
    return bool(sure and min(row["advantage"], row["seed_low"]) > 0)


def _sentence(measure: str, rows: Mapping[tuple[str, str], Row], partition: str, router: str) -> str:
    row, experts = rows[partition, router], rows[CONTROL, router]
    blind = rows[partition, CONTROL]
    some = f"{percent(row['selected'], 0)} of the experts, chosen by the {ROUTERS[router]},"
    if measure == "mass":
        oracle = rows.get((partition, "oracle"))
        best = f" (at best {percent(oracle['value'])})" if oracle is not None and router != "oracle" else ""
        return (
            f"{some} hold {_share(row)} of a layer's activation mass{best}; as many random experts, chosen alike, hold "
            f"{percent(experts['value'])}, and experts chosen by a random router {percent(blind['value'])}"
        )
    cost = f"at {percent(row['ffn_flops'], 0)} of the FFN operations, router included"
    if measure == "accuracy":
        return (
            f"with {some} in all layers the tasks are answered rightly in {_share(row)}, {percent(row['whole'])} with "
            f"the whole model, {cost}; with random experts in {percent(experts['value'])}, with a random router in "
            f"{percent(blind['value'])}, with always the more frequent label in {percent(row['chance'])}"
        )
    if measure == "agreement":
        return (
            f"with {some} in all layers the most likely token is that of the whole model in {_share(row)} of the "
            f"positions, {cost}; with random experts in {percent(experts['value'])}, with a random router in "
            f"{percent(blind['value'])}"
        )
    change = with_interval(row["change"], row["change_low"], row["change_high"], 3)
    what = (
        f"the loss of the next token rises by {change} nats, from {number(row['whole'], 3)}"
        if measure == "loss"
        else f"predictions diverge from those of the whole model by {change} nats"
    )
    return (
        f"with {some} in all layers {what}, {cost}; with random experts by {number(experts['change'], 3)}, with a "
        f"random router by {number(blind['change'], 3)}"
    )


def _share(row: Row) -> str:
    ends = f"{number(100 * row['low'], 1)}, {number(100 * row['high'], 1)}" if np.isfinite(row["low"]) else ""
    return f"{percent(row['value'])} [{ends}]" if ends else percent(row["value"])


def _test_text(own: Sequence[Row], beyond: bool) -> str:
    """The advantage over both controls, over texts and over seeds."""
    if not own:
        return "; not tested"
    parts = [
        f"{row['against']} {with_interval(row['advantage'], row['low'], row['high'], 3)}, {_seeds_text(row)}corrected "
        f"{p_value(row['q_value'])}"
        for row in own
    ]
    lead = (
        ". Advantage over " if beyond else ". It is not shown that this is better than both controls; advantage over "
    )
    alone = "" if own[0]["n_seeds"] > 1 else "; with one seed nothing is known of the chance in partitions and routers"
    return f"{lead}{'; over '.join(parts)}{alone}"


def _seeds_text(row: Row) -> str:
    if row["n_seeds"] < 2:
        return ""
    return f"over seeds {number(row['seed_low'], 3)} to {number(row['seed_high'], 3)}, "


def _export_finding(rows: Sequence[Row]) -> Iterator[Finding]:
    if not rows:
        return
    by_name = {row["compared"]: row for row in rows}
    plain, whole, some = (by_name[name] for name in ("checkpoint", "all experts", "some experts"))
    text = (
        f"export: the checkpoint in {plain['folder']} gives the logits of the original model, the largest difference "
        f"on {plain['n_texts']:,} texts {plain['difference']:.0e} of the largest logit (sums in another order); with "
        f"all experts selected the difference from the plain checkpoint is {whole['difference']:g}; with "
        f"{percent(some['share'], 0)} of them in both models {percent(some['agreement'])} of the most likely tokens "
        "are the same."
    )
    yield Finding(text, "descriptive", "export", "selection")


def _notes(run: Run, curve: Sequence[Row]) -> Iterator[str]:
    manifest = run.manifest
    for half, tables in manifest.notes["texts"].items():
        n_truncated = sum(table["n_truncated"] for table in tables.values())
        if n_truncated:
            yield f"{n_truncated:,} texts of the {half} side were longer than the limit and lost their end."
    yield from (f"{note[:1].upper()}{note[1:]}." for note in manifest.notes.get("plan", []))
    poor = [row for row in curve if row["measure"] == "accuracy" and row["whole"] <= row["chance"]]
    if poor:
        names = ", ".join(dict.fromkeys(row["place"] for row in poor))
        yield f"The whole model answers {names} no better than a constant answer: what is kept of it says little."
    yield (
        "Neurons are silenced, not skipped: operations are counted from the weights, the job itself is not faster. The "
        "oracle computes every in-projection, to know which experts it wants."
    )
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."


def _functions(run: Run) -> Iterator[FunctionSummary]:
    manifest = run.manifest
    sides, tasks = manifest.notes["texts"], manifest.notes["tasks"]
    for name in dict.fromkeys([*sides["training"], *sides["evaluation"]]):
        training, evaluation = (
            side.get(name, {"n_texts": 0, "n_tokens": 0, "n_truncated": 0})
            for side in (sides["training"], sides["evaluation"])
        )
        yield FunctionSummary(
            name=name,
            kind=f"texts: {training['n_texts']:,} train routers, {evaluation['n_texts']:,} are measured",
            source=str(manifest.config["source"] or "declared in the config"),
            pooling="none, all tokens count",
            subfunctions=tuple(
                SubFunction(
                    f"{task['name']}: {' / '.join(task['words'])}", 0, task["n_examples"], task["share_positive"]
                )
                for task in tasks
                if task["function"] == name
            ),
            n_examples=training["n_texts"] + evaluation["n_texts"],
            n_tokens=training["n_tokens"] + evaluation["n_tokens"],
            n_truncated=training["n_truncated"] + evaluation["n_truncated"],
        )
