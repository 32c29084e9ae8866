"""The tables of a graph study, brought into the form that the page shows."""

from collections.abc import Iterator, Sequence

import numpy as np

from modularity.report.content import Finding, Provenance, ReportContent, RunSummary
from modularity.report.graph_study import MEASURE_WORDS, GraphCurve, GraphNull, GraphStudy, GroupAgreement
from modularity.report.provenance import run_provenance, status_command
from modularity.report.run_tables import Row, table_rows
from modularity.report.wording import interval, number, p_value, plural, significant
from modularity.store import Run
from modularity.types import ALL_LAYERS

JOB = "graph_modularity"
LEVEL = 0.05
TESTED = {"spectral": "ncut", "leiden": "modularity"}
"""The measure that a finding speaks of: the one that the method seeks."""


def graph_modularity_content(run: Run, model: str) -> ReportContent:
    """Everything that the page of a graph study shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `graph_modularity`
    model : name of the model to print
    """
    manifest = run.manifest
    tests, agreement = table_rows(run, "graph_tests"), table_rows(run, "graph_agreement")
    observed = table_rows(run, "graph_partitions")
    return ReportContent(
        title=f"Graph modularity of {model}",
        run=RunSummary(
            model=model,
            site=str(manifest.notes["analysed"]),
            layers=tuple(manifest.notes["layers"]),
            n_neurons=sum(manifest.notes["n_neurons"]),
            n_permutations=0,
            created=manifest.created,
        ),
        functions=(),
        provenance=_provenance(run),
        graphs=GraphStudy(tuple(_curves(tests)), _agreement(agreement)),
        sections=("graphs",),
        notes=tuple(_notes(run, observed)),
        findings=(*_graph_findings(tests, observed), *_agreement_findings(agreement)),
    )


def _curves(tests: Sequence[Row]) -> Iterator[GraphCurve]:
    for key in dict.fromkeys((row["graph"], row["method"], row["measure"]) for row in tests):
        of_key = [row for row in tests if (row["graph"], row["method"], row["measure"]) == key]
        single = sorted((row for row in of_key if row["layer"] != ALL_LAYERS), key=lambda row: row["layer"])
        names = list(dict.fromkeys(row["null"] for row in single))
        first = [row for row in single if row["null"] == names[0]]
        yield GraphCurve(
            graph=key[0],
            method=key[1],
            measure=key[2],
            layers=tuple(row["layer"] for row in first),
            observed_L=np.array([row["observed"] for row in first]),
            nulls=tuple(_null(name, [row for row in single if row["null"] == name]) for name in names),
            n_draws=first[0]["n_draws"],
        )


def _null(name: str, rows: Sequence[Row]) -> GraphNull:
    columns = ("null_mean", "null_low", "null_high", "z", "q_value")
    return GraphNull(name, *(np.array([row[column] for row in rows]) for column in columns))


def _agreement(rows: Sequence[Row]) -> GroupAgreement | None:
    if not rows:
        return None
    own = list(dict.fromkeys(row["partition_a"] for row in rows))
    every = list(dict.fromkeys(name for row in rows for name in (row["partition_a"], row["partition_b"])))
    found = [name for name in every if "/" in name]
    columns = [*found, *(name for name in every if name not in found)]
    names = [name for name in found if name in own or len(columns) == len(found)]
    arrays = {name: np.full((len(names), len(columns)), np.nan) for name in ("mean", "low", "high", "ami", "found")}
    for pair in dict.fromkeys((row["partition_a"], row["partition_b"]) for row in rows):
        of_pair = [row for row in rows if (row["partition_a"], row["partition_b"]) == pair]
        rand = np.array([row["adjusted_rand"] for row in of_pair])
        values = {
            "mean": rand.mean(), "low": rand.min(), "high": rand.max(),
            "ami": np.mean([row["adjusted_mutual_information"] for row in of_pair]),
            "found": sum(row["q_value"] <= LEVEL for row in of_pair),
        }  # fmt: skip
        for a, b in (pair, pair[::-1]):
            if a in names:
                for name, value in values.items():
                    arrays[name][names.index(a), columns.index(b)] = value
    return GroupAgreement(
        tuple(names),
        tuple(columns),
        value_YS=arrays["mean"],
        low_YS=arrays["low"],
        high_YS=arrays["high"],
        information_YS=arrays["ami"],
        n_found_YS=arrays["found"],
        n_layers=len({row["layer"] for row in rows}),
        n_permutations=rows[0]["n_permutations"],
    )


def _graph_findings(tests: Sequence[Row], observed: Sequence[Row]) -> Iterator[Finding]:
    """One sentence for each graph and method: the mean over layers against every null."""
    for graph, method in dict.fromkeys((row["graph"], row["method"]) for row in tests):
        own = [row for row in tests if (row["graph"], row["method"]) == (graph, method)]
        own = [row for row in own if row["measure"] == TESTED[method]]
        whole = [row for row in own if row["layer"] == ALL_LAYERS]
        found = [row["q_value"] <= LEVEL for row in whole]
        lead = (
            "the layers have groups beyond every null"
            if all(found)
            else "the layers have groups beyond some nulls only"
            if any(found)
            else "it was not shown that the layers have groups"
        )
        n_groups = [row["n_groups"] for row in observed if (row["graph"], row["method"]) == (graph, method)]
        groups = str(min(n_groups)) if min(n_groups) == max(n_groups) else f"{min(n_groups)} to {max(n_groups)}"
        n_layers = len({row["layer"] for row in own}) - 1
        parts = "; ".join(_against(row, own) for row in whole)
        text = (
            f"{graph}, {method}: {lead}. {MEASURE_WORDS[TESTED[method]]} of {groups} groups is "
            f"{significant(whole[0]['observed'], 4)} on average over {plural(n_layers, 'layer')}; {parts}. "
            f"Each null has {plural(whole[0]['n_draws'], 'draw')} for a layer, so that no p is below "
            f"{number(whole[0]['smallest_p_value'], 3)}."
        )
        yield Finding(text, "supported" if all(found) else "unsupported", f"{graph}, {method}", "graphs")


def _against(row: Row, own: Sequence[Row]) -> str:
    """Null, its mean and range, z, p, and the layers that differ from it."""
    layers = [other for other in own if other["null"] == row["null"] and other["layer"] != ALL_LAYERS]
    n_found = sum(other["q_value"] <= LEVEL for other in layers)
    return (
        f"null {row['null']} {significant(row['null_mean'], 4)} {interval(row['null_low'], row['null_high'], 4)}, z = "
        f"{number(row['z'], 1)}, {p_value(row['p_value'])}, corrected {number(row['q_value'], 3)}, {n_found} of "
        f"{len(layers)} layers at a false discovery rate of 5 %"
    )


def _agreement_findings(rows: Sequence[Row]) -> Iterator[Finding]:
    """One sentence for each graph and method: the experts that agree most with it."""
    with_experts = [row for row in rows if "/" not in row["partition_b"]]
    for own in dict.fromkeys(row["partition_a"] for row in with_experts):
        of_own = [row for row in with_experts if row["partition_a"] == own]
        names = list(dict.fromkeys(row["partition_b"] for row in of_own))
        mean = {name: np.mean([r["adjusted_rand"] for r in of_own if r["partition_b"] == name]) for name in names}
        best = max(names, key=lambda name: mean[name])
        cells = [row for row in of_own if row["partition_b"] == best]
        n_found = sum(row["q_value"] <= LEVEL for row in cells)
        others = ", ".join(f"{name} {number(float(mean[name]), 3)}" for name in names if name != best)
        values = [row["adjusted_rand"] for row in cells]
        text = (
            f"{own}: of the experts of the run, its groups agree most with {best}: adjusted Rand index "
            f"{number(float(mean[best]), 3)} on average, {number(min(values), 3)} to {number(max(values), 3)} over "
            f"{plural(len(cells), 'layer')}, q ≤ 0.05 in {n_found} of them, chance 0 ± "
            f"{number(max(row['null_sd'] for row in cells), 3)}{f'; {others}' if others else ''}."
        )
        yield Finding(text, "supported" if n_found == len(cells) else "unsupported", own, "graphs")


def _notes(run: Run, observed: Sequence[Row]) -> Iterator[str]:
    yield from (f"{note[:1].upper()}{note[1:]}." for note in run.manifest.notes.get("plan", []))
    for graph in dict.fromkeys(row["graph"] for row in observed):
        n_isolated = {row["layer"]: row["n_isolated"] for row in observed if row["graph"] == graph}
        if any(n_isolated.values()):
            yield (
                f"Graph {graph}: {sum(n_isolated.values()):,} nodes, over {plural(len(n_isolated), 'layer')}, have no "
                "edge and belong to no group."
            )
    yield (
        "A graph of weights knows nothing of signs, biases, attention or what is computed: groups of it are parts of "
        "the wiring, not functions."
    )
    if run.manifest.state != "finished":
        yield f"The run is {run.manifest.state}: parts of this page may be missing."


def _provenance(run: Run) -> Provenance:
    source = run.manifest.identity.get("source")
    origin = (
        [("source", str(run.manifest.config["source"])), ("its content hash", source["content_hash"])] if source else []
    )
    return run_provenance(
        run,
        origin=origin,
        commands=[
            ("check every byte", f"modularity verify {run.uri}"),
            status_command(run),
            ("the tests", f'modularity sql {run.uri} "select * from graph_tests"'),
        ],
    )
