"""Verification of whatever lies at a place: a run with what it brought along, a scan, a study in parts."""

from collections.abc import Iterator

from modularity.errors import StoreError
from modularity.pipelines.random_control import FOLDER
from modularity.pipelines.scan_summary import SUMMARIES
from modularity.pipelines.verification import Verification, verify_run
from modularity.store import CHECKPOINTS, SERIES, is_scan, is_study, open_space, read_study, scan_problems


def verify_runs(uri: str, *, n_rows: int = 8) -> Iterator[Verification]:
    """`verify_run` of every run at `uri`, and the records that hold them together.

    That is the run, its control with random weights and the scan that it brought along; every checkpoint of a scan,
    whatever its record says, and its tables; every part of a study that has begun.

    Raises
    ------
    StoreError
        Nothing lies there.
    """
    space = open_space(uri)
    if is_scan(uri):
        yield Verification(space.uri, problems=tuple(scan_problems(uri)))
        for path in (*space.list_folders(CHECKPOINTS), *space.list_folders(SUMMARIES)):
            if space.list(path):  # folders of tables that were replaced may be left behind, without files
                yield verify_run(space.join(path).uri, n_rows=n_rows)
    elif is_study(uri):
        problems, parts = _study(uri)
        yield Verification(space.uri, problems=problems)
        for path in parts:
            yield verify_run(space.join(path).uri, n_rows=n_rows)
    else:
        yield verify_run(uri, n_rows=n_rows)
        if not space.join(FOLDER).is_empty():
            yield verify_run(space.join(FOLDER).uri, n_rows=n_rows)
        if is_scan(space.join(SERIES).uri):
            yield from verify_runs(space.join(SERIES).uri, n_rows=n_rows)


def _study(uri: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is wrong with the record of a study, and the folders of its parts that have begun."""
    space = open_space(uri)
    folders = space.list_folders()
    try:
        return (), tuple(name for name in read_study(uri).parts if name in folders)
    except StoreError as error:
        return (str(error),), folders
