"""The whole restricted-routing job: planted experts are found, examples are kept apart, resume, tables, messages."""

from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_perturbation
import tiny_routing as tiny

from modularity.errors import IdentityError, InputError
from modularity.pipelines import EmergentModularityConfig, run_status, verify_run
from modularity.pipelines import restricted_routing_worker as worker_module
from modularity.pipelines.perturbation_tasks import TaskName
from modularity.pipelines.restricted_routing import plan_restricted_routing
from modularity.pipelines.restricted_routing_examples import split_evaluation
from modularity.pipelines.restricted_routing_prepare import prepare_restricted_routing, ranked_by
from modularity.report import render_report, report_content
from modularity.store import Run, open_run
from modularity.types import WorkItem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("routing")


@pytest.fixture(scope="module")
def source(folder: Path) -> Run:
    model = tiny.checkpoint(folder / "model")
    return tiny_jobs.run(tiny.source_job(folder, model), folder / "source")


@pytest.fixture(scope="module")
def finished(folder: Path, source: Run) -> Run:
    return tiny.run(tiny.config(source), folder / "run")


def test_the_planted_expert_is_the_functional_one(source: Run) -> None:
    prepared = prepare_restricted_routing(tiny.config(source))
    assert [each.experts for each in prepared.restrictions] == [((1, (tiny.HOME,)),)] * 2
    assert (prepared.first_layer, prepared.layers) == (1, (1,))


def test_every_strategy_has_its_experts(source: Run) -> None:
    prepared = prepare_restricted_routing(tiny.config(source, seeds=list(range(30))))
    chosen: dict[str, list[int]] = {}
    for item in prepared.items():
        allowed = prepared.allowed(item)
        if item.text("strategy") == "original":
            assert allowed == {}
            continue
        ((place, experts),) = allowed.items()
        assert (place, len(experts)) == (("encoder", 1), 1)
        chosen.setdefault(item.text("strategy"), []).append(experts[0])
    assert set(chosen["functional"]) == {tiny.HOME}
    assert set(chosen["others"]) == set(range(tiny.N_EXPERTS)) - {tiny.HOME}
    assert set(chosen["random"]) == set(range(tiny.N_EXPERTS))


def test_training_validation_and_test_examples_are_apart(source: Run) -> None:
    halves = {row["example_id"]: row["half"] for row in tiny_jobs.rows_of(source, "example_labels")}
    for task in prepare_restricted_routing(tiny.config(source)).tasks:
        training, validation, test = (set(part.example_ids) for part in (task.training, task.validation, task.test))
        assert {halves[name] for name in training} == {"selection"}
        assert {halves[name] for name in validation | test} == {"evaluation"}
        assert not validation & test
        assert len(validation) + len(test) == 40
        drawn = [task.drawn(24, seed) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        assert len(np.unique(drawn[0])) == 24
        assert not np.array_equal(drawn[0], drawn[2])


def test_each_part_has_both_labels_and_no_cluster_is_in_both(source: Run) -> None:
    prepared = prepare_restricted_routing(tiny.config(source))
    function, task = prepared.job.functions[0], prepared.tasks[0]
    labels_E = function.labels_SE[0]
    for share, n_validation in ((0.5, 20), (0.2, 8)):
        settings = tiny.config(source, validation_share=share)
        validation_E, test_E = split_evaluation(settings, function, labels_E)
        assert validation_E.sum() == n_validation
        assert not set(function.cluster_E[validation_E]) & set(function.cluster_E[test_E])
        assert labels_E[validation_E].mean() == labels_E[test_E].mean() == 0.5
    np.testing.assert_array_equal(np.bincount(task.validation.gold_E), [10, 10])


@pytest.mark.parametrize(("variant", "steps"), [("paper", [0, 2, 4]), ("released", [0, 1, 3, 4])])
def test_other_variants_choose_the_checkpoint_on_what_they_report(
    source: Run, tmp_path: Path, variant: str, steps: list[int]
) -> None:
    words = {"task0": tiny.WORDS["task0"]}
    settings = tiny.config(source, variant=variant, label_words=words, max_evaluation=20, n_draws=1)
    prepared = prepare_restricted_routing(settings)
    task = prepared.tasks[0]
    assert task.validation.example_ids == task.test.example_ids
    assert prepared.settings("task0", 0).loss == ("vocabulary" if variant == "released" else "words")
    run = tiny.run(settings, tmp_path / "run")
    rows = tiny_jobs.rows_of(run, "accuracy")
    assert all((row["accuracy"], row["n"]) == (row["validation_accuracy"], 20) for row in rows)
    for row in rows:
        key = {name: row[name] for name in ("task", "strategy", "draw", "seed")}
        curve = tiny_jobs.rows_of(run, "tuning_curve", **key)
        assert [each["step"] for each in curve] == steps
        assert row["accuracy"] == max(each["accuracy"] for each in curve if each["step"] > 0)
    assert "average" not in {row["task"] for row in tiny_jobs.rows_of(run, "strategies")}


def test_neurons_are_ranked_by_the_part_of_a_task(source: Run) -> None:
    part = {"source": "x.jsonl", "columns": {"text": "text"}}
    function = {"name": "glue", "kind": "task", "parts": {"cola": part, "mnli": part, "mnli-mm": part}}
    job = EmergentModularityConfig.model_validate({**source.manifest.config, "functions": [function]})
    names = ["cola", "mnli/entailment", "mnli/neutral", "mnli-mm"]

    def ranked(ranking: str, subfunction: str) -> list[str]:
        task = TaskName(subfunction, "glue", subfunction, ("yes", "no"))
        return ranked_by(tiny.config(source, ranking=ranking), job, task, names)

    assert ranked("part", "mnli/neutral") == ["mnli/entailment", "mnli/neutral"]
    assert ranked("part", "mnli-mm") == ["mnli-mm"]
    assert ranked("own", "mnli/neutral") == ["mnli/neutral"]
    assert ranked("function", "cola") == names


def test_the_tables_are_tidy_and_complete(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "accuracy")
    assert len(rows) == 2 * 2 * (3 + 2)
    assert {(row["n_training"], row["n_validation"], row["n"], row["n_steps"]) for row in rows} == {(24, 20, 20, 4)}
    for row in rows:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["n_checkpoints"] == 2
    assert {row["strategy"]: (row["n_layers"], row["n_experts"]) for row in rows} == {
        "original": (0, 0), "others": (1, 1), "functional": (1, 1), "random": (1, 1)
    }  # fmt: skip
    curve = tiny_jobs.rows_of(finished, "tuning_curve", task="task1", strategy="functional", seed=1)
    assert [row["step"] for row in curve] == [0, 2, 4]
    (chosen,) = (row for row in curve if row["chosen"])
    assert documented.differences(finished) == {}
    (own,) = (row for row in rows if (row["task"], row["strategy"], row["seed"]) == ("task1", "functional", 1))
    assert (chosen["step"], chosen["accuracy"]) == (own["step"], own["validation_accuracy"])
    assert curve[0]["accuracy"] == own["untrained_accuracy"]


def test_the_summary_is_computed_from_the_trainings(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "accuracy")

    def by_seed(task: str, strategy: str) -> np.ndarray:
        of = [row for row in rows if (row["task"], row["strategy"]) == (task, strategy)]
        return np.array([np.mean([row["accuracy"] for row in of if row["seed"] == seed]) for seed in (0, 1)])

    mean = {s: (by_seed("task0", s) + by_seed("task1", s)) / 2 for s in ("functional", "random")}
    (summary,) = tiny_jobs.rows_of(finished, "strategies", task="average", strategy="random", measure="accuracy")
    assert summary["mean"] == pytest.approx(mean["random"].mean())
    assert summary["sd"] == pytest.approx(mean["random"].std(ddof=1))
    assert (summary["n_seeds"], summary["n_draws"], summary["n"]) == (2, 2, 40)
    (test,) = tiny_jobs.rows_of(finished, "strategy_tests", task="average", against="random", measure="accuracy")
    difference = mean["functional"] - mean["random"]
    assert test["difference"] == pytest.approx(difference.mean())
    sums = np.abs([difference[0] + difference[1], difference[0] - difference[1]])
    assert test["p_value"] == (sums >= sums[0] - 1e-12).mean()
    assert test["smallest_p_value"] == 0.5
    own = tiny_jobs.rows_of(finished, "strategy_tests", against="others", measure="margin")
    assert {row["task"] for row in own} == {"task0", "task1", "average"}
    assert all(row["q_value"] >= row["p_value"] for row in own)


class KillAt:
    """Stands for the worker's `_tune` and is interrupted at one call."""

    def __init__(self, call: int) -> None:
        self.n_calls, self._call = 0, call
        self.original = worker_module.RoutingWorker._tune

    def __call__(self, worker, item: WorkItem):
        self.n_calls += 1
        if self.n_calls == self._call:
            raise KeyboardInterrupt("stop")
        return self.original(worker, item)


def test_an_interrupted_job_resumes_to_the_same_content(
    finished: Run, source: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = KillAt(8)
    monkeypatch.setattr(worker_module.RoutingWorker, "_tune", lambda worker, item: fault(worker, item))
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tiny.config(source), tmp_path / "run")
    status = run_status(str(tmp_path / "run"))
    assert (status.state, status.items["tune"]) == ("interrupted", (7, 20))
    page = render_report(report_content(open_run(str(tmp_path / "run"))))
    assert "No restricted routing was measured yet." in page
    assert "The run is interrupted: parts of this page may be missing." in page
    run = tiny.run(tiny.config(source), tmp_path / "run")
    assert fault.n_calls == 8 + 13
    assert run.content_hash() == finished.content_hash()
    assert tiny.run(tiny.config(source), tmp_path / "run").manifest.state == "finished"
    assert fault.n_calls == 8 + 13
    assert verify_run(run.uri).problems == ()


def test_another_config_is_refused_at_the_same_place(finished: Run, source: Run) -> None:
    with pytest.raises(IdentityError, match=r"config.learning_rate: recorded 0.01, now 0.02"):
        tiny.run(tiny.config(source, learning_rate=0.02), Path(finished.uri.removeprefix("file://")))


def test_the_plan_counts_trainings_and_says_what_is_restricted(source: Run) -> None:
    plan = plan_restricted_routing(tiny.config(source, task_epochs={"tasks/task1": 6}))
    assert plan.items == {"tune": 20, "compare": 1}
    assert plan.n_rows == 10 * (1 + 3) + 10 * (1 + 7)
    assert plan.seconds is not None
    assert "task task0: functional experts of 6 are layer 1: 2" in plan.text()
    assert "with 2 seeds no p can be below 0.5" in plan.text()


def test_a_task_without_functional_experts_is_trained_unrestricted_only(source: Run, tmp_path: Path) -> None:
    settings = tiny.config(source, alpha=1e-12, label_words={"task0": tiny.WORDS["task0"]}, epochs=1)
    said = plan_restricted_routing(settings).text()
    assert "task task0: no layer has functional experts to restrict routing to" in said
    assert "task task0: only the original routing is trained" in said
    run = tiny.run(settings, tmp_path / "run")
    assert {row["strategy"] for row in tiny_jobs.rows_of(run, "accuracy")} == {"original"}
    assert "strategy_tests" not in run.tables()
    page = render_report(report_content(run))
    assert "Task task0: only the original routing is trained." in page
    assert "No numbers to draw findings from." in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_words": {"task9": ["w1", "w2"]}}, r"no sub-function 'task9'; known are tasks/task0, tasks/task1"),
        ({"label_words": {"task0": ["w1 w2", "w3"]}}, r"task 'task0': label word 'w1 w2' is 2 tokens"),
        ({"label_words": {"task0": ["w1", "w1"]}}, r"label_words of 'task0' are 'w1' twice"),
        ({"task_epochs": {"task7": 3}}, r"task_epochs names 'task7', which is no task; tasks are task0, task1"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\] has a value twice"),
        ({"layers": [0]}, r"layers \[0\]: .* has experts of layers 1; choose among them"),
        ({"first_trained_layer": 7}, r"first_trained_layer=7: the encoder has 2 layers"),
        ({"n_examples": 99}, r"task 'task0': 40 examples of the selection half have a label, n_examples=99 are"),
        ({"source": "nowhere"}, r"source: there is no run at"),
        ({"model": {"name": "x", "dtype": "bfloat16"}}, r"x"),
    ],
)
def test_bad_input_is_refused(source: Run, changes: dict, message: str) -> None:
    if "model" in changes:
        changes = {"model": {**source.manifest.config["model"], "dtype": "bfloat16"}}
        message = r"the weights are bfloat16, and trained ones must be float32"
    with pytest.raises(InputError, match=message):
        plan_restricted_routing(tiny.config(source, **changes))


def test_all_problems_are_told_at_once(source: Run) -> None:
    with pytest.raises(InputError) as caught:
        plan_restricted_routing(tiny.config(source, layers=[0], n_examples=99))
    assert len(caught.value.problems) == 3


def test_a_dense_run_is_refused(folder: Path, tmp_path: Path) -> None:
    experts = {"n_experts": 6, "methods": ["balanced"], "top_fraction": 0.1, "sensitivity": [0.1]}
    job = tiny.source_job(folder, folder / "model", experts=experts, analyses=["predictivity"])
    source = tiny_jobs.run(job, tmp_path / "source")
    with pytest.raises(InputError, match=r"has no native experts; make it with a mixture model"):
        plan_restricted_routing(tiny.config(source))


def test_a_decoder_with_two_experts_for_each_token_is_studied_too(olmoe_run: Run, tmp_path: Path) -> None:
    words = {"task0": tiny_perturbation.WORDS["task0"]}
    settings = tiny.config(olmoe_run, label_words=words, alpha=0.3, n_examples=16, n_draws=1, epochs=1)
    prepared = prepare_restricted_routing(settings)
    assert (prepared.site.stack, prepared.first_layer, prepared.layers) == ("decoder", 1, (1,))
    ((layer, experts),) = prepared.restrictions[0].experts
    run = tiny.run(settings, tmp_path / "run")
    rows = {row["strategy"]: row for row in tiny_jobs.rows_of(run, "accuracy", seed=0)}
    assert set(rows) == {"original", "others", "functional", "random"}
    assert rows["functional"]["experts"] == f"{layer}: {' '.join(map(str, experts))}"
    assert len({rows[name]["margin"] for name in ("original", "others", "functional")}) == 3


def test_routers_that_choose_within_groups_are_refused_with_all_other_problems(deepseek_run: Run) -> None:
    words = {"task0": tiny_perturbation.WORDS["task0"]}
    with pytest.raises(InputError) as caught:
        plan_restricted_routing(tiny.config(deepseek_run, label_words=words, layers=[0]))
    first, *others = caught.value.problems
    assert "routers of 'deepseek_v3' choose within groups of experts or by a bias, and cannot be restricted" in first
    assert any(other.startswith("layers [0]") for other in others)
    assert any("n_examples=24 are asked for" in other for other in others)
