"""Verification of a run against its own records: every object re-read and hashed; neither model nor data is needed."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from modularity.errors import StoreError
from modularity.store.arrays import default_threads, parallel_map
from modularity.store.groups import group_paths, missing_metadata, open_group, parent_problems
from modularity.store.ledger import CommitRecord, StoredObject
from modularity.store.run import Run, manifest_problems
from modularity.store.space import MissingObjectError


@dataclass(frozen=True)
class StoreProblem:
    """One thing that is not as it was recorded."""

    item: str
    """Id of the item that wrote it; empty for coordinates and metadata."""
    path: str
    """Relative to the run."""
    message: str
    """What is wrong and what to do."""


@dataclass(frozen=True)
class StoreReport:
    """What a verification found."""

    n_items: int
    """Committed items."""
    n_checked: int
    """Items whose objects were read and hashed."""
    n_objects: int
    """Objects read."""
    n_bytes: int
    """Bytes read."""
    problems: tuple[StoreProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.n_checked} of {self.n_items} items, {self.n_objects} objects, {self.n_bytes / 1e6:.1f} MB read"
        if self.ok:
            return f"{head}: all as recorded"
        lines = "\n".join(f"  {problem.message}" for problem in self.problems)
        return f"{head}: {len(self.problems)} problems\n{lines}"


def verify_store(run: Run, *, sample: int | None = None, seed: int = 0, n_threads: int | None = None) -> StoreReport:
    """Re-read what committed items wrote and compare hashes; manifest, metadata and coordinates are always checked.

    Parameters
    ----------
    run : the run
    sample : number of items to check, drawn with `seed`; None = all

    Returns
    -------
    report : counts and every problem found; damaged commit records are problems too, not exceptions
    """
    threads = n_threads or default_threads(run.space)
    records, problems = _records(run)
    ids = list(records)
    if sample is not None and sample < len(ids):
        picked = np.random.default_rng(seed).choice(len(ids), size=max(0, sample), replace=False)
        ids = [ids[position] for position in sorted(picked)]
    work = [(item_id, stored) for item_id in ids for stored in records[item_id].objects]
    checked = parallel_map(lambda pair: _check_object(run, records[pair[0]], pair[1]), work, threads)
    problems += [problem for problem, _ in checked if problem is not None]
    problems += [StoreProblem("", path, message) for path, message in manifest_problems(run.space).items()]
    problems += _metadata_problems(run)
    for kind, n_items in items_to_redo(run).items():
        message = (
            f"{run.uri} is finished, but {n_items} of its {kind} items {'has' if n_items == 1 else 'have'} no record "
            "below commits/; run the job again, which redoes what is missing"
        )
        problems.append(StoreProblem("", "commits", message))
    return StoreReport(
        n_items=len(run.committed_ids()),
        n_checked=len(ids),
        n_objects=len(work),
        n_bytes=sum(n_bytes for _, n_bytes in checked),
        problems=tuple(problems),
    )


def missing_or_resized(run: Run) -> tuple[StoreProblem, ...]:
    """Recorded objects that are not there or have another size, from one listing; no byte is read.

    What `verify_store` finds beyond this: changed bytes of the same number, coordinates, metadata.
    """
    sizes = run.space.sizes()
    problems = []
    for record in run.commits().values():
        for stored in record.objects:
            size = sizes.get(stored.path)
            if size != stored.n_bytes:
                found = "is missing" if size is None else f"has {size} bytes instead of {stored.n_bytes}"
                message = f"{run.space.address(stored.path)} of item {record.item.id} {found}"
                problems.append(StoreProblem(record.item.id, stored.path, message))
    return tuple(problems)


def is_complete(run: Run) -> bool:
    """Whether a run is finished and nothing of it was deleted since: no commit record, and no metadata of a group."""
    return run.manifest.state == "finished" and not items_to_redo(run) and not missing_metadata(run.space)


def items_to_redo(run: Run) -> dict[str, int]:
    """How many items of a finished run have no commit record, by kind; from one listing, empty for other runs.

    That is so after a record was deleted, as the messages about damage advise: the same job then redoes the items.
    """
    if run.manifest.state != "finished":
        return {}
    done = Counter(item_id.rpartition("-")[0] for item_id in run.committed_ids())
    planned = Counter(run.manifest.items_planned)
    has_functions = done["capture"] and "functions" in run.manifest.config
    planned.setdefault("functions", len(run.functions()) if has_functions else 0)
    return dict(planned - done)


def _records(run: Run) -> tuple[dict[str, CommitRecord], list[StoreProblem]]:
    records, problems = {}, []
    for item_id in sorted(run.committed_ids()):
        try:
            records[item_id] = run.ledger.record(item_id)
        except StoreError as error:
            problems.append(StoreProblem(item_id, f"commits/{item_id}.json", str(error)))
    return records, problems


def _check_object(run: Run, record: CommitRecord, stored: StoredObject) -> tuple[StoreProblem | None, int]:
    redo = f"restore it, or delete commits/{record.item.id}.json and run the job again"
    where = f"{run.space.address(stored.path)} of item {record.item.id} ({record.item})"
    try:
        data = run.space.read(stored.path)
    except MissingObjectError:
        return StoreProblem(record.item.id, stored.path, f"{where} is missing; {redo}"), 0
    except StoreError as error:
        return StoreProblem(record.item.id, stored.path, f"{where}: {error}"), 0
    if hashlib.sha256(data).hexdigest() == stored.sha256:
        return None, len(data)
    size = "" if len(data) == stored.n_bytes else f" ({len(data)} bytes instead of {stored.n_bytes})"
    return StoreProblem(record.item.id, stored.path, f"{where} does not match its recorded hash{size}; {redo}"), len(
        data
    )


def _metadata_problems(run: Run) -> list[StoreProblem]:
    """What is missing or damaged of groups: their metadata, that of their arrays and parents, and coordinates."""
    space = run.space
    found = {
        path: f"{space.address(path)} is missing; run the job again, which writes it anew"
        for path in missing_metadata(space)
    }
    found |= parent_problems(space)
    for path in group_paths(space):
        try:
            group = open_group(space, path, f"{space.address(path)} holds no group")
        except StoreError as error:
            found[path] = str(error)
            continue
        for name in (*group.arrays, *group.content["coordinates"]):
            try:
                group.array(run.ledger, name) if name in group.arrays else group.coordinate(name)
            except StoreError as error:
                found[f"{path}/{name}"] = str(error)
    return [StoreProblem("", path, message) for path, message in found.items()]
