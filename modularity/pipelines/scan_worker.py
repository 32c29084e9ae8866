"""The worker of a checkpoint scan: one item is one checkpoint, from loading it to its tables, in one process.

The items of a checkpoint run one after the other in this process, with the same workers as in a job of its own, so that
its run is the same. The model is loaded once; while it works the revision that is likely to come next is downloaded.
"""

import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from modularity.errors import ModularityError, UnavailableError
from modularity.models import FetchedRevision, ModelConfig, fetch_revision, taken, trim_cache
from modularity.pipelines.config import EmergentModularityConfig
from modularity.pipelines.emergent import run_with
from modularity.runtime import InProcessExecutor
from modularity.store import checkpoint_path, open_space
from modularity.types import WorkItem


@dataclass(frozen=True)
class CheckpointWorkerFactory:
    """Builds a `CheckpointWorker` in the process that runs it."""

    uri: str
    """Of the scan."""
    configs: tuple[tuple[str, EmergentModularityConfig], ...]
    """The job of every checkpoint, by name, in the order in which they are started."""
    n_threads: int
    ahead: int
    """Checkpoints that are started while one is computed: the one after so many is fetched ahead."""
    cache_bytes: int

    def __call__(self) -> "CheckpointWorker":
        """Nothing is loaded yet: each item loads its own checkpoint."""
        return CheckpointWorker(self)


class CheckpointWorker:
    """Runs `checkpoint` items, and `partition` items, which stop when the neurons are partitioned."""

    def __init__(self, spec: CheckpointWorkerFactory) -> None:
        self._spec = spec
        self._configs = dict(spec.configs)
        self._executor = InProcessExecutor(n_threads=spec.n_threads)

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Run one checkpoint; what goes wrong with it is returned as `error`, so that the others go on."""
        name, started = item.text("name"), time.monotonic()
        out = open_space(self._spec.uri).join(checkpoint_path(name)).uri
        config = self._configs[name]
        try:
            fetched = fetch_revision(config.model)
            again = item.kind == "partition"
            with _cached(config.model, fetched, self._next(name), self._spec.cache_bytes, again=again):
                outcome = run_with(config, out, self._executor, only_partition=item.kind == "partition")
            identity = outcome.run.manifest.identity["model"]
            return {
                "name": name,
                "parameter_hash": identity["parameter_hash"],
                "content_hash": outcome.run.content_hash() if item.kind == "checkpoint" else None,
                "seconds": time.monotonic() - started,
            }
        except UnavailableError:
            raise  # every other checkpoint would meet the same
        except ModularityError as error:
            return {"name": name, "error": f"{type(error).__name__}: {error}"}
        except Exception as error:
            return {"name": name, "error": "".join(traceback.format_exception(error))}

    def _next(self, name: str) -> ModelConfig | None:
        """The checkpoint that is likely to be started when this one is done."""
        names = list(self._configs)
        index = names.index(name) + self._spec.ahead
        return self._configs[names[index]].model if index < len(names) else None


@contextmanager
def _cached(
    model: ModelConfig, fetched: FetchedRevision | None, following: ModelConfig | None, cache_bytes: int, *, again: bool
) -> Iterator[None]:
    """Hold a revision for the time of a `with` block, download the next one meanwhile, then trim the cache.

    Parameters
    ----------
    model, fetched : the revision, and what `fetch_revision` gave for it
    following : the revision that is likely to be needed next; None or a folder: nothing is downloaded
    cache_bytes : as in `trim_cache`
    again : this revision is needed once more afterwards, so it stays
    """
    keep = [fetched.commit] if fetched is not None and again else []

    def fetch() -> None:
        if following is None or following.revision is None:
            return
        with suppress(ModularityError):  # the worker that runs this checkpoint meets the error again, and reports it
            found = fetch_revision(following)
            keep.extend([] if found is None else [found.commit])

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    try:
        with taken(model, fetched):
            yield
    finally:
        thread.join()
        if fetched is not None:
            trim_cache(model, cache_bytes, keep=keep)
