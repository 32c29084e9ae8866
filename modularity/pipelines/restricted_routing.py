"""The restricted-routing study from end to end: check, plan, train under every strategy, bring together.

It takes a finished run of `emergent_modularity`, which it only reads, and writes a run of its own. A recorded item is
not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one as it is.
"""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from modularity.errors import ModularityError
from modularity.models import uses_gpu
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import _probe_flops
from modularity.pipelines.restricted_routing_config import RestrictedRoutingConfig
from modularity.pipelines.restricted_routing_prepare import (
    PreparedRouting,
    TaskExamples,
    by_part,
    prepare_restricted_routing,
    restriction_notes,
)
from modularity.pipelines.restricted_routing_worker import RoutingWorkerFactory
from modularity.pipelines.steps import Step, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.runtime.memory import resident_bytes
from modularity.store import Manifest, Run, check_same_run, create_run
from modularity.types import WorkItem, content_digest

ROW_BYTES = 200
"""About the size of one row of `tuning_curve`, before compression."""
BACKWARD = 3
"""A training step costs as much as so many forwards."""
LAYER_SECONDS = 0.003
"""What a step or evaluation takes in every layer, however small the model: measured on one core."""


def plan_restricted_routing(config: RestrictedRoutingConfig) -> Plan:
    """Size of a job; reads the finished run, data, tokenizer and model config, but no weights."""
    return make_plan(prepare_restricted_routing(config))


def run_restricted_routing(config: RestrictedRoutingConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it.

    Parameters
    ----------
    config : the job
    out : folder or object-store URI of the new run
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError
        Before any work, with everything that is wrong.
    IdentityError
        Another run lies at `out`, or the model is not that of the finished run.
    ModelError
        The checkpoint has no LM head.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    errors: list[ModularityError] = []
    prepared = attempt(lambda: prepare_restricted_routing(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if recorded is not None and prepared is not None:
        attempt(lambda: _check_recorded(recorded, prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and recorded.manifest.state == "finished":
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = make_plan(prepared)
    say(plan.text())
    plan.check(config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(prepared, plan, recorded, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


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
    return Plan(
        items={"tune": len(items), "compare": 1},
        n_examples=sum(sum(by_part(each).values()) for each in prepared.tasks),
        n_rows=n_rows,
        n_tokens=trained + evaluated,
        n_truncated=sum(_n_truncated(each) for each in prepared.tasks),
        store_bytes=n_rows * ROW_BYTES,
        worker_bytes=libraries + (0 if on_gpu else weights + state + largest),
        seconds=None
        if on_gpu
        else 2 * multiplied * (BACKWARD * trained + evaluated) / (0.5 * _probe_flops()) + overhead,
        device_bytes=weights + state + largest if on_gpu else 0,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared)),
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


def _notes(prepared: PreparedRouting) -> list[str]:
    config = prepared.config
    notes = [
        f"trained: FFN output matrices and routers of the {prepared.site.stack}, from layer {prepared.first_layer} up",
        *restriction_notes(prepared),
    ]
    if config.variant == "released":
        notes.append("variant released: checkpoints are chosen on the examples that are reported, so accuracies are "
                     "too high")  # fmt: skip
    smallest = 2 / 2 ** len(config.seeds)
    if smallest > 0.05:
        notes.append(f"with {len(config.seeds)} seeds no p can be below {smallest:.2g}")
    return notes


def _recorded_config(config: RestrictedRoutingConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedRouting) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = _data_identity(prepared) | (software_identity() if manifest.state != "finished" else {})
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _data_identity(prepared: PreparedRouting) -> dict[str, Any]:
    source = prepared.source
    return {
        "data": prepared.data_identity(),
        "source": {"config_digest": source.manifest.config_digest, "content_hash": source.content_hash()},
    }


def _work(
    prepared: PreparedRouting, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config, n_threads = prepared.config, executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity = _data_identity(prepared)
    digest = content_digest([_recorded_config(config), identity])
    worker = RoutingWorkerFactory(uri=out, digest=digest, n_threads=n_threads, prepared=prepared)
    found: dict[str, Any] = {}
    executor.run(
        [WorkItem.of("identify", source=config.source)],
        worker,
        on_done=lambda _, info: found.update(info),
        uses_model=True,
    )
    run = create_run(out, _manifest(prepared, plan, found, identity | {"threads": n_threads}))
    steps = [
        Step("fine-tune", prepared.items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]
    run_steps(run, executor, steps, allocate=lambda: None, quiet=quiet)
    return run


def _manifest(prepared: PreparedRouting, plan: Plan, found: Mapping[str, Any], identity: Mapping[str, Any]) -> Manifest:
    config = prepared.config
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds={"split": config.split_seed} | {f"training {seed}": seed for seed in config.seeds},
        items_planned=dict(plan.items),
        notes={
            "device": found["device"],
            "head": found["head"],
            "matmul": prepared.source.manifest.notes.get("matmul"),
            "analysed": str(prepared.site),
            "layers": list(prepared.layers),
            "n_neurons": [prepared.job.description.shapes[prepared.site].widths[layer] for layer in prepared.layers],
            "first_layer": prepared.first_layer,
            "tasks": [_task_note(each) for each in prepared.tasks],
            "restrictions": [
                {"task": each.task, "experts": {str(layer): list(chosen) for layer, chosen in each.experts},
                 "left_out": list(each.left_out)}
                for each in prepared.restrictions
            ],
            "plan": list(plan.notes),
        },
    )  # fmt: skip


def _task_note(task: TaskExamples) -> dict[str, Any]:
    """Names and sizes of a task; the test examples of variant `released` count once."""
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
