"""The perturbation job from end to end: check, plan, calibrate, choose neurons, measure, bring together."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modularity.models import uses_gpu
from modularity.pipelines.emergent import Outcome
from modularity.pipelines.follow_up import follow_up_identity, follow_up_notes
from modularity.pipelines.loads import Work, study_loads
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
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.restrictions import restriction_notes
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.runtime import WorkerFactory
from modularity.runtime.memory import resident_bytes
from modularity.store import ResultArray, Run

ROW_BYTES = 300
"""About the size of one row of `perturbation`, before compression."""

REMEDIES = Remedies(
    store="choose fewer rankings, strengths or seeds",
    memory="lower tokens_per_batch",
    time="choose fewer rankings, strengths or seeds",
)


def plan_perturbation(config: PerturbationConfig) -> Plan:
    """Size of a job; reads the finished run, data, tokenizer and model config, but no weights."""
    return make_plan(prepare_perturbation(config))


def run_perturbation(config: PerturbationConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def make_plan(prepared: PreparedPerturbation) -> Plan:
    """Size of a prepared job."""
    items = prepared.items()
    kinds = dict.fromkeys(item.kind for item in items)
    n_tasks = len(prepared.tasks)
    task_tokens = sum(task.tokens.n_tokens for task in prepared.tasks)
    passes = sum(item.kind in ("unchanged", "perturb", "routing") for item in items)
    n_tokens = passes * task_tokens + sum(table.n_tokens for table in prepared.calibration.values())
    model = prepared.job.description
    multiplied = model.n_parameters - model.n_embedding_parameters - model.n_idle_parameters
    shape = model.shapes[prepared.site]
    libraries = resident_bytes()
    moments = 4 * 8 * len(shape.layers) * max(shape.widths)
    largest = 3 * prepared.config.tokens_per_batch * (model.ffn_active_width + 4 * model.residual_width) * 4
    weights = model.parameter_bytes + model.parameter_bytes * model.n_embedding_parameters // model.n_parameters
    work = Work(2 * multiplied * n_tokens, 0.0, 0.5 * probe_flops())
    store_bytes = passes * n_tasks * ROW_BYTES + moments + _selection_bytes(prepared)

    on_gpu = uses_gpu(prepared.job.config.model)
    loads = study_loads(
        prepared.job.config.model,
        prepared.config.runtime,
        work,
        n_parallel=passes,
        dtype=model.dtype,
        weight_bytes=weights,
        device_bytes=weights + largest,
        beside_gpu_bytes=3 * moments,
        host_bytes=weights + largest + 3 * moments,
        store_bytes=store_bytes,
        library_bytes=libraries,
    )
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items={kind: sum(item.kind == kind for item in items) for kind in kinds},
        n_examples=sum(task.tokens.n_examples for task in prepared.tasks),
        n_rows=passes * n_tasks,
        n_tokens=n_tokens,
        n_truncated=sum(task.tokens.n_truncated for task in prepared.tasks),
        store_bytes=store_bytes,
        worker_bytes=here.worker_bytes,
        seconds=None if on_gpu else work.seconds,
        device_bytes=here.device_bytes,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared)),
        loads=loads,
        remedies=REMEDIES,
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
    return [*notes, *restriction_notes(prepared.restrictions)]


def _steps(prepared: PreparedPerturbation, worker: WorkerFactory) -> Sequence[Step]:
    return [
        Step("unchanged model", prepared.first_items(), worker, uses_model=True),
        Step("choose neurons", prepared.select_items(), worker, uses_model=True),
        Step("perturb", prepared.perturb_items(), worker, uses_model=True),
        Step("restrict routing", prepared.routing_items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]


def _seeds(prepared: PreparedPerturbation) -> dict[str, int]:
    config = prepared.config
    fixed = {"calibration": 0, "routing": config.routing.seed if config.routing else 0}
    return fixed | {f"perturbation {seed}": seed for seed in config.seeds}


def _notes_of_run(prepared: PreparedPerturbation, found: Mapping[str, Any]) -> dict[str, Any]:
    return follow_up_notes(prepared, found) | {
        "tasks": [
            {"name": name.name, "function": name.function, "subfunction": name.subfunction,
             "words": list(name.words), "n_selection": _n_selection(prepared, name),
             "n_examples": task.tokens.n_examples, "n_tokens": task.tokens.n_tokens,
             "n_truncated": task.tokens.n_truncated}
            for name, task in zip(prepared.names, prepared.tasks)
        ]
    }  # fmt: skip


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


STUDY = Study(
    prepare=prepare_perturbation,
    plan=make_plan,
    identity=follow_up_identity,
    worker=PerturbationWorkerFactory,
    steps=_steps,
    seeds=_seeds,
    notes=_notes_of_run,
    allocate=_allocate,
)
"""The parts of the job."""
