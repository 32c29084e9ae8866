"""Taking committed items over from another run: same item, same bytes, nothing computed again.

On disk the objects are hard links (copies where the file system has none): an object of a run is replaced and never
changed in place, so that neither run can change the other. The copied records have the same content as if the items had
been computed here, and so has the run.
"""

from collections.abc import Sequence
from dataclasses import replace

from modularity.errors import StoreError
from modularity.store.arrays import default_threads, parallel_map
from modularity.store.groups import group_digests
from modularity.store.ledger import CommitRecord, StoredObject
from modularity.store.run import Run
from modularity.types import WorkItem


def reusable_items(run: Run, source: Run, items: Sequence[WorkItem]) -> list[WorkItem]:
    """Those of `items` that `source` has committed into arrays of the same shape, chunks and coordinates as `run`'s.

    Items that wrote tables are left out: a table's file names the config of its run.
    """
    records = source.commits()
    here, there = dict(group_digests(run.space)), dict(group_digests(source.space))
    found = []
    for item in items:
        record = records.get(item.id)
        if record is None or record.tables:
            continue
        groups = {write.array.rpartition("/")[0] for write in record.arrays}
        if all(here.get(group) == there.get(group) is not None for group in groups):
            found.append(item)
    return found


def take_items(run: Run, source: Run, items: Sequence[WorkItem]) -> None:
    """Copy the objects and records of committed items; a repetition changes nothing.

    Raises
    ------
    StoreError
        An object of the source is missing or has another size than recorded; nothing of its item is recorded.
    """
    sizes = source.space.sizes()
    records = source.commits()
    for item in items:
        record = records[item.id]
        _check_sizes(source, record, sizes)

        def copy(stored: StoredObject) -> None:
            run.space.copy_from(source.space, stored.path)

        parallel_map(copy, record.objects, default_threads(run.space))
        run.ledger.commit(replace(record, info={**record.info, "reused_from": source.uri}))


def _check_sizes(source: Run, record: CommitRecord, sizes: dict[str, int]) -> None:
    for stored in record.objects:
        if sizes.get(stored.path) != stored.n_bytes:
            raise StoreError(
                f"{source.space.address(stored.path)} is missing or has another size than recorded, so {record.item} "
                f"cannot be reused; see `modularity verify {source.uri}`, or compute it again without --reuse"
            )
