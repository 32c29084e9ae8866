"""The Emergent Modularity job from end to end: plan, capture, partition, rank, bring together.

Each step is a list of work items for one kind of worker. An item that is recorded is not run again, so the same call
starts a run, resumes an interrupted one, and leaves a finished one as it is.
"""

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from modularity.errors import IdentityError, ModularityError
from modularity.models import check_weights
from modularity.pipelines.analysis_worker import AnalysisWorkerFactory
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.examples import record_functions, row_coordinates
from modularity.pipelines.layout import create_partition, create_predictivity, listed_neurons
from modularity.pipelines.model_worker import ModelWorkerFactory
from modularity.pipelines.place import attempt, check_recorded, raise_all, recorded_config, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import PreparedJob, count_items, make_plan, prepare
from modularity.pipelines.random_control import control_config, control_uri, is_control_complete, with_control
from modularity.pipelines.reduction_layout import create_reductions, label_vectors
from modularity.pipelines.reduction_step import ReductionWorkerFactory
from modularity.pipelines.reuse import check_source, check_source_identity, reusable, reuse_text, source_run
from modularity.pipelines.shared_partition import partition_digest, partition_source, take_partition
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, open_executor, sigterm_interrupts
from modularity.store import Manifest, Run, create_run, reusable_items, take_items
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


def plan_job(config: EmergentModularityConfig, *, reuse: str | None = None) -> Plan:
    """Size of a job; reads data, tokenizer and model config, but no weights.

    Parameters
    ----------
    config : the job
    reuse : URI of a run whose activations are taken over, see `run_job`
    """
    start = _start(config, None, reuse)
    return _plan(start)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `run_job` did."""

    run: Run
    was_finished: bool
    """The run had been finished before, and nothing was done."""


@dataclass(frozen=True, eq=False)
class _Start:
    """What is known before the model is loaded."""

    job: PreparedJob
    recorded: Run | None
    """The run at --out, to be resumed."""
    is_finished: bool
    source: Run | None
    """The run whose items are taken over."""
    partition: Run | None = None
    """The run whose partition of the neurons is taken over."""


def _start(
    config: EmergentModularityConfig, out: str | None, reuse: str | None, *, needs_weights: bool = False
) -> _Start:
    """Check config, data, the place of the run, and the run to reuse; everything that is wrong is told at once.

    A plan needs no weights, and a scan reports the checkpoints that have none; a single run looks for them first.
    """
    errors: list[ModularityError] = []
    job = attempt(lambda: prepare(config), errors)
    data = None if job is None else job.data_identity()
    recorded = None if out is None else attempt(lambda: run_at(out), errors)
    is_finished = (
        recorded is not None
        and bool(attempt(lambda: _check_place(recorded, config, data), errors))
        and is_control_complete(config, recorded)
    )
    if needs_weights and not is_finished:
        attempt(lambda: check_weights(config.model), errors)
    source = None
    if reuse is not None and not is_finished:
        source = attempt(lambda: source_run(reuse, out), errors)
        if source is not None:
            attempt(lambda: check_source(source, config, data), errors)
    partition = None
    if job is not None and not is_finished:
        partition = attempt(lambda: partition_source(job, out), errors)
    raise_all(errors)
    assert job is not None
    return _Start(job, recorded, is_finished, source, partition)


def _check_place(recorded: Run, config: EmergentModularityConfig, data: dict[str, str] | None) -> bool:
    try:
        return check_recorded(recorded, config, data)
    except IdentityError as error:
        try:
            check_source(recorded, config, data)
        except IdentityError:
            raise error from None
        raise IdentityError(
            f"{error}; only analyses differ: another --out with --reuse {recorded.uri} takes its activations over"
        ) from None


def _plan(start: _Start) -> Plan:
    job, source = start.job, start.source
    if source is None:
        plan = make_plan(job)
    else:
        items = reusable(job, source)
        plan = make_plan(job, reused=items, reuse=reuse_text(items, source))
    if not job.config.controls.random_weights:
        return plan
    return with_control(plan, make_plan(replace(job, config=control_config(job.config))))


def run_job(config: EmergentModularityConfig, out: str, *, reuse: str | None = None, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it.

    Parameters
    ----------
    config : the job
    out : folder or object-store URI of the run
    reuse : URI of another run; items that are the same there, activations first of all, are taken over from it
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError
        Before any work, with everything that is wrong.
    IdentityError
        Another run lies at `out`, or the run to reuse holds other activations.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    start = _start(config, out, reuse, needs_weights=True)
    if start.recorded is not None and start.is_finished:
        say(
            f"{start.recorded.uri} is finished and was made with the same config and data: nothing to do "
            "(`modularity verify` compares the model's weights)"
        )
        return Outcome(start.recorded, was_finished=True)
    plan = _plan(start)
    say(plan.text())
    plan.check(config.allowance)
    with sigterm_interrupts(), open_executor(config.runtime) as executor:
        run = _work(start, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def run_with(
    config: EmergentModularityConfig,
    out: str,
    executor: Executor,
    *,
    only_partition: bool = False,
    label: str | None = None,
) -> Outcome:
    """`run_job` for a caller that has an executor and a plan of its own: without limits and messages.

    With `only_partition` the run stops when its neurons are partitioned; the next call goes on. Progress is shown
    only with a `label`, which stands before the name of each step.
    """
    start = _start(config, out, None)
    if start.recorded is not None and start.is_finished:
        return Outcome(start.recorded, was_finished=True)
    only = ("partition",) if only_partition else None
    run = _work(start, executor, out, quiet=label is None, only=only, label=label or "")
    return Outcome(run, was_finished=False)


def _work(
    start: _Start, executor: Executor, out: str, *, quiet: bool, only: tuple[str, ...] | None = None, label: str = ""
) -> Run:
    job, config = start.job, start.job.config
    n_threads = _n_threads(start, executor)
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
        reductions=config.reductions,
        label_vectors={function.name: label_vectors(function) for function in job.functions},
        corpora={corpus.name: corpus for corpus in job.corpora},
    )
    found = run_alone(executor, WorkItem.of("identify", model=config.model.name), model_worker)
    manifest = _manifest(start, found, n_threads)
    if start.source is not None:
        check_source_identity(start.source, manifest)
    run = create_run(out, manifest)
    analysis_worker = AnalysisWorkerFactory(
        uri=out,
        variant=config.variant,
        predictivity=config.predictivity,
        experts=config.experts,
        overlap=config.overlap,
        n_threads=n_threads,
    )

    def run_control() -> None:
        if config.controls.random_weights:
            shown = None if quiet else "random weights: "
            run_with(control_config(config), control_uri(run.uri), executor, label=shown)

    steps = [
        Step("capture", job.capture_items(), model_worker, uses_model=True),
        Step("reduce", job.reductions.reduce_items, model_worker, uses_model=True),
        Step("partition", job.partition_items(), model_worker, uses_model=True),
        Step("predictivity", job.predictivity_items(), analysis_worker),
        *_reduction_steps(out, job, n_threads),
        Step("partition by activity", job.activity_items(), analysis_worker),
        Step("bring together", job.summary_items(), analysis_worker, before=run_control),
    ]
    if only is not None:
        steps = [step for step in steps if step.label in only]
    steps = [replace(step, label=label + step.label) for step in steps]
    run_steps(run, executor, steps, allocate=lambda: _allocate_and_take(run, start), quiet=quiet, finishes=only is None)
    return run


def _allocate_and_take(run: Run, start: _Start) -> None:
    """Create the arrays, and take over what other runs have."""
    _allocate(run, start.job)
    _reuse(run, start)
    if start.partition is not None:
        take_partition(run, start.partition, start.job.partition_items())


def _reduction_steps(out: str, job: PreparedJob, n_threads: int) -> list[Step]:
    """Merging of the parts, then what needs all layers."""
    config, shape = job.config, job.analysed
    if shape is None or not config.reductions.kinds:
        return []
    worker = ReductionWorkerFactory(
        uri=out,
        model=config.model,
        config=config.reductions,
        variant=config.variant,
        store_text=config.store_text,
        reads_text=shape.site.stack == job.description.stacks[0],
        n_threads=n_threads,
        data_digest=content_digest(job.data_identity()),
        tables=job.tables,
        example_ids={function.name: [example.id for example in function.examples] for function in job.functions},
        corpora={corpus.name: corpus for corpus in job.corpora},
    )
    items = job.reductions.merge_items
    kinds = {
        "merge": "merge reductions",
        "label_effects": "effects of labels",
        "contexts": "contexts of top examples",
    }
    return [Step(label, [item for item in items if item.kind == kind], worker) for kind, label in kinds.items()]


def _n_threads(start: _Start, executor: Executor) -> int:
    """Compute threads of a worker: those that the config asks for, else those that the run to continue began with."""
    before = start.recorded or start.source
    recorded = None if before is None else before.manifest.identity.get("threads")
    asked = start.job.config.runtime.cpus_per_worker
    return executor.n_threads if recorded is None or asked is not None else int(recorded)


def _reuse(run: Run, start: _Start) -> None:
    """Take over what the source has; the run is then as if it had computed these items itself."""
    if start.source is None:
        return
    done = run.committed_ids()
    items = [item for item in reusable(start.job, start.source) if item.id not in done]
    take_items(run, start.source, reusable_items(run, start.source, items))


def _manifest(start: _Start, found: Mapping[str, Any], n_threads: int) -> Manifest:
    job, config, source = start.job, start.job.config, start.source
    seeds = {
        "model": config.model.seed,
        "predictivity": config.predictivity.seed,
        "experts": config.experts.seed,
        "overlap": config.overlap.seed,
    }
    seeds |= {f"function {function.name}": function.seed for function in config.functions}
    return Manifest.of(
        config.job,
        config=recorded_config(config),
        identity={
            "model": dict(found["identity"]),
            "data": job.data_identity(),
            **software_identity(),
            "threads": n_threads,
            **({} if start.partition is None else {"partition": partition_digest(start.partition)}),
        },
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds=seeds,
        items_planned=count_items(job),
        notes={
            "matmul": found["matmul"] if source is None else source.manifest.notes.get("matmul"),
            "reused": None if source is None else source.uri,
            "device": found["device"],
            "truncated": {name: table.n_truncated for name, table in job.tables.items()},
            "tokens": {name: table.n_tokens for name, table in job.tables.items()},
            "data": list(job.data_notes()),
            "analysed": None if job.analysed is None else str(job.analysed.site),
        },
    )


def _allocate(run: Run, job: PreparedJob) -> None:
    """Create every array and record the texts; repeating it changes nothing."""
    config = job.config
    for function in job.functions if config.reductions.store_rows else ():
        table = job.tables[function.name]
        run.create_activations(
            function.name,
            job.shapes,
            row_coordinates(function, table),
            storage_dtype=config.capture.dtype,
            rows_per_item=job.rows_per_shard[function.name],
        )
    record_functions(run, job)
    subfunctions = {function.name: function.subfunctions for function in job.functions}
    for name, sizes in job.reductions.sizes.items():
        create_reductions(run, name, subfunctions.get(name, ()), sizes)
    shape = job.analysed
    if shape is None or not config.analyses:
        return
    overlap = config.overlap if "overlap" in config.analyses else None
    n_listed = listed_neurons(shape, config.experts, overlap) if "experts" in config.analyses else 0
    for function in job.functions:
        create_predictivity(run, function, shape, config.predictivity, n_listed=n_listed)
    if "experts" in config.analyses:
        create_partition(run, shape, config.experts)
