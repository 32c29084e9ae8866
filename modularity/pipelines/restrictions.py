"""Restricted routing (card A7): tokens go to the functional experts of a task only, or to as many others.

Tables: `routing` (one row for each task under each restriction) and `routing_tests` (functional experts against the
draws of others). No weight is trained: it is asked whether the model as it is can do without the other experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.errors import InputError, ModelError
from modularity.interventions import random_other_experts, restricted_routing
from modularity.models import restricted_routing_problem
from modularity.pipelines.perturbation_config import PerturbationConfig, RoutingConfig
from modularity.pipelines.perturbation_measure import MEASURES, Measurer
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.stats import benjamini_hochberg
from modularity.store import Run, table_from_columns
from modularity.types import Site, StackName, WorkItem

FUNCTIONAL, OTHERS = "functional", "others"
NO_DRAW = -1


@dataclass(frozen=True)
class Restriction:
    """The functional experts of one task."""

    task: str
    stack: StackName
    experts: tuple[tuple[int, tuple[int, ...]], ...]
    """(layer, experts) of the layers that are restricted: those with functional experts that are at most half."""
    left_out: tuple[int, ...]
    """Layers in which more than half of the experts are functional, so that no control of the same size exists."""
    n_experts: int
    """Experts of a layer."""

    def functional(self) -> dict[tuple[StackName, int], tuple[int, ...]]:
        """Allowed experts, as `restricted_routing` takes them."""
        return {(self.stack, layer): experts for layer, experts in self.experts}

    def others(self, draw: int, seed: int) -> dict[tuple[StackName, int], tuple[int, ...]]:
        """As many other experts in each layer, drawn at random."""
        return {
            (self.stack, layer): random_other_experts(
                experts, self.n_experts, seed=int(np.random.SeedSequence((seed, draw, layer)).generate_state(1)[0])
            )
            for layer, experts in self.experts
        }

    def any_experts(self, draw: int, seeds: Sequence[int]) -> dict[tuple[StackName, int], tuple[int, ...]]:
        """As many experts in each layer, drawn at random from all: the functional ones may be among them."""
        allowed: dict[tuple[StackName, int], tuple[int, ...]] = {}
        for layer, experts in self.experts:
            generator = np.random.default_rng(np.random.SeedSequence((*seeds, draw, layer)))
            drawn = generator.choice(self.n_experts, len(experts), replace=False)
            allowed[self.stack, layer] = tuple(sorted(map(int, drawn)))
        return allowed


def restriction_of(task: str, stack: StackName, functional: Mapping[int, Sequence[int]], n_experts: int) -> Restriction:
    """Restriction of a task to its functional experts.

    Parameters
    ----------
    task, stack : names
    functional : experts by layer; a layer without one is not restricted
    n_experts : experts of a layer; layers in which more than half are functional are left out
    """
    found = {layer: tuple(sorted(experts)) for layer, experts in sorted(functional.items()) if len(experts)}
    kept = {layer: experts for layer, experts in found.items() if 2 * len(experts) <= n_experts}
    return Restriction(task, stack, tuple(kept.items()), tuple(sorted(found.keys() - kept.keys())), n_experts)


def restriction_notes(restrictions: Sequence[Restriction]) -> list[str]:
    """What the restriction of each task is, and where there is none."""
    notes = []
    for each in restrictions:
        if each.experts:
            experts = "; ".join(f"layer {layer}: {' '.join(map(str, chosen))}" for layer, chosen in each.experts)
            notes.append(f"task {each.task}: functional experts of {each.n_experts} are {experts}")
        elif not each.left_out:
            notes.append(f"task {each.task}: no layer has functional experts to restrict routing to")
        if each.left_out:
            notes.append(
                f"task {each.task}: more than half of the experts of layers {list(each.left_out)} are functional; "
                "they stay unrestricted, as there is no control of the same size"
            )
    return notes


def router_problems(source: Run, remedy: str) -> list[str]:
    """Why the routers of the model of a finished run cannot be restricted; nothing where they can.

    The architecture that the run has recorded tells it. A dense model has no routers: `find_restrictions` says so.

    Parameters
    ----------
    source : the finished run
    remedy : what to do about it
    """
    try:
        problem = restricted_routing_problem(source.manifest.identity["model"]["architecture"])
    except ModelError:  # reading the model's config says that the architecture is not known
        return []
    return [] if problem is None else [f"{source.uri}: {problem}; {remedy}"]


def find_restrictions(
    config: PerturbationConfig, source: Run, names: Sequence[TaskName], site: Site, layers: Sequence[int]
) -> tuple[Restriction, ...]:
    """Functional experts of every task, from the table of the finished run; none where the config does not ask.

    Raises
    ------
    InputError
        The run has no native experts, or lacks a layer that is asked for.
    """
    routing = config.routing
    if routing is None:
        return ()
    experts = source.manifest.config["experts"]
    if "native" not in experts["methods"] or "expert_counts" not in source.tables():
        raise InputError(
            f"routing: {source.uri} has no native experts; make it with a mixture model and experts.methods=[native], "
            "or leave routing out"
        )
    rows = [
        row
        for row in source.table("expert_counts").to_pylist()
        if row["partition"] == "native" and row["top_fraction"] == experts["top_fraction"]
    ]
    wanted = layers if routing.layers is None else routing.layers
    outside = sorted(set(wanted) - {row["layer"] for row in rows})
    if outside:
        raise InputError(f"routing.layers {outside}: {source.uri} has no experts there")
    return tuple(
        _restriction(each, [r for r in rows if _is_of(r, each, wanted)], site, experts["n_experts"]) for each in names
    )


def restriction_items(restrictions: Sequence[Restriction], config: RoutingConfig) -> list[WorkItem]:
    """Work items; nothing for tasks without a functional expert in any layer."""
    return [
        WorkItem.of("routing", task=each.task, draw=draw)
        for each in restrictions
        if each.experts
        for draw in range(NO_DRAW, config.n_draws)
    ]


def restrict(
    item: WorkItem, measurer: Measurer, restrictions: Sequence[Restriction], config: RoutingConfig
) -> Mapping[str, Any]:
    """Measure and record all tasks under one restriction."""
    (each,) = (restriction for restriction in restrictions if restriction.task == item.text("task"))
    draw = item.integer("draw")
    allowed = each.functional() if draw == NO_DRAW else each.others(draw, config.seed)
    head = {"experts_of": each.task, "strategy": FUNCTIONAL if draw == NO_DRAW else OTHERS, "draw": draw}
    n_allowed = sum(map(len, allowed.values()))
    with restricted_routing(measurer.model.base, allowed):
        rows = [head | row for row in measurer.compared(n_layers=len(allowed), n_experts=n_allowed)]
    table = table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
    measurer.run.commit(item, tables=[measurer.run.write_table("routing", item, table)])
    return {"tokens": sum(task.tokens.n_tokens for task in measurer.tasks)}


def compare_restrictions(run: Run, item: WorkItem) -> Mapping[str, Any]:
    """Functional experts against the draws of others, for every task and measure.

    The p-value is the share of draws, the functional experts counted, that are at least as good. q is its
    Benjamini-Hochberg value over the tasks under their own experts, by measure.
    """
    every = run.table("routing").to_pylist()
    keys = dict.fromkeys((row["experts_of"], row["task"]) for row in every)
    rows = []
    for measure in MEASURES:
        block = []
        for experts_of, task in keys:
            of_pair = [row for row in every if (row["experts_of"], row["task"]) == (experts_of, task)]
            (functional,) = (row for row in of_pair if row["strategy"] == FUNCTIONAL)
            others = np.array([row[measure] for row in of_pair if row["strategy"] == OTHERS])
            block.append(
                {
                    "experts_of": experts_of, "task": task, "own": experts_of == task, "measure": measure,
                    "unrestricted": functional[measure] + functional[f"drop_{measure}"],
                    "functional": functional[measure], "others": float(others.mean()),
                    "others_low": float(np.quantile(others, 0.05)), "others_high": float(np.quantile(others, 0.95)),
                    "p_value": float((1 + (others >= functional[measure]).sum()) / (1 + len(others))),
                    "n_draws": len(others), "n_layers": functional["n_layers"], "n_experts": functional["n_experts"],
                    "n": functional["n"],
                }
            )  # fmt: skip
        own = np.array([row["own"] for row in block])
        q_value = np.full(len(block), np.nan)
        q_value[own] = benjamini_hochberg(np.array([row["p_value"] for row in block])[own])
        rows += [row | {"q_value": float(q)} for row, q in zip(block, q_value)]
    table = table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
    run.commit(item, tables=[run.write_table("routing_tests", item, table)])
    return {}


def _is_of(row: Mapping[str, Any], task: TaskName, layers: Sequence[int]) -> bool:
    return (row["function"], row["subfunction"]) == (task.function, task.subfunction) and row["layer"] in layers


def _restriction(task: TaskName, rows: Sequence[Mapping[str, Any]], site: Site, n_experts: int) -> Restriction:
    found: dict[int, list[int]] = {}
    for row in rows:
        if row["functional"]:
            found.setdefault(row["layer"], []).append(row["expert"])
    return restriction_of(task.name, site.stack, found, n_experts)
