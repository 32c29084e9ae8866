"""The pruning job from end to end: check, plan, score, remove step by step, compare, let the pruned models write.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is. Trajectories (score, schedule, direction; random seeds) are items of their own and run side by side.
"""

from collections.abc import Mapping
from typing import Any

from modularity.models import uses_gpu
from modularity.pipelines.emergent import Outcome
from modularity.pipelines.loads import Work, study_loads
from modularity.pipelines.plan import Plan, Remedies
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.pruning_config import PruningConfig
from modularity.pipelines.pruning_prepare import MEASURED, PreparedPruning, prepare_pruning
from modularity.pipelines.pruning_trajectories import COUNTS, create_results, trajectory_tokens
from modularity.pipelines.pruning_worker import PruningWorkerFactory
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.runtime.memory import resident_bytes
from modularity.types import WorkItem

ROW_BYTES = 300
"""About the size of one row of `pruning_steps`, before compression."""

REMEDIES = Remedies(
    store="choose fewer scores or schedules, or lower n_random",
    memory="lower tokens_per_batch",
    time="choose fewer scores or schedules, lower n_random or evaluation_tokens",
)


def plan_pruning(config: PruningConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_pruning(config))


def run_pruning(config: PruningConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def make_plan(prepared: PreparedPruning) -> Plan:
    """Size of a prepared job."""
    config, model = prepared.config, prepared.description
    items, on_gpu = prepared.items(), uses_gpu(config.model)
    scored, measured, written = _tokens(prepared)
    head = model.vocabulary_size * model.residual_width
    multiplied = model.n_parameters - model.n_embedding_parameters
    flops = 2 * (multiplied * (scored + measured + written) + head * (measured + written))
    n_texts = sum(corpus.n_measured for corpus in prepared.corpora)
    results = len(prepared.trajectories) * (
        (prepared.n_steps + 1) * n_texts * (4 * len(COUNTS) + 8) + 2 * sum(each.n for each in prepared.units.values())
    )
    rows = len(prepared.trajectories) * (prepared.n_steps + 1) * 2 * len(MEASURED)
    libraries = resident_bytes()
    weights = model.parameter_bytes + model.parameter_bytes * model.n_embedding_parameters // model.n_parameters
    per_token = 3 * (model.ffn_active_width + 4 * model.residual_width) * 4 + 3 * 4 * model.vocabulary_size
    largest = config.tokens_per_batch * per_token
    kept = results // len(prepared.trajectories)
    work = Work(flops, 0.0, 0.5 * probe_flops())
    loads = study_loads(
        config.model,
        config.runtime,
        work,
        n_parallel=len(prepared.trajectories),
        dtype=model.dtype,
        weight_bytes=weights,
        device_bytes=weights + largest,
        beside_gpu_bytes=kept,
        host_bytes=weights + largest + kept,
        store_bytes=results + rows * ROW_BYTES,
        library_bytes=libraries,
    )
    here = loads.gpu if on_gpu else loads.host
    return Plan(
        items={kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)},
        n_examples=sum(len(c.scoring.texts) + c.n_measured + len(c.prompts) for c in prepared.corpora),
        n_rows=rows,
        n_tokens=scored + measured + written,
        n_truncated=sum(c.scoring.n_truncated + c.validation.n_truncated + c.evaluation.n_truncated
                        for c in prepared.corpora),
        store_bytes=results + rows * ROW_BYTES,
        worker_bytes=here.worker_bytes,
        seconds=None if on_gpu else work.seconds,
        device_bytes=here.device_bytes,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared)),
        loads=loads,
        remedies=REMEDIES,
    )  # fmt: skip


def _tokens(prepared: PreparedPruning) -> tuple[int, int, int]:
    """Tokens whose activations are taken, that are predicted, and that are read while the models write."""
    scoring = sum(corpus.scoring.n_tokens for corpus in prepared.corpora)
    iterative = sum(each.schedule == "iterative" for each in prepared.trajectories)
    scored = scoring * (1 + (prepared.n_steps - 1) * iterative)
    every = scoring + sum(trajectory_tokens(prepared, each) for each in prepared.trajectories)
    asked, written = prepared.config.continuations, 0
    if asked is not None:  # there is no cache: each token reads all before it
        per_prompt = asked.n_new * (asked.n_prompt_tokens + asked.n_new // 2)
        written = len(prepared.continuation_items()) * per_prompt * sum(len(c.prompts) for c in prepared.corpora)
    return scored, every - scored, written


def _notes(prepared: PreparedPruning) -> list[str]:
    ffn, attention = prepared.units["ffn"], prepared.units["attention"]
    step = prepared.per_step
    whole = f"{step['ffn']:,} of {ffn.n:,} FFN neurons"
    if step["attention"]:
        whole += f" and {step['attention']:,} of {attention.n:,} attention coordinates"
    notes = [f"{prepared.n_steps} steps remove {whole} each"]
    for corpus in prepared.corpora:
        notes += corpus.notes
    return notes


def _identity(prepared: PreparedPruning) -> dict[str, Any]:
    return {"data": prepared.data_identity()}


def _steps(prepared: PreparedPruning, worker: PruningWorkerFactory) -> list[Step]:
    return [
        Step("importance", [WorkItem.of("importance")], worker, uses_model=True),
        Step("prune", [each.item for each in prepared.trajectories], worker, uses_model=True),
        Step("compare areas", [WorkItem.of("areas")], worker, uses_model=True),
        Step("continue texts", prepared.continuation_items(), worker, uses_model=True),
        Step("compare texts", prepared.last_items(), worker, uses_model=True),
        Step("export", prepared.export_items(), worker, uses_model=True),
    ]


def _seeds(prepared: PreparedPruning) -> dict[str, int]:
    continuations = prepared.config.continuations
    written = {} if continuations is None else {"continuations": continuations.seed}
    return {"parts and random trajectories": prepared.config.seed} | written


def _manifest_notes(prepared: PreparedPruning, found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "head": found["head"],
        "matmul": found["matmul"],
        "n_units": {kind: each.n for kind, each in prepared.units.items()},
        "layers": sorted({each.layer for each in prepared.units["ffn"].layers}),
        "stacks": sorted({each.site.stack for each in prepared.units["ffn"].layers}),
        "per_step": dict(prepared.per_step),
        "n_steps": prepared.n_steps,
        "directions": [list(pair) for pair in prepared.directions],
        "corpora": [
            {
                "name": corpus.name,
                "texts": {part: len(getattr(corpus, part).texts) for part in ("scoring", *MEASURED)}
                | {"prompts": len(corpus.prompts), "judge_training": len(corpus.judge_training),
                   "judge_test": len(corpus.judge_test)},
                "tokens": {part: getattr(corpus, part).n_tokens for part in ("scoring", *MEASURED)},
                "n_truncated": sum(getattr(corpus, part).n_truncated for part in ("scoring", *MEASURED)),
                "commonest": corpus.common.tolist(),
            }
            for corpus in prepared.corpora
        ],
    }  # fmt: skip


STUDY = Study(
    prepare=prepare_pruning,
    plan=make_plan,
    identity=_identity,
    worker=PruningWorkerFactory,
    steps=_steps,
    seeds=_seeds,
    notes=_manifest_notes,
    allocate=create_results,
)
"""The parts of the job."""
