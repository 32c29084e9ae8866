"""Tables of a MoEfication by seed: what routers keep of each layer, predictions by function, answers by task.

Tables: `expert_selection` (partition × seed × layer × router × share), `moefied_outputs` (partition × router × share ×
seed × function) and `moefied_tasks` (the same by task, and one row for each task of the whole model). Rows in which
nothing depends on the seed stand once, with seed -1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from modularity.experts import selected_count
from modularity.interventions import TaskScores, task_scores
from modularity.pipelines.moefication_layout import ANSWERS, MASS, OUTPUTS, ROUTERS, WHOLE_ANSWERS
from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.stats import wilson_interval
from modularity.store import Run

Row = dict[str, Any]
WHOLE = "none"
"""Partition and router of rows of the whole model."""
SCORES = ("n", "accuracy", "balanced_accuracy", "mcc", "margin", "majority", "answer_share", "collapsed")


def seed_tables(run: Run, prepared: PreparedMoefication) -> dict[str, list[Row]]:
    """Rows of the three tables, by name."""
    tables = {
        "expert_selection": list(_selection_rows(run, prepared)),
        "moefied_outputs": list(_output_rows(run, prepared)),
    }
    return tables | ({"moefied_tasks": list(_task_rows(run, prepared))} if prepared.tasks else {})


def _cells(prepared: PreparedMoefication) -> Iterator[tuple[Row, dict[str, int]]]:
    """Partition, router, share and seed of every row, and their places in the arrays."""
    config = prepared.config
    for p, partition in enumerate(config.partitions):
        for r, router in enumerate(config.routers):
            for x, share in enumerate(config.shares):
                for s, seed in enumerate(prepared.seeds_of(partition, router)):
                    selected = selected_count(prepared.n_experts, share) / prepared.n_experts
                    head = {"partition": partition, "router": router, "share": share, "seed": seed}
                    yield head | {"selected": selected}, {"partition": p, "router": r, "share": x, "seed": s}


def _selection_rows(run: Run, prepared: PreparedMoefication) -> Iterator[Row]:
    mass, outputs = run.results(MASS).load(), run.results(OUTPUTS)[["kept", "neurons"]].load()
    held_out = run.results(ROUTERS)["held_out"].load() if "mlp" in prepared.config.routers else None
    for head, places in _cells(prepared):
        for index, layer in enumerate(prepared.layers):
            at = places | {"layer": index}
            route = {name: at[name] for name in ("partition", "seed", "layer")}
            n_tokens_N = mass["n_tokens"].isel(route).values
            yield head | {
                "layer": layer,
                "neurons": float(mass["neurons"].isel(at).values),
                "mass_kept": weighted_mean(mass["kept"].isel(at).values, n_tokens_N),
                "n_tokens": int(n_tokens_N.sum()),
                "held_out_mass_kept": float("nan")
                if held_out is None or head["router"] != "mlp"
                else float(held_out.isel(route).values),
                "mass_kept_in_model": float(outputs["kept"].isel(at).values),
                "neurons_in_model": float(outputs["neurons"].isel(at).values),
            }


def weighted_mean(values_N: np.ndarray, weights_N: np.ndarray) -> float:
    """Mean of the values that count; NaN where none does."""
    used = weights_N > 0
    return float((values_N[used] * weights_N[used]).sum() / weights_N.sum()) if used.any() else float("nan")


def _output_rows(run: Run, prepared: PreparedMoefication) -> Iterator[Row]:
    outputs = run.results(OUTPUTS).load()
    n_positions_N = positions(prepared)
    function_N = np.array(prepared.texts.evaluation.function_N)
    for head, places in _cells(prepared):
        here = outputs.isel(places)
        for function in prepared.texts.evaluation.tables:
            own = np.where(function_N == function, n_positions_N, 0)
            yield head | {
                "function": function,
                **{name: weighted_mean(here[name].values, own) for name in ("loss", "whole_loss", "kl", "agreement")},
                "n_positions": int(own.sum()),
                "n_texts": int((own > 0).sum()),
                "ffn_flops": float(here["ffn_flops"].values),
                "flops": float(here["flops"].values),
            }


def positions(prepared: PreparedMoefication) -> np.ndarray:
    """Positions of each evaluation text at which predictions are read."""
    lengths_N = prepared.texts.evaluation.lengths_N
    if prepared.head_kind == "seq2seq":
        return np.ones_like(lengths_N)
    return lengths_N - 1 if prepared.head_kind == "causal" else lengths_N


def _task_rows(run: Run, prepared: PreparedMoefication) -> Iterator[Row]:
    whole, answers = run.results(WHOLE_ANSWERS).load(), run.results(ANSWERS).load()
    nothing = {"partition": WHOLE, "router": WHOLE, "share": 1.0, "seed": -1, "selected": 1.0}
    of_task = {name.name: np.flatnonzero(whole["task"].values == name.name) for name in prepared.names}
    label_N, before_N = whole["label"].values, whole["margin"].values
    unchanged = {task: task_scores(_logits(before_N[own], label_N[own]), label_N[own]) for task, own in of_task.items()}
    for head, places in [(nothing, None), *_cells(prepared)]:
        margin_N = before_N if places is None else answers["margin"].isel(places).values
        for task, own in of_task.items():
            yield head | {"task": task} | _scores(margin_N[own], before_N[own], label_N[own], unchanged[task])


def _scores(margin_E: np.ndarray, before_E: np.ndarray, gold_E: np.ndarray, unchanged: TaskScores) -> Row:
    """Scores of one task from the margins of its examples, and what was lost."""
    found = task_scores(_logits(margin_E, gold_E), gold_E)
    interval = wilson_interval(round(found.accuracy * found.n), found.n)
    drops_E = before_E - margin_E
    values: Row = {name: getattr(found, name) for name in SCORES}
    return values | {
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "accuracy_kept": found.accuracy / unchanged.accuracy if unchanged.accuracy else float("nan"),
        "drop_accuracy": unchanged.accuracy - found.accuracy,
        "drop_margin": unchanged.margin - found.margin,
        "drop_margin_se": float(drops_E.std(ddof=1) / np.sqrt(len(drops_E))) if len(drops_E) > 1 else float("nan"),
    }


def _logits(margin_E: np.ndarray, gold_E: np.ndarray) -> np.ndarray:
    """Logits of two labels with these margins: scores depend on nothing else."""
    logits_EC = np.zeros((len(gold_E), 2))
    logits_EC[np.arange(len(gold_E)), gold_E] = margin_E
    return logits_EC
