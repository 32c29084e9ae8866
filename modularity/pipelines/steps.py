"""Steps of a job: lists of work items, each for one kind of worker, run one after the other."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from modularity.errors import StoreError
from modularity.runtime import Executor, Progress, WorkerFactory
from modularity.runtime.executor import say, unfinished
from modularity.runtime.metrics import labelled
from modularity.store import Run, RunState
from modularity.types import WorkItem

SMALLER_BATCH = "tokens_per_batch"
"""Name in an item's info: the batch that fitted memory, where that of the config did not."""
NOTE = "smaller_batches"


@dataclass(frozen=True)
class Step:
    """Work items that do not depend on each other."""

    label: str
    """Name in the progress display."""
    items: Sequence[WorkItem]
    factory: WorkerFactory
    uses_model: bool = False
    before: Callable[[], None] | None = None
    """Called first, such as to run another job that the items read; must do nothing where it is done."""


def run_alone(executor: Executor, item: WorkItem, factory: WorkerFactory) -> Mapping[str, Any]:
    """What the model's worker tells about one item that is not recorded."""
    found: dict[str, Any] = {}
    executor.run([item], factory, on_done=lambda _, info: found.update(info), uses_model=True)
    return found


def run_steps(
    run: Run,
    executor: Executor,
    steps: Sequence[Step],
    *,
    allocate: Callable[[], None],
    quiet: bool = False,
    finishes: bool = True,
) -> None:
    """Run what is left of every step, and note in the manifest how it ends.

    Parameters
    ----------
    run : where items are recorded; its state becomes finished, failed or interrupted
    executor : runs the items
    steps : in order; items that are recorded are left out
    allocate : creates the arrays of the run; called once, before the first step
    quiet : no progress
    finishes : False where these are not all steps of the run, which then stays `running`

    Raises
    ------
    WorkError
        Items of a step failed; the following steps were not run.
    KeyboardInterrupt
        Ctrl-C or SIGTERM.
    """
    try:
        allocate()
        run.update(state="running")
        for step in steps:
            _run_step(run, executor, step, quiet=quiet)
    except KeyboardInterrupt:
        _note(run, "interrupted", None)
        raise
    except BaseException as error:
        _note(run, "failed", f"{type(error).__name__}: {error}"[:2000])
        raise
    if finishes:
        run.update(state="finished", notes={"failure": None})


def _note(run: Run, state: RunState, failure: str | None) -> None:
    """Record how a run ended; where that cannot be written, as on a full disk, the cause of the end is what is told."""
    with suppress(StoreError):
        run.update(state=state, notes={"failure": failure})


def _run_step(run: Run, executor: Executor, step: Step, *, quiet: bool) -> None:
    if step.before is not None:
        step.before()
    done = run.committed_ids()
    waiting = unfinished(step.items, lambda item: item.id in done)
    if not step.items:
        return
    smaller: dict[str, int] = {}
    n_done = len(step.items) - len(waiting)
    with (
        Progress(step.label, len(step.items), n_done=n_done, quiet=quiet) as progress,
        labelled(run=run.manifest.config_digest, step=step.label.rpartition(": ")[2]),
    ):

        def on_done(item: WorkItem, info: Mapping[str, Any]) -> None:
            if SMALLER_BATCH in info:
                smaller[str(item)] = info[SMALLER_BATCH]
                say(f"{item} was computed in batches of {info[SMALLER_BATCH]} tokens: memory did not suffice for more")
            progress.done(item, info)

        try:
            executor.run(waiting, step.factory, on_done=on_done, uses_model=step.uses_model)
        finally:
            _note_smaller(run, smaller)


def _note_smaller(run: Run, smaller: Mapping[str, int]) -> None:
    """Record which items were computed in smaller batches; their own records say it, too."""
    if smaller:
        with suppress(StoreError):
            run.update(notes={NOTE: {**run.manifest.notes.get(NOTE, {}), **smaller}})
