"""The restricted-routing study from end to end: check, plan, train under every strategy, bring together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modularity.models import uses_gpu
from modularity.pipelines.emergent import Outcome
from modularity.pipelines.follow_up import follow_up_identity, follow_up_notes
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig
from modularity.pipelines.restricted_routing_examples import TaskExamples, by_part
from modularity.pipelines.restricted_routing_prepare import PreparedRouting, plan_notes, prepare_restricted_routing
from modularity.pipelines.restricted_routing_worker import RoutingWorkerFactory
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.runtime import WorkerFactory
from modularity.runtime.memory import resident_bytes

ROW_BYTES = 200
"""About the size of one row of `tuning_curve`, before compression."""
BACKWARD = 3
"""A training step costs as much as so many forwards."""
LAYER_SECONDS = 0.003
"""What a step or evaluation takes in every layer, however small the model: measured on one core."""

REMEDIES = Remedies(
    store="lower n_draws or choose fewer seeds",
    memory="lower batch_size or tokens_per_batch, or raise first_trained_layer",
    time="lower n_draws or epochs, or choose fewer seeds",
)


def plan_restricted_routing(config: RestrictedRoutingConfig) -> Plan:
    """Size of a job; reads the finished run, data, tokenizer and model config, but no weights."""
    return make_plan(prepare_restricted_routing(config))


def run_restricted_routing(config: RestrictedRoutingConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def make_plan(prepared: PreparedRouting) -> Plan:
    """Size of a prepared job; memory holds the trained weights four more times: gradients, Adam, copies."""
    config, model = prepared.config, prepared.job.description
    on_gpu = uses_gpu(prepared.job.config.model)
    items = prepared.items()
    sizes = {each.name.name: _item_size(prepared, each) for each in prepared.tasks}
    trained, evaluated, n_rows = (sum(sizes[item.text("task")][part] for item in items) for part in range(3))
    multiplied = model.n_parameters - model.n_embedding_parameters - model.n_idle_parameters
    n_layers = len(prepared.job.description.shapes[prepared.site].layers)
    n_calls = sum(_n_calls(prepared, item.text("task")) for item in items)
    overhead = LAYER_SECONDS * n_calls * n_layers * len(model.stacks)
    share = (n_layers - prepared.first_layer) / n_layers
    weights = model.parameter_bytes + model.parameter_bytes * model.n_embedding_parameters // model.n_parameters
    state = int(6 * share * model.parameter_bytes)
    batch = max(config.tokens_per_batch, config.batch_size * max(_longest(each) for each in prepared.tasks))
    largest = 3 * batch * (model.ffn_active_width + 4 * model.residual_width) * 4 * n_layers // 2
    libraries = resident_bytes()
    flops = 0.5 * probe_flops()
    computed = 2 * multiplied * (BACKWARD * trained + evaluated)
    loads = study_loads(
        prepared.job.config.model,
        config.runtime,
        Work(computed, 0.0, flops),
        n_parallel=len(items),
        dtype=model.dtype,
        weight_bytes=weights,
        device_bytes=weights + state + largest,
        beside_gpu_bytes=0,
        host_bytes=weights + state + largest,
        store_bytes=n_rows * ROW_BYTES,
        library_bytes=libraries,
    )
    loads = replace(loads, host=replace(loads.host, forward_flops=computed + overhead * flops))
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items={"tune": len(items), "compare": 1},
        n_examples=sum(sum(by_part(each).values()) for each in prepared.tasks),
        n_rows=n_rows,
        n_tokens=trained + evaluated,
        n_truncated=sum(_n_truncated(each) for each in prepared.tasks),
        store_bytes=n_rows * ROW_BYTES,
        worker_bytes=here.worker_bytes,
        seconds=None if on_gpu else here.forward_flops / flops,
        device_bytes=here.device_bytes,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(plan_notes(prepared)),
        loads=loads,
        remedies=REMEDIES,
    )


def _item_size(prepared: PreparedRouting, task: TaskExamples) -> tuple[int, int, int]:
    """Tokens that are trained on, tokens that are evaluated, and rows of tables, of one training."""
    n_examples = prepared.config.n_examples
    settings = prepared.settings(task.name.name, 0)
    tokens = task.training.tokens.n_tokens / task.training.tokens.n_examples
    n_evaluations = settings.n_evaluations(n_examples)
    evaluated = n_evaluations * task.validation.tokens.n_tokens + task.test.tokens.n_tokens
    return round(settings.n_epochs * n_examples * tokens), evaluated, 1 + n_evaluations


def _n_calls(prepared: PreparedRouting, task: str) -> int:
    """Steps and evaluations of one training."""
    settings, n_examples = prepared.settings(task, 0), prepared.config.n_examples
    return settings.n_steps(n_examples) + settings.n_evaluations(n_examples)


def _longest(task: TaskExamples) -> int:
    return int(task.training.tokens.lengths_E.max())


def _n_truncated(task: TaskExamples) -> int:
    return sum(getattr(task, part).tokens.n_truncated for part in ("training", "validation", "test"))


def _steps(prepared: PreparedRouting, worker: WorkerFactory) -> Sequence[Step]:
    return [
        Step("fine-tune", prepared.items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]


def _seeds(prepared: PreparedRouting) -> dict[str, int]:
    return {"split": prepared.config.split_seed} | {f"training {seed}": seed for seed in prepared.config.seeds}


def _notes_of_run(prepared: PreparedRouting, found: Mapping[str, Any]) -> dict[str, Any]:
    own = {"first_layer": prepared.first_layer, "tasks": [_task_note(each) for each in prepared.tasks]}
    return follow_up_notes(prepared, found) | own


def _task_note(task: TaskExamples) -> dict[str, Any]:
    """Names and sizes of a task; test examples that are the validation examples count once."""
    parts = [task.training, task.validation] + (
        [] if task.test.example_ids == task.validation.example_ids else [task.test]
    )
    gold = np.concatenate([part.gold_E for part in parts])
    return {
        "name": task.name.name,
        "function": task.name.function,
        "subfunction": task.name.subfunction,
        "words": list(task.name.words),
        **by_part(task),
        "n_examples": len(gold),
        "n_tokens": sum(part.tokens.n_tokens for part in parts),
        "n_truncated": sum(part.tokens.n_truncated for part in parts),
        "share_positive": float(gold.mean()),
    }


STUDY = Study(
    prepare=prepare_restricted_routing,
    plan=make_plan,
    identity=follow_up_identity,
    worker=RoutingWorkerFactory,
    steps=_steps,
    seeds=_seeds,
    notes=_notes_of_run,
)
"""The parts of the job."""
