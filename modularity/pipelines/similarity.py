"""The similarity job from end to end: check, plan, capture, Gram matrices, tests.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is.
"""

import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from modularity.errors import ModularityError
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.examples import row_coordinates
from modularity.pipelines.layout import create_partition
from modularity.pipelines.model_worker import ModelWorkerFactory
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_layout import allocate
from modularity.pipelines.similarity_prepare import PreparedSimilarity, make_plan, prepare_similarity
from modularity.pipelines.similarity_worker import SimilarityWorkerFactory
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.store import Manifest, Run, check_same_run, create_run
from modularity.types import WorkItem, content_digest


def plan_similarity(config: SimilarityConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_similarity(config))


def run_similarity(config: SimilarityConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it.

    Parameters
    ----------
    config : the job
    out : folder or object-store URI of the run
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError
        Before any work, with everything that is wrong.
    IdentityError
        Another run lies at `out`.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    errors: list[ModularityError] = []
    prepared = attempt(lambda: prepare_similarity(config), errors)
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


def _recorded_config(config: SimilarityConfig) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: PreparedSimilarity) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known: dict[str, Any] = {"data": prepared.data_identity()}
    known |= software_identity() if manifest.state != "finished" else {}
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _work(
    prepared: PreparedSimilarity, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config = prepared.config
    n_threads = executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    model_worker = ModelWorkerFactory(
        uri=out,
        model=config.model,
        capture=prepared.capture,
        sites=tuple(prepared.shapes),
        experts=prepared.experts,
        data_digest=content_digest(prepared.data_identity()),
        rows_per_shard=tuple((name, prepared.rows_per_shard) for name in prepared.data),
        n_threads=n_threads,
        tables={name: each.table for name, each in prepared.data.items()},
    )
    found = run_alone(executor, WorkItem.of("identify", model=config.model.name), model_worker)
    run = create_run(out, _manifest(prepared, plan, found, n_threads))
    worker = SimilarityWorkerFactory(
        uri=out, config=config, n_threads=n_threads, shapes=prepared.shapes, vectors=prepared.vectors
    )
    steps = [
        Step("capture", prepared.capture_items(), model_worker, uses_model=True),
        Step("partition", prepared.partition_items(), model_worker, uses_model=True),
        Step("Gram matrices", prepared.gram_items(), worker),
        Step("compare", prepared.test_items(), worker),
    ]
    run_steps(run, executor, steps, allocate=lambda: _allocate(run, prepared), quiet=quiet)
    return run


def _allocate(run: Run, prepared: PreparedSimilarity) -> None:
    """Create every array; repeating it changes nothing."""
    for name, each in prepared.data.items():
        run.create_activations(
            name,
            prepared.shapes,
            row_coordinates(each.function, each.table),
            storage_dtype=prepared.config.dtype,
            rows_per_item=prepared.rows_per_shard,
        )
    if prepared.partitioned is not None:
        create_partition(run, prepared.partitioned, prepared.experts)
    allocate(run, prepared)


def _manifest(prepared: PreparedSimilarity, plan: Plan, found: Mapping[str, Any], n_threads: int) -> Manifest:
    config, texts = prepared.config, prepared.texts
    return Manifest.of(
        config.job,
        config=_recorded_config(config),
        identity={
            "model": dict(found["identity"]),
            "data": prepared.data_identity(),
            **software_identity(),
            "threads": n_threads,
        },
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds={
            "model": config.model.seed,
            "scores": config.scores.seed,
            "experts": prepared.experts.seed,
            "projection": config.projection.seed,
        },
        items_planned=dict(plan.items),
        notes={
            "matmul": found["matmul"],
            "device": found["device"],
            "categories": {name: int((texts.category_E == index).sum()) for index, name in enumerate(texts.categories)},
            "positions": list(config.texts.position_list()),
            "sites": [str(shape.site) for shape in prepared.compared],
            "tokens": {name: each.table.n_tokens for name, each in prepared.data.items()},
            "truncated": {name: each.table.n_truncated for name, each in prepared.data.items()},
            "experts": prepared.experts.methods[0] if prepared.partitioned is not None else None,
            "plan": list(plan.notes),
        },
    )
