"""The worker of a perturbation: holds the model with its LM head, and runs every kind of item of the job."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from modularity.data import token_batches
from modularity.interventions import neuron_moments
from modularity.models import HeadModel
from modularity.pipelines.dissociation_step import dissociate
from modularity.pipelines.finished_run import identify_source_model, load_source_model
from modularity.pipelines.perturbation_measure import Measurer
from modularity.pipelines.perturbation_prepare import PreparedPerturbation
from modularity.pipelines.perturbation_rankings import MOMENTS, select
from modularity.pipelines.restrictions import compare_restrictions, restrict
from modularity.pipelines.study_worker import StudyWorker
from modularity.store import Run, open_run
from modularity.types import WorkItem


@dataclass(frozen=True)
class PerturbationWorkerFactory:
    """Builds a `PerturbationWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    prepared: PreparedPerturbation = field(compare=False, repr=False)

    def __call__(self) -> "PerturbationWorker":
        """The model is loaded when an item needs it."""
        return PerturbationWorker(self)


class PerturbationWorker(StudyWorker[PreparedPerturbation]):
    """Runs the items of a perturbation."""

    BATCHED = frozenset({"calibrate", "unchanged", "perturb", "routing"})
    HOLD_BATCH = ("_measurer",)

    def __init__(self, spec: PerturbationWorkerFactory) -> None:
        super().__init__(spec.prepared, spec.n_threads)
        self._spec = spec

    def actions(self, item: WorkItem) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """See `StudyWorker`."""
        prepared, config = self._prepared, self._prepared.config
        return {
            "identify": lambda: identify_source_model(self._model, prepared.job, prepared.source),
            "calibrate": lambda: self._calibrate(item),
            "unchanged": lambda: self._measurer.unchanged(item),
            "select": lambda: select(self._run, item, prepared.source, config, prepared.rankings, prepared.layers),
            "perturb": lambda: self._perturb(item),
            "routing": lambda: self._restrict(item),
            "dissociation": lambda: dissociate(self._run, item, config, [task.name for task in prepared.tasks]),
            "routing_tests": lambda: compare_restrictions(self._run, item),
        }

    @cached_property
    def _model(self) -> HeadModel:
        """The model, with the arithmetic of the finished run."""
        return load_source_model(self._prepared.job, self._prepared.source)

    @cached_property
    def _run(self) -> Run:
        return open_run(self._spec.uri)

    @cached_property
    def _measurer(self) -> Measurer:
        return Measurer(self._run, self._model, self._prepared.tasks, self._prepared.config)

    def _calibrate(self, item: WorkItem) -> dict[str, Any]:
        """Means and deviations of all neurons over tokens, and norms of their output weights."""
        prepared, model = self._prepared, self._model.base
        batches = chain.from_iterable(
            token_batches(
                table, 0, table.n_rows, tokens_per_batch=prepared.config.tokens_per_batch, pad_id=model.pad_id
            )
            for table in prepared.calibration.values()
        )
        moments = neuron_moments(model, batches, site=prepared.site)
        norm_LF = np.zeros_like(moments.mean_LF)
        for layer in range(len(norm_LF)):
            weights_FD = model.sites.ffn_output_weights(prepared.site.stack, layer).astype(np.float64)
            norm_LF[layer, : len(weights_FD)] = np.linalg.norm(weights_FD, axis=1)
        arrays = {"mean": moments.mean_LF, "sd": moments.sd_LF, "count": moments.count_LF, "output_norm": norm_LF}
        self._run.commit(item, arrays=self._run.write_result(MOMENTS, arrays))
        return {"tokens": sum(table.n_tokens for table in prepared.calibration.values())}

    def _perturb(self, item: WorkItem) -> Mapping[str, Any]:
        (ranking,) = (each for each in self._prepared.rankings if each.name == item.text("ranking"))
        return self._measurer.perturb(item, ranking, self._prepared.site, self._prepared.layers)

    def _restrict(self, item: WorkItem) -> Mapping[str, Any]:
        routing = self._prepared.config.routing
        assert routing is not None
        return restrict(item, self._measurer, self._prepared.restrictions, routing)
