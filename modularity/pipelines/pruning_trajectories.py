"""Units removed step by step, and all texts predicted after each step (card D6).

Dense results: `importance`, sums over the scoring texts of the unchanged model; `trajectories`, predictions of every
text of the validation and evaluation parts at every step of every trajectory, and the step at which each unit went.
Table `pruning_steps`: the same as accuracies and losses of a part, with intervals over texts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.interventions.language_modelling import PredictionCounts, count_predictions
from modularity.interventions.pruning import (
    Removed,
    UnitKind,
    importance_sums,
    next_removed,
    nothing_removed,
    pruned,
    random_order,
)
from modularity.models import HeadModel
from modularity.pipelines.pruning_prepare import MEASURED, RANDOM, PreparedPruning, Trajectory
from modularity.stats import bootstrap_interval
from modularity.stats.importance import ImportanceSums
from modularity.store import ResultArray, Run, table_from_columns
from modularity.types import WorkItem

IMPORTANCE, TRAJECTORIES = "importance", "trajectories"
COUNTS = ("n_tokens", "n_top1", "n_top10", "n_uncommon", "n_top1_uncommon")
MEASURES: Mapping[str, tuple[str, str]] = {
    "top1": ("n_top1", "n_tokens"),
    "top10": ("n_top10", "n_tokens"),
    "top1_uncommon": ("n_top1_uncommon", "n_uncommon"),
}
"""Accuracies as ratios of counts."""
STAYS = -1
"""In place of a step: the unit is never removed."""
KINDS: tuple[UnitKind, ...] = ("ffn", "attention")


def create_results(run: Run, prepared: PreparedPruning) -> None:
    """Allocate the dense results; repeating it changes nothing."""
    corpora = np.asarray([corpus.name for corpus in prepared.corpora], dtype=str)
    sums = {name: "int64" if name in ("count", "positive") else "float64" for name in ImportanceSums.DIMS}
    sizes = {f"{kind}_unit": prepared.units[kind].n for kind in KINDS}
    places: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for kind in KINDS:
        for name, values in zip(("stack", "layer", "number"), prepared.units[kind].place):
            places[f"{kind}_{name}"] = ((f"{kind}_unit",), values.astype(np.int64))
    run.create_result(
        IMPORTANCE,
        sizes={"corpus": 2, **sizes},
        arrays={
            f"{kind}_{name}": ResultArray(("corpus", f"{kind}_unit"), dtype, {}, {"long_name": f"{name} over tokens"})
            for kind in _scored(prepared)
            for name, dtype in sums.items()
        },
        coordinates={"corpus": (("corpus",), corpora), **places},
        attributes={"stacks": "0 encoder, 1 decoder"},
    )
    texts = [(corpus.name, part) for corpus in prepared.corpora for part in MEASURED
             for _ in corpus.measured(part).texts]  # fmt: skip
    one = {"trajectory": 1}
    run.create_result(
        TRAJECTORIES,
        sizes={
            "trajectory": len(prepared.trajectories), "step": prepared.n_steps + 1, "text": len(texts),
            "count": len(COUNTS), **sizes,
        },
        arrays={
            "counts": ResultArray(("trajectory", "step", "text", "count"), "int32", one,
                                  {"long_name": "predicted tokens, and right ones"}),
            "loss": ResultArray(("trajectory", "step", "text"), "float64", one,
                                {"long_name": "summed cross-entropy", "units": "nat"}),
        } | {
            f"{kind}_removed_at": ResultArray(
                ("trajectory", f"{kind}_unit"), "int16", one,
                {"long_name": f"step at which the unit is removed, {STAYS} = never"},
            )
            for kind in KINDS
        },
        coordinates={
            "trajectory": (("trajectory",), np.asarray([each.name for each in prepared.trajectories], dtype=str)),
            "corpus": (("text",), np.asarray([name for name, _ in texts], dtype=str)),
            "part": (("text",), np.asarray([part for _, part in texts], dtype=str)),
            "count": (("count",), np.asarray(COUNTS, dtype=str)),
            **places,
        },
        attributes={"stacks": "0 encoder, 1 decoder"},
    )  # fmt: skip


def _scored(prepared: PreparedPruning) -> tuple[UnitKind, ...]:
    """Kinds of units that are removed, and so have importances."""
    return tuple(kind for kind in KINDS if prepared.per_step[kind])


@dataclass(frozen=True, eq=False)
class Measured:
    """Predictions of the measured texts along one trajectory."""

    counts_NTC: np.ndarray
    """int: of every step, text and count of `COUNTS`."""
    loss_NT: np.ndarray
    """float64: summed loss."""
    corpus_T: np.ndarray
    """Name of the corpus of each text."""
    part_T: np.ndarray
    """`validation` or `evaluation`."""

    def of(self, corpus: str, part: str) -> "Measured":
        """The texts of one part of one corpus."""
        wanted = (self.corpus_T == corpus) & (self.part_T == part)
        return Measured(self.counts_NTC[:, wanted], self.loss_NT[:, wanted], self.corpus_T[wanted], self.part_T[wanted])

    def ratio(self, measure: str, weights_WT: np.ndarray) -> np.ndarray:
        """Accuracy, or `loss` per token, at every step under weights of texts, float64 (W, N); NaN without tokens."""
        above, below = MEASURES.get(measure, ("", "n_tokens"))
        above_NT = self.loss_NT if measure == "loss" else self.counts_NTC[:, :, COUNTS.index(above)]
        total_WN = weights_WT @ self.counts_NTC[:, :, COUNTS.index(below)].T.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            values: np.ndarray = np.where(total_WN > 0, weights_WT @ above_NT.T.astype(np.float64) / total_WN, np.nan)
        return values

    def plain(self, measure: str) -> np.ndarray:
        """The same of the texts as they are, (N,)."""
        found: np.ndarray = self.ratio(measure, np.ones((1, len(self.corpus_T))))[0]
        return found


def read_measured(run: Run, trajectory: str) -> Measured:
    """Predictions along a finished trajectory."""
    results = run.results(TRAJECTORIES, partial=True)
    place = results["trajectory"].values.tolist().index(trajectory)
    counts_NTC, loss_NT = (results[name].isel(trajectory=place).values for name in ("counts", "loss"))
    return Measured(counts_NTC, loss_NT, results["corpus"].values, results["part"].values)


def read_removed(run: Run, trajectory: str, step: int) -> dict[UnitKind, np.ndarray]:
    """Units that are out after a step of a finished trajectory."""
    results = run.results(TRAJECTORIES, partial=True)
    place = results["trajectory"].values.tolist().index(trajectory)
    found = {}
    for kind in KINDS:
        at_U = results[f"{kind}_removed_at"].isel(trajectory=place).values
        found[kind] = (at_U != STAYS) & (at_U <= step)
    return found


class Pruner:
    """Runs trajectories on one model."""

    def __init__(self, run: Run, model: HeadModel, prepared: PreparedPruning) -> None:
        self.run, self.model, self.prepared = run, model, prepared

    def importance(self, item: WorkItem) -> Mapping[str, Any]:
        """Sums of the unchanged model on the scoring texts of both corpora, recorded."""
        out = nothing_removed(self.prepared.units)
        sums = [self._sums(corpus.name, out) for corpus in self.prepared.corpora]
        arrays = {
            f"{kind}_{name}": np.stack([getattr(each[kind], name) for each in sums])
            for kind in _scored(self.prepared)
            for name in ImportanceSums.DIMS
        }
        self.run.commit(item, arrays=self.run.write_result(IMPORTANCE, arrays))
        return {"tokens": sum(corpus.scoring.n_tokens for corpus in self.prepared.corpora)}

    def trajectory(self, item: WorkItem, which: Trajectory) -> Mapping[str, Any]:
        """Remove units step by step and measure after each, recorded."""
        prepared = self.prepared
        place = [each.name for each in prepared.trajectories].index(which.name)
        removed_at = {kind: np.full(prepared.units[kind].n, STAYS, np.int16) for kind in KINDS}
        counts, losses = [], []
        for step, removed in enumerate(self._removals(which)):
            for kind in KINDS:
                removed_at[kind][removed[kind] & (removed_at[kind] == STAYS)] = step
            counts_TC, loss_T = self._measure(removed)
            counts.append(counts_TC)
            losses.append(loss_T)
        measured = Measured(np.stack(counts), np.stack(losses), *self._texts())
        arrays = {
            "counts": measured.counts_NTC[None].astype(np.int32),
            "loss": measured.loss_NT[None],
            **{f"{kind}_removed_at": removed_at[kind][None] for kind in KINDS},
        }
        writes = self.run.write_result(TRAJECTORIES, arrays, at={"trajectory": place})
        rows = list(self._rows(which, measured, removed_at))
        table = self.run.write_table("pruning_steps", item, table_from_columns(_columns(rows)))
        self.run.commit(item, arrays=writes, tables=[table])
        return {"tokens": trajectory_tokens(prepared, which)}

    def _removals(self, which: Trajectory) -> Iterator[Removed]:
        """Units that are out at step 0, 1, …; the last step may have fewer left than it asks for."""
        prepared = self.prepared
        removed: Removed = nothing_removed(prepared.units)
        yield removed
        if which.score == RANDOM:
            order = random_order(prepared.units, prepared.config.seed * 1_000_003 + which.seed)
            for step in range(1, prepared.n_steps + 1):
                removed = nothing_removed(prepared.units)
                for kind in KINDS:
                    removed[kind][order[kind][: step * prepared.per_step[kind]]] = True
                yield removed
            return
        (kept,) = (kept for out, kept in prepared.directions if out == which.pruned)
        numbers = {kind: prepared.per_step[kind] for kind in _scored(prepared)}
        sums = {name: self._recorded_sums(name) for name in (which.pruned, kept)}
        for step in range(prepared.n_steps):
            if step and which.schedule == "iterative":
                sums = {name: self._sums(name, removed) for name in sums}
            score: Any = which.score  # an ImportanceKind: the config has checked it
            removed = next_removed(removed, sums[which.pruned], sums[kept], score, numbers)
            yield removed

    def _sums(self, corpus: str, removed: Removed) -> dict[UnitKind, ImportanceSums]:
        return importance_sums(
            self.model,
            self.prepared.corpus(corpus).scoring,
            removed,
            _scored(self.prepared),
            tokens_per_batch=self.prepared.config.tokens_per_batch,
        )

    def _recorded_sums(self, corpus: str) -> dict[UnitKind, ImportanceSums]:
        results = self.run.results(IMPORTANCE)
        place = results["corpus"].values.tolist().index(corpus)
        return {
            kind: ImportanceSums(**{name: results[f"{kind}_{name}"].values[place] for name in ImportanceSums.DIMS})
            for kind in _scored(self.prepared)
        }

    def _measure(self, removed: Removed) -> tuple[np.ndarray, np.ndarray]:
        """Counts (T, C) and losses (T,) of all measured texts without these units."""
        found: list[PredictionCounts] = []
        with pruned(self.model.base, removed):
            for corpus in self.prepared.corpora:
                for part in MEASURED:
                    size = self.prepared.config.tokens_per_batch
                    texts = corpus.measured(part)
                    found.append(count_predictions(self.model, texts, corpus.common, tokens_per_batch=size))
        counts = [np.stack([getattr(each, name) for name in COUNTS], axis=1) for each in found]
        return np.concatenate(counts), np.concatenate([each.loss for each in found])

    def _texts(self) -> tuple[np.ndarray, np.ndarray]:
        labels = [(corpus.name, part) for corpus in self.prepared.corpora for part in MEASURED
                  for _ in corpus.measured(part).texts]  # fmt: skip
        return np.asarray([name for name, _ in labels]), np.asarray([part for _, part in labels])

    def _rows(
        self, which: Trajectory, measured: Measured, removed_at: Mapping[UnitKind, np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        config = self.prepared.config
        for corpus in self.prepared.corpora:
            for part in MEASURED:
                texts = measured.of(corpus.name, part)
                values = {name: texts.plain(name) for name in (*MEASURES, "loss")}
                for step in range(len(texts.counts_NTC)):
                    one = Measured(texts.counts_NTC[step : step + 1], texts.loss_NT[step : step + 1], texts.corpus_T,
                                   texts.part_T)  # fmt: skip
                    out = {kind: int(((at != STAYS) & (at <= step)).sum()) for kind, at in removed_at.items()}
                    yield {
                        "score": which.score, "schedule": which.schedule, "pruned": which.pruned, "seed": which.seed,
                        "step": step, "n_ffn": out["ffn"], "ffn_share": out["ffn"] / self.prepared.units["ffn"].n,
                        "n_attention": out["attention"],
                        "attention_share": out["attention"] / self.prepared.units["attention"].n,
                        "corpus": corpus.name, "part": part, "n_texts": len(texts.corpus_T),
                        "n_tokens": int(texts.counts_NTC[step, :, 0].sum()),
                        **{name: float(each[step]) for name, each in values.items()},
                        "perplexity": float(np.exp(min(values["loss"][step], 700.0))),
                        **_interval(one, "top1", config.n_bootstrap, config.seed),
                        **_interval(one, "loss", config.n_bootstrap, config.seed),
                    }  # fmt: skip


def trajectory_tokens(prepared: PreparedPruning, which: Trajectory) -> int:
    """Tokens that go through the model in one trajectory."""
    measured = sum(c.validation.n_tokens + c.evaluation.n_tokens for c in prepared.corpora)
    scoring = sum(corpus.scoring.n_tokens for corpus in prepared.corpora)
    again = prepared.n_steps - 1 if which.schedule == "iterative" else 0
    return (prepared.n_steps + 1) * measured + again * scoring


def trajectory_of(item: WorkItem) -> Trajectory:
    """The trajectory of a work item."""
    return Trajectory(item.text("score"), item.text("schedule"), item.text("pruned"), item.integer("seed"))


def random_name(seed: int) -> str:
    """Name of a random trajectory."""
    return Trajectory(RANDOM, RANDOM, "", seed).name


def _interval(one: Measured, measure: str, n_resamples: int, seed: int) -> dict[str, float]:
    """95 % interval of one step over texts."""
    found = bootstrap_interval(
        lambda weights: one.ratio(measure, weights)[:, 0], len(one.corpus_T), n_resamples=n_resamples, seed=seed
    )
    return {f"{measure}_low": found.low, f"{measure}_high": found.high}


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
