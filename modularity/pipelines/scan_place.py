"""Where a scan is written and what lies there: the record to go on with, and what can be refused before any work."""

from modularity.errors import IdentityError, InputError, StoreError
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
    """The record with the wanted checkpoints added; those that failed are tried again.

    Raises
    ------
    InputError
        A wanted checkpoint has the step or the name of another one that is recorded.
    """
    known = {checkpoint.name: checkpoint for checkpoint in record.checkpoints}
    steps = {checkpoint.step: checkpoint.name for checkpoint in record.checkpoints}
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


def still_finished(out: str, record: ScanRecord, job: PreparedJob) -> ScanRecord:
    """The record in which only those checkpoints count as finished whose runs are complete, of these very examples.

    Raises
    ------
    IdentityError
        The examples of a function have changed since.
    """
    functions = {function.name: function.fingerprint for function in job.functions}
    for checkpoint in record.finished:
        try:
            run = checkpoint_run(open_space(out), checkpoint.name)
        except StoreError:
            record = record.with_checkpoint(checkpoint.model_copy(update={"state": "planned"}))
            continue
        for name, fingerprint in run.manifest.identity["data"].items():
            if name in functions and not fingerprint.startswith(f"{functions[name]}-"):
                raise IdentityError(
                    f"function {name!r} has other examples than when {checkpoint.name} was scanned "
                    f"(recorded {fingerprint}, now {functions[name]}); choose another --out, or put the data back"
                )
        if not is_complete(run):
            record = record.with_checkpoint(checkpoint.model_copy(update={"state": "planned"}))
    return record


def is_scan_complete(out: str) -> bool:
    """Whether a scan is finished and compared, and nothing of its runs was deleted since; StoreError without one."""
    record, space = read_scan(out), open_space(out)
    if record.state != "finished" or record.summary is None:
        return False
    runs = [checkpoint_run(space, checkpoint.name) for checkpoint in record.checkpoints]
    return all(map(is_complete, [*runs, open_summary(out)]))
