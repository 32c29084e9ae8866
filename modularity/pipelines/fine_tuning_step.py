"""Few-shot fine-tuning under restricted routing (card A7, Table 3 of arXiv 2305.18390).

Is it enough to train a mixture model with the functional experts of a task only? For every task and seed the model is
fine-tuned with tokens routed to all experts (`original`), to the functional ones (`functional`), to as many others
(`others`) and to as many of all (`random`).

Tables: `fine_tuning` (one row for each training), `fine_tuning_curve` (one for each evaluation within it) and
`fine_tuning_tests` (functional experts against each other strategy). Variant `corrected` chooses the checkpoint on half
of the evaluation examples and reports the other half; `paper` and `released` do both on the same examples, so that
their accuracy is that of the best of many checkpoints.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from modularity.data import FunctionData
from modularity.errors import InputError
from modularity.interventions import (
    FineTuned,
    FineTuning,
    LabelTask,
    fine_tuned,
    label_logits,
    label_task,
    restricted_routing,
    task_scores,
    trainable_parameters,
)
from modularity.models import HeadModel
from modularity.pipelines.perturbation_config import FineTuningConfig, PerturbationConfig
from modularity.pipelines.perturbation_measure import MEASURES
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.pipelines.restrictions import FUNCTIONAL, NO_DRAW, OTHERS, Restriction
from modularity.stats import benjamini_hochberg, sign_flip_test, wilson_interval
from modularity.store import Run, table_from_columns
from modularity.types import StackName, WorkItem

ORIGINAL, RANDOM = "original", "random"
MEAN_OF_TASKS = "mean of tasks"


@dataclass(frozen=True, eq=False)
class TuningTask:
    """Examples of one task: to learn from, to choose the checkpoint by, to report."""

    name: str
    training: LabelTask
    validation: LabelTask
    test: LabelTask


def tuning_tasks(
    names: Sequence[TaskName], functions: Mapping[str, FunctionData], tokenizer: Any, *, max_tokens: int, held_out: bool
) -> tuple[TuningTask, ...]:
    """The examples of every task; with `held_out` validation and test examples have no cluster in common.

    Raises
    ------
    InputError
        A part of a task lacks a label; all are listed.
    """
    problems, tasks = [], []
    for each in names:
        function = functions[each.function]
        labels_E = function.labels_SE[function.subfunctions.index(each.subfunction)]
        validation_E, test_E = _parts(function, labels_E) if held_out else (np.ones(len(labels_E), bool),) * 2
        parts = {
            "training": function.selection_E if held_out else np.ones(len(labels_E), bool),
            "validation": validation_E,
            "test": test_E,
        }
        for part, examples_E in parts.items():
            if len(np.unique(labels_E[examples_E & (labels_E >= 0)])) < 2:
                problems.append(
                    f"fine_tuning: the {part} examples of task {each.name!r} have one label; give more data"
                )
        tasks.append(
            TuningTask(
                each.name,
                *(
                    label_task(
                        function,
                        tokenizer,
                        each.words[::-1],
                        subfunction=each.subfunction,
                        max_tokens=max_tokens,
                        examples_E=examples_E,
                        name=each.name,
                    )
                    for examples_E in parts.values()
                ),
            )
        )
    if problems:
        raise InputError(problems)
    return tuple(tasks)


def tuning_items(restrictions: Sequence[Restriction], config: FineTuningConfig) -> list[WorkItem]:
    """One item for each training; nothing for tasks without a functional expert in any layer."""
    kinds = [(ORIGINAL, NO_DRAW), (FUNCTIONAL, NO_DRAW), (OTHERS, 0), *((RANDOM, d) for d in range(config.n_random))]
    return [
        WorkItem.of("fine_tune", task=each.task, strategy=strategy, draw=draw, seed=seed)
        for each in restrictions
        if each.experts
        for seed in config.seeds
        for strategy, draw in kinds
    ]


def tuning_tokens(tasks: Sequence[TuningTask], items: Sequence[WorkItem], config: FineTuningConfig) -> int:
    """Tokens of all trainings, as tokens of a forward pass: a step of training counts three times."""
    by_name = {task.name: task for task in tasks}
    total = 0
    for item in items:
        task = by_name[item.text("task")]
        n_train = min(config.n_examples, task.training.tokens.n_examples)
        length = task.training.tokens.n_tokens / task.training.tokens.n_examples
        settings = _settings(config, task.name, item.integer("seed"))
        trained = 3 * settings.n_epochs * n_train * length
        total += int(trained + settings.n_evaluations(n_train) * task.validation.tokens.n_tokens)
        total += task.test.tokens.n_tokens
    return total


def check_fine_tuning(
    config: PerturbationConfig, names: Sequence[TaskName], layers: Sequence[int], dtype: str
) -> list[str]:
    """What is wrong with the settings of fine-tuning, as far as the model's layers and dtype tell."""
    tuning = None if config.routing is None else config.routing.fine_tuning
    if tuning is None:
        return []
    problems = []
    if dtype != "float32":
        problems.append(f"fine_tuning needs a model of dtype float32, the run has {dtype}; set model.dtype=float32")
    if tuning.first_layer is not None and tuning.first_layer > max(layers):
        problems.append(f"fine_tuning.first_layer={tuning.first_layer}: the layers are 0 to {max(layers)}")
    if isinstance(tuning.n_epochs, dict):
        known = {each.name for each in names}
        missing, unknown = sorted(known - tuning.n_epochs.keys()), sorted(tuning.n_epochs.keys() - known)
        if missing or unknown:
            problems.append(
                f"fine_tuning.n_epochs: lacks {missing or 'no task'}, and names {unknown or 'none'} that are no tasks; "
                "give a number for each task, or one for all"
            )
    return problems


def fine_tune(
    item: WorkItem,
    run: Run,
    model: HeadModel,
    tasks: Sequence[TuningTask],
    restrictions: Sequence[Restriction],
    config: PerturbationConfig,
) -> Mapping[str, Any]:
    """One training: fine-tune, choose the checkpoint, measure and record it; the model has its own weights again."""
    routing = config.routing
    assert routing is not None
    assert routing.fine_tuning is not None
    tuning = routing.fine_tuning
    (task,) = (each for each in tasks if each.name == item.text("task"))
    (restriction,) = (each for each in restrictions if each.task == task.name)
    strategy, draw, seed = item.text("strategy"), item.integer("draw"), item.integer("seed")
    allowed = _allowed(restriction, strategy, draw, routing.seed + 1 + seed)
    settings = _settings(tuning, task.name, seed)
    n_layers = model.base.sites.n_layers(restriction.stack)
    first_layer = n_layers - max(1, -(-n_layers // 3)) if tuning.first_layer is None else tuning.first_layer
    parameters = trainable_parameters(model.base, restriction.stack, first_layer=first_layer)
    drawn = np.random.default_rng((seed, 2)).permutation(task.training.tokens.n_examples)[: tuning.n_examples]
    head = {"task": task.name, "strategy": strategy, "draw": draw, "seed": seed}
    with ExitStack() as context:
        if allowed:
            context.enter_context(restricted_routing(model.base, allowed))
        found: FineTuned = context.enter_context(
            fine_tuned(
                model,
                task.training,
                task.validation,
                parameters,
                settings,
                examples_N=np.sort(drawn),
                tokens_per_batch=config.tokens_per_batch,
            )
        )
        logits_EC = label_logits(model, task.test, tokens_per_batch=config.tokens_per_batch)
    scores = task_scores(logits_EC, task.test.gold_E)
    interval = wilson_interval(round(scores.accuracy * scores.n), scores.n)
    row = head | {
        **{name: getattr(scores, name) for name in MEASURES},
        "accuracy_low": interval.low, "accuracy_high": interval.high, "majority": scores.majority,
        "accuracy_validation": found.chosen.validation.accuracy,
        "accuracy_validation_untrained": found.checkpoints[0].validation.accuracy,
        "step": found.chosen.step, "n_steps": settings.n_steps(len(drawn)), "n_evaluations": len(found.checkpoints) - 1,
        "n_training": len(drawn), "n_validation": task.validation.tokens.n_examples, "n": scores.n,
        "n_layers": len(allowed), "n_experts": sum(map(len, allowed.values())),
        "n_parameters": sum(parameter.numel() for parameter in parameters.values()),
    }  # fmt: skip
    curve = [
        head | {"step": each.step, "loss": each.loss, "accuracy_validation": each.validation.accuracy}
        for each in found.checkpoints
    ]
    tables = [("fine_tuning", [row]), ("fine_tuning_curve", curve)]
    run.commit(item, tables=[run.write_table(name, item, _table(rows)) for name, rows in tables])
    return {"tokens": settings.n_epochs * len(drawn)}


def compare_fine_tuning(run: Run, item: WorkItem) -> Mapping[str, Any]:
    """Functional experts against every other strategy, in pairs of one seed; draws of a seed are averaged first.

    The p-value is that of all signs of the differences between pairs, two-sided; q is its Benjamini-Hochberg value over
    tasks, by measure and strategy. Rows of the task `mean of tasks` compare the averages over tasks of each seed.
    """
    every = run.table("fine_tuning").to_pylist()
    tasks = list(dict.fromkeys(row["task"] for row in every))
    rows = []
    for measure in MEASURES:
        for other in (ORIGINAL, OTHERS, RANDOM):
            pairs = {task: _pairs(every, task, other, measure) for task in tasks}
            if len({len(pair[0]) for pair in pairs.values()}) == 1 and len(tasks) > 1:
                pairs[MEAN_OF_TASKS] = tuple(np.mean([pair[k] for pair in pairs.values()], axis=0) for k in (0, 1))
            block = [_compared(task, other, measure, *pair) for task, pair in pairs.items()]
            own = np.array([row["task"] != MEAN_OF_TASKS for row in block])
            q_value = np.full(len(block), np.nan)
            q_value[own] = benjamini_hochberg(np.array([row["p_value"] for row in block])[own])
            rows += [row | {"q_value": float(q)} for row, q in zip(block, q_value)]
    run.commit(item, tables=[run.write_table("fine_tuning_tests", item, _table(rows))])
    return {}


def _allowed(
    restriction: Restriction, strategy: str, draw: int, seed: int
) -> dict[tuple[StackName, int], tuple[int, ...]]:
    """Experts that tokens may be routed to, by layer; layers that are not named are not restricted."""
    if strategy == FUNCTIONAL:
        return restriction.functional()
    if strategy == OTHERS:
        return restriction.others(draw, seed)
    return restriction.any_experts(draw, seed) if strategy == RANDOM else {}


def _parts(function: FunctionData, labels_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test examples: every other cluster of the evaluation half, in a random order, by label."""
    mine_E = ~function.selection_E & (labels_E >= 0)
    validation_E = np.zeros(len(labels_E), dtype=bool)
    label_of: dict[int, int] = {}
    for example in np.flatnonzero(mine_E):
        label_of.setdefault(int(function.cluster_E[example]), int(labels_E[example]))
    for label in (0, 1):
        clusters = np.array(sorted(c for c, found in label_of.items() if found == label), dtype=np.int64)
        chosen = np.random.default_rng(label).permutation(clusters)[::2]
        validation_E |= mine_E & np.isin(function.cluster_E, chosen)
    return validation_E, mine_E & ~validation_E


def _settings(config: FineTuningConfig, task: str, seed: int) -> FineTuning:
    return FineTuning(
        n_epochs=config.n_epochs if isinstance(config.n_epochs, int) else config.n_epochs[task],
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        evaluate_every=config.evaluate_every,
        seed=seed,
    )


def _pairs(every: Sequence[Mapping[str, Any]], task: str, other: str, measure: str) -> tuple[np.ndarray, np.ndarray]:
    """Values of the functional experts and of another strategy, by seed."""
    found: dict[str, dict[int, list[float]]] = {FUNCTIONAL: {}, other: {}}
    for row in every:
        if row["task"] == task and row["strategy"] in found:
            found[row["strategy"]].setdefault(row["seed"], []).append(row[measure])
    functional, others = (np.array([np.mean(by_seed[seed]) for seed in sorted(by_seed)]) for by_seed in found.values())
    return functional, others


def _compared(task: str, other: str, measure: str, functional_N: np.ndarray, other_N: np.ndarray) -> dict[str, Any]:
    test = sign_flip_test(functional_N - other_N)
    return {
        "task": task, "against": other, "measure": measure,
        "functional": float(functional_N.mean()), "functional_sd": float(functional_N.std(ddof=1)),
        "other": float(other_N.mean()), "other_sd": float(other_N.std(ddof=1)),
        "difference": test.mean, "difference_low": test.interval.low, "difference_high": test.interval.high,
        "p_value": test.p_value, "smallest_p_value": test.smallest_p_value, "n_seeds": test.n,
    }  # fmt: skip


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
