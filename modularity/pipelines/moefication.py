"""The MoEfication job from end to end: check, plan, divide, train routers, measure, bring together, export.

It makes partitions itself or takes those of a finished run of `emergent_modularity`, which it only reads. A recorded
item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one as it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modularity.errors import InputError
from modularity.experts import selected_count
from modularity.interventions.outputs import LOGIT_VALUES
from modularity.models import uses_gpu
from modularity.pipelines.emergent import Outcome
from modularity.pipelines.follow_up import source_identity
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.moefication_config import MoeficationConfig
from modularity.pipelines.moefication_layout import create_results, stored_bytes
from modularity.pipelines.moefication_prepare import PreparedMoefication, partitions_note, prepare_moefication
from modularity.pipelines.moefication_worker import MoeficationWorkerFactory
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.runtime.memory import resident_bytes
from modularity.types import Site

ROW_BYTES = 200
"""About the size of one row of the tables, before compression."""
LOGIT_BYTES = 16
"""Memory of one logit while the whole and the changed model are compared."""

REMEDIES = Remedies(
    store="choose fewer partitions, routers, shares or seeds",
    memory="lower tokens_per_batch, training.tokens or evaluation_tokens",
    time="choose fewer partitions, routers, shares or seeds, lower training.tokens or evaluation_tokens",
)


def plan_moefication(config: MoeficationConfig) -> Plan:
    """Size of a job; reads the finished run, data, tokenizer and model config, but no weights."""
    return make_plan(prepare_moefication(config))


def run_moefication(config: MoeficationConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def _check_folder(prepared: PreparedMoefication) -> None:
    """A new run writes its checkpoint to a new or empty folder; one that goes on may have written it before."""
    export = prepared.config.export
    folder = None if export is None else Path(export.folder)
    if folder is not None and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"export.folder={str(folder)!r} is not empty: name a new folder, nothing is overwritten")


def make_plan(prepared: PreparedMoefication) -> Plan:
    """Size of a prepared job."""
    items = prepared.items()
    counts = {kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)}
    config, texts, model = prepared.config, prepared.texts, prepared.description
    on_gpu = uses_gpu(prepared.model)
    trained = texts.training.n_tokens if "mlp" in config.routers else 0
    answers = sum(task.tokens.n_tokens for task in prepared.tasks)
    n_tokens = counts["route"] * (trained + texts.evaluation.n_tokens)
    n_tokens += counts["evaluate"] * (2 * texts.evaluation.n_tokens + answers) + counts.get("unchanged", 0) * answers
    if any(item.text("partition") == "coactivation" for item in prepared.partition_items()):
        n_tokens += len(prepared.layers) * texts.training.n_tokens
    multiplied = model.n_parameters - model.n_embedding_parameters + model.vocabulary_size * model.residual_width
    routers = counts["route"] * trained * config.training.n_epochs * _router_flops(prepared)
    rows = 4 * 8 * max(texts.training.n_tokens, texts.evaluation.n_tokens)
    weights = model.parameter_bytes + model.parameter_bytes * model.n_embedding_parameters // model.n_parameters
    largest = 3 * config.tokens_per_batch * (model.ffn_active_width + 4 * model.residual_width) * 4
    largest += LOGIT_BYTES * min(LOGIT_VALUES, config.tokens_per_batch * model.vocabulary_size)
    held = rows * (model.residual_width + prepared.n_experts) // 4
    libraries = resident_bytes()
    n_rows = counts["evaluate"] * (len(prepared.layers) + len(texts.evaluation.tables) + len(prepared.tasks))
    store_bytes = stored_bytes(prepared) + 3 * n_rows * ROW_BYTES
    work = Work(2 * multiplied * n_tokens + routers, 0.0, 0.5 * probe_flops())
    loads = study_loads(
        prepared.model,
        config.runtime,
        work,
        n_parallel=counts["evaluate"],
        dtype=model.dtype,
        weight_bytes=weights,
        device_bytes=weights + largest + held,
        beside_gpu_bytes=held,
        host_bytes=weights + largest + held,
        store_bytes=store_bytes,
        library_bytes=libraries,
    )
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items=counts,
        n_examples=texts.training.n_texts + texts.evaluation.n_texts,
        n_rows=n_rows,
        n_tokens=n_tokens,
        n_truncated=_n_truncated(prepared),
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


def _router_flops(prepared: PreparedMoefication) -> int:
    """Operations of one token in one epoch: forward and backward."""
    return 6 * prepared.n_experts * (prepared.description.residual_width + prepared.n_experts)


def _n_truncated(prepared: PreparedMoefication) -> int:
    texts = prepared.texts
    return sum(table.n_truncated for half in (texts.training, texts.evaluation) for table in half.tables.values())


def _notes(prepared: PreparedMoefication) -> list[str]:
    """What the config does not say: layers, experts, texts, tasks."""
    config = prepared.config
    n_experts = prepared.n_experts
    size = prepared.widths[0] // n_experts
    which = f"layer{'s' if len(prepared.layers) > 1 else ''} {', '.join(map(str, prepared.layers))}"
    selected = ", ".join(str(selected_count(n_experts, share)) for share in config.shares)
    notes = [
        f"{which} of the {prepared.stack} are divided into {n_experts} experts, of {size} neurons where they are equal",
        f"shares {', '.join(f'{share:g}' for share in config.shares)} are {selected} of {n_experts} experts",
        *prepared.texts.notes,
        *partitions_note(prepared),
    ]
    if not prepared.tasks:
        notes.append("no sub-function has label words: no task is measured, predictions only")
    return notes


def _data_identity(prepared: PreparedMoefication) -> dict[str, Any]:
    found: dict[str, Any] = {"data": prepared.data_identity()}
    source = prepared.source
    if source is not None:
        found |= source_identity(source)
    return found


def _worker(uri: str, digest: str, n_threads: int, prepared: PreparedMoefication) -> MoeficationWorkerFactory:
    export = prepared.config.export
    folder = None if export is None else str(Path(export.folder).absolute())
    return MoeficationWorkerFactory(uri=uri, digest=digest, n_threads=n_threads, folder=folder, prepared=prepared)


def _steps(prepared: PreparedMoefication, worker: MoeficationWorkerFactory) -> list[Step]:
    return [
        Step("divide", prepared.partition_items(), worker, uses_model=True),
        Step("route", prepared.route_items(), worker, uses_model=True),
        Step("whole model", prepared.unchanged_items(), worker, uses_model=True),
        Step("select experts", prepared.evaluate_items(), worker, uses_model=True),
        Step("bring together", prepared.last_items(), worker, uses_model=True),
    ]


def _seeds(prepared: PreparedMoefication) -> dict[str, int]:
    return {"texts": 0, "resamples": 0} | {f"seed {seed}": seed for seed in prepared.config.seeds}


def _manifest_notes(prepared: PreparedMoefication, found: Mapping[str, Any]) -> dict[str, Any]:
    texts = prepared.texts
    return {
        "head": found["head"],
        "matmul": found["matmul"],
        "analysed": str(Site(prepared.stack, "ffn.neurons")),
        "layers": list(prepared.layers),
        "n_neurons": list(prepared.widths),
        "n_experts": prepared.n_experts,
        "texts": {
            half: {
                name: {
                    "n_texts": table.n_examples, "n_tokens": table.n_tokens, "n_truncated": table.n_truncated
                }
                for name, table in each.tables.items()
            }
            for half, each in (("training", texts.training), ("evaluation", texts.evaluation))
        },
        "tasks": [
            {"name": name.name, "function": name.function, "subfunction": name.subfunction,
             "words": list(name.words), "n_examples": task.tokens.n_examples, "n_tokens": task.tokens.n_tokens,
             "n_truncated": task.tokens.n_truncated, "share_positive": float(task.gold_E.mean())}
            for name, task in zip(prepared.names, prepared.tasks)
        ],
    }  # fmt: skip


STUDY = Study(
    prepare=prepare_moefication,
    plan=make_plan,
    identity=_data_identity,
    worker=_worker,
    steps=_steps,
    seeds=_seeds,
    notes=_manifest_notes,
    allocate=create_results,
    check_start=_check_folder,
)
"""The parts of the job."""
