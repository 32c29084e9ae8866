"""One partition of the neurons for several runs: the partition items of one run become those of another (card A8).

Zhang et al. 2023, arXiv 2305.18390, keep one partition per layer for all checkpoints, so that expert e means the same
neurons at every step.
"""

import posixpath
from collections.abc import Sequence

from modularity.errors import InputError, StoreError
from modularity.pipelines.prepare import PreparedJob
from modularity.store import Run, open_run, open_space, reusable_items, take_items
from modularity.types import WorkItem, content_digest


def partition_source(job: PreparedJob, out: str | None) -> Run | None:
    """The run of `experts.from_run`; None where the run partitions its own neurons, or is not placed yet.

    Raises
    ------
    InputError
        There is no such run, or it has not partitioned its neurons in all layers by these methods.
    """
    named, items = job.config.experts.from_run, job.partition_items()
    if named is None or not items or (out is None and named.startswith("..")):
        return None
    uri = _resolved(named, out)
    try:
        source = open_run(uri)
    except StoreError as error:
        raise InputError(f"experts.from_run={named!r}: {error}") from None
    settings = source.manifest.config.get("experts", {})
    wanted = job.config.experts.as_json()
    differing = [name for name in ("n_experts", "methods", "seed", "n_restarts") if settings.get(name) != wanted[name]]
    if differing:
        values = "; ".join(f"{name} {settings.get(name)}, here {wanted[name]}" for name in differing)
        raise InputError(
            f"experts.from_run={named!r}: {source.uri} was partitioned otherwise ({values}); set equal values"
        )
    done = source.committed_ids()
    lacking = [item.integer("layer") for item in items if item.id not in done]
    if lacking:
        raise InputError(
            f"experts.from_run={named!r}: {source.uri} has no partition of layers {lacking}; finish that run first"
        )
    return source


def _resolved(named: str, out: str | None) -> str:
    if not named.startswith("..") or out is None:
        return named
    scheme, separator, path = open_space(out).uri.rpartition("://")
    return f"{scheme}{separator}{posixpath.normpath(posixpath.join(path, named))}"


def partition_digest(source: Run) -> str:
    """Digest of what the partition items of a run wrote: it identifies the runs that took them over."""
    records = source.commits().values()
    hashes = sorted(record.content_sha256 for record in records if record.item.kind == "partition")
    return content_digest(hashes)


def take_partition(run: Run, source: Run, items: Sequence[WorkItem]) -> None:
    """Record the source's partition items in the run; those that it has stay.

    Raises
    ------
    StoreError
        The layers of the source have other widths, so that its partition says nothing of these neurons.
    """
    done = run.committed_ids()
    waiting = [item for item in items if item.id not in done]
    found = reusable_items(run, source, waiting)
    if len(found) < len(waiting):
        raise StoreError(
            f"the partition of {source.uri} does not fit {run.uri}: their layers differ in number or width; "
            "leave experts.from_run, in a scan this checkpoint, away for a model of another shape"
        )
    take_items(run, source, found)
