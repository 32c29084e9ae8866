"""The tables of a pruning, brought into the form that the page shows."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from modularity.report.content import (
    Finding,
    FunctionSummary,
    ReportContent,
    RunSummary,
    SubFunction,
)
from modularity.report.provenance import run_provenance
from modularity.report.pruning import Curve, Pruning, PruningPlot, Written, area_cell, points, trimmed
from modularity.report.run_tables import Row, table_rows
from modularity.report.wording import number, p_cell, p_value, percent, plural, significant, with_interval
from modularity.store import Run

JOB = "pruning"
RANDOM = "random"
MEASURE_NAMES = {"top1": "top-1", "top10": "top-10", "top1_uncommon": "top-1 without the commonest tokens"}


def pruning_content(run: Run, model: str) -> ReportContent:
    """Everything that the page of a pruning shows; parts that are not computed yet stay empty.

    Parameters
    ----------
    run : a run of the job `pruning`
    model : name of the model to print
    """
    manifest = run.manifest
    notes = manifest.notes
    areas, choices = table_rows(run, "pruning_areas"), table_rows(run, "pruning_choices")
    tests = table_rows(run, "continuation_tests")
    steps = [row for row in table_rows(run, "pruning_steps") if row["part"] == "evaluation"] if choices else []
    shown = Pruning(
        plots=tuple(_plot(steps, choice) for choice in choices),
        written=tuple(map(_written, tests)),
        areas=tuple(map(_area_row, areas)),
        corpora=tuple(corpus["name"] for corpus in notes["corpora"]),
    )
    return ReportContent(
        title=f"Capabilities pruned from {model}",
        run=RunSummary(
            model=model,
            site=" and ".join(f"{stack}/ffn.neurons" for stack in notes["stacks"]),
            layers=tuple(notes["layers"]),
            n_neurons=notes["n_units"]["ffn"],
            n_permutations=0,
            created=manifest.created,
        ),
        functions=tuple(_functions(run)),
        provenance=run_provenance(run),
        pruning=shown,
        sections=("pruning",),
        notes=tuple(_notes(run, choices)),
        findings=(*_area_findings(areas, choices), *_written_findings(tests), *_export_findings(run)),
    )


def _plot(rows: Sequence[Row], choice: Row) -> PruningPlot:
    pruned, kept = choice["pruned"], choice["kept"]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["pruned"] in (pruned, ""):
            groups.setdefault((row["score"], row["schedule"], row["seed"]), []).append(row)
    curves = {key: _curve(key, group, kept, pruned) for key, group in groups.items()}
    own = (choice["score"], choice["schedule"], -1)
    chosen = {role: _ordered(groups[own], name) for role, name in (("kept", kept), ("pruned", pruned))}
    return PruningPlot(
        pruned,
        kept,
        np.array([row["ffn_share"] for row in chosen["kept"]]),
        curves[own],
        tuple(curve for key, curve in curves.items() if key[0] != RANDOM and key != own),
        tuple(curve for key, curve in curves.items() if key[0] == RANDOM),
        int(choice["step"]),
        {
            role: (np.array([row["top1_low"] for row in part]), np.array([row["top1_high"] for row in part]))
            for role, part in chosen.items()
        },
    )


def _ordered(rows: Sequence[Row], corpus: str) -> list[Row]:
    return sorted((row for row in rows if row["corpus"] == corpus), key=lambda row: row["step"])


def _curve(key: tuple[Any, ...], rows: Sequence[Row], kept: str, pruned: str) -> Curve:
    accuracy = [np.array([row["top1"] for row in _ordered(rows, name)]) for name in (kept, pruned)]
    return Curve(f"{key[0]}, {key[1].replace('_', '-')}", accuracy[0], accuracy[1])


def _written(row: Row) -> Written:
    return Written(
        row["pruned"], row["kept"], row["prompts_of"],
        (row["before"], row["before_low"], row["before_high"]), (row["after"], row["after_low"], row["after_high"]),
        (row["random_mean"], row["random_low"], row["random_high"]),
        row["p_value"], row["q_value"], row["p_random"], row["n_prompts"], row["n_random"],
    )  # fmt: skip


def _area_row(row: Row) -> tuple[str, ...]:
    return (
        row["pruned"],
        row["kept"],
        f"{row['score']}, {row['schedule'].replace('_', '-')}{' (chosen)' if row['chosen'] else ''}",
        MEASURE_NAMES[row["measure"]],
        area_cell(row["area"], row["area_low"], row["area_high"]),
        area_cell(row["null_mean"], row["null_low"], row["null_high"]),
        area_cell(row["excess"], row["excess_low"], row["excess_high"]),
        p_cell(row["p_value"]),
        p_cell(row["q_value"]),
    )


def _area_findings(areas: Sequence[Row], choices: Sequence[Row]) -> Iterator[Finding]:
    for choice in choices:
        (row,) = (
            row for row in areas if row["chosen"] and row["pruned"] == choice["pruned"] and row["measure"] == "top1"
        )
        drops = {
            role: 1 - choice[f"{role}_top1_after"] / choice[f"{role}_top1_before"]
            for role in ("kept", "pruned")
            if choice[f"{role}_top1_before"] > 0
        }
        if not np.isfinite(row["area"]) or len(drops) < 2:
            yield Finding(
                f"without {choice['pruned']}: the unchanged model has no top-1 accuracy to lose, so nothing is said.",
                "descriptive", f"without {choice['pruned']}", "pruning",
            )  # fmt: skip
            continue
        yield Finding(
            f"without {row['pruned']}: separability {with_interval(row['area'], row['area_low'], row['area_high'])} by "
            f"{row['score']} ({row['schedule'].replace('_', '-')}), chosen on validation texts; as many random units "
            f"{with_interval(row['null_mean'], row['null_low'], row['null_high'])} over "
            f"{plural(row['n_random'], 'seed')}, {p_value(row['p_value'])}, corrected over scores and directions "
            f"{p_cell(row['q_value'])}. With {percent(choice['ffn_share'])} of the neurons out, {choice['kept']} loses "
            f"{points(drops['kept'])} of its top-1 accuracy and {choice['pruned']} {points(drops['pruned'])}; loss per "
            f"token of {choice['kept']} {_change(choice, 'kept')}, of {choice['pruned']} {_change(choice, 'pruned')}; "
            f"difference of lost likelihood {with_interval(choice['gap'], choice['gap_low'], choice['gap_high'])}, "
            f"under random units {number(choice['null_mean'])} ({p_value(choice['p_value'])}).",
            "supported" if row["q_value"] <= 0.05 else "unsupported",
            f"without {row['pruned']}",
            "pruning",
        )


def _change(choice: Row, role: str) -> str:
    before, after, random = (number(choice[f"{role}_loss_{when}"]) for when in ("before", "after", "random"))
    return f"{before} → {after} (random {random})"


def _written_findings(tests: Sequence[Row]) -> Iterator[Finding]:
    for row in tests:
        if row["prompts_of"] != row["pruned"]:
            continue
        changed = row["q_value"] <= 0.05 and row["change"] > 0 and row["p_random"] <= 0.05
        lead = (
            "the pruned model writes more of what was kept" if changed else "it was not shown that the category changes"
        )
        yield Finding(
            f"{row['pruned']} → {row['kept']}: {lead}. After {plural(row['n_prompts'], 'prompt')} of {row['pruned']}, "
            f"P({row['kept']}) is {with_interval(row['before'], row['before_low'], row['before_high'])} before and "
            f"{with_interval(row['after'], row['after_low'], row['after_high'])} after, {p_value(row['p_value'])} "
            f"(corrected {p_cell(row['q_value'])}); without as many random units "
            f"{number(row['random_mean'])}, {p_value(row['p_random'])}. The judge is right on "
            f"{percent(row['judge_accuracy'])} of {row['n_judge_test']:,} held-out pieces "
            f"({percent(row['judge_low'])} to {percent(row['judge_high'])}).",
            "supported" if changed else "unsupported",
            f"{row['pruned']} → {row['kept']}",
            "pruning",
        )


def _export_findings(run: Run) -> Iterator[Finding]:
    for row in table_rows(run, "pruned_checkpoints"):
        width = f", FFN width {row['ffn_width']} of {row['ffn_width_before']}" if row["ffn_width"] >= 0 else ""
        yield Finding(
            f"checkpoint without {row['pruned']}: {row['n_parameters']:,} of {row['n_parameters_before']:,} parameters"
            f"{width}; loaded again, its logits differ from the masked model's by at most "
            f"{significant(row['largest_difference'], 2)} (largest logit {number(row['largest_logit'], 1)}, at "
            f"{row['n_compared']:,} tokens).",
            "descriptive",
            f"checkpoint without {row['pruned']}",
            "pruning",
        )


def _notes(run: Run, choices: Sequence[Row]) -> Iterator[str]:
    manifest = run.manifest
    yield from (f"{note[:1].upper()}{note[1:]}." for note in manifest.notes.get("plan", []))
    written = table_rows(run, "continuations")
    for choice in choices:
        of = [row for row in written if row["prompts_of"] == choice["pruned"] and row["prompt_text"]]
        before = {row["prompt"]: row for row in of if row["model"] == "unchanged"}
        after = [row for row in of if row["model"] == "pruned" and row["pruned"] == choice["pruned"]]
        for row in after[:2]:
            yield (
                f"Without {choice['pruned']}, the prompt “{trimmed(row['prompt_text'])}” goes on “"
                f"{trimmed(row['continuation'])}”; the unchanged model: “"
                f"{trimmed(before[row['prompt']]['continuation'])}”."
            )
    if manifest.state != "finished":
        yield f"The run is {manifest.state}: parts of this page may be missing."


def _functions(run: Run) -> Iterator[FunctionSummary]:
    for role, corpus in zip(("target", "retain"), run.manifest.notes["corpora"]):
        source = run.manifest.config[role]["source"]
        texts = corpus["texts"]
        yield FunctionSummary(
            name=corpus["name"],
            kind=f"texts of one category ({role})",
            source=source if isinstance(source, str) else ", ".join(source),
            pooling=", ".join(f"{count:,} {part.replace('_', ' ')}" for part, count in texts.items()),
            subfunctions=(SubFunction(corpus["name"], texts["scoring"], texts["evaluation"], 1.0),),
            n_examples=sum(texts.values()),
            n_tokens=sum(corpus["tokens"].values()),
            n_truncated=corpus["n_truncated"],
        )
