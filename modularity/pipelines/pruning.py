"""The pruning job from end to end: check, plan, score, remove step by step, compare, let the pruned models write.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is. Trajectories (score, schedule, direction; random seeds) are items of their own and run side by side.
"""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from modularity.errors import ModularityError
from modularity.models import uses_gpu
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import probe_flops
from modularity.pipelines.pruning_config import PruningConfig
from modularity.pipelines.pruning_prepare import MEASURED, PreparedPruning, prepare_pruning
from modularity.pipelines.pruning_trajectories import COUNTS, create_results, trajectory_tokens
from modularity.pipelines.pruning_worker import PruningWorkerFactory
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.runtime.memory import resident_bytes
from modularity.store import Manifest, Run, check_same_run, create_run
from modularity.types import WorkItem, content_digest

ROW_BYTES = 300
"""About the size of one row of `pruning_steps`, before compression."""


def plan_pruning(config: PruningConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_pruning(config))


def run_pruning(config: PruningConfig, out: str, *, quiet: bool = False) -> Outcome:
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
        Another run lies at `out`.
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
    prepared = attempt(lambda: prepare_pruning(config), errors)
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
    return Plan(
        items={kind: sum(item.kind == kind for item in items) for kind in dict.fromkeys(item.kind for item in items)},
        n_examples=sum(len(c.scoring.texts) + c.n_measured + len(c.prompts) for c in prepared.corpora),
        n_rows=rows,
        n_tokens=scored + measured + written,
        n_truncated=sum(c.scoring.n_truncated + c.validation.n_truncated + c.evaluation.n_truncated
                        for c in prepared.corpora),
        store_bytes=results + rows * ROW_BYTES,
        worker_bytes=libraries + (0 if on_gpu else weights + largest) + results // len(prepared.trajectories),
        seconds=None if on_gpu else flops / (0.5 * probe_flops()),
        device_bytes=weights + largest if on_gpu else 0,
        model_bytes=0 if on_gpu else weights,
        library_bytes=libraries,
        notes=tuple(_notes(prepared)),
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


def _recorded_config(config: PruningConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedPruning) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = {"data": prepared.data_identity()} | (software_identity() if manifest.state != "finished" else {})
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _work(
    prepared: PreparedPruning, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config = prepared.config
    n_threads = executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity = {"data": prepared.data_identity()}
    digest = content_digest([_recorded_config(config), identity])
    worker = PruningWorkerFactory(uri=out, digest=digest, n_threads=n_threads, prepared=prepared)
    found = run_alone(executor, WorkItem.of("identify", model=config.model.name), worker)
    run = create_run(out, _manifest(prepared, plan, found, identity | {"threads": n_threads}))
    steps = [
        Step("importance", [WorkItem.of("importance")], worker, uses_model=True),
        Step("prune", [each.item for each in prepared.trajectories], worker, uses_model=True),
        Step("compare areas", [WorkItem.of("areas")], worker, uses_model=True),
        Step("continue texts", prepared.continuation_items(), worker, uses_model=True),
        Step("compare texts", prepared.last_items(), worker, uses_model=True),
        Step("export", prepared.export_items(), worker, uses_model=True),
    ]
    run_steps(run, executor, steps, allocate=lambda: create_results(run, prepared), quiet=quiet)
    return run


def _manifest(prepared: PreparedPruning, plan: Plan, found: Mapping[str, Any], identity: Mapping[str, Any]) -> Manifest:
    config = prepared.config
    seeds = {"parts and random trajectories": config.seed}
    if config.continuations is not None:
        seeds["continuations"] = config.continuations.seed
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds=seeds,
        items_planned=dict(plan.items),
        notes={
            "device": found["device"],
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
            "plan": list(plan.notes),
        },
    )  # fmt: skip
