"""The worker without a model: reads stored activations and results, computes one analysis item, records it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from modularity.pipelines.activity_partition import partition_by_activity
from modularity.pipelines.agreement_step import compare_partitions
from modularity.pipelines.config import ExpertsConfig, OverlapConfig, PredictivityConfig, Variant
from modularity.pipelines.experts_step import bring_experts_together
from modularity.pipelines.overlap_step import compare_functions
from modularity.pipelines.predictivity_step import rank_block
from modularity.pipelines.random_control import record_control
from modularity.pipelines.summary_step import summarise_function
from modularity.store import Run, open_run
from modularity.types import WorkItem


@dataclass(frozen=True)
class AnalysisWorkerFactory:
    """Builds an `AnalysisWorker` in the process that runs it; also holds what its steps need to know."""

    uri: str
    variant: Variant
    predictivity: PredictivityConfig
    experts: ExpertsConfig
    overlap: OverlapConfig
    n_threads: int

    def __call__(self) -> "AnalysisWorker":
        """Open the run."""
        return AnalysisWorker(self)


class AnalysisWorker:
    """Runs `predictivity`, `activity_partition`, `summary`, `experts`, `agreement` and `overlap` items."""

    def __init__(self, settings: AnalysisWorkerFactory) -> None:
        self._settings = settings
        self._run = open_run(settings.uri)

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        with threadpool_limits(self._settings.n_threads):
            return self._step(item.kind)(item)

    def _step(self, kind: str) -> Callable[[WorkItem], Mapping[str, Any]]:
        run: Run = self._run
        settings = self._settings
        steps: dict[str, Callable[[WorkItem], Mapping[str, Any]]] = {
            "predictivity": lambda item: rank_block(
                run, item, settings.predictivity, variant=settings.variant, n_threads=settings.n_threads
            ),
            "summary": lambda item: summarise_function(run, item, settings.predictivity, variant=settings.variant),
            "experts": lambda item: bring_experts_together(run, item, settings.experts, variant=settings.variant),
            "activity_partition": lambda item: partition_by_activity(
                run, item, settings.experts, n_threads=settings.n_threads
            ),
            "agreement": lambda item: compare_partitions(run, item, settings.experts),
            "random_control": lambda item: record_control(run, item),
            "overlap": lambda item: compare_functions(run, item, settings.overlap),
        }
        return steps[kind]
