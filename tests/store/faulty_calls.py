"""Faults below `Space`, where it calls obstore: for folders, which no server stands in front of."""

import threading
from collections.abc import Callable
from typing import Any

import obstore


class FaultyCalls:
    """Stands for the module `obstore` in `modularity.store.space`.

    `choose` gets the name of the call, the path, and how many calls of that name there were, and returns the error to
    raise or None. `n_calls` counts.
    """

    def __init__(self, choose: Callable[[str, str, int], BaseException | None]) -> None:
        self.choose = choose
        self.n_calls: dict[str, int] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        original = getattr(obstore, name)

        def call(store: Any, path: str | None = None, *arguments: Any, **options: Any) -> Any:
            with self._lock:
                self.n_calls[name] = number = self.n_calls.get(name, 0) + 1
            error = self.choose(name, path or "", number)
            if error is not None:
                raise error
            return original(store, path, *arguments, **options)

        return call
