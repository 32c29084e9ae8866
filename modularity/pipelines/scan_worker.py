"""The worker of a checkpoint scan: one item is one checkpoint, from loading it to its tables, in one process.

The items of a checkpoint run one after the other in this process, with the same workers as in a job of its own, so that
its run is the same. The model is loaded once; while it works the revision that is likely to come next is downloaded.
"""

import threading
import time
import traceback
from collections.abc import Mapping
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
            with taken(config.model, fetched), _FetchingAhead(self._next(name), self._spec.cache_bytes):
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


class _FetchingAhead:
    """Downloads a revision in the background for the time of a `with` block, then trims the cache."""

    def __init__(self, model: ModelConfig | None, cache_bytes: int) -> None:
        self._model, self._cache_bytes = model, cache_bytes
        self._fetched: FetchedRevision | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        if self._model is not None and self._model.revision is not None:
            self._thread = threading.Thread(target=self._fetch, args=(self._model,), daemon=True)
            self._thread.start()

    def _fetch(self, model: ModelConfig) -> None:
        try:
            self._fetched = fetch_revision(model)
        except ModularityError:  # the worker that runs this checkpoint meets the error again, and reports it
            self._fetched = None

    def __exit__(self, *_: object) -> None:
        if self._thread is None or self._model is None:
            return
        self._thread.join()
        keep = () if self._fetched is None else (self._fetched.commit,)
        trim_cache(self._model, self._cache_bytes, keep=keep)
