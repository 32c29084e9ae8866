"""Workers of studies that change a model: an item whose batches do not fit memory is computed anew in smaller ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

from threadpoolctl import threadpool_limits

from modularity.capture import in_halved_batches
from modularity.models import compute_threads
from modularity.pipelines.steps import SMALLER_BATCH
from modularity.types import WorkItem


class BatchedStudy(Protocol):
    """A prepared study, a dataclass, whose model runs in batches of `config.tokens_per_batch`."""

    @property
    def config(self) -> Any:
        """Config of the study."""
        ...

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest text, which no batch can be smaller than."""
        ...


Prepared = TypeVar("Prepared", bound=BatchedStudy)


class StudyWorker(ABC, Generic[Prepared]):
    """Runs the items of a study.

    Parameters
    ----------
    prepared : the study
    n_threads : threads of the model and of NumPy
    """

    BATCHED: ClassVar[frozenset[str]]
    """Kinds of items that run the model in batches, and record what they found at their end."""
    HOLD_BATCH: ClassVar[tuple[str, ...]] = ()
    """Cached properties that are made from `_prepared`."""

    def __init__(self, prepared: Prepared, n_threads: int) -> None:
        self._prepared, self._usual, self._n_threads = prepared, prepared, n_threads

    @abstractmethod
    def actions(self, item: WorkItem) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """What computes and records the item, by its kind; batches are those of `_prepared`."""

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        return self.in_smaller_batches(item, 0)

    def in_smaller_batches(self, item: WorkItem, halvings: int) -> Mapping[str, Any]:
        """Compute and record one item; where memory does not suffice for its batches, in smaller ones."""
        usual = self._usual.config.tokens_per_batch

        def compute(tokens: int) -> Mapping[str, Any]:
            self._set_batch(tokens)
            return self.actions(item)[item.kind]()

        with compute_threads(self._n_threads), threadpool_limits(self._n_threads):
            if item.kind not in self.BATCHED:
                return compute(usual)
            info, tokens = in_halved_batches(
                compute, tokens_per_batch=usual, longest_tokens=self._usual.longest_tokens, halvings=halvings
            )
        return info if tokens == usual else {**info, SMALLER_BATCH: tokens}

    def _set_batch(self, tokens: int) -> None:
        if tokens == self._prepared.config.tokens_per_batch:
            return
        config = self._usual.config.model_copy(update={"tokens_per_batch": tokens})
        self._prepared = replace(cast(Any, self._usual), config=config)
        for name in self.HOLD_BATCH:
            self.__dict__.pop(name, None)
