"""The worker of the restricted-routing study: holds the model with its LM head, trains and measures.

Table `accuracy`: one row for each training, measured on test examples at the checkpoint that validation has chosen.
Table `tuning_curve`: one row for each checkpoint, on validation examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from threadpoolctl import threadpool_limits

from modularity.interventions import fine_tuned, measure_task, restricted_routing, trainable_parameters
from modularity.interventions.scores import TaskScores
from modularity.models import HeadModel, compute_threads
from modularity.pipelines.finished_run import identify_source_model, load_source_model
from modularity.pipelines.perturbation_measure import MEASURES
from modularity.pipelines.restricted_routing_prepare import PreparedRouting
from modularity.pipelines.restricted_routing_tables import compare_strategies
from modularity.stats import wilson_interval
from modularity.store import Run, open_run, table_from_columns
from modularity.types import WorkItem


@dataclass(frozen=True)
class RoutingWorkerFactory:
    """Builds a `RoutingWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    prepared: PreparedRouting = field(compare=False, repr=False)

    def __call__(self) -> "RoutingWorker":
        """The model is loaded when an item needs it."""
        return RoutingWorker(self)


class RoutingWorker:
    """Runs the items of the study."""

    def __init__(self, spec: RoutingWorkerFactory) -> None:
        self._spec, self._prepared = spec, spec.prepared

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        actions: dict[str, Callable[[], Mapping[str, Any]]] = {
            "identify": lambda: identify_source_model(self._model, self._prepared.job, self._prepared.source),
            "tune": lambda: self._tune(item),
            "compare": lambda: compare_strategies(self._run, item),
        }
        with compute_threads(self._spec.n_threads), threadpool_limits(self._spec.n_threads):
            return actions[item.kind]()

    @cached_property
    def _model(self) -> HeadModel:
        return load_source_model(self._prepared.job, self._prepared.source)

    @cached_property
    def _run(self) -> Run:
        return open_run(self._spec.uri)

    def _tune(self, item: WorkItem) -> Mapping[str, Any]:
        """One training, from the weights of the checkpoint, and its measurement."""
        prepared, model, config = self._prepared, self._model, self._prepared.config
        task, seed = prepared.task(item.text("task")), item.integer("seed")
        settings, allowed = prepared.settings(item.text("task"), seed), prepared.allowed(item)
        parameters = trainable_parameters(model.base, prepared.site.stack, first_layer=prepared.first_layer)
        rows_N = task.drawn(config.n_examples, seed)
        head = {name: item[name] for name in ("task", "strategy", "draw", "seed")}
        with (
            restricted_routing(model.base, allowed),
            fine_tuned(
                model, task.training, task.validation, parameters, settings, examples_N=rows_N,
                tokens_per_batch=config.tokens_per_batch,
            ) as found,
        ):  # fmt: skip
            scores = measure_task(model, task.test, tokens_per_batch=config.tokens_per_batch)
        curve = [
            head | {"step": each.step, "loss": each.loss, "chosen": each == found.chosen} | _columns(each.validation)
            for each in found.checkpoints
        ]
        interval = wilson_interval(round(scores.accuracy * scores.n), scores.n)
        row = head | {
            "step": found.chosen.step, "n_steps": settings.n_steps(len(rows_N)), "n_checkpoints": len(curve) - 1,
            "validation_accuracy": found.chosen.validation.accuracy,
            "untrained_accuracy": found.checkpoints[0].validation.accuracy,
            "n_validation": found.chosen.validation.n,
        } | _columns(scores) | {
            "accuracy_low": interval.low, "accuracy_high": interval.high,
            "majority": scores.majority, "collapsed": scores.collapsed, "n_training": len(rows_N),
            "n_parameters": sum(parameter.numel() for parameter in parameters.values()),
            "n_layers": len(allowed), "n_experts": sum(map(len, allowed.values())),
            "experts": "; ".join(f"{layer}: {' '.join(map(str, chosen))}" for (_, layer), chosen in allowed.items()),
        }  # fmt: skip
        tables = [("accuracy", [row]), ("tuning_curve", curve)]
        self._run.commit(item, tables=[self._run.write_table(name, item, _table(rows)) for name, rows in tables])
        n_tokens = settings.n_epochs * int(task.training.tokens.lengths_E[rows_N].sum())
        return {"tokens": n_tokens + len(curve) * task.validation.tokens.n_tokens + task.test.tokens.n_tokens}


def _columns(scores: TaskScores) -> dict[str, Any]:
    return {name: getattr(scores, name) for name in (*MEASURES, "n")}


def _table(rows: list[dict[str, Any]]) -> Any:
    return table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
