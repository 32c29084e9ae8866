"""A study from end to end, whatever it studies: check, plan, identify the model, run its steps.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar

from modularity.errors import ModularityError
from modularity.pipelines.config import Allowance
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.place import attempt, raise_all, recorded_config, run_at, software_identity
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, WorkerFactory, open_executor, sigterm_interrupts
from modularity.store import Manifest, Run, check_same_run, create_run, is_complete
from modularity.types import WorkItem, content_digest


class Prepared(Protocol):
    """What `prepare` returns."""

    @property
    def config(self) -> Any:
        """The config with everything resolved, as it is recorded; it has `job`, `allowance` and `runtime`."""


P = TypeVar("P", bound=Prepared)
W = TypeVar("W", bound=WorkerFactory)


class JobPlan(Protocol):
    """Size of a job, such as a `Plan`."""

    @property
    def items(self) -> Mapping[str, int]:
        """Work items of each kind."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the config does not say."""

    def text(self) -> str:
        """Lines to print."""

    def check(self, allowance: Allowance) -> None:
        """Raise AllowanceError with everything that exceeds the allowance."""


@dataclass(frozen=True)
class Study(Generic[P, W]):
    """The parts of a study; each gets what `prepare` has returned."""

    prepare: Callable[[Any], P]
    """From the config; InputError with everything that is wrong."""
    plan: Callable[[P], JobPlan]
    identity: Callable[[P], Mapping[str, Any]]
    """What the results depend on besides model and config: `data`, `source` of the run that is read."""
    worker: Callable[[str, str, int, P], W]
    """The worker that loads the model and answers the item `identify`; from the URI of the new run, a digest that
    stands for config and data, and the number of threads."""
    steps: Callable[[P, W], Sequence[Step]]
    """Gets that worker as well."""
    seeds: Callable[[P], Mapping[str, int]]
    notes: Callable[[P, Mapping[str, Any]], Mapping[str, Any]]
    """What the manifest tells; gets what the worker said of the model as well."""
    allocate: Callable[[Run, P], None] = lambda run, prepared: None
    """Creates the arrays of the run; repeating it changes nothing."""
    check_start: Callable[[P], None] = lambda prepared: None
    """InputError for what stands against a run that begins, such as a folder that is not empty."""
    packages: Callable[[P], Sequence[str]] = lambda prepared: ()
    """Further packages whose versions are recorded."""


def run_study(study: Study[P, W], config: Any, out: str, *, quiet: bool = False) -> Outcome:
    """Run a study, or what is left of it.

    Parameters
    ----------
    study : what it consists of
    config : its config
    out : folder or object-store URI of the run
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError
        Before any work, with everything that is wrong.
    IdentityError
        Another run lies at `out`, or the model is not that of the run that is read.
    ModelError
        The checkpoint lacks what the study needs, such as an LM head.
    WorkError
        Items failed; the others are recorded.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    errors: list[ModularityError] = []
    prepared = attempt(lambda: study.prepare(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if prepared is not None and recorded is not None:
        attempt(lambda: _check_recorded(recorded, prepared.config, study.identity(prepared)), errors)
    elif prepared is not None:
        attempt(lambda: study.check_start(prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and is_complete(recorded):
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = study.plan(prepared)
    say(plan.text())
    plan.check(config.allowance)
    with sigterm_interrupts(), open_executor(config.runtime) as executor:
        n_threads = executor.n_threads
        if recorded is not None and config.runtime.cpus_per_worker is None:
            n_threads = int(recorded.manifest.identity["threads"])
        run = _work(study, prepared, plan, executor, out, n_threads=n_threads, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def _check_recorded(recorded: Run, config: Any, identity: Mapping[str, Any]) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = {**identity, **(software_identity() if manifest.state != "finished" else {})}
    wanted = manifest.replace(job=config.job, config=recorded_config(config), identity={**manifest.identity, **known})
    check_same_run(manifest, wanted, recorded.uri)


def _work(
    study: Study[P, W],
    prepared: P,
    plan: JobPlan,
    executor: Executor,
    out: str,
    *,
    n_threads: int,
    quiet: bool,
) -> Run:
    config, identity = prepared.config, study.identity(prepared)
    worker = study.worker(out, content_digest([recorded_config(config), identity]), n_threads, prepared)
    found = run_alone(executor, WorkItem.of("identify", job=config.job), worker)
    manifest = Manifest.of(
        config.job,
        config=recorded_config(config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity, "threads": n_threads},
        versions={"python": platform.python_version()}
        | {package: version(package) for package in (*PACKAGES, *study.packages(prepared))},
        seeds=dict(study.seeds(prepared)),
        items_planned=dict(plan.items),
        notes={"device": found.get("device", "cpu"), **study.notes(prepared, found), "plan": list(plan.notes)},
    )
    run = create_run(out, manifest)
    steps = study.steps(prepared, worker)
    run_steps(run, executor, steps, allocate=lambda: study.allocate(run, prepared), quiet=quiet)
    return run
