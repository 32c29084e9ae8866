"""How separable the two capabilities are: the area of every trajectory against random units, and what is chosen of it.

Table `pruning_areas`: one row for each trajectory that has a direction, and accuracy. Table `pruning_choices`: for
each direction the score, schedule and step that are best on validation texts, and what evaluation texts say of them.
Best is the largest gap between the shares of the original likelihood per token (inverse perplexity) that are lost on
the pruned and on the kept texts. Accuracy would not do: it stays while a model forgets how sure it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modularity.errors import DataError
from modularity.pipelines.pruning_prepare import PreparedPruning, Trajectory
from modularity.pipelines.pruning_trajectories import (
    MEASURES,
    Measured,
    random_name,
    read_measured,
    read_removed,
)
from modularity.stats import benjamini_hochberg, bootstrap_interval
from modularity.stats.separability import relative_drops, separability_area
from modularity.store import Run, table_from_columns
from modularity.types import WorkItem

Row = dict[str, Any]


def compare_areas(run: Run, item: WorkItem, prepared: PreparedPruning) -> Mapping[str, Any]:
    """Areas of all trajectories and the choices made of them, recorded."""
    measured = {each.name: read_measured(run, each.name) for each in prepared.trajectories}
    nulls = [measured[random_name(seed)] for seed in range(prepared.config.n_random)]
    rows: list[Row] = []
    choices: list[Row] = []
    for pruned, kept in prepared.directions:
        own = [each for each in prepared.trajectories if each.pruned == pruned]
        gaps = {each: _likelihood_gaps(measured[each.name], pruned, kept, "validation") for each in own}
        best = max(own, key=lambda each: float(gaps[each].max()))
        for each in own:
            head = {
                "pruned": pruned, "kept": kept, "score": each.score, "schedule": each.schedule,
                "validation_gap": float(gaps[each].max()), "chosen": each == best,
            }  # fmt: skip
            rows += [head | row for row in _area_rows(measured[each.name], nulls, pruned, kept, prepared)]
        step = int(gaps[best].argmax())
        choices.append(_choice(run, best, step, measured[best.name], nulls, kept, prepared))
    for measure in MEASURES:
        family = [row for row in rows if row["measure"] == measure and np.isfinite(row["p_value"])]
        if family:
            q_values = benjamini_hochberg(np.array([row["p_value"] for row in family]))
            for row, q_value in zip(family, q_values.tolist()):
                row["q_value"] = q_value
    tables = [("pruning_areas", rows), ("pruning_choices", choices)]
    run.commit(item, tables=[run.write_table(name, item, _table(part)) for name, part in tables])
    return {}


def _likelihood_gaps(texts: Measured, pruned: str, kept: str, part: str) -> np.ndarray:
    """Share of the original likelihood per token that is lost on pruned texts, minus that on kept ones, by step."""
    kept_N, pruned_N = (texts.of(name, part).plain("loss") for name in (kept, pruned))
    return _gap(kept_N[None], pruned_N[None])[0]


def _gap(kept_WN: np.ndarray, pruned_WN: np.ndarray) -> np.ndarray:
    """The same of losses per token, for many weights."""
    left = [np.exp(np.minimum(loss_WN[:, :1] - loss_WN, 700.0)) for loss_WN in (kept_WN, pruned_WN)]
    gap: np.ndarray = left[0] - left[1]
    return gap


class _Curves:
    """Accuracies of one trajectory on the evaluation texts of both corpora, under weights of these texts."""

    def __init__(self, texts: Measured, pruned: str, kept: str, measure: str) -> None:
        self._kept, self._pruned, self._measure = texts.of(kept, "evaluation"), texts.of(pruned, "evaluation"), measure
        self.n_kept, self.n_pruned = len(self._kept.corpus_T), len(self._pruned.corpus_T)

    def accuracies(self, weights_WT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """On kept and on pruned texts, (W, N) each; the kept texts come first among the weights. Of `loss`, losses."""
        kept_WT, pruned_WT = weights_WT[:, : self.n_kept], weights_WT[:, self.n_kept :]
        return self._kept.ratio(self._measure, kept_WT), self._pruned.ratio(self._measure, pruned_WT)

    def area(self, weights_WT: np.ndarray) -> np.ndarray:
        """Separability area of each row of weights."""
        return separability_area(*self.accuracies(weights_WT))

    def gaps(self, weights_WT: np.ndarray) -> np.ndarray:
        """Gaps of the likelihood at every step; of curves of the measure `loss`."""
        return _gap(*self.accuracies(weights_WT))

    def drops(self, weights_WT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of the original accuracy that are lost, kept and pruned."""
        kept_WN, pruned_WN = self.accuracies(weights_WT)
        return relative_drops(kept_WN), relative_drops(pruned_WN)

    @property
    def whole(self) -> np.ndarray:
        """Weights of the texts as they are."""
        return np.ones((1, self.n_kept + self.n_pruned))

    @property
    def strata(self) -> np.ndarray:
        """Texts of one corpus are drawn among themselves."""
        return np.repeat([0, 1], [self.n_kept, self.n_pruned])


def _area_rows(
    texts: Measured, nulls: Sequence[Measured], pruned: str, kept: str, prepared: PreparedPruning
) -> Iterator[Row]:
    for measure in MEASURES:
        curves = _Curves(texts, pruned, kept, measure)
        random = [_Curves(null, pruned, kept, measure) for null in nulls]
        null_N = np.array([float(each.area(each.whole)[0]) for each in random])
        area = float(curves.area(curves.whole)[0])
        kept_1N, pruned_1N = curves.drops(curves.whole)
        before = [float(values_1N[0, 0]) for values_1N in curves.accuracies(curves.whole)]
        row: Row = {
            "measure": measure, "area": area, "area_low": np.nan, "area_high": np.nan,
            "null_mean": float(null_N.mean()), "null_low": float(np.quantile(null_N, 0.025)),
            "null_high": float(np.quantile(null_N, 0.975)), "excess": area - float(null_N.mean()),
            "excess_low": np.nan, "excess_high": np.nan, "p_value": np.nan, "q_value": np.nan,
            "n_random": len(null_N), "n_steps": len(kept_1N[0]) - 1, "n_texts_kept": curves.n_kept,
            "n_texts_pruned": curves.n_pruned, "before_kept": before[0], "before_pruned": before[1],
            "end_kept": float(kept_1N[0, -1]), "end_pruned": float(pruned_1N[0, -1]),
        }  # fmt: skip
        if np.isfinite(area) and np.isfinite(null_N).all():
            row["p_value"] = float((1 + (null_N >= area).sum()) / (1 + len(null_N)))
            row |= _intervals(curves, random, prepared)
        yield row


def _intervals(curves: _Curves, random: Sequence[_Curves], prepared: PreparedPruning) -> Row:
    """95 % intervals over texts: of the area, and of its excess over random units on the same texts.

    They stay NaN where so few tokens are right that some resamples of the texts have none: no interval is known then.
    """

    def excess(weights_WT: np.ndarray) -> np.ndarray:
        difference: np.ndarray = curves.area(weights_WT) - np.mean([each.area(weights_WT) for each in random], axis=0)
        return difference

    found: Row = {}
    for name, statistic in (("area", curves.area), ("excess", excess)):
        try:
            each = bootstrap_interval(
                statistic, len(curves.strata), n_resamples=prepared.config.n_bootstrap, seed=prepared.config.seed,
                strata_R=curves.strata,
            )  # fmt: skip
        except DataError:
            continue
        found |= {f"{name}_low": each.low, f"{name}_high": each.high}
    return found


def _choice(
    run: Run,
    best: Trajectory,
    step: int,
    texts: Measured,
    nulls: Sequence[Measured],
    kept: str,
    prepared: PreparedPruning,
) -> Row:
    """What evaluation texts say of the step that was chosen on validation texts."""
    pruned = best.pruned
    removed = read_removed(run, best.name, step)
    curves = _Curves(texts, pruned, kept, "loss")
    random = [_Curves(null, pruned, kept, "loss") for null in nulls]
    null_N = np.array([float(each.gaps(each.whole)[0, step]) for each in random])
    found = bootstrap_interval(
        lambda weights_WT: curves.gaps(weights_WT)[:, step], len(curves.strata),
        n_resamples=prepared.config.n_bootstrap, seed=prepared.config.seed, strata_R=curves.strata,
    )  # fmt: skip
    row: Row = {
        "pruned": pruned, "kept": kept, "score": best.score, "schedule": best.schedule, "step": step,
        "n_ffn": int(removed["ffn"].sum()), "ffn_share": float(removed["ffn"].mean()),
        "n_attention": int(removed["attention"].sum()),
    }  # fmt: skip
    for role, name in (("kept", kept), ("pruned", pruned)):
        part = texts.of(name, "evaluation")
        random_parts = [null.of(name, "evaluation") for null in nulls]
        for measure in ("top1", "loss"):
            values = part.plain(measure)
            random_values = [each.plain(measure)[step] for each in random_parts]
            row |= {
                f"{role}_{measure}_before": float(values[0]),
                f"{role}_{measure}_after": float(values[step]),
                f"{role}_{measure}_random": float(np.mean(random_values)),
            }
    return row | {
        "gap": found.estimate, "gap_low": found.low, "gap_high": found.high, "null_mean": float(null_N.mean()),
        "null_low": float(null_N.min()), "null_high": float(null_N.max()),
        "p_value": float((1 + (null_N >= found.estimate).sum()) / (1 + len(null_N))), "n_random": len(null_N),
        "n_texts_kept": curves.n_kept, "n_texts_pruned": curves.n_pruned,
    }  # fmt: skip


def _table(rows: Sequence[Row]) -> Any:
    return table_from_columns({name: [row[name] for row in rows] for name in rows[0]})
