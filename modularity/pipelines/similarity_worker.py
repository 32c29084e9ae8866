"""The worker of a similarity study that needs no model: reads stored rows and Gram matrices, records one item."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from threadpoolctl import threadpool_limits

from modularity.pipelines.similarity_components import collect_streams, compare_activity, test_dimensions
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_scores import align_layers, compute_gram, project, score_site
from modularity.store import open_run
from modularity.types import Site, SiteShape, WorkItem


@dataclass(frozen=True)
class SimilarityWorkerFactory:
    """Builds a `SimilarityWorker` in the process that runs it."""

    uri: str
    config: SimilarityConfig
    n_threads: int
    shapes: Mapping[Site, SiteShape] = field(compare=False, repr=False)
    """Everything that was captured."""
    vectors: tuple[SiteShape, ...]
    """Sites with one vector for a layer."""

    def __call__(self) -> "SimilarityWorker":
        """Open the run."""
        return SimilarityWorker(self)


class SimilarityWorker:
    """Runs `gram`, `scores`, `dimensions`, `projection`, `streams`, `activity` and `alignment` items."""

    def __init__(self, settings: SimilarityWorkerFactory) -> None:
        self._settings = settings
        self._run = open_run(settings.uri)

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        run, settings = self._run, self._settings
        config, n_threads = settings.config, settings.n_threads

        def shape() -> SiteShape:
            return settings.shapes[Site.parse(item.text("site"), "decoder")]

        steps: dict[str, Callable[[], Mapping[str, Any]]] = {
            "gram": lambda: compute_gram(run, item, shape(), n_threads=n_threads),
            "scores": lambda: score_site(run, item, shape(), config),
            "dimensions": lambda: test_dimensions(run, item, shape(), config, n_threads=n_threads),
            "projection": lambda: project(run, item, shape(), config),
            "streams": lambda: collect_streams(run, item, shape(), n_threads=n_threads),
            "activity": lambda: compare_activity(run, item, settings.shapes, config, n_threads=n_threads),
            "alignment": lambda: align_layers(run, item, settings.vectors, config),
        }
        with threadpool_limits(n_threads):
            return steps[item.kind]()
