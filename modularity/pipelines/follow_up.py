"""A job that starts from a finished run, from end to end: check, plan, identify the model, run its steps.

It only reads the finished run, and writes a run of its own. A recorded item is not run again, so the same call starts
a run, resumes an interrupted one, and leaves a finished one as it is.
"""

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar

from modularity.errors import ModularityError
from modularity.pipelines.emergent import PACKAGES, Outcome
from modularity.pipelines.place import NOT_IDENTIFYING, attempt, raise_all, run_at, software_identity
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.restrictions import Restriction
from modularity.pipelines.steps import Step, run_alone, run_steps
from modularity.runtime import Executor, WorkerFactory, open_executor, sigterm_interrupts
from modularity.store import Manifest, Run, check_same_run, create_run
from modularity.types import Site, WorkItem, content_digest


class Prepared(Protocol):
    """What is known of a job before its first work item runs."""

    @property
    def config(self) -> Any:
        """The config, with `job`, `source`, `allowance` and `runtime`."""

    @property
    def source(self) -> Run:
        """The finished run."""

    @property
    def job(self) -> PreparedJob:
        """The job of that run."""

    @property
    def site(self) -> Site:
        """The neurons that the run ranked."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers in which the model is changed."""

    @property
    def restrictions(self) -> tuple[Restriction, ...]:
        """Experts that routing is restricted to."""

    def data_identity(self) -> dict[str, str]:
        """What the results depend on besides model, config and the finished run."""


P = TypeVar("P", bound=Prepared)


@dataclass(frozen=True)
class FollowUp(Generic[P]):
    """The parts of such a job; each gets what `prepare` has returned."""

    prepare: Callable[[Any], P]
    """From the config; InputError with everything that is wrong."""
    plan: Callable[[P], Plan]
    worker: Callable[[str, str, int, P], WorkerFactory]
    """From the URI of the new run, a digest that stands for config and data, and the number of threads."""
    steps: Callable[[P, WorkerFactory], Sequence[Step]]
    seeds: Callable[[P], Mapping[str, int]]
    notes: Callable[[P], Mapping[str, Any]]
    """What the manifest tells beside what all such jobs do."""
    allocate: Callable[[Run, P], None] = lambda run, prepared: None
    """Creates the arrays of the run; repeating it changes nothing."""


def run_follow_up(job: FollowUp[P], config: Any, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it.

    Parameters
    ----------
    job : what it consists of
    config : its config
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
    prepared = attempt(lambda: job.prepare(config), errors)
    recorded = attempt(lambda: run_at(out), errors)
    if recorded is not None and prepared is not None:
        attempt(lambda: _check_recorded(recorded, prepared), errors)
    raise_all(errors)
    assert prepared is not None
    if recorded is not None and recorded.manifest.state == "finished":
        say(f"{recorded.uri} is finished and was made with the same config and data: nothing to do")
        return Outcome(recorded, was_finished=True)
    plan = job.plan(prepared)
    say(plan.text())
    plan.check(config.allowance)
    with open_executor(config.runtime) as executor, sigterm_interrupts():
        run = _work(job, prepared, plan, recorded, executor, out, quiet=quiet)
    say(f"run: {run.uri}")
    return Outcome(run, was_finished=False)


def _recorded_config(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.as_json().items() if key not in NOT_IDENTIFYING}


def _check_recorded(recorded: Run, prepared: Prepared) -> None:
    """Refuse another job at --out; software counts as long as the run is not finished."""
    manifest = recorded.manifest
    known = _data_identity(prepared) | (software_identity() if manifest.state != "finished" else {})
    wanted = manifest.replace(
        job=prepared.config.job, config=_recorded_config(prepared.config), identity={**manifest.identity, **known}
    )
    check_same_run(manifest, wanted, recorded.uri)


def _data_identity(prepared: Prepared) -> dict[str, Any]:
    source = prepared.source
    return {
        "data": prepared.data_identity(),
        "source": {"config_digest": source.manifest.config_digest, "content_hash": source.content_hash()},
    }


def _work(
    job: FollowUp[P], prepared: P, plan: Plan, recorded: Run | None, executor: Executor, out: str, *, quiet: bool
) -> Run:
    config, n_threads = prepared.config, executor.n_threads
    if recorded is not None and config.runtime.cpus_per_worker is None:
        n_threads = int(recorded.manifest.identity["threads"])
    identity = _data_identity(prepared)
    digest = content_digest([_recorded_config(config), identity])
    worker = job.worker(out, digest, n_threads, prepared)
    found = run_alone(executor, WorkItem.of("identify", source=config.source), worker)
    run = create_run(out, _manifest(job, prepared, plan, found, identity | {"threads": n_threads}))
    steps = job.steps(prepared, worker)
    run_steps(run, executor, steps, allocate=lambda: job.allocate(run, prepared), quiet=quiet)
    return run


def _manifest(
    job: FollowUp[P], prepared: P, plan: Plan, found: Mapping[str, Any], identity: Mapping[str, Any]
) -> Manifest:
    shape = prepared.job.description.shapes[prepared.site]
    return Manifest.of(
        prepared.config.job,
        config=_recorded_config(prepared.config),
        identity={"model": dict(found["identity"]), **software_identity(), **identity},
        versions={"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        seeds=job.seeds(prepared),
        items_planned=dict(plan.items),
        notes={
            "device": found["device"],
            "head": found["head"],
            "matmul": prepared.source.manifest.notes.get("matmul"),
            "analysed": str(prepared.site),
            "layers": list(prepared.layers),
            "n_neurons": [shape.widths[shape.layers.index(layer)] for layer in prepared.layers],
            "restrictions": [
                {"task": each.task, "experts": {str(layer): list(chosen) for layer, chosen in each.experts},
                 "left_out": list(each.left_out)}
                for each in prepared.restrictions
            ],
            "plan": list(plan.notes),
            **job.notes(prepared),
        },
    )  # fmt: skip
