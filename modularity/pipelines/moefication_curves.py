"""What is kept against the share of experts, over seeds, with intervals over texts and tests against the controls.

Tables: `selection_curve` (measure × place × partition × router × share) and `selection_tests` (the same without the
share 1, against random experts or a random router). A place is a layer, a function or a task, or all of them together.
Intervals and tests take clusters of texts as their units: texts of one cluster are not independent. The p-value is that
of the signs of the differences of clusters; the range over seeds stands beside it, since seeds of partitions and
routers are another source of chance.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.experts import selected_count
from modularity.pipelines.moefication_config import CONTROL
from modularity.pipelines.moefication_layout import ANSWERS, MASS, OUTPUTS, WHOLE_ANSWERS
from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.pipelines.moefication_tables import Row, positions
from modularity.stats import benjamini_hochberg, ratio_intervals, sign_flip_p_values
from modularity.store import Run

Float64 = np.ndarray[Any, np.dtype[np.float64]]
ALL_LAYERS, ALL_TEXTS, MEAN_OF_TASKS = "all layers", "all texts", "mean of tasks"
TOGETHER = (ALL_LAYERS, ALL_TEXTS, MEAN_OF_TASKS)
"""Places that stand for all others of their measure."""
AGAINST = ("random experts", "random router")
LOWER_IS_BETTER = ("loss", "kl")
SEED = 0
"""Of resamples and signs."""


@dataclass(frozen=True, eq=False)
class Measure:
    """One measure at one place: sums over the values of each unit (cluster of texts)."""

    name: str
    place: str
    sums_PRXSU: Float64
    """partitions × routers × shares × seeds × units"""
    whole_U: Float64
    """The same of the whole model."""
    sizes_U: Float64
    """Values of each unit, or their weights."""
    chance_PRX: Float64
    """What chance gives; NaN where that has no meaning."""
    n_values: int

    @property
    def sign(self) -> float:
        """1 where more is better."""
        return -1.0 if self.name in LOWER_IS_BETTER else 1.0


def curve_tables(run: Run, prepared: PreparedMoefication) -> dict[str, list[Row]]:
    """Rows of both tables, by name."""
    measures = [*_mass(run, prepared), *_predictions(run, prepared), *_answers(run, prepared)]
    costs = run.results(OUTPUTS)[["neurons", "ffn_flops", "flops"]].load()
    cost = {
        "neurons": costs["neurons"].mean("layer").mean("seed").values,
        **{name: costs[name].mean("seed").values for name in ("ffn_flops", "flops")},
    }
    curve = [row for measure in measures for row in _curve_rows(measure, prepared, cost)]
    return {"selection_curve": curve, "selection_tests": _test_rows(measures, prepared)}


def _by_unit(values: Float64, unit_N: np.ndarray, n_units: int) -> Float64:
    """Sums of the last axis over the units."""
    flat = values.reshape(-1, values.shape[-1])
    sums: Float64 = np.stack([np.bincount(unit_N, row, minlength=n_units).astype(np.float64) for row in flat])
    return sums.reshape(*values.shape[:-1], n_units)


def _mass(run: Run, prepared: PreparedMoefication) -> Iterator[Measure]:
    """Mass kept in single layers and in all of them, the tokens of all layers counting alike."""
    mass = run.results(MASS)
    unit_N, n_units = prepared.texts.evaluation.cluster_N, int(prepared.texts.evaluation.cluster_N.max()) + 1
    found: list[Measure] = []
    for index, layer in enumerate(prepared.layers):
        here = mass.isel(layer=index)
        # Which tokens have mass does not depend on the partition.
        n_tokens_N = here["n_tokens"].isel(partition=0, seed=0).values
        values = np.nan_to_num(here["kept"].transpose("partition", "router", "share", "seed", "text").values)
        sums_PRXSU, sizes_U = _by_unit(values * n_tokens_N, unit_N, n_units), _by_unit(n_tokens_N, unit_N, n_units)
        chance_PRX = here["neurons"].transpose("partition", "router", "share", "seed").values.mean(axis=3)
        found.append(Measure("mass", f"layer {layer}", sums_PRXSU, sizes_U, sizes_U, chance_PRX, int(n_tokens_N.sum())))
    yield from found
    sizes_U = np.sum([each.sizes_U for each in found], axis=0)
    yield Measure(
        "mass",
        ALL_LAYERS,
        np.sum([each.sums_PRXSU for each in found], axis=0),
        sizes_U,
        sizes_U,
        np.mean([each.chance_PRX for each in found], axis=0),
        sum(each.n_values for each in found),
    )


def _predictions(run: Run, prepared: PreparedMoefication) -> Iterator[Measure]:
    outputs, n_positions_N = run.results(OUTPUTS), positions(prepared)
    texts = prepared.texts.evaluation
    function_N = np.array(texts.function_N)
    n_units = int(texts.cluster_N.max()) + 1
    names = ("loss", "kl", "agreement") if prepared.head_kind == "causal" else ("kl", "agreement")
    for name in names:
        values = outputs[name].transpose("partition", "router", "share", "seed", "text").values
        if name == "loss":
            whole_N = outputs["whole_loss"].isel(partition=0, router=0, share=0, seed=0).values
        else:
            whole_N = np.full(len(function_N), 1.0 if name == "agreement" else 0.0)
        for place in (*texts.tables, ALL_TEXTS):
            own = n_positions_N if place == ALL_TEXTS else np.where(function_N == place, n_positions_N, 0)
            yield _of_units(name, place, values, whole_N, own.astype(np.float64), texts.cluster_N, n_units, own.sum())


def _of_units(
    name: str,
    place: str,
    values: Float64,
    whole_N: Float64,
    weights_N: Float64,
    unit_N: np.ndarray,
    n_units: int,
    n_values: int,
    chance: float = float("nan"),
) -> Measure:
    """A measure over the texts with a weight; units without any are left away."""
    used_N = weights_N > 0
    units = np.unique(unit_N[used_N])
    sizes_U = _by_unit(weights_N[None], unit_N, n_units)[0][units]
    weighted = np.where(used_N, values, 0.0) * weights_N
    return Measure(
        name,
        place,
        _by_unit(weighted, unit_N, n_units)[..., units],
        _by_unit(np.where(used_N, whole_N, 0.0)[None] * weights_N, unit_N, n_units)[0][units],
        sizes_U,
        np.full(values.shape[:3], chance),
        int(n_values),
    )


def _answers(run: Run, prepared: PreparedMoefication) -> Iterator[Measure]:
    """Accuracy and margin of every task, and the mean over tasks, in which every task counts alike."""
    if not prepared.tasks:
        return
    whole, answers = run.results(WHOLE_ANSWERS).load(), run.results(ANSWERS)
    task_N, label_N = whole["task"].values, whole["label"].values
    functions = {name.name: name.function for name in prepared.names}
    keys = [(functions[task], int(cluster)) for task, cluster in zip(task_N, whole["cluster"].values)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    unit_N = np.array([numbers[key] for key in keys])
    majority = {
        task.name: float(np.bincount(label_N[task_N == task.name]).max() / (task_N == task.name).sum())
        for task in prepared.tasks
    }
    for name, column in (("accuracy", "right"), ("margin", "margin")):
        values = answers[column].transpose("partition", "router", "share", "seed", "answer").values.astype(np.float64)
        whole_N = whole[column].values.astype(np.float64)
        for place in (*majority, MEAN_OF_TASKS):
            if place == MEAN_OF_TASKS:
                weights_N = np.array([1.0 / (task_N == task).sum() for task in task_N])
                chance = float(np.mean(list(majority.values())))
            else:
                weights_N, chance = (task_N == place).astype(np.float64), majority[place]
            n_values = int((weights_N > 0).sum())
            yield _of_units(
                name,
                place,
                values,
                whole_N,
                weights_N,
                unit_N,
                len(numbers),
                n_values,
                chance if name == "accuracy" else 0.0,
            )


def _curve_rows(measure: Measure, prepared: PreparedMoefication, cost: Mapping[str, np.ndarray]) -> Iterator[Row]:
    config = prepared.config
    mean = measure.sums_PRXSU.mean(axis=3)
    shape, lines = mean.shape[:3], mean.reshape(-1, mean.shape[-1])
    settings: dict[str, Any] = {"n_resamples": config.n_bootstrap, "seed": SEED}
    value, low, high = (a.reshape(shape) for a in ratio_intervals(lines, measure.sizes_U, **settings))
    change, change_low, change_high = (
        a.reshape(shape) for a in ratio_intervals(lines - measure.whole_U, measure.sizes_U, **settings)
    )
    by_seed = measure.sums_PRXSU.sum(axis=4) / measure.sizes_U.sum()
    whole = float(measure.whole_U.sum() / measure.sizes_U.sum())
    for place in np.ndindex(*shape):
        p, r, x = place
        partition, router, share = config.partitions[p], config.routers[r], config.shares[x]
        yield {
            "measure": measure.name,
            "place": measure.place,
            "partition": partition,
            "router": router,
            "share": share,
            "selected": selected_count(prepared.n_experts, share) / prepared.n_experts,
            "neurons": float(cost["neurons"][place]),
            "value": float(value[place]),
            "low": float(low[place]),
            "high": float(high[place]),
            "seed_low": float(by_seed[place].min()),
            "seed_high": float(by_seed[place].max()),
            "whole": whole,
            "change": float(change[place]),
            "change_low": float(change_low[place]),
            "change_high": float(change_high[place]),
            "chance": float(measure.chance_PRX[place]),
            "ffn_flops": float(cost["ffn_flops"][place]),
            "flops": float(cost["flops"][place]),
            "n_units": len(measure.sizes_U),
            "n_values": measure.n_values,
            "n_seeds": len(prepared.seeds_of(partition, router)),
        }


def _test_rows(measures: Sequence[Measure], prepared: PreparedMoefication) -> list[Row]:
    """All tests, with q-values by measure and control; places together are a family of their own."""
    rows = [row for measure in measures for row in _tests_of(measure, prepared)]
    families: dict[tuple[str, str, bool], list[Row]] = {}
    for row in rows:
        families.setdefault((row["measure"], row["against"], row["place"] in TOGETHER), []).append(row)
    for family in families.values():
        for row, q_value in zip(family, benjamini_hochberg(np.array([row["p_value"] for row in family])).tolist()):
            row["q_value"] = q_value
    return rows


def _tests_of(measure: Measure, prepared: PreparedMoefication) -> list[Row]:
    config = prepared.config
    n_units = len(measure.sizes_U)
    control_p, control_r = config.partitions.index(CONTROL), config.routers.index(CONTROL)
    found: list[tuple[Row, Float64, Float64]] = []
    for against in AGAINST:
        for p, partition in enumerate(config.partitions):
            for r, router in enumerate(config.routers):
                if (partition if against == AGAINST[0] else router) == CONTROL:
                    continue
                for x, share in enumerate(config.shares):
                    if share == 1:
                        continue
                    own = measure.sums_PRXSU[p, r, x]
                    null = (
                        measure.sums_PRXSU[control_p, r, x]
                        if against == AGAINST[0]
                        else measure.sums_PRXSU[p, control_r, x]
                    )
                    head = {"measure": measure.name, "place": measure.place, "partition": partition,
                            "router": router, "share": share, "against": against}  # fmt: skip
                    found.append((head, own, null))
    if not found:
        return []
    differences_XSU = measure.sign * np.stack([own - null for _, own, null in found])
    total = measure.sizes_U.sum()
    mean_XU = differences_XSU.mean(axis=1)
    _, low_X, high_X = ratio_intervals(mean_XU, measure.sizes_U, n_resamples=config.n_bootstrap, seed=SEED)
    p_value_X, smallest = sign_flip_p_values(mean_XU, seed=SEED)
    seeds_XS = differences_XSU.sum(axis=2) / total
    return [
        head
        | {
            "value": float(own.mean(axis=0).sum() / total),
            "null": float(null.mean(axis=0).sum() / total),
            "advantage": float(mean_XU[i].sum() / total),
            "low": float(low_X[i]),
            "high": float(high_X[i]),
            "seed_low": float(seeds_XS[i].min()),
            "seed_high": float(seeds_XS[i].max()),
            "p_value": float(p_value_X[i]),
            "q_value": float("nan"),
            "smallest_p_value": smallest,
            "n_units": n_units,
            "n_seeds": seeds_XS.shape[1],
        }
        for i, (head, own, null) in enumerate(found)
    ]
