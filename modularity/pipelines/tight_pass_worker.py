"""The worker of a tight pass: holds the model and the one with random weights, measures one sub-block at a time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from modularity.models import LoadedModel, Recorded, SubBlock, compute_threads, load_model, record_text
from modularity.pipelines.tight_pass_config import MODEL
from modularity.pipelines.tight_pass_measure import columns_of, item_seed, measure_attention, measure_ffn
from modularity.pipelines.tight_pass_prepare import PreparedTightPass
from modularity.pipelines.tight_pass_tests import write_tests
from modularity.store import Run, open_run, table_from_columns
from modularity.types import WorkItem

SPECTRA = "tight_pass_spectra"


@dataclass(frozen=True)
class TightPassWorkerFactory:
    """Builds a `TightPassWorker` in the process that runs it."""

    uri: str
    digest: str
    """Stands for `prepared` when two factories are compared."""
    n_threads: int
    prepared: PreparedTightPass = field(compare=False, repr=False)

    def __call__(self) -> "TightPassWorker":
        """Models are loaded when an item needs them."""
        return TightPassWorker(self)


class TightPassWorker:
    """Runs the items of a tight pass."""

    def __init__(self, spec: TightPassWorkerFactory) -> None:
        self._spec, self._prepared = spec, spec.prepared
        self._models: dict[bool, LoadedModel] = {}
        self._recorded: dict[tuple[bool, int], Mapping[Any, Recorded]] = {}

    def __call__(self, item: WorkItem) -> Mapping[str, Any]:
        """Compute and record one item."""
        with compute_threads(self._spec.n_threads), threadpool_limits(self._spec.n_threads):
            if item.kind == "identify":
                return self._identify()
            if item.kind == "tight_pass_tests":
                return write_tests(self._run, item, self._prepared.config)
            return self._spectrum(item)

    @cached_property
    def _run(self) -> Run:
        return open_run(self._spec.uri)

    def _identify(self) -> dict[str, Any]:
        model = self._model(MODEL)
        return {"identity": asdict(model.identity), "device": str(model.device)}

    def _model(self, control: str) -> LoadedModel:
        """The model that a condition is computed with; shuffled weights are shuffled in the sub-block only."""
        is_random = control == "random_weights"
        if is_random not in self._models:
            self._models[is_random] = load_model(self._prepared.config.model_of(control))
        return self._models[is_random]

    def _recording(self, text: int, control: str) -> Mapping[Any, Recorded]:
        """What the sub-blocks of all layers receive at one text; kept until another text comes."""
        key = (control == "random_weights", text)
        if key not in self._recorded:
            self._recorded = {other: found for other, found in self._recorded.items() if other[1] == text}
            prepared, model = self._prepared, self._model(control)
            self._recorded[key] = record_text(
                model,
                prepared.texts[text].ids_T,
                stack=prepared.stack,
                layers=prepared.layers,
                kinds=prepared.config.kinds,
            )
        return self._recorded[key]

    def _spectrum(self, item: WorkItem) -> dict[str, Any]:
        prepared, config = self._prepared, self._prepared.config
        text, layer = item.integer("text"), item.integer("layer")
        control, kind = item.text("control"), item.text("sub_block")
        condition = config.conditions().index(control)
        seed = item_seed(config.seed, text, layer, condition)
        block = SubBlock(
            self._model(control),
            self._recording(text, control)[kind, layer],
            with_norm=config.with_norm,
            shuffle_seed=seed if control == "shuffled_weights" else None,
        )
        if kind == "ffn":
            measured = measure_ffn(block, config, n_threads=self._spec.n_threads)
        else:
            measured = measure_attention(block, config, seed=seed)
        source = prepared.texts[text]
        names: dict[str, Any] = {"text": source.text.id, "category": source.text.category}
        names |= {"sub_block": kind, "layer": layer, "control": control}
        sizes = {"n_tokens": len(source.ids_T), "width": prepared.width}
        row = {**names, **sizes, **measured.row, "reproduction_error": block.error}
        tables = [self._run.write_table("tight_pass", item, table_from_columns(columns_of([row])))]
        if measured.tokens:
            rows: list[Mapping[str, Any]] = [{**names, **token} for token in measured.tokens]
            tables.append(self._run.write_table("tight_pass_tokens", item, table_from_columns(columns_of(rows))))
        at = {
            "control": condition,
            "sub_block": config.kinds.index(kind),
            "layer": prepared.layers.index(layer),
            "text": text,
        }
        arrays = {name: np.asarray(values)[None, None, None, None] for name, values in measured.arrays.items()}
        self._run.commit(item, tables=tables, arrays=self._run.write_result(SPECTRA, arrays, at=at))
        return {"tokens": len(source.ids_T)}
