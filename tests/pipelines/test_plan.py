"""The plan: its numbers are those of the run, and what exceeds the allowance is refused with the remedy."""

from dataclasses import replace
from typing import Any

import pytest
import tiny_jobs

from modularity.errors import AllowanceError
from modularity.pipelines import EmergentModularityConfig, Plan, plan_job
from modularity.pipelines.config import Allowance
from modularity.pipelines.prepare import prepare
from modularity.runtime.memory import resident_bytes
from modularity.store import Run

PLAN = Plan(
    items={"capture": 3, "overlap": 1},
    n_examples=1200,
    n_rows=1200,
    n_tokens=34_000,
    n_truncated=0,
    store_bytes=5_000_000,
    worker_bytes=2_000_000_000,
    model_bytes=400_000_000,
    library_bytes=700_000_000,
    seconds=7200.0,
)


def test_counts_are_those_of_the_run(config: EmergentModularityConfig, finished: Run) -> None:
    plan = plan_job(config)
    records = finished.commits().values()
    kinds = [record.item.kind for record in records if record.item.kind != "functions"]
    assert dict(plan.items) == {kind: kinds.count(kind) for kind in kinds}
    assert dict(plan.items) == {
        "capture": 3, "partition": 2, "predictivity": 12, "summary": 2, "experts": 2, "agreement": 1, "overlap": 1,
    }  # fmt: skip
    rows = finished.table("examples").to_pydict()
    assert (plan.n_examples, plan.n_rows, plan.n_truncated) == (370, 370, 0)
    assert plan.n_tokens == sum(rows["n_tokens"]) == sum(text.count(" ") + 3 for text in rows["text"])


def test_store_bytes_are_those_of_the_arrays(config: EmergentModularityConfig, finished: Run) -> None:
    activations = sum(
        finished.read_activations(function, site).nbytes
        for function in finished.functions()
        for site in finished.sites(function)
    )
    results = sum(
        values.nbytes for name in finished.result_names() for values in finished.results(name).data_vars.values()
    )
    assert plan_job(config).store_bytes == activations + results


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_captured_bytes_follow_dtype_and_sites(bert: Any, functions: list[Any], dtype: str, size: int) -> None:
    config = tiny_jobs.job(bert, functions, analyses=[], capture={"dtype": dtype, "sites": ["ffn.neurons", "residual"]})
    plan = plan_job(config)
    assert plan.store_bytes == 370 * (2 * 160 + 3 * 32) * size
    assert set(plan.items) == {"capture"}


def test_memory_holds_model_and_libraries(config: EmergentModularityConfig) -> None:
    plan = plan_job(config)
    assert plan.model_bytes == prepare(config).description.parameter_bytes
    assert 0.5 * resident_bytes() < plan.library_bytes <= 1.2 * resident_bytes()
    assert plan.worker_bytes > plan.model_bytes + plan.library_bytes


def test_memory_grows_with_buffers_and_batches(config: EmergentModularityConfig) -> None:
    base = above_libraries(config)
    capture = config.capture
    for changed in (capture.replace(max_pending_items=40), capture.replace(tokens_per_batch=65536)):
        assert above_libraries(config.replace(capture=changed.as_json())) > base


def above_libraries(config: EmergentModularityConfig) -> int:
    plan = plan_job(config)
    return plan.worker_bytes - plan.library_bytes


def test_a_plan_within_its_allowance_passes() -> None:
    PLAN.check(Allowance())
    PLAN.check(Allowance(store_bytes=5_000_000, worker_bytes=2_000_000_000, hours=2))


def test_everything_over_the_allowance_is_told_at_once() -> None:
    with pytest.raises(AllowanceError) as caught:
        PLAN.check(Allowance(store_bytes=4_000_000, worker_bytes=1_000_000_000, hours=1.5))
    head, store, memory, hours = str(caught.value).split("\n  ")
    assert head == "the plan exceeds its allowance"
    assert store == (
        "the store needs 5.0 MB, allowed are 4.0 MB: pool the positions, choose fewer sites, layers or examples, or "
        "raise allowance.store_bytes"
    )
    assert memory.startswith("a worker needs 2.0 GB of memory, allowed are 1.0 GB: lower capture.tokens_per_batch")
    assert hours.startswith("the job takes about 2 h")
    assert "allowed are 1.5 h: lower functions.*.cap_per_label or predictivity.n_permutations" in hours


def test_no_estimate_is_not_refused() -> None:
    unknown = replace(PLAN, seconds=None)
    unknown.check(Allowance(hours=0.001))
    assert "time       not estimated: the model runs on a GPU" in unknown.text()


def test_text_tells_everything() -> None:
    text = replace(PLAN, n_truncated=7, notes=("2 duplicates dropped",)).text()
    assert "work items 4: 3 capture, 1 overlap" in text
    assert "examples   1,200 (7 truncated)" in text
    assert "tokens     34,000" in text
    assert "store      5.0 MB before compression" in text
    assert "memory     about 2.0 GB per worker, of which 400.0 MB model, 900.0 MB buffers, 700.0 MB libraries" in text
    assert "time       1 h 12 min to 4 h 0 min with one worker" in text
    assert text.endswith("note: 2 duplicates dropped")
