"""Reductions of a job: what transformers alone gives over all tokens, whoever computes which part, and resumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
import tiny_jobs
import transformers

from modularity.errors import InputError
from modularity.experts.coactivation import coactivation_partition
from modularity.pipelines import EmergentModularityConfig, plan_job, run_status, verify_run
from modularity.pipelines import model_worker as model_worker_module
from modularity.pipelines.emergent import run_with
from modularity.pipelines.label_effects import difference_interval
from modularity.pipelines.prepare import prepare
from modularity.pipelines.reduction_layout import ReductionSizes, create_reductions, parts_name
from modularity.pipelines.reduction_step import ReductionWorkerFactory
from modularity.pipelines.reductions_config import ReductionsConfig
from modularity.runtime import InProcessExecutor, WorkerFactory
from modularity.runtime.executor import OnDone
from modularity.stats import Accumulator, CoActivation, FiringRate, Histogram, LabelSums, Moments, TopExamples
from modularity.store import Manifest, Run, create_run
from modularity.types import SiteShape, WorkItem

LAYERS = [f"encoder.layer.{n}.output.dense" for n in range(2)]
ALL = ("moments", "firing_rate", "histogram", "top_examples", "per_label", "co_activation")
SETTINGS: dict[str, Any] = {"kinds": ALL, "store_rows": False, "parts": 3, "n_bins": 6, "n_top": 4, "n_effects": 5}
WITHOUT_ROWS: dict[str, Any] = {"analyses": [], "reductions": SETTINGS}


@pytest.fixture(scope="module")
def config(planted: Path, functions: list[dict[str, Any]]) -> EmergentModularityConfig:
    return tiny_jobs.job(planted, functions, **WITHOUT_ROWS)


@pytest.fixture(scope="module")
def reduced(config: EmergentModularityConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_jobs.run(config, tmp_path_factory.mktemp("reduced") / "run")


@pytest.fixture(scope="module")
def tokens(reduced: Run, planted: Path) -> list[np.ndarray]:
    """Neurons of every token of every text of `words`, by transformers alone."""
    texts = [row["text"] for row in tiny_jobs.rows_of(reduced, "examples", function="words")]
    return tiny_jobs.token_activations(planted, texts, LAYERS)


def test_a_run_without_rows_holds_reductions_and_nothing_else(reduced: Run, config: EmergentModularityConfig) -> None:
    assert reduced.functions() == ()
    assert set(reduced.result_names()) == {
        f"{name}.{end}" for name in ("words", "topics") for end in ("parts", "reductions")
    }
    assert set(reduced.tables()) == {"examples", "example_labels", "subfunctions", "neuron_examples", "label_effects"}
    status = run_status(reduced.uri)
    assert status.items == {"reduce": (6, 6), "merge": (4, 4), "label_effects": (2, 2)}
    job = prepare(config)
    assert status.n_tokens == sum(table.n_tokens for table in job.tables.values())
    report = verify_run(reduced.uri)
    assert (report.problems, report.n_rows) == ((), 0)


def test_tables_are_documented(reduced: Run) -> None:
    assert documented.differences(reduced) == {}


def test_statistics_over_tokens_are_those_of_all_tokens(reduced: Run, tokens: list[np.ndarray]) -> None:
    values_RLF = np.concatenate(tokens).astype(np.float64)
    results = reduced.results("words.reductions")
    for name, expected in (
        ("moments.mean", values_RLF.mean(0)),
        ("moments.variance", values_RLF.var(0)),
        ("moments.min", values_RLF.min(0)),
        ("moments.max", values_RLF.max(0)),
    ):
        np.testing.assert_allclose(results[name].values, expected, rtol=2e-4, atol=2e-5, err_msg=name)
    assert (results["moments.count"].values == len(values_RLF)).all()
    # A value that batching moves over an edge, or over 0, changes a count by one.
    np.testing.assert_allclose(results["firing_rate"].values, (values_RLF > 0).mean(0), atol=2 / len(values_RLF))
    edges = results["histogram.edge"].values
    for layer in range(2):
        expected = np.histogram(values_RLF[:, layer, 7], [-np.inf, *edges, np.inf])[0]
        assert np.abs(results["histogram"].values[layer, 7] - expected).sum() <= 4
        active = (values_RLF[:, layer] > 0).astype(float)
        difference = results["co_activation"].values[layer] - active.T @ active
        assert np.abs(difference).max() <= 3
    assert results["co_activation.count"].values.ravel().tolist() == [len(values_RLF)] * 2


def test_top_examples_stand_with_their_token_and_context(reduced: Run, tokens: list[np.ndarray], planted: Path) -> None:
    results = reduced.results("words.reductions")
    best_EF = np.stack([text[:, 0].max(0) for text in tokens])
    for neuron in (3, 6, 50):
        np.testing.assert_allclose(
            results["top_examples.value"].values[0, neuron], np.sort(best_EF[:, neuron])[::-1][:4], rtol=1e-4, atol=1e-5
        )
        example, position = (results[f"top_examples.{name}"].values[0, neuron, 0] for name in ("example", "position"))
        assert tokens[example][position, 0, neuron] == pytest.approx(best_EF[:, neuron].max(), rel=1e-4)
    rows = tiny_jobs.rows_of(reduced, "neuron_examples", function="words", layer=0)
    assert len(rows) == 160 * 3
    words = transformers.AutoTokenizer.from_pretrained(planted)
    texts = {row["example_id"]: row["text"] for row in tiny_jobs.rows_of(reduced, "examples", function="words")}
    for row in rows:
        if row["neuron"] in tiny_jobs.PLANTED["river"]:
            assert row["token"] == "river"
            ids = words(texts[row["example_id"]])["input_ids"]
            assert words.convert_ids_to_tokens(ids[row["position"]]) == "river"
            assert row["context"] == words.decode(ids)


def test_effects_of_labels_are_those_of_pooled_rows_and_find_the_planted_neurons(
    reduced: Run, tokens: list[np.ndarray], config: EmergentModularityConfig
) -> None:
    function = prepare(config).function("words")
    pooled_ELF = np.stack([text.max(0) for text in tokens])
    results = reduced.results("words.reductions")
    for s, subfunction in enumerate(function.subfunctions):
        labels_E = np.where(function.selection_E, function.labels_SE[s], -1)
        sums = LabelSums.empty(1, 160)
        sums.update(pooled_ELF[:, 1], labels_E[None])
        effects = sums.result()
        np.testing.assert_allclose(results["per_label.effect"].values[s, 1], effects.effect_SF[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(results["per_label.p_value"].values[s, 1], effects.p_value_SF[0], rtol=1e-2)
        counts = results["per_label.count"].values[:, :, s]
        assert counts[0, 0].tolist() == [int((labels_E == 0).sum()), int((labels_E == 1).sum())]
        planted = set(tiny_jobs.PLANTED[subfunction])
        rows = tiny_jobs.rows_of(reduced, "label_effects", function="words", subfunction=subfunction, layer=0)
        assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
        assert {row["neuron"] for row in rows} <= planted
        assert all(row["q_value"] < 1e-4 and row["difference_low"] > 0 for row in rows)
        assert set(np.flatnonzero(results["per_label.q_value"].values[s, 0] < 1e-6)) >= planted


def test_co_activation_alone_gives_the_planted_experts(reduced: Run) -> None:
    counts_FF = reduced.results("words.reductions")["co_activation"].values[0]
    labels_F = coactivation_partition(counts_FF, tiny_jobs.N_EXPERTS, seed=0).labels_F
    experts = {word: set(labels_F[list(neurons)].tolist()) for word, neurons in tiny_jobs.PLANTED.items()}
    assert [len(expert) for expert in experts.values()] == [1, 1]
    assert experts["river"] != experts["stone"]


def test_an_interrupted_job_holds_the_same_bytes(
    config: EmergentModularityConfig, reduced: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = model_worker_module.reduce_part, []

    def stopped(run: Run, item: WorkItem, *arguments: Any) -> dict[str, Any]:
        calls.append(item)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(run, item, *arguments)

    monkeypatch.setattr(model_worker_module, "reduce_part", stopped)
    with pytest.raises(KeyboardInterrupt):
        tiny_jobs.run(config, tmp_path / "run")
    assert run_status(str(tmp_path / "run")).items["reduce"] == (2, 6)
    again = tiny_jobs.run(config, tmp_path / "run")
    assert len(calls) == 3 + 4
    assert again.content_hash() == reduced.content_hash()


class TwoWorkers(InProcessExecutor):
    """Deals the items of every step to two workers of their own, the last item first."""

    def run(
        self,
        items: Sequence[WorkItem],
        factory: WorkerFactory,
        *,
        on_done: OnDone | None = None,
        uses_model: bool = False,
        n_next: int = 0,
    ) -> None:
        workers = (factory(), factory())
        for number, item in enumerate(reversed(items)):
            info = workers[number % 2](item)
            if on_done is not None:
                on_done(item, info)


def test_two_workers_in_another_order_write_the_same_bytes(
    config: EmergentModularityConfig, reduced: Run, tmp_path: Path
) -> None:
    run = run_with(config, str(tmp_path / "run"), TwoWorkers(n_threads=1)).run
    assert run.content_hash() == reduced.content_hash()


def test_parts_and_groups_of_layers_do_not_change_the_results(
    planted: Path, functions: list[dict[str, Any]], reduced: Run, tmp_path: Path
) -> None:
    kinds = [kind for kind in ALL if kind != "co_activation"]
    settings = {**SETTINGS, "kinds": kinds, "parts": 1, "state_bytes": 80_000}
    config = tiny_jobs.job(planted, functions[:1], analyses=[], reductions=settings)
    items = prepare(config).reductions.reduce_items
    assert [(item["first_layer"], item["last_layer"]) for item in items] == [(0, 1), (1, 2)]
    one, several = (
        tiny_jobs.run(config, tmp_path / "run").results("words.reductions"),
        reduced.results("words.reductions"),
    )
    for name, values in one.data_vars.items():
        other = several[name].values
        if values.dtype == np.float64:
            np.testing.assert_allclose(values.values, other, rtol=1e-3, atol=1e-5, err_msg=str(name))
        else:
            assert (np.abs(values.values - other) > 1e-4 * np.abs(other) + 1).mean() < 0.01, name


def test_rows_and_reductions_stand_beside_each_other(
    bert: Path, functions: list[dict[str, Any]], tmp_path: Path
) -> None:
    config = tiny_jobs.job(
        bert, functions[1:], analyses=["predictivity"], variant="paper", reductions={"kinds": ["per_label"], "parts": 2}
    )
    run = tiny_jobs.run(config, tmp_path / "run")
    rows_RLF = run.read_activations("topics", tiny_jobs.NEURONS)
    labels_SR = run.coordinates("topics")["label"]
    results = run.results("topics.reductions")
    sums = LabelSums.empty(2, 160)
    sums.update(rows_RLF[:, 1], labels_SR)
    for ending in ("", "_evaluation"):  # variant paper: all examples
        found = results[f"per_label.t{ending}"].values[:, 1]
        np.testing.assert_allclose(found, sums.result().t_SF, rtol=1e-3, atol=1e-4)
    assert run.table("best_neurons").num_rows == 4


def test_the_plan_says_bytes_and_items(config: EmergentModularityConfig, reduced: Run) -> None:
    plan, job = plan_job(config), prepare(config)
    for name in ("words", "topics"):
        results = (reduced.results(f"{name}.{end}") for end in ("parts", "reductions"))
        stored = sum(values.nbytes for result in results for values in result.data_vars.values())
        assert job.reductions.sizes[name].stored_bytes == stored
    assert plan.store_bytes == job.reductions.stored_bytes
    assert plan.n_rows == 0
    assert dict(plan.items) == {"reduce": 6, "merge": 4, "label_effects": 2}
    (line,) = [value for name, value in plan.rows() if name == "reductions"]
    assert line.startswith("moments, firing_rate, histogram, top_examples, per_label, co_activation instead of stored")
    assert "in 6 parts" in line
    assert job.reductions.n_tokens() == plan.n_tokens
    assert job.reductions.n_tokens(job.reductions.reduce_items) == 0


def test_narrow_layers_end_in_nan_and_large_layers_merge_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: EmergentModularityConfig
) -> None:
    for module in ("reduction_step", "reduction_layout"):
        monkeypatch.setattr(f"modularity.pipelines.{module}.NEURONS_PER_BLOCK", 16)
    job = prepare(config)
    function, settings = job.function("topics"), job.config.reductions
    shape = SiteShape(tiny_jobs.NEURONS, (0, 2), (40, 20), ("neuron",), (40,))
    run = create_run(tmp_path / "run", Manifest.of("emergent_modularity"))
    create_reductions(run, "topics", function.subfunctions, ReductionSizes(settings, shape, 2, 2))
    whole = {layer: _accumulators(settings, width) for layer, width in zip((0, 2), (40, 20))}
    values = np.random.default_rng(0).standard_normal((2, 9, 40)).astype(np.float32)
    from modularity.pipelines.reduction_step import _state_block

    for part in range(2):
        for index, (layer, width) in enumerate(((0, 40), (2, 20))):
            parts = _accumulators(settings, width)
            for name, accumulator in parts.items():
                for each in (accumulator, whole[layer][name]):
                    _add(each, values[part, :, :width], first_example=9 * part)
                block = _state_block(name, accumulator, shape)  # type: ignore[arg-type]
                writes = run.write_result(parts_name("topics"), block, at={"part": part, "layer": index})
                run.commit(WorkItem.of("state", kind=name, part=part, layer=layer), arrays=writes)
    worker = ReductionWorkerFactory(
        run.uri, config.model, settings, "corrected", False, True, 1, "", job.tables,
        {"topics": [example.id for example in function.examples]},
    )()  # fmt: skip
    for layer in (0, 2):
        worker(WorkItem.of("merge", function="topics", settings="", layer=layer))
    worker(WorkItem.of("label_effects", function="topics", settings=""))
    results = run.results("topics.reductions")
    for index, (layer, width) in enumerate(((0, 40), (2, 20))):
        expected = whole[layer]
        np.testing.assert_allclose(
            results["moments.mean"].values[index, :width], expected["moments"].arrays()["mean"], atol=1e-12
        )
        own = results["co_activation"].values[index]
        np.testing.assert_array_equal(own[:width, :width], expected["co_activation"].arrays()["sums"])
        np.testing.assert_array_equal(
            results["histogram"].values[index, :width], expected["histogram"].arrays()["counts"]
        )
        np.testing.assert_array_equal(
            results["top_examples.example"].values[index, :width], expected["top_examples"].arrays()["example"]
        )
    assert np.isnan(results["co_activation"].values[1, 20:]).all()
    assert np.isnan(results["co_activation"].values[1, :, 20:]).all()
    for name in ("moments.mean", "firing_rate", "per_label.mean"):
        assert np.isnan(results[name].values[1, ..., 20:]).all(), name
    assert np.isnan(results["per_label.effect"].values[:, 1, 20:]).all()
    assert (results["histogram"].values[1, 20:] == -1).all()
    rows = tiny_jobs.rows_of(run, "neuron_examples", layer=2)
    assert len(rows) == 20 * 3
    assert {(row["token"], row["context"]) for row in rows} == {("", "")}  # no text is kept


def _accumulators(settings: ReductionsConfig, width: int) -> dict[str, Accumulator]:
    return {name: settings.empty(name, width, n_subfunctions=4) for name in settings.kinds}


def _add(accumulator: Accumulator, values: np.ndarray, *, first_example: int) -> None:
    numbers = np.arange(first_example, first_example + len(values))
    if isinstance(accumulator, Moments | FiringRate | Histogram | CoActivation):
        accumulator.update(values)
    elif isinstance(accumulator, TopExamples):
        accumulator.update(values, numbers, np.zeros(values.shape, int))
    elif isinstance(accumulator, LabelSums):
        accumulator.update(values, np.stack([numbers % 2, numbers // 2 % 2] * 2))


def test_intervals_of_differences_are_those_of_welch() -> None:
    from scipy.stats import ttest_ind

    generator = np.random.default_rng(0)
    values, labels = generator.standard_normal((50, 3)), np.arange(50) % 3 == 0
    sums = LabelSums.empty(1, 3)
    sums.update(values, labels[None].astype(int))
    low, high = difference_interval(sums.result(), 0)
    expected = ttest_ind(values[labels], values[~labels], equal_var=False).confidence_interval()
    np.testing.assert_allclose(low, expected.low)
    np.testing.assert_allclose(high, expected.high)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reductions": {"store_rows": False}}, "reductions.kinds empty: nothing is left to compute"),
        (
            {"reductions": {"store_rows": False, "kinds": ["moments"]}},
            r"analyses=\['predictivity', 'experts', 'overlap'\] need stored rows",
        ),
        (
            {"analyses": [], "capture": {"sites": ["residual"]}, "reductions": {"kinds": ["moments"]}},
            r"capture.sites=\['residual'\] lacks ffn.neurons, of which reductions are made",
        ),
        ({"reductions": {"kinds": ["means"]}}, "reductions.kinds.0='means'"),
    ],
)
def test_configs_that_cannot_be_are_refused(
    bert: Path, functions: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_jobs.job(bert, functions, **changes)


def test_what_does_not_fit_or_has_no_values_is_refused_before_the_model_is_loaded(
    bert: Path, functions: list[dict[str, Any]], tmp_path: Path
) -> None:
    settings = {"kinds": ["co_activation"], "state_bytes": 200_000}
    with pytest.raises(
        InputError, match=r"one layer of 160 neurons needs 204,808 bytes, reductions.state_bytes is 200,000"
    ):
        prepare(tiny_jobs.job(bert, functions, reductions=settings))
    switch = transformers.SwitchTransformersConfig(
        vocab_size=48, d_model=32, d_kv=8, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=4, num_experts=4,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    switch.save_pretrained(tmp_path / "switch")
    tiny_jobs.tokenizer().save_pretrained(tmp_path / "switch")
    job = tiny_jobs.job(tmp_path / "switch", functions, analyses=[], reductions={"kinds": ["co_activation"]})
    with pytest.raises(InputError, match=r"the layers \[1\] of encoder/ffn.neurons have experts, whose neurons"):
        prepare(job)
