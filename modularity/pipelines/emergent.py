"""The Emergent Modularity job from end to end: plan, capture, partition, rank, bring together.

Each step is a list of work items for one kind of worker. An item that is recorded is not run again, so the same call
starts a run, resumes an interrupted one, and leaves a finished one as it is.
"""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from modularity.errors import StoreError
from modularity.pipelines.analysis_worker import AnalysisWorkerFactory
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.examples import record_functions, row_coordinates
from modularity.pipelines.layout import create_partition, create_predictivity, listed_neurons
from modularity.pipelines.model_worker import ModelWorkerFactory
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import PreparedJob, make_plan, prepare
from modularity.runtime import Executor, Progress, WorkerFactory, open_executor, sigterm_interrupts
from modularity.runtime.executor import unfinished
from modularity.store import Manifest, Run, create_run, open_run
from modularity.types import WorkItem, content_digest

PACKAGES = (
    "modularity",
    "torch",
    "transformers",
    "ray",
    "zarr",
    "zstandard",
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "pyarrow",
)
IDENTIFYING_PACKAGES = ("modularity", "torch", "transformers")
RESULTS_REVISION = 2
"""Raised when the same config gives other numbers than before, so that no run mixes the two."""
NOT_IDENTIFYING = ("runtime", "allowance")
"""Parts of the config that may change between two starts of one run."""


def plan_job(config: EmergentModularityConfig) -> Plan:
    """Size of a job; reads data, tokenizer and model config, but no weights."""
    return make_plan(prepare(config))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `run_job` did."""

    run: Run
    was_finished: bool
    """The run had been finished before, and nothing was done."""


def run_job(config: EmergentModularityConfig, out: str, *, quiet: bool = False) -> Outcome:
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

    job = prepare(config)
    finished = _finished_run(job, out)
    if finished is not None:
        say(
            f"{finished.uri} is finished and was made with the same config and data: nothing to do "
            "(`modularity verify` compares the model's weights)"
        )
        return Outcome(finished, was_finished=True)
    plan = make_plan(job)
    say(plan.text())
    plan.check(config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(job, plan, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def _work(job: PreparedJob, plan: Plan, executor: Executor, out: str, *, quiet: bool) -> Run:
    config = job.config
    n_threads = _n_threads(config, executor, out)
    model_worker = ModelWorkerFactory(
        uri=out,
        model=config.model,
        capture=config.capture,
        sites=tuple(job.shapes),
        experts=config.experts,
        data_digest=content_digest(job.data_identity()),
        rows_per_shard=tuple(job.rows_per_shard.items()),
        n_threads=n_threads,
        tables=job.tables,
    )
    found = _identify(executor, model_worker)
    run = create_run(out, _manifest(job, plan, found, n_threads))
    try:
        _allocate(run, job)
        analysis_worker = AnalysisWorkerFactory(
            uri=out,
            variant=config.variant,
            predictivity=config.predictivity,
            experts=config.experts,
            overlap=config.overlap,
            n_threads=n_threads,
        )
        steps: list[tuple[str, Sequence[WorkItem], WorkerFactory, bool]] = [
            ("capture", job.capture_items(), model_worker, True),
            ("partition", job.partition_items(), model_worker, True),
            ("predictivity", job.predictivity_items(), analysis_worker, False),
            ("bring together", job.summary_items(), analysis_worker, False),
        ]
        run.update(state="running")
        for label, items, factory, uses_model in steps:
            _run_step(run, executor, label, items, factory, uses_model=uses_model, quiet=quiet)
    except KeyboardInterrupt:
        run.update(state="interrupted", notes={"failure": None})
        raise
    except BaseException as error:
        run.update(state="failed", notes={"failure": f"{type(error).__name__}: {error}"[:2000]})
        raise
    run.update(state="finished", notes={"failure": None})
    return run


def _run_step(
    run: Run,
    executor: Executor,
    label: str,
    items: Sequence[WorkItem],
    factory: WorkerFactory,
    *,
    uses_model: bool,
    quiet: bool,
) -> None:
    done = run.committed_ids()
    waiting = unfinished(items, lambda item: item.id in done)
    if not items:
        return
    with Progress(label, len(items), n_done=len(items) - len(waiting), quiet=quiet) as progress:
        executor.run(waiting, factory, on_done=progress.done, uses_model=uses_model)


def _identify(executor: Executor, factory: ModelWorkerFactory) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    item = WorkItem.of("identify", model=factory.model.name)
    executor.run([item], factory, on_done=lambda _, info: found.update(info), uses_model=True)
    return found


def _n_threads(config: EmergentModularityConfig, executor: Executor, out: str) -> int:
    """Compute threads of a worker: those that the config asks for, else those that the run at `out` began with."""
    try:
        recorded = open_run(out).manifest.identity.get("threads")
    except StoreError:
        recorded = None
    return executor.n_threads if recorded is None or config.runtime.cpus_per_worker is not None else int(recorded)


def _manifest(job: PreparedJob, plan: Plan, found: Mapping[str, Any], n_threads: int) -> Manifest:
    config = job.config
    recorded = {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}
    seeds = {
        "model": config.model.seed,
        "predictivity": config.predictivity.seed,
        "experts": config.experts.seed,
        "overlap": config.overlap.seed,
    }
    seeds |= {f"function {function.name}": function.seed for function in config.functions}
    return Manifest.of(
        config.job,
        config=recorded,
        identity={
            "model": dict(found["identity"]),
            "data": job.data_identity(),
            "software": {package: version(package) for package in IDENTIFYING_PACKAGES},
            "results_revision": RESULTS_REVISION,
            "threads": n_threads,
        },
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds=seeds,
        items_planned=dict(plan.items),
        notes={
            "matmul": found["matmul"],
            "device": found["device"],
            "truncated": {name: table.n_truncated for name, table in job.tables.items()},
            "tokens": {name: table.n_tokens for name, table in job.tables.items()},
            "data": [note for function in job.functions for note in function.notes],
            "analysed": None if job.analysed is None else str(job.analysed.site),
        },
    )


def _finished_run(job: PreparedJob, out: str) -> Run | None:
    """The run at `out` if it is finished and of this config and data; weights are compared by `verify`, not here."""
    try:
        run = open_run(out)
    except StoreError:
        return None
    recorded = {key: value for key, value in job.config.as_json().items() if key not in NOT_IDENTIFYING}
    same = run.manifest.config == recorded and run.manifest.identity.get("data") == job.data_identity()
    return run if same and run.manifest.state == "finished" else None


def _allocate(run: Run, job: PreparedJob) -> None:
    """Create every array and record the texts; repeating it changes nothing."""
    config = job.config
    for function in job.functions:
        table = job.tables[function.name]
        run.create_activations(
            function.name,
            job.shapes,
            row_coordinates(function, table),
            storage_dtype=config.capture.dtype,
            rows_per_item=job.rows_per_shard[function.name],
        )
    record_functions(run, job)
    shape = job.analysed
    if shape is None or not config.analyses:
        return
    n_listed = listed_neurons(shape, config.experts) if "experts" in config.analyses else 0
    for function in job.functions:
        create_predictivity(run, function, shape, config.predictivity, n_listed=n_listed)
    if "experts" in config.analyses:
        create_partition(run, shape, config.experts)
