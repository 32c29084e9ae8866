"""Which neurons a perturbation changes: all rankings of card A6, from the scores and partitions of a finished run.

Masks are written to `results/selection` (ranking, seed, strength, layer, neuron), so that they can be looked at and are
made once; how well the matched controls match stands in the table `perturbation_balance`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.errors import InputError
from modularity.neurons.rankings import (
    Balance,
    Variant,
    average_scores,
    matched_random_mask,
    random_mask,
    select_experts,
    select_neurons,
)
from modularity.pipelines.perturbation_config import PerturbationConfig, RankingKind
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.store import ResultArray, Run, table_from_columns
from modularity.types import PARTITION, WorkItem

SELECTION = "selection"
MOMENTS = "moments"
UNCHANGED = "none"
"""Ranking and noise in the rows of the unchanged model."""
NO_SEED = -1
"""Seed of what does not depend on any."""


@dataclass(frozen=True)
class Ranking:
    """One way to choose neurons."""

    name: str
    """In tables; that of the task for the ranking by this task's predictivity."""
    kind: RankingKind
    function: str
    """Whose scores or experts are used; empty for random neurons."""
    subfunction: str
    """The sub-function; empty for the average over those of the function."""
    of: str
    """Name of the ranking that a matched control resembles, else of the task or function that it is from."""

    @property
    def is_random(self) -> bool:
        """Whether the choice depends on a seed."""
        return self.kind in ("random", "matched")


def make_rankings(config: PerturbationConfig, names: Sequence[TaskName]) -> tuple[Ranking, ...]:
    """All rankings of a job, those of the tasks first; InputError where two would have one name."""
    functions = list(dict.fromkeys(each.function for each in names))
    found = [Ranking(each.name, "single", each.function, each.subfunction, each.name) for each in names]
    if "average" in config.rankings:
        found += [Ranking(f"average {name}", "average", name, "", name) for name in functions]
    matched = [Ranking(f"matched {each.name}", "matched", each.function, each.subfunction, each.name) for each in found]
    if "experts" in config.rankings:
        found += [Ranking(f"experts {name}", "experts", name, "", name) for name in functions]
    if "random" in config.rankings:
        found.append(Ranking("random", "random", "", "", ""))
    if "matched" in config.rankings:
        found += matched
    every = [each.name for each in found]
    twice = sorted({name for name in every if every.count(name) > 1 or name == UNCHANGED})
    if twice:
        raise InputError(f"tasks named like rankings: {', '.join(twice)}; rename these sub-functions")
    return tuple(found)


def create_selection(
    run: Run, rankings: Sequence[Ranking], config: PerturbationConfig, layers: Sequence[int], width: int
) -> None:
    """Allocate `results/selection`, one block for each ranking; repeating it changes nothing."""
    sizes = {"ranking": len(rankings), "seed": len(config.seeds), "strength": len(config.strengths)}
    run.create_result(
        SELECTION,
        sizes=sizes | {"layer": len(layers), "neuron": width},
        arrays={
            "selected": ResultArray(
                ("ranking", "seed", "strength", "layer", "neuron"),
                "bool",
                {"ranking": 1},
                {"long_name": "the neuron is changed; rankings that are not random are alike for all seeds"},
            )
        },
        coordinates={
            "ranking": (("ranking",), np.asarray([each.name for each in rankings], dtype=str)),
            "seed": (("seed",), np.asarray(config.seeds, dtype=np.int64)),
            "strength": (("strength",), np.asarray(config.strengths, dtype=np.float64)),
            "layer": (("layer",), np.asarray(layers, dtype=np.int64)),
        },
    )


def select(
    run: Run,
    item: WorkItem,
    source: Run,
    config: PerturbationConfig,
    rankings: Sequence[Ranking],
    layers: Sequence[int],
) -> Mapping[str, Any]:
    """Choose the neurons of one ranking at every strength and seed, and record them."""
    names = [each.name for each in rankings]
    index = names.index(item.text("ranking"))
    inputs = _Inputs(run, source, config, layers)
    shape = run.results(SELECTION, partial=True)["selected"].shape[1:]
    selected = np.zeros((1, *shape), dtype=bool)
    rows: list[dict[str, Any]] = []
    seeds = config.seeds if rankings[index].is_random else config.seeds[:1]
    for seed_index, seed in enumerate(seeds):
        for strength_index, strength in enumerate(config.strengths):
            for layer_index, layer in enumerate(layers):
                mask_F, balance = _layer_mask(inputs, rankings[index], strength, seed, layer_index)
                selected[0, seed_index, strength_index, layer_index, : len(mask_F)] = mask_F
                head = {"ranking": names[index], "of": rankings[index].of, "strength": strength, "seed": seed}
                rows += [head | {"layer": layer, "n_neurons": int(mask_F.sum())} | _plain(each) for each in balance]
    selected[0, len(seeds) :] = selected[0, 0]
    tables = []
    if rows:
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        tables.append(run.write_table("perturbation_balance", item, table_from_columns(columns)))
    run.commit(item, arrays=run.write_result(SELECTION, {"selected": selected}, at={"ranking": index}), tables=tables)
    return {}


def read_masks(run: Run, ranking: str, *, strength: float, seed: int) -> np.ndarray:
    """Chosen neurons of the chosen layers, bool of shape (layers, neurons); `NO_SEED` = those of any seed."""
    selection = run.results(SELECTION, partial=True)
    place = {
        "ranking": selection["ranking"].values.tolist().index(ranking),
        "strength": selection["strength"].values.tolist().index(strength),
        "seed": 0 if seed == NO_SEED else selection["seed"].values.tolist().index(seed),
    }
    mask_LF: np.ndarray = selection["selected"].isel(place).values
    return mask_LF


def n_selected(strength: float, width: int) -> int:
    """Neurons of a layer at this strength, at least one."""
    return max(1, round(strength * width))


def n_selected_experts(strength: float, n_experts: int) -> int:
    """Whole experts whose neurons come closest to this strength, at least one."""
    return max(1, round(strength * n_experts))


class _Inputs:
    """Scores, experts and features of the chosen layers."""

    def __init__(self, run: Run, source: Run, config: PerturbationConfig, layers: Sequence[int]) -> None:
        self._run, self._source, self._layers = run, source, layers
        self.corrected = config.variant == "corrected"
        self._scores: dict[tuple[str, str], np.ndarray] = {}
        self._results: dict[str, Any] = {}
        self.any_function = source.manifest.config["functions"][0]["name"]
        """A function of the run, whose results have the widths of the layers."""

    def _result(self, name: str) -> Any:
        """A dense result of the finished run, opened once."""
        if name not in self._results:
            self._results[name] = self._source.results(name)
        return self._results[name]

    @property
    def variant(self) -> Variant:
        """How ties at the boundary are broken."""
        return "corrected" if self.corrected else "paper"

    def scores(self, ranking: Ranking, layer_index: int) -> np.ndarray:
        """Scores of the neurons of a layer, float64 (F,): of one sub-function, or the average over a function."""
        key = ranking.function, ranking.subfunction
        if key not in self._scores:
            results = self._result(ranking.function)
            array = results["score" if self.corrected else "predictivity"]
            names, every = results["subfunction"].values.tolist(), results["layer"].values.tolist()
            values_SLF = array.values[:, [every.index(layer) for layer in self._layers]]
            one = [names.index(ranking.subfunction)] if ranking.subfunction else list(range(len(names)))
            self._scores[key] = average_scores(values_SLF[one])
        scores_F: np.ndarray = self._scores[key][layer_index, : self.width(layer_index, ranking.function)]
        return scores_F

    def width(self, layer_index: int, result: str) -> int:
        """Neurons of a layer."""
        results = self._result(result)
        return int(results["width"].values[results["layer"].values.tolist().index(self._layers[layer_index])])

    def experts(self, layer_index: int) -> np.ndarray:
        """Expert of every neuron of a layer in the partition of the study, int (F,)."""
        partition = self._result(PARTITION)
        methods, layers = partition["partition"].values.tolist(), partition["layer"].values.tolist()
        method = methods.index("native" if "native" in methods else "balanced")
        labels_F: np.ndarray = partition["expert"].values[method, layers.index(self._layers[layer_index])]
        return labels_F[: self.width(layer_index, PARTITION)]

    def features(self, layer_index: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean activation and output norm of the neurons of a layer."""
        if MOMENTS not in self._results:
            self._results[MOMENTS] = self._run.results(MOMENTS)
        moments = self._results[MOMENTS]
        place = moments["layer"].values.tolist().index(self._layers[layer_index])
        mean_F, norm_F = (moments[name].values[place, :width] for name in ("mean", "output_norm"))
        return mean_F, norm_F


def _layer_mask(
    inputs: _Inputs, ranking: Ranking, strength: float, seed: int, layer_index: int
) -> tuple[np.ndarray, tuple[Balance, ...]]:
    """Mask (F,) of one layer, and the balance of a matched control."""
    draw = int(np.random.SeedSequence((seed, layer_index)).generate_state(1)[0])
    if ranking.kind == "random":
        width = inputs.width(layer_index, inputs.any_function)
        first = np.zeros((1, width), dtype=bool)
        first[0, : n_selected(strength, width)] = True
        return random_mask(first, seed=draw)[0], ()
    scores_1F = inputs.scores(ranking, layer_index)[None]
    width = scores_1F.shape[1]
    if ranking.kind == "experts":
        labels_1F = inputs.experts(layer_index)[None]
        n_experts = int(labels_1F.max()) + 1
        wanted = n_selected_experts(strength, n_experts) * width // n_experts
        return select_experts(scores_1F, labels_1F, wanted, variant=inputs.variant)[0], ()
    mask_1F = select_neurons(scores_1F, n_selected(strength, width), variant=inputs.variant)
    if ranking.kind != "matched":
        return mask_1F[0], ()
    mean_F, norm_F = inputs.features(layer_index, width)
    matched = matched_random_mask(mask_1F, mean_F[None], norm_F[None], seed=draw)
    return matched.mask_LF[0], matched.balance


def _plain(balance: Balance) -> dict[str, Any]:
    return {
        "feature": balance.feature,
        "mean_chosen": float(balance.mean_chosen_L[0]),
        "mean_control": float(balance.mean_control_L[0]),
        "difference_before": float(balance.difference_before_L[0]),
        "difference": float(balance.difference_L[0]),
    }
