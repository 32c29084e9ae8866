"""What the pruned models write, and whether it has changed category: the aim of the study, measured.

Table `continuations`: one row for each prompt and model. Table `continuation_tests`: P(kept category) before and after,
by direction and by the category of the prompts. Table `pruned_checkpoints`: what was exported.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modularity.interventions.continuations import continuations
from modularity.interventions.judge import Judge, train_judge
from modularity.interventions.language_modelling import largest_difference
from modularity.interventions.pruned_checkpoint import PRUNING_FILE, export_pruned
from modularity.interventions.pruning import Removed, nothing_removed, pruned
from modularity.models import HeadModel, ModelConfig, load_head_model
from modularity.pipelines.pruning_prepare import RANDOM, PreparedPruning
from modularity.pipelines.pruning_trajectories import random_name, read_removed
from modularity.stats import benjamini_hochberg, bootstrap_interval
from modularity.stats.sign_flip import sign_flip_test
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]
N_CHECKED_TOKENS = 2000
"""Tokens whose logits are compared between the exported and the masked model."""


def make_judge(prepared: PreparedPruning) -> Judge:
    """The classifier of a job, trained on its pieces of texts."""
    asked = prepared.config.continuations
    assert asked is not None
    one, other = prepared.corpora
    return train_judge(
        (one.name, other.name),
        (one.judge_training, other.judge_training),
        (one.judge_test, other.judge_test),
        features=asked.features,
        seed=asked.seed,
    )


def removed_units(run: Run, prepared: PreparedPruning, item: WorkItem) -> Removed:
    """Units that the model of an item lacks: none, those of the choice of its direction, or as many random ones."""
    which = item.text("model") if item.kind == "continue" else "pruned"
    if which == "unchanged":
        return nothing_removed(prepared.units)
    (row,) = (row for row in run.table("pruning_choices").to_pylist() if row["pruned"] == item.text("pruned"))
    name = f"{row['score']} {row['schedule']} {row['pruned']}"
    return read_removed(run, random_name(item.integer("seed")) if which == RANDOM else name, row["step"])


def write_continuations(
    run: Run, item: WorkItem, model: HeadModel, prepared: PreparedPruning, judge: Judge
) -> Mapping[str, Any]:
    """Let one model go on with all prompts, judge what it writes, and record it."""
    config = prepared.config
    asked = config.continuations
    assert asked is not None
    head = {"model": item.text("model"), "pruned": item.text("pruned"), "seed": item.integer("seed")}
    target = prepared.corpora[0].name
    rows: list[Row] = []
    with pruned(model.base, removed_units(run, prepared, item)):
        for corpus in prepared.corpora:
            written = continuations(
                model, corpus.prompts, n_new=asked.n_new, n_least=asked.n_least, decoding=asked.decoding,
                temperature=asked.temperature, seed=asked.seed, tokens_per_batch=config.tokens_per_batch,
            )  # fmt: skip
            p_target = judge.probability(written, target)
            rows += [
                head | {
                    "prompts_of": corpus.name, "prompt": number,
                    "prompt_text": prompt.text if config.store_text else "",
                    "continuation": text if config.store_text else "",
                    "p_target": float(probability),
                }
                for number, (prompt, text, probability) in enumerate(zip(corpus.prompts, written, p_target))
            ]  # fmt: skip
    run.commit(item, tables=[run.write_table("continuations", item, _table(rows))])
    return {"tokens": sum(len(corpus.prompts) * asked.n_new for corpus in prepared.corpora)}


def compare_continuations(run: Run, item: WorkItem, prepared: PreparedPruning, judge: Judge) -> Mapping[str, Any]:
    """Tests of the change of category, recorded."""
    rows = list(_tests(run.table("continuations").to_pylist(), prepared, judge))
    for row, q_value in zip(rows, benjamini_hochberg(np.array([row["p_value"] for row in rows]))):
        row["q_value"] = float(q_value)
    run.commit(item, tables=[run.write_table("continuation_tests", item, _table(rows))])
    return {}


def _tests(rows: Sequence[Row], prepared: PreparedPruning, judge: Judge) -> Iterator[Row]:
    config, target = prepared.config, prepared.corpora[0].name
    assert config.continuations is not None

    def values(model: str, of: str, out: str, kept: str, seed: int | None = None) -> np.ndarray:
        chosen = [row for row in rows if (row["model"], row["prompts_of"], row["pruned"]) == (model, of, out)
                  and seed in (None, row["seed"])]  # fmt: skip
        p_N = np.array([row["p_target"] for row in sorted(chosen, key=lambda row: row["prompt"])])
        return p_N if kept == target else 1.0 - p_N

    for out, kept in prepared.directions:
        for of in (out, kept):
            before_N, after_N = values("unchanged", of, "", kept), values("pruned", of, out, kept)
            random_S = np.array([values(RANDOM, of, out, kept, seed).mean() for seed in range(config.n_random)])
            tested = sign_flip_test(after_N - before_N, seed=config.seed)
            change = _mean_interval(after_N - before_N, config.n_bootstrap, config.seed)
            yield {
                "pruned": out, "kept": kept, "prompts_of": of, "n_prompts": len(before_N),
                **_named("before", _mean_interval(before_N, config.n_bootstrap, config.seed)),
                **_named("after", _mean_interval(after_N, config.n_bootstrap, config.seed)),
                **_named("change", change),
                "share_before": float((before_N > 0.5).mean()), "share_after": float((after_N > 0.5).mean()),
                "p_value": tested.p_value, "q_value": 1.0,
                "random_mean": float(random_S.mean()), "random_low": float(random_S.min()),
                "random_high": float(random_S.max()),
                "p_random": float((1 + (random_S >= after_N.mean()).sum()) / (1 + len(random_S))),
                "n_random": len(random_S), "decoding": config.continuations.decoding,
                "judge_accuracy": judge.accuracy.estimate, "judge_low": judge.accuracy.low,
                "judge_high": judge.accuracy.high, "n_judge_training": judge.n_training,
                "n_judge_test": judge.n_test,
            }  # fmt: skip


def _mean_interval(values_N: np.ndarray, n_resamples: int, seed: int) -> tuple[float, float, float]:
    """Mean over prompts with its 95 % bootstrap interval."""
    found = bootstrap_interval(
        lambda weights: weights @ values_N / weights.sum(1), len(values_N), n_resamples=n_resamples, seed=seed
    )
    return found.estimate, found.low, found.high


def _named(name: str, values: tuple[float, float, float]) -> Row:
    return {name: values[0], f"{name}_low": values[1], f"{name}_high": values[2]}


def export_choice(run: Run, item: WorkItem, model: HeadModel, prepared: PreparedPruning) -> Mapping[str, Any]:
    """Write the pruned model of one direction, load it again, and compare its logits with the masked model's."""
    config = prepared.config
    assert config.export is not None
    assert prepared.export_folder is not None
    out = item.text("pruned")
    removed = removed_units(run, prepared, item)
    folder = prepared.export_folder / f"without-{out}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    written = export_pruned(model, removed, folder)
    loaded = load_head_model(ModelConfig(name=str(folder), device=str(model.base.device), dtype="auto"))
    texts = prepared.corpora[0].evaluation.first(N_CHECKED_TOKENS)
    with pruned(model.base, removed):
        difference, scale, n_tokens = largest_difference(model, loaded, texts, tokens_per_batch=config.tokens_per_batch)
    row = {
        "pruned": out, "folder": str(Path(config.export) / folder.name),
        "n_parameters_before": written.n_parameters_before, "n_parameters": written.n_parameters,
        "ffn_width_before": max(each.stop - each.start for each in prepared.units["ffn"].layers),
        "ffn_width": -1 if written.width is None else written.width,
        "n_ffn": int(removed["ffn"].sum()), "n_attention": int(removed["attention"].sum()),
        "bytes": sum(path.stat().st_size for path in folder.iterdir() if path.name != PRUNING_FILE),
        "parameter_hash": written.parameter_hash, "largest_logit": scale, "largest_difference": difference,
        "n_compared": n_tokens,
    }  # fmt: skip
    run.commit(item, tables=[run.write_table("pruned_checkpoints", item, _table([row]))])
    return {"tokens": 2 * n_tokens}


def _table(rows: Sequence[Row]) -> Any:
    return table_from_columns({name: [row[name] for row in rows] for name in rows[0]})
