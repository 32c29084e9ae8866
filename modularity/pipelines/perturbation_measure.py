"""Tasks measured on a model with its LM head: unchanged, with noise in chosen neurons, or with restricted routing.

Table `perturbation`: one row for each task under each ranking, noise, strength and seed (card A6), and one for the
unchanged model, whose ranking and noise are `none`. Table `task_examples`: the margin of the unchanged model on every
example. Table `routing`: one row for each task under each restriction (card A7).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modularity.interventions import LabelTask, Noise, label_logits, logit_margins, make_noise, perturbed, task_scores
from modularity.models import HeadModel
from modularity.pipelines.perturbation_config import PerturbationConfig
from modularity.pipelines.perturbation_rankings import MOMENTS, NO_SEED, UNCHANGED, Ranking, read_masks
from modularity.stats import wilson_interval
from modularity.store import Run, table_from_columns
from modularity.types import Site, WorkItem

Row = dict[str, Any]
MEASURES = ("accuracy", "balanced_accuracy", "mcc", "margin")


class Measurer:
    """Measures all tasks, and compares each with the unchanged model example by example."""

    def __init__(self, run: Run, model: HeadModel, tasks: Sequence[LabelTask], config: PerturbationConfig) -> None:
        self.run, self.model, self.tasks, self.config = run, model, tasks, config
        self._unchanged: dict[str, Row] = {}
        self._margins: dict[str, np.ndarray] = {}
        self._noises: dict[str, Noise] = {}

    def unchanged(self, item: WorkItem) -> Mapping[str, Any]:
        """Measure and record the unchanged model."""
        head = {"ranking": UNCHANGED, "kind": UNCHANGED, "of": "", "noise": UNCHANGED, "strength": 0.0, "seed": NO_SEED}
        rows, examples = [], []
        for task in self.tasks:
            logits_EC = label_logits(self.model, task, tokens_per_batch=self.config.tokens_per_batch)
            scores = _scores(logits_EC, task)
            rows.append(head | {"task": task.name, "n_neurons": 0} | scores | _drops(scores, scores) | _paired(None))
            margins_E = logit_margins(logits_EC, task.gold_E)
            examples += [
                {"task": task.name, "example_id": name, "label": int(label), "margin": float(margin)}
                for name, label, margin in zip(task.example_ids, task.gold_E, margins_E)
            ]
        tables = [("perturbation", rows), ("task_examples", examples)]
        self.run.commit(item, tables=[self.run.write_table(name, item, _table(part)) for name, part in tables])
        return {"tokens": self._n_tokens()}

    def perturb(self, item: WorkItem, ranking: Ranking, site: Site, layers: Sequence[int]) -> Mapping[str, Any]:
        """Measure and record all tasks under one ranking, noise, strength and seed."""
        strength, seed = float(item["strength"]), item.integer("seed")
        mask_LF = self._whole_mask(read_masks(self.run, ranking.name, strength=strength, seed=seed), site, layers)
        head = {
            "ranking": ranking.name, "kind": ranking.kind, "of": ranking.of,
            "noise": item.text("noise"), "strength": strength, "seed": seed,
        }  # fmt: skip
        with perturbed(self.model.base, {site: mask_LF}, self._noise(item.text("noise")), seed=max(seed, 0)):
            rows = [head | row for row in self.compared(n_neurons=int(mask_LF.sum()))]
        self.run.commit(item, tables=[self.run.write_table("perturbation", item, _table(rows))])
        return {"tokens": self._n_tokens()}

    def compared(self, **columns: int) -> list[Row]:
        """A row for each task: scores of the model as it is now, and drops from the unchanged one."""
        self._read_unchanged()
        rows = []
        for task in self.tasks:
            logits_EC = label_logits(self.model, task, tokens_per_batch=self.config.tokens_per_batch)
            scores, before = _scores(logits_EC, task), self._unchanged[task.name]
            paired_E = self._margins[task.name] - logit_margins(logits_EC, task.gold_E)
            rows.append({"task": task.name, **columns} | scores | _drops(before, scores) | _paired(paired_E))
        return rows

    def _read_unchanged(self) -> None:
        if self._unchanged:
            return
        rows = [row for row in self.run.table("perturbation").to_pylist() if row["ranking"] == UNCHANGED]
        self._unchanged = {row["task"]: row for row in rows}
        margins: dict[str, list[float]] = {}
        for row in self.run.table("task_examples").to_pylist():
            margins.setdefault(row["task"], []).append(row["margin"])
        self._margins = {task: np.array(values) for task, values in margins.items()}

    def _noise(self, kind: str) -> Noise:
        if kind not in self._noises:
            moments = self.run.results(MOMENTS)
            self._noises[kind] = make_noise(
                kind,  # type: ignore[arg-type]  # the config has checked it
                mean_LF=moments["mean"].values,
                sd_LF=moments["sd"].values,
                scale=self.config.scale,
                variant="released" if self.config.variant == "released" else "corrected",
            )
        return self._noises[kind]

    def _whole_mask(self, chosen_LF: np.ndarray, site: Site, layers: Sequence[int]) -> np.ndarray:
        """The mask over all layers of the stack, as `perturbed` takes it."""
        shape = self.model.base.sites.shape(site)
        mask_LF = np.zeros((len(shape.layers), max(shape.widths)), dtype=bool)
        mask_LF[np.array(layers), : chosen_LF.shape[1]] = chosen_LF
        return mask_LF

    def _n_tokens(self) -> int:
        return sum(task.tokens.n_tokens for task in self.tasks)


def _scores(logits_EC: np.ndarray, task: LabelTask) -> Row:
    scores = task_scores(logits_EC, task.gold_E)
    interval = wilson_interval(round(scores.accuracy * scores.n), scores.n)
    values: Row = {name: getattr(scores, name) for name in ("n", *MEASURES)}
    return values | {
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "majority": scores.majority,
        "answer_share": scores.answer_share,
        "collapsed": scores.collapsed,
    }


def _drops(before: Mapping[str, Any], after: Mapping[str, Any]) -> Row:
    return {f"drop_{name}": before[name] - after[name] for name in MEASURES}


def _paired(drops_E: np.ndarray | None) -> Row:
    """Standard error of the drop of the margin over examples, each compared with itself."""
    if drops_E is None or len(drops_E) < 2:
        return {"drop_margin_se": 0.0 if drops_E is None else float("nan")}
    return {"drop_margin_se": float(drops_E.std(ddof=1) / np.sqrt(len(drops_E)))}


def _table(rows: Sequence[Row]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
