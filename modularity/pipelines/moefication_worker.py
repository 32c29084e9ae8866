"""The worker of a MoEfication: holds the model with its LM head, and runs every kind of item of the job."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from modularity.errors import IdentityError
from modularity.models import (
    HeadModel,
    MatmulMode,
    apply_matmul_mode,
    choose_matmul_mode,
    load_head_model,
    load_model,
)
from modularity.pipelines.moefication_curves import curve_tables
from modularity.pipelines.moefication_export import export_model
from modularity.pipelines.moefication_measure import measure_selected, measure_whole
from modularity.pipelines.moefication_prepare import PreparedMoefication
from modularity.pipelines.moefication_route import partition_layer, route_layer
from modularity.pipelines.moefication_tables import seed_tables
from modularity.pipelines.study_worker import StudyWorker
from modularity.store import Run, open_run, table_from_columns
from modularity.types import WorkItem


@dataclass(frozen=True)
class MoeficationWorkerFactory:
    """Builds a `MoeficationWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    folder: str | None
    """Where the export goes, an absolute path."""
    prepared: PreparedMoefication = field(compare=False, repr=False)

    def __call__(self) -> "MoeficationWorker":
        """The model is loaded when an item needs it."""
        return MoeficationWorker(self)


class MoeficationWorker(StudyWorker[PreparedMoefication]):
    """Runs the items of a MoEfication."""

    BATCHED = frozenset({"route", "unchanged", "evaluate"})

    def __init__(self, spec: MoeficationWorkerFactory) -> None:
        super().__init__(spec.prepared, spec.n_threads)
        self._spec = spec

    def actions(self, item: WorkItem) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """See `StudyWorker`."""
        prepared = self._prepared
        return {
            "identify": self._identify,
            "partition": lambda: partition_layer(self._run, item, prepared, self._model.base),
            "route": lambda: route_layer(self._run, item, prepared, self._model.base),
            "unchanged": lambda: measure_whole(self._run, item, prepared, self._model),
            "evaluate": lambda: measure_selected(self._run, item, prepared, self._model),
            "selection_tables": lambda: self._tables(item),
            "export": lambda: self._export(item),
        }

    @cached_property
    def _loaded(self) -> HeadModel:
        return load_head_model(self._prepared.model)

    @cached_property
    def _model(self) -> HeadModel:
        """The model, with the arithmetic that the run began with."""
        mode = self._run.manifest.notes.get("matmul")
        if mode is not None:
            apply_matmul_mode(MatmulMode(**{**mode, "shape": tuple(mode["shape"])}), device=self._loaded.base.device)
        return self._loaded

    @cached_property
    def _run(self) -> Run:
        return open_run(self._spec.uri)

    def _identify(self) -> dict[str, Any]:
        """Who the model is; IdentityError where it is not that of the finished run."""
        model, source = self._loaded, self._prepared.source
        identity = model.base.identity
        if source is not None:
            recorded = source.manifest.identity["model"]
            found = identity.parameter_hash
            if found != recorded["parameter_hash"]:
                # The head counts in T5, and another dtype gives another hash: compare as the run has loaded it.
                found = load_model(
                    self._prepared.model.replace(dtype=recorded["dtype"], device="cpu", device_map=None)
                ).identity.parameter_hash
            if found != recorded["parameter_hash"]:
                raise IdentityError(
                    f"model {identity.name!r} is not the one of {source.uri}: its parameters have hash {found[:16]}, "
                    f"recorded is {recorded['parameter_hash'][:16]}; give the checkpoint of the run"
                )
        plain = model.base.device.type == "cpu" and identity.dtype == "float32"
        width = max(self._prepared.widths)
        mode = choose_matmul_mode(self._prepared.model.matmul, ffn_width=width) if plain else None
        return {
            "identity": asdict(identity),
            "device": str(model.base.device),
            "head": model.kind,
            "matmul": None if mode is None else asdict(mode),
        }

    def _tables(self, item: WorkItem) -> dict[str, Any]:
        tables = seed_tables(self._run, self._prepared) | curve_tables(self._run, self._prepared)
        written = [
            self._run.write_table(name, item, table_from_columns({key: [row[key] for row in rows] for key in rows[0]}))
            for name, rows in tables.items()
            if rows
        ]
        self._run.commit(item, tables=written)
        return {}

    def _export(self, item: WorkItem) -> Mapping[str, Any]:
        assert self._spec.folder is not None
        return export_model(self._run, item, self._prepared, self._model, Path(self._spec.folder))
