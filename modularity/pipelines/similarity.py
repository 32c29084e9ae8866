"""The similarity job from end to end: check, plan, capture, Gram matrices, tests.

A recorded item is not run again, so the same call starts a run, resumes an interrupted one, and leaves a finished one
as it is.
"""

from collections.abc import Mapping
from typing import Any

from modularity.pipelines.emergent import Outcome
from modularity.pipelines.examples import row_coordinates
from modularity.pipelines.layout import create_partition
from modularity.pipelines.model_worker import ModelWorkerFactory
from modularity.pipelines.plan import Plan
from modularity.pipelines.similarity_config import SimilarityConfig
from modularity.pipelines.similarity_layout import allocate
from modularity.pipelines.similarity_prepare import PreparedSimilarity, make_plan, prepare_similarity
from modularity.pipelines.similarity_worker import SimilarityWorkerFactory
from modularity.pipelines.steps import Step
from modularity.pipelines.study import Study, run_study
from modularity.store import Run
from modularity.types import content_digest


def plan_similarity(config: SimilarityConfig) -> Plan:
    """Size of a job; reads texts, tokenizer and model config, but no weights."""
    return make_plan(prepare_similarity(config))


def run_similarity(config: SimilarityConfig, out: str, *, quiet: bool = False) -> Outcome:
    """Run a job, or what is left of it; parameters and errors as those of `run_study`."""
    return run_study(STUDY, config, out, quiet=quiet)


def _identity(prepared: PreparedSimilarity) -> dict[str, Any]:
    return {"data": prepared.data_identity()}


def _worker(uri: str, digest: str, n_threads: int, prepared: PreparedSimilarity) -> ModelWorkerFactory:
    return ModelWorkerFactory(
        uri=uri,
        model=prepared.config.model,
        capture=prepared.capture,
        sites=tuple(prepared.shapes),
        experts=prepared.experts,
        data_digest=content_digest(prepared.data_identity()),
        rows_per_shard=tuple((name, prepared.rows_per_shard) for name in prepared.data),
        n_threads=n_threads,
        tables={name: each.table for name, each in prepared.data.items()},
    )


def _steps(prepared: PreparedSimilarity, model_worker: ModelWorkerFactory) -> list[Step]:
    worker = SimilarityWorkerFactory(
        uri=model_worker.uri,
        config=prepared.config,
        n_threads=model_worker.n_threads,
        shapes=prepared.shapes,
        vectors=prepared.vectors,
    )
    return [
        Step("capture", prepared.capture_items(), model_worker, uses_model=True),
        Step("partition", prepared.partition_items(), model_worker, uses_model=True),
        Step("Gram matrices", prepared.gram_items(), worker),
        Step("compare", prepared.test_items(), worker),
    ]


def _seeds(prepared: PreparedSimilarity) -> dict[str, int]:
    config = prepared.config
    return {
        "model": config.model.seed,
        "scores": config.scores.seed,
        "experts": prepared.experts.seed,
        "projection": config.projection.seed,
    }


def _notes(prepared: PreparedSimilarity, found: Mapping[str, Any]) -> dict[str, Any]:
    config, texts = prepared.config, prepared.texts
    return {
        "matmul": found["matmul"],
        "categories": {name: int((texts.category_E == index).sum()) for index, name in enumerate(texts.categories)},
        "positions": list(config.texts.position_list()),
        "sites": [str(shape.site) for shape in prepared.compared],
        "tokens": {name: each.table.n_tokens for name, each in prepared.data.items()},
        "truncated": {name: each.table.n_truncated for name, each in prepared.data.items()},
        "experts": prepared.experts.methods[0] if prepared.partitioned is not None else None,
    }


def _allocate(run: Run, prepared: PreparedSimilarity) -> None:
    """Create every array; repeating it changes nothing."""
    for name, each in prepared.data.items():
        run.create_activations(
            name,
            prepared.shapes,
            row_coordinates(each.function, each.table),
            storage_dtype=prepared.config.dtype,
            rows_per_item=prepared.rows_per_shard,
        )
    if prepared.partitioned is not None:
        create_partition(run, prepared.partitioned, prepared.experts)
    allocate(run, prepared)


STUDY = Study(
    prepare=prepare_similarity,
    plan=make_plan,
    identity=_identity,
    worker=_worker,
    steps=_steps,
    seeds=_seeds,
    notes=_notes,
    allocate=_allocate,
)
"""The parts of the job."""
