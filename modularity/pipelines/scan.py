"""A checkpoint scan from end to end: find the checkpoints, partition one of them, run the study of each, compare.

Every checkpoint is a run of its own, with the same content as a job for it alone. They run side by side, one worker for
each; what is finished is not run again, so that the same call resumes a scan, and one with more revisions extends it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from modularity.errors import InputError, ModularityError, StoreError, WorkError
from modularity.models import choose_matmul_mode, describe_model, uses_gpu
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.place import attempt, raise_all
from modularity.pipelines.plan import Plan
from modularity.pipelines.prepare import PreparedJob, make_plan, prepare
from modularity.pipelines.revisions import Checkpoint, Selection, find_checkpoints
from modularity.pipelines.scan_config import ScanConfig
from modularity.pipelines.scan_place import merged, recorded_scan, require_one_shape, still_finished
from modularity.pipelines.scan_summary import summarise_scan
from modularity.pipelines.scan_worker import CheckpointWorkerFactory
from modularity.runtime import Executor, Progress, RuntimeConfig, open_executor, sigterm_interrupts
from modularity.runtime.executor import available_cpus
from modularity.runtime.progress import format_bytes, format_duration
from modularity.store import ScannedCheckpoint, ScanRecord, open_space, write_scan
from modularity.types import WorkItem

Say = Callable[[str], None]


@dataclass(frozen=True)
class ScanPlan:
    """Size of a scan: that of one checkpoint, times their number."""

    selection: Selection
    each: Plan
    """Plan of one checkpoint."""
    n_new: int
    """Checkpoints that are not finished yet."""
    n_parallel: int
    """Checkpoints side by side; the fewest where `is_open`."""
    is_open: bool = False
    """More run side by side where workers fit: the config names no number."""

    @property
    def whole(self) -> Plan:
        """Bytes and time of all that is left to do, for the allowance."""
        rounds = -(-self.n_new // self.n_parallel)
        seconds = None if self.each.seconds is None else rounds * self.each.seconds
        loads = None if self.each.loads is None else self.each.loads.times(self.n_new)
        return replace(self.each, store_bytes=self.n_new * self.each.store_bytes, seconds=seconds, loads=loads)

    def text(self) -> str:
        """The plan as lines of text."""
        checkpoints, whole = self.selection.checkpoints, self.whole
        names = ", ".join(checkpoint.name for checkpoint in checkpoints)
        time = (
            "not estimated"
            if whole.seconds is None
            else f"about {format_duration(whole.seconds)} {whole.time_of()}, without downloads"
        )
        more = ", more where workers fit" if self.is_open else ""
        lines = [
            "Plan of the scan",
            f"  checkpoints {len(checkpoints)}: {names}",
            f"  to be run   {self.n_new}, {self.n_parallel} at a time{more}",
            f"  store       {format_bytes(whole.store_bytes)} before compression",
            f"  time        {time}",
            *(f"  note: {note}" for note in self.selection.notes),
        ]
        return "\n".join([*lines, f"{self.each.text().replace('Plan', 'Plan of one checkpoint', 1)}"])


@dataclass(frozen=True, eq=False)
class _Start:
    """What is known before any checkpoint is loaded."""

    config: ScanConfig
    selection: Selection
    record: ScanRecord
    job: PreparedJob

    @property
    def waiting(self) -> tuple[ScannedCheckpoint, ...]:
        return tuple(checkpoint for checkpoint in self.record.checkpoints if checkpoint.state != "finished")


def plan_scan(config: ScanConfig, out: str | None = None) -> ScanPlan:
    """Size of a scan; reads revisions, data, tokenizer and model config, but no weights, and writes nothing."""
    return _plan(_start(config, out))


def run_scan(config: ScanConfig, out: str, *, quiet: bool = False) -> ScanRecord:
    """Run a scan, or what is left of it, and compare its checkpoints.

    Parameters
    ----------
    config : the study and its checkpoints
    out : folder or object-store URI of the scan
    quiet : no progress and no messages

    Raises
    ------
    InputError, AllowanceError, IdentityError
        Before any work, with everything that is wrong.
    WorkError
        Checkpoints failed; the message has a table of them, the others are done and compared.
    KeyboardInterrupt
        Ctrl-C or SIGTERM; finished items are recorded, and the same call goes on.
    """

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    start = _start(config, out)
    if start.waiting:
        plan = _plan(start)
        say(plan.text())
        plan.whole.check(config.allowance)
    with sigterm_interrupts(), open_executor(_runtime(config)) as executor, _states(out, start) as states:
        record = _run_checkpoints(start, states, executor, out, say, quiet=quiet)
        states.write(summarise_scan(config, record, out, executor, quiet=quiet))
    record = states.record  # with the state that it ended in
    for names in record.equal_parameters:
        say(f"equal parameters: {', '.join(names)} are the same checkpoint under {len(names)} names")
    say(f"scan: {open_space(out).uri}")
    _raise_failed(record)
    return record


def _start(config: ScanConfig, out: str | None) -> _Start:
    errors: list[ModularityError] = []
    recorded = None if out is None else attempt(lambda: recorded_scan(config, out), errors)
    selection = attempt(lambda: find_checkpoints(config.model, config.scan.revisions, config.scan.folders), errors)
    raise_all(errors)
    assert selection is not None
    names = [checkpoint.name for checkpoint in selection.checkpoints]
    record = merged(recorded or ScanRecord(config=config.common()), selection.checkpoints)
    wanted = config.scan.partition_of
    if wanted is not None and wanted not in [checkpoint.name for checkpoint in record.checkpoints]:
        raise InputError(f"scan.partition_of={wanted!r} is not among the checkpoints {', '.join(names)}")
    job = _prepared(config, selection)
    require_one_shape(record, job)
    if out is not None:
        record = still_finished(out, record, job)
    return _Start(config, selection, record, job)


def _prepared(config: ScanConfig, selection: Selection) -> PreparedJob:
    """The job of the last checkpoint that can be read: what is wrong with the data is told before any work."""
    first: ModularityError | None = None
    for checkpoint in reversed(selection.checkpoints):
        job_config = config.of_checkpoint(checkpoint, partition_of=None, matmul=config.model.matmul)
        try:
            return prepare(job_config)
        except ModularityError as error:
            first = first or error
            if _is_readable(job_config):
                raise
    assert first is not None
    raise first


def _is_readable(config: EmergentModularityConfig) -> bool:
    try:
        describe_model(config.model)
    except ModularityError:
        return False
    return True


def _plan(start: _Start) -> ScanPlan:
    n_new = len(start.waiting)
    runtime, named = _runtime(start.config), start.config.scan.parallel or start.config.runtime.workers
    in_process = runtime.executor == "inprocess"
    n_parallel = 1 if in_process else max(1, min(named or 1, n_new))
    return ScanPlan(start.selection, make_plan(start.job), n_new, n_parallel, not in_process and named is None)


def _runtime(config: ScanConfig) -> RuntimeConfig:
    """One worker for each of the checkpoints side by side; on one machine they share its CPUs."""
    runtime, n_parallel = config.runtime, config.scan.parallel
    if n_parallel is None:
        return runtime
    cpus = runtime.cpus_per_worker
    if cpus is None and runtime.address is None:
        cpus = max(1, available_cpus() // n_parallel)
    return runtime.replace(workers=n_parallel, cpus_per_worker=cpus)


class _States:
    """The record on disk, rewritten whenever a checkpoint is done."""

    def __init__(self, out: str, record: ScanRecord) -> None:
        self._out = out
        self.record = record

    def write(self, record: ScanRecord) -> ScanRecord:
        self.record = write_scan(self._out, record)
        return self.record

    def update(self, **changes: Any) -> ScanRecord:
        return self.write(self.record.model_copy(update=changes))

    def set(self, name: str, **changes: Any) -> None:
        checkpoint = next(checkpoint for checkpoint in self.record.checkpoints if checkpoint.name == name)
        self.write(self.record.with_checkpoint(checkpoint.model_copy(update=changes)))


@contextmanager
def _states(out: str, start: _Start) -> Iterator[_States]:
    """The record for the time of the work: `running`, then `finished`, `failed` or `interrupted`.

    Where that cannot be written, as on a full disk, the cause of the end is what is told.
    """
    states = _States(out, start.record)
    states.update(state="running", notes=start.selection.notes)
    try:
        yield states
    except BaseException as error:
        with suppress(StoreError):
            states.update(state="interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    failed = any(checkpoint.state == "failed" for checkpoint in states.record.checkpoints)
    states.update(state="failed" if failed else "finished")


def _run_checkpoints(
    start: _Start, states: _States, executor: Executor, out: str, say: Say, *, quiet: bool
) -> ScanRecord:
    record = states.record
    if not start.waiting:
        return record
    if not record.finished and record.partition_of is None:
        record = states.update(threads=executor.n_threads, matmul=_matmul(start))
    if "experts" in start.config.analyses and record.partition_of is None:
        _choose_partition(start, states, executor, out, say)
    names = [checkpoint.name for checkpoint in states.record.checkpoints if checkpoint.state != "finished"]
    first = states.record.partition_of
    names.sort(key=lambda name: name != first)  # its worker has the model already
    failed_before = {c.name for c in states.record.checkpoints if c.state == "failed" and c not in start.waiting}
    items = [WorkItem.of("checkpoint", name=name) for name in names if name not in failed_before]

    with Progress("checkpoints", len(items), quiet=quiet) as progress:

        def done(item: WorkItem, info: Any) -> None:
            if "error" in info:
                states.set(info["name"], state="failed", error=info["error"])
            else:
                values = {key: info[key] for key in ("parameter_hash", "content_hash", "seconds")}
                states.set(info["name"], state="finished", error=None, **values)
            progress.done(item, info)

        try:
            executor.run(items, _factory(start, states.record, names, out), on_done=done, uses_model=True)
        except WorkError as error:  # workers died; what they worked on is told below with the other failures
            for checkpoint in states.record.checkpoints:
                if checkpoint.state == "planned":
                    states.set(checkpoint.name, state="failed", error=str(error))
    return states.record


def _choose_partition(start: _Start, states: _States, executor: Executor, out: str, say: Say) -> None:
    """Partition the neurons of the wanted checkpoint, or of the last one that can be loaded."""
    wanted = start.config.scan.partition_of
    names = [checkpoint.name for checkpoint in states.record.checkpoints]
    for name in [wanted] if wanted is not None else reversed(names):
        assert name is not None
        found: dict[str, Any] = {}
        executor.run(
            [WorkItem.of("partition", name=name)],
            _factory(start, states.record.model_copy(update={"partition_of": name}), names, out),
            on_done=lambda _, info, found=found: found.update(info),  # type: ignore[misc]
            uses_model=True,
            n_next=len(start.waiting),
        )
        if "error" not in found:
            states.update(partition_of=name)
            return
        states.set(name, state="failed", error=found["error"])
        if wanted is None:
            say(f"{name} failed, so that its partition cannot be the common one: {_line(found['error'])}")
    raise WorkError(
        "no checkpoint could be partitioned into experts"
        if wanted is None
        else f"scan.partition_of={wanted!r} failed: {found['error']}"
    )


def _factory(start: _Start, record: ScanRecord, names: list[str], out: str) -> CheckpointWorkerFactory:
    """Of a worker that computes the named checkpoints, of which it fetches the next ones ahead."""
    checkpoints = {c.name: Checkpoint(c.name, c.step, c.model, c.revision) for c in record.checkpoints}
    n_workers = start.config.scan.parallel or start.config.runtime.workers or 1
    ordered = sorted(names, key=lambda name: name != record.partition_of)
    return CheckpointWorkerFactory(
        uri=out,
        configs=tuple(
            (
                name,
                start.config.of_checkpoint(checkpoints[name], partition_of=record.partition_of, matmul=record.matmul),
            )
            for name in ordered
        ),
        n_threads=record.threads,
        ahead=n_workers,
        cache_bytes=start.config.scan.cache_bytes,
    )


def _matmul(start: _Start) -> str:
    """Route of float32 products on a CPU, measured once, so that no two checkpoints take different ones."""
    asked = start.config.model.matmul
    if asked != "auto" or uses_gpu(start.config.model):
        return asked
    width = max(shape.unit_shape[0] for shape in start.job.shapes.values())
    return choose_matmul_mode("auto", ffn_width=width).name


def _line(text: str) -> str:
    """The last line of an error that says something."""
    return next((line for line in reversed(text.splitlines()) if line.strip()), text)


def _raise_failed(record: ScanRecord) -> None:
    failed = [checkpoint for checkpoint in record.checkpoints if checkpoint.state == "failed"]
    if not failed:
        return
    width = max(len(checkpoint.name) for checkpoint in failed)
    rows = [f"{checkpoint.name:<{width}}  {_line(checkpoint.error or '')}" for checkpoint in failed]
    raise WorkError(
        "\n  ".join(
            [f"{len(failed)} of {len(record.checkpoints)} checkpoints failed, the others are done and compared", *rows]
        )
        + "\nmend the cause, and the same command tries these again; one that does not name them goes on without them"
    )
