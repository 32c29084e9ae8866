"""The perturbation job from end to end: check, plan, calibrate, choose neurons, measure, bring together.

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
from modularity.pipelines.fine_tuning_step import tuning_tokens
from modularity.pipelines.perturbation_config import PerturbationConfig
from modularity.pipelines.perturbation_prepare import PreparedPerturbation, prepare_perturbation
from modularity.pipelines.perturbation_rankings import (
    MOMENTS,
    create_selection,
    n_selected,
    n_selected_experts,
)
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.pipelines.perturbation_worker import PerturbationWorkerFactory
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.runtime.memory import resident_bytes
from modularity.store import Manifest, ResultArray, Run, check_same_run, create_run, items_to_redo
from modularity.types import WorkItem, content_digest

ROW_BYTES = 300
"""About the size of one row of `perturbation`, before compression."""


def plan_perturbation(config: PerturbationConfig) -> Plan:
    """Size of a job; reads the finished run, data, tokenizer and model config, but no weights."""
    return make_plan(prepare_perturbation(config))


def run_perturbation(config: PerturbationConfig, out: str, *, quiet: bool = False) -> Outcome:
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
    prepared = attempt(lambda: prepare_perturbation(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if recorded is not None and prepared is not None:
        attempt(lambda: _check_recorded(recorded, prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and recorded.manifest.state == "finished" and not items_to_redo(recorded):
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = make_plan(prepared)
    say(plan.text())
    plan.check(config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(prepared, plan, recorded, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def make_plan(prepared: PreparedPerturbation) -> Plan:
    """Size of a prepared job."""
    items = prepared.items()
    kinds = dict.fromkeys(item.kind for item in items)
    n_tasks = len(prepared.tasks)
    task_tokens = sum(task.tokens.n_tokens for task in prepared.tasks)
    passes = sum(item.kind in ("unchanged", "perturb", "routing") for item in items)
    n_tokens = passes * task_tokens + sum(table.n_tokens for table in prepared.calibration.values())
    tuning = None if prepared.config.routing is None else prepared.config.routing.fine_tuning
    if tuning is not None:
        n_tokens += tuning_tokens(prepared.tuning_tasks, prepared.tuning_items(), tuning)
    model, on_gpu = prepared.job.description, uses_gpu(prepared.job.config.model)
    multiplied = model.n_parameters - model.n_embedding_parameters - model.n_idle_parameters
    shape = model.shapes[prepared.site]
    libraries = resident_bytes()
    moments = 4 * 8 * len(shape.layers) * max(shape.widths)
    largest = 3 * prepared.config.tokens_per_batch * (model.ffn_active_width + 4 * model.residual_width) * 4
    weights = model.parameter_bytes + model.parameter_bytes * model.n_embedding_parameters // model.n_parameters
    if tuning is not None:  # gradients, two moments of Adam, and two copies of what is trained; at most everything
        largest += 5 * model.parameter_bytes
    return Plan(
        items={kind: sum(item.kind == kind for item in items) for kind in kinds},
        n_examples=sum(task.tokens.n_examples for task in prepared.tasks),
        n_rows=passes * n_tasks,
        n_tokens=n_tokens,
        n_truncated=sum(task.tokens.n_truncated for task in prepared.tasks),
        store_bytes=passes * n_tasks * ROW_BYTES + moments + _selection_bytes(prepared),
        worker_bytes=libraries + (0 if on_gpu else weights + largest) + 3 * moments,
        seconds=None if on_gpu else 2 * multiplied * n_tokens / (0.5 * probe_flops()),
        device_bytes=weights + largest if on_gpu else 0,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared)),
    )


def _selection_bytes(prepared: PreparedPerturbation) -> int:
    config = prepared.config
    shape = prepared.job.description.shapes[prepared.site]
    masks = len(prepared.rankings) * len(config.seeds) * len(config.strengths)
    return masks * len(prepared.layers) * max(shape.widths)


def _notes(prepared: PreparedPerturbation) -> list[str]:
    """What the config does not say: the layers, whole experts that differ from the share, tasks without experts."""
    config = prepared.config
    shape = prepared.job.description.shapes[prepared.site]
    which = "layer" if len(prepared.layers) == 1 else "layers"
    notes = [f"neurons of {which} {', '.join(map(str, prepared.layers))} of {prepared.site} are changed"]
    n_experts = int(prepared.source.manifest.config["experts"]["n_experts"])
    width = shape.widths[shape.layers.index(prepared.layers[0])]
    if "experts" in config.rankings:
        taken = [
            (n_selected(s, width), n_selected_experts(s, n_experts) * width // n_experts) for s in config.strengths
        ]
        different = [f"{whole} instead of {asked}" for asked, whole in taken if whole != asked]
        if different:
            notes.append(
                f"whole experts hold {', '.join(different)} neurons of layer {prepared.layers[0]}: compare rankings by "
                "n_neurons, or choose strengths that are multiples of 1 / n_experts"
            )
    for each in prepared.restrictions:
        if not each.experts:
            notes.append(f"task {each.task}: no layer has functional experts to restrict routing to")
        if each.left_out:
            notes.append(f"task {each.task}: more than half of the experts of layers {each.left_out} are functional; "
                         "they are not restricted")  # fmt: skip
    return notes


def _recorded_config(config: PerturbationConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedPerturbation) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = _data_identity(prepared) | (software_identity() if manifest.state != "finished" else {})
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _data_identity(prepared: PreparedPerturbation) -> dict[str, Any]:
    source = prepared.source
    return {
        "data": prepared.data_identity(),
        "source": {"config_digest": source.manifest.config_digest, "content_hash": source.content_hash()},
    }


def _work(
    prepared: PreparedPerturbation, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config = prepared.config
    n_threads = executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity = _data_identity(prepared)
    digest = content_digest([_recorded_config(config), identity])
    worker = PerturbationWorkerFactory(uri=out, digest=digest, n_threads=n_threads, prepared=prepared)
    found = run_alone(executor, WorkItem.of("identify", source=config.source), worker)
    run = create_run(out, _manifest(prepared, plan, found, identity | {"threads": n_threads}))
    steps = [
        Step("unchanged model", prepared.first_items(), worker, uses_model=True),
        Step("choose neurons", prepared.select_items(), worker, uses_model=True),
        Step("perturb", prepared.perturb_items(), worker, uses_model=True),
        Step("restrict routing", prepared.routing_items(), worker, uses_model=True),
        Step("fine-tune", prepared.tuning_items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]
    run_steps(run, executor, steps, allocate=lambda: _allocate(run, prepared), quiet=quiet)
    return run


def _manifest(
    prepared: PreparedPerturbation, plan: Plan, found: Mapping[str, Any], identity: Mapping[str, Any]
) -> Manifest:
    config, source = prepared.config, prepared.source.manifest
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds={"calibration": 0, "routing": config.routing.seed if config.routing else 0}
        | {f"perturbation {seed}": seed for seed in config.seeds},
        items_planned=dict(plan.items),
        notes={
            "device": found["device"],
            "head": found["head"],
            "matmul": source.notes.get("matmul"),
            "analysed": str(prepared.site),
            "layers": list(prepared.layers),
            "n_neurons": [
                prepared.job.description.shapes[prepared.site].widths[layer] for layer in prepared.layers
            ],
            "tasks": [
                {"name": name.name, "function": name.function, "subfunction": name.subfunction,
                 "words": list(name.words), "n_selection": _n_selection(prepared, name),
                 "n_examples": task.tokens.n_examples, "n_tokens": task.tokens.n_tokens,
                 "n_truncated": task.tokens.n_truncated}
                for name, task in zip(prepared.names, prepared.tasks)
            ],
            "restrictions": [
                {"task": each.task, "experts": {str(layer): list(chosen) for layer, chosen in each.experts},
                 "left_out": list(each.left_out)}
                for each in prepared.restrictions
            ],
            "plan": list(plan.notes),
        },
    )  # fmt: skip


def _n_selection(prepared: PreparedPerturbation, name: TaskName) -> int:
    """Examples of the selection half with a label."""
    function = prepared.job.function(name.function)
    labels_E = function.labels_SE[function.subfunctions.index(name.subfunction)]
    return int((function.selection_E & (labels_E >= 0)).sum())


def _allocate(run: Run, prepared: PreparedPerturbation) -> None:
    """Create every array; repeating it changes nothing."""
    shape = prepared.job.description.shapes[prepared.site]
    meanings = {
        "mean": ("float64", "mean activation over tokens of the calibration examples"),
        "sd": ("float64", "standard deviation over them"),
        "count": ("int64", "tokens"),
        "output_norm": ("float64", "Euclidean norm of the neuron's row of the output weights"),
    }
    run.create_result(
        MOMENTS,
        sizes={"layer": len(shape.layers), "neuron": max(shape.widths)},
        arrays={
            name: ResultArray(("layer", "neuron"), dtype, {}, {"long_name": meaning})
            for name, (dtype, meaning) in meanings.items()
        },
        coordinates={"layer": (("layer",), np.asarray(shape.layers, dtype=np.int64))},
    )
    create_selection(run, prepared.rankings, prepared.config, prepared.layers, _stored_width(prepared))


def _stored_width(prepared: PreparedPerturbation) -> int:
    """Neurons of the widest chosen layer."""
    shape = prepared.job.description.shapes[prepared.site]
    return max(shape.widths[shape.layers.index(layer)] for layer in prepared.layers)
