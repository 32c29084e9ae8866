"""The full matrix: every task under every ranking of neurons, kind of noise, strength and seed.

Source: Zhang et al. 2023, arXiv 2305.18390, Fig. 2, which shows means over tasks; whether a ranking hurts its own task
more than others is seen only in the matrix, for which `modularity.stats.dissociation_index` has a test. A cell is one
pass over the examples of one task.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from modularity.errors import DataError, InputError
from modularity.interventions.measure import LabelTask, measure_task
from modularity.interventions.neurons import Masks, checked_masks, perturbed
from modularity.interventions.noise import Noise
from modularity.interventions.scores import TaskScores
from modularity.models import HeadModel

Row: TypeAlias = dict[str, Any]
Measure = Literal["accuracy", "balanced_accuracy", "mcc", "margin"]
MEASURES: tuple[Measure, ...] = ("accuracy", "balanced_accuracy", "mcc", "margin")
UNCHANGED = "none"
"""Ranking and noise in the rows of the unchanged model."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Neurons to change: the choice of one ranking at one strength."""

    ranking: str
    """Name of the ranking; that of a task for the ranking by this task's predictivity."""
    strength: float
    """How many neurons are changed, in any unit that orders selections: neurons per layer, experts, percent."""
    masks: Masks | ArrayLike
    """As for `perturbed`."""
    seed: int | None = None
    """Measured with this seed only, for random choices that differ by seed; None = with every seed."""


@dataclass(frozen=True)
class Cell:
    """One pass over one task."""

    selection: int
    """Index among the selections."""
    noise: str
    task: str
    seed: int | None
    """None: the seed changes nothing, the pass serves all seeds."""


@dataclass(frozen=True)
class Sweep:
    """Everything that was measured."""

    rows: tuple[Row, ...]
    """One plain dict for each task, ranking, strength, noise and seed, those of the unchanged model first: `task`,
    `ranking`, `strength`, `noise`, `seed`, `n_neurons`, the scores of `TaskScores`, and `drop_<measure>`, the score of
    the unchanged model minus this one, for accuracy, balanced_accuracy, mcc and margin."""

    def drop(
        self,
        *,
        noise: str,
        strength: float,
        measure: Measure = "accuracy",
        rankings: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Drops as an array, see `drop_array`."""
        return drop_array(self.rows, noise=noise, strength=strength, measure=measure, rankings=rankings, tasks=tasks)


def run_sweep(
    model: HeadModel,
    tasks: Sequence[LabelTask],
    selections: Sequence[Selection],
    noises: Mapping[str, Noise],
    *,
    seeds: Sequence[int],
    tokens_per_batch: int = 8192,
    progress: Callable[[int, int, Cell], None] | None = None,
) -> Sweep:
    """Measure all tasks under all selections, noises and seeds.

    Noise without randomness is measured once for all seeds.

    Parameters
    ----------
    model : a model with its LM head
    tasks : with different names
    selections : the neurons to change, each ranking and strength once (for each seed, where they have seeds)
    noises : kinds of noise by name
    seeds : random states of the noise, all different
    tokens_per_batch : see `label_logits`; `Shuffle` depends on it, and `Resample` without a bank
    progress : called as `progress(passes done, passes in all, cell)` after each pass

    Raises
    ------
    InputError
        Names are not unique, a mask or a noise does not fit the model, or `seeds` is empty.
    """
    cells = sweep_cells([task.name for task in tasks], selections, noises, seeds=seeds)
    for selection in selections:
        for site in checked_masks(model.base, selection.masks):
            shape = model.base.sites.shape(site)
            for noise in noises.values():
                noise.check(len(shape.layers), max(shape.widths))
    by_name = {task.name: task for task in tasks}
    plain = {name: measure_task(model, task, tokens_per_batch=tokens_per_batch) for name, task in by_name.items()}
    rows = [_row(name, None, UNCHANGED, seeds[0], scores, scores, 0) for name, scores in plain.items()]
    for done, cell in enumerate(cells, 1):
        selection, task = selections[cell.selection], by_name[cell.task]
        with perturbed(model.base, selection.masks, noises[cell.noise], seed=cell.seed or 0):
            scores = measure_task(model, task, tokens_per_batch=tokens_per_batch)
        n_neurons = sum(int(mask.sum()) for mask in checked_masks(model.base, selection.masks).values())
        for seed in _seeds_of(selection, seeds) if cell.seed is None else (cell.seed,):
            rows.append(_row(cell.task, selection, cell.noise, seed, scores, plain[cell.task], n_neurons))
        if progress is not None:
            progress(done, len(cells), cell)
    return Sweep(tuple(rows))


def sweep_cells(
    tasks: Sequence[str], selections: Sequence[Selection], noises: Mapping[str, Noise], *, seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """The passes of a sweep, in its order, without those over the unchanged model; InputError as for `run_sweep`."""
    names = [(selection.ranking, selection.strength, selection.seed) for selection in selections]
    problems = [
        f"{what} {list(values)}: expected one or more, all different"
        for what, values in (("tasks", tasks), ("seeds", seeds), ("selections", names), ("noises", list(noises)))
        if not values or len(set(values)) < len(values)
    ]
    problems += [f"ranking and noise {UNCHANGED!r} stand for the unchanged model"] * (
        UNCHANGED in noises or any(selection.ranking == UNCHANGED for selection in selections)
    )
    problems += [
        f"selection {selection.ranking!r} has seed {selection.seed}, which is not among the seeds {list(seeds)}"
        for selection in selections
        if selection.seed not in (None, *seeds)
    ]
    if problems:
        raise InputError(problems)
    return tuple(
        Cell(index, noise, task, seed)
        for (index, selection), noise, task in product(enumerate(selections), noises, tasks)
        for seed in _passes(selection, noises[noise], seeds)
    )


def drop_array(
    rows: Sequence[Row],
    *,
    noise: str,
    strength: float,
    measure: Measure = "accuracy",
    rankings: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
) -> np.ndarray:
    """Drops of one noise and strength, as `dissociation_index` takes them.

    Parameters
    ----------
    rows : as `Sweep.rows`, also joined from several sweeps
    noise, strength, measure : which rows and which of their drops
    rankings, tasks : names in the wanted order; None = the tasks in the order of the rows, and of the rankings those
        with the name of a task, in the same order

    Returns
    -------
    drop : float64 array of shape (n_seeds, n_rankings, n_tasks), seeds ascending

    Raises
    ------
    DataError
        A cell is missing; the message names the first.
    """
    wanted = [row for row in rows if row["noise"] == noise and row["strength"] == strength]
    tasks = list(dict.fromkeys(row["task"] for row in wanted)) if tasks is None else tasks
    if rankings is None:
        present = {row["ranking"] for row in wanted}
        rankings = [task for task in tasks if task in present]
    values = {(row["seed"], row["ranking"], row["task"]): row[f"drop_{measure}"] for row in wanted}
    seeds = sorted({seed for seed, ranking, _ in values if ranking in rankings})
    keys = list(product(seeds, rankings, tasks))
    missing = [key for key in keys if key not in values]
    if missing or not keys:
        raise DataError(
            f"drops of noise {noise!r} at strength {strength}: {len(missing) or 'all'} cells are missing, such as "
            f"(seed, ranking, task) = {missing[0] if missing else None}; expected each ranking of {list(rankings)} on "
            f"each task of {list(tasks)}"
        )
    return np.array([values[key] for key in keys]).reshape(len(seeds), len(rankings), len(tasks))


def _seeds_of(selection: Selection, seeds: Sequence[int]) -> Sequence[int]:
    return seeds if selection.seed is None else (selection.seed,)


def _passes(selection: Selection, noise: Noise, seeds: Sequence[int]) -> Iterator[int | None]:
    """Seeds of the passes that one selection needs under one noise."""
    if noise.is_random:
        yield from _seeds_of(selection, seeds)
    else:
        yield None


def _row(
    task: str,
    selection: Selection | None,
    noise: str,
    seed: int,
    scores: TaskScores,
    plain: TaskScores,
    n_neurons: int,
) -> Row:
    values = scores.as_dict()
    unchanged = plain.as_dict()
    return {
        "task": task,
        "ranking": UNCHANGED if selection is None else selection.ranking,
        "strength": 0.0 if selection is None else float(selection.strength),
        "noise": noise,
        "seed": seed,
        "n_neurons": n_neurons,
        **values,
        **{f"drop_{name}": unchanged[name] - values[name] for name in MEASURES},
    }
