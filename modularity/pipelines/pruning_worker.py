"""The worker of a pruning: holds the model with its LM head, and runs every kind of item of the job."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from modularity.interventions.judge import Judge
from modularity.models import (
    HeadModel,
    MatmulMode,
    apply_matmul_mode,
    choose_matmul_mode,
    load_head_model,
)
from modularity.pipelines.pruning_areas import compare_areas
from modularity.pipelines.pruning_continuations import (
    compare_continuations,
    export_choice,
    make_judge,
    write_continuations,
)
from modularity.pipelines.pruning_prepare import PreparedPruning
from modularity.pipelines.pruning_trajectories import Pruner, trajectory_of
from modularity.pipelines.study_worker import StudyWorker
from modularity.store import Run, open_run
from modularity.types import WorkItem


@dataclass(frozen=True)
class PruningWorkerFactory:
    """Builds a `PruningWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    prepared: PreparedPruning = field(compare=False, repr=False)

    def __call__(self) -> "PruningWorker":
        """The model is loaded when an item needs it."""
        return PruningWorker(self)


class PruningWorker(StudyWorker[PreparedPruning]):
    """Runs the items of a pruning."""

    BATCHED = frozenset({"importance", "trajectory", "continue"})
    HOLD_BATCH = ("_pruner",)

    def __init__(self, spec: PruningWorkerFactory) -> None:
        super().__init__(spec.prepared, spec.n_threads)
        self._spec = spec

    def actions(self, item: WorkItem) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """See `StudyWorker`."""
        prepared = self._prepared
        return {
            "identify": self._identify,
            "importance": lambda: self._pruner.importance(item),
            "trajectory": lambda: self._pruner.trajectory(item, trajectory_of(item)),
            "areas": lambda: compare_areas(self._run, item, prepared),
            "continue": lambda: write_continuations(self._run, item, self._model, prepared, self._judge),
            "continuation_tests": lambda: compare_continuations(self._run, item, prepared, self._judge),
            "export": lambda: export_choice(self._run, item, self._model, prepared),
        }

    @cached_property
    def _model(self) -> HeadModel:
        return load_head_model(self._prepared.config.model)

    @cached_property
    def _run(self) -> Run:
        """The run, opened; the model computes as the run has recorded."""
        run = open_run(self._spec.uri)
        mode = run.manifest.notes.get("matmul")
        if mode is not None:
            apply_matmul_mode(MatmulMode(**{**mode, "shape": tuple(mode["shape"])}), device=self._model.base.device)
        return run

    @cached_property
    def _pruner(self) -> Pruner:
        return Pruner(self._run, self._model, self._prepared)

    @cached_property
    def _judge(self) -> Judge:
        return make_judge(self._prepared)

    def _identify(self) -> dict[str, Any]:
        """Who the model is, and how float32 products are best computed on this machine."""
        base, asked = self._model.base, self._prepared.config.model.matmul
        width = max(each.stop - each.start for each in self._prepared.units["ffn"].layers)
        measured = base.device.type == "cpu" and base.identity.dtype == "float32"
        mode = choose_matmul_mode(asked, ffn_width=width) if measured else None
        return {
            "identity": asdict(base.identity),
            "device": str(base.device),
            "head": self._model.kind,
            "matmul": None if mode is None else asdict(mode),
        }
