"""Where a scan is written and what lies there: the record to go on with, and what can be refused before any work."""

from pathlib import Path

from modularity.errors import IdentityError, InputError, ModularityError, StoreError
from modularity.models import describe_model
from modularity.pipelines.prepare import PreparedJob
from modularity.pipelines.revisions import Checkpoint
from modularity.pipelines.scan_config import ScanConfig
from modularity.store import (
    ScannedCheckpoint,
    ScanRecord,
    checkpoint_run,
    differing_keys,
    find_scan,
    is_complete,
    open_space,
    open_summary,
    read_scan,
)


def recorded_scan(config: ScanConfig, out: str) -> ScanRecord | None:
    """The scan at `out` to go on with, None where one may begin.

    Raises
    ------
    InputError
        Other things lie there, or nothing can be written.
    IdentityError
        The scan there was made with other settings; both values are shown.
    """
    record = find_scan(out)
    open_space(out).check_writable()
    if record is None:
        return None
    differences = [
        f"  config.{key}: recorded {old}, now {new}" for key, old, new in differing_keys(record.config, config.common())
    ]
    named = config.scan.partition_of
    if named is not None and record.partition_of not in (None, named):
        differences.append(f"  scan.partition_of: recorded {record.partition_of}, now {named}")
    if differences:
        lines = "\n".join(differences)
        raise IdentityError(
            f"the scan at {open_space(out).uri} was made with other settings:\n{lines}\n"
            "choose another --out, or set these values back to add checkpoints to it"
        )
    return record


def merged(record: ScanRecord, wanted: tuple[Checkpoint, ...]) -> ScanRecord:
    """The record with the wanted checkpoints added; of those that failed, the wanted ones are tried again.

    The others that failed are left out, so that a scan goes on without a revision that does not exist.

    Raises
    ------
    InputError
        A wanted checkpoint has the step or the name of another one that is recorded.
    """
    kept = {checkpoint.name for checkpoint in wanted} | {record.partition_of}
    old_checkpoints = [each for each in record.checkpoints if each.state != "failed" or each.name in kept]
    known = {checkpoint.name: checkpoint for checkpoint in old_checkpoints}
    steps = {checkpoint.step: checkpoint.name for checkpoint in old_checkpoints}
    problems = []
    for checkpoint in wanted:
        old = known.get(checkpoint.name)
        if old is not None and (old.model, old.revision) != (checkpoint.model, checkpoint.revision):
            now = checkpoint.revision or checkpoint.model
            problems.append(f"{checkpoint.name} is recorded as {old.revision or old.model}, now {now}")
        elif steps.get(checkpoint.step, checkpoint.name) != checkpoint.name:
            problems.append(f"step {checkpoint.step} is recorded as {steps[checkpoint.step]}, now {checkpoint.name}")
        else:
            known.setdefault(
                checkpoint.name,
                ScannedCheckpoint(
                    name=checkpoint.name, step=checkpoint.step, model=checkpoint.model, revision=checkpoint.revision
                ),
            )
    if problems:
        raise InputError([f"{problem}; leave it out, or choose another --out" for problem in problems])
    ordered = tuple(sorted(known.values(), key=lambda checkpoint: checkpoint.step))
    return record.model_copy(update={"checkpoints": ordered})


def require_one_shape(record: ScanRecord, job: PreparedJob) -> None:
    """Refuse folders with other layers than the prepared job: a scan compares the same neurons at every step.

    Each different `config.json` is read once; a folder that cannot be described is reported when its turn comes.

    Raises
    ------
    InputError
        With every such folder, its widths and those that were expected.
    """
    shape = job.analysed
    if shape is None:
        return
    widths: dict[bytes, tuple[int, ...] | None] = {}
    problems = []
    for checkpoint in record.checkpoints:
        path = Path(checkpoint.model) / "config.json"
        if checkpoint.revision is not None or not path.is_file():
            continue
        text = path.read_bytes()
        if text not in widths:
            widths[text] = _widths(job, checkpoint)
        found = widths[text]
        if found is not None and found != shape.widths:
            problems.append(
                f"{checkpoint.name} has layers of {_listed(found)} neurons, others of {_listed(shape.widths)}: a scan "
                "compares the same neurons at every step; leave it out"
            )
    if problems:
        raise InputError(problems)


def _widths(job: PreparedJob, checkpoint: ScannedCheckpoint) -> tuple[int, ...] | None:
    """Widths of the layers that the job analyses, in another folder; None where its config cannot be read."""
    assert job.analysed is not None
    try:
        shapes = describe_model(job.config.model.replace(name=checkpoint.model, revision=None)).shapes
    except ModularityError:
        return None
    full = shapes.get(job.analysed.site)
    if full is None:
        return ()
    wanted = job.config.capture.layers or full.layers
    return tuple(full.widths[full.layers.index(layer)] for layer in wanted if layer in full.layers)


def _listed(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, widths[:4])) + (f" … ({len(widths)} layers)" if len(widths) > 4 else "")


def still_finished(out: str, record: ScanRecord, job: PreparedJob) -> ScanRecord:
    """The record in which only those checkpoints count as finished whose runs are whole, of these very examples.

    A run of which commit records were deleted, as the messages about damage advise, is not: it redoes what is missing.

    Raises
    ------
    IdentityError
        The examples of a function have changed since.
    """
    functions = {function.name: function.fingerprint for function in job.functions}
    for checkpoint in record.finished:
        try:
            run = checkpoint_run(open_space(out), checkpoint.name)
            is_done = is_complete(run)
        except StoreError:
            record = record.with_checkpoint(checkpoint.model_copy(update={"state": "planned"}))
            continue
        for name, fingerprint in run.manifest.identity["data"].items():
            if name in functions and not fingerprint.startswith(f"{functions[name]}-"):
                raise IdentityError(
                    f"function {name!r} has other examples than when {checkpoint.name} was scanned "
                    f"(recorded {fingerprint}, now {functions[name]}); choose another --out, or put the data back"
                )
        if not is_done:
            record = record.with_checkpoint(checkpoint.model_copy(update={"state": "planned"}))
    return record


def is_scan_complete(out: str) -> bool:
    """Whether a scan is finished and compared, and nothing of its runs was deleted since; StoreError without one."""
    record, space = read_scan(out), open_space(out)
    if record.state != "finished" or record.summary is None:
        return False
    runs = [checkpoint_run(space, checkpoint.name) for checkpoint in record.checkpoints]
    return all(map(is_complete, [*runs, open_summary(out)]))
