"""The whole perturbation job: a planted double dissociation is called one, shared neurons are not; resume; messages."""

from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_perturbation as tiny

from modularity.errors import IdentityError, InputError, ModelError
from modularity.pipelines import perturbation_worker as worker_module
from modularity.pipelines import run_status, verify_run
from modularity.pipelines.perturbation import plan_perturbation
from modularity.store import Run, open_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("perturbation")


@pytest.fixture(scope="module")
def source(folder: Path) -> Run:
    model = tiny.checkpoint(folder / "own", shared=False)
    return tiny_jobs.run(tiny.source_job(folder, model), folder / "own-run")


@pytest.fixture(scope="module")
def finished(folder: Path, source: Run) -> Run:
    return tiny.run(tiny.config(source), folder / "perturbed")


def test_a_planted_double_dissociation_is_called_one(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "dissociation")
    assert len(rows) == 2 * 4
    for row in rows:
        if row["measure"] in ("accuracy", "margin"):
            assert row["verdict"] == "double dissociation", row
            assert row["p_value"] == pytest.approx(1 / 24)
            assert row["share_double"] == 1.0
            assert row["off_diagonal"] == pytest.approx(0.0, abs=1e-6)
            assert row["index"] > 0.3
            assert row["matched"] < row["diagonal"]
    zero = next(row for row in rows if (row["noise"], row["measure"]) == ("zero", "margin"))
    assert (zero["n_seeds"], zero["n_tasks"], zero["n_examples"]) == (1, 4, 80)


def test_shared_neurons_are_no_dissociation(folder: Path) -> None:
    model = tiny.checkpoint(folder / "shared", shared=True)
    source = tiny_jobs.run(tiny.source_job(folder, model), folder / "shared-run")
    run = tiny.run(tiny.config(source, rankings=["single"]), folder / "shared-perturbed")
    rows = tiny_jobs.rows_of(run, "dissociation")
    assert {row["verdict"] for row in rows} == {"not shown"}
    drops = tiny_jobs.rows_of(run, "perturbation", ranking="task0", noise="zero")
    assert min(row["drop_margin"] for row in drops) > 0.01
    assert all(row["index"] == pytest.approx(0.0, abs=1e-6) for row in rows if row["noise"] == "zero")


def test_the_table_is_tidy_and_complete(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "perturbation")
    singles, others = 4 * (1 + 2), 1 + 2 + 1 + 2  # zero once, shuffle for two seeds; average, experts
    controls = 2 * 2 * (1 + 5)  # noises, seeds; random, matched to four tasks and to the average
    assert len(rows) == 4 * (1 + singles + others + controls)
    unchanged = [row for row in rows if row["ranking"] == "none"]
    assert [(row["accuracy"], row["drop_margin"], row["n"]) for row in unchanged] == [(1.0, 0.0, 20)] * 4
    assert {row["n_neurons"] for row in rows if row["ranking"] != "none"} == {6}
    own = tiny_jobs.rows_of(finished, "perturbation", ranking="task1", task="task1", noise="zero")
    assert [(row["seed"], row["accuracy"], row["collapsed"]) for row in own] == [(-1, 0.5, True)]
    assert own[0]["drop_margin_se"] < own[0]["drop_margin"]
    assert own[0]["accuracy_low"] < 0.5 < own[0]["accuracy_high"]


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


def test_rankings_choose_the_planted_neurons(finished: Run) -> None:
    selected = finished.results("selection")["selected"]
    for task, name in enumerate(tiny.TASKS):
        mask_F = selected.sel(ranking=name, seed=1, strength=0.25, layer=0).values
        assert np.flatnonzero(mask_F).tolist() == list(range(6 * task, 6 * task + 6))
        control_F = selected.sel(ranking=f"matched {name}", seed=1, strength=0.25, layer=0).values
        assert control_F.sum() == 6
        assert not (control_F & mask_F).any()
    random = selected.sel(ranking="random", strength=0.25, layer=0).values
    assert not np.array_equal(random[0], random[1])


def test_balance_of_the_matched_controls(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "perturbation_balance")
    assert len(rows) == 5 * 2 * 2  # rankings, seeds, features
    assert {row["feature"] for row in rows} == {"mean_activation", "output_norm"}
    assert all(row["difference"] == pytest.approx(0.0, abs=0.3) for row in rows if row["feature"] == "output_norm")


def test_rankings_come_from_the_selection_half_and_tasks_from_the_other(finished: Run, source: Run) -> None:
    halves = {row["example_id"]: row["half"] for row in tiny_jobs.rows_of(source, "example_labels")}
    measured = {row["example_id"] for row in tiny_jobs.rows_of(finished, "task_examples")}
    assert {halves[name] for name in measured} == {"evaluation"}
    assert len(measured) == 80


class KillAt:
    """Stands for the worker's `_perturb` and is interrupted at one call."""

    def __init__(self, call: int) -> None:
        self.n_calls, self._call = 0, call
        self.original = worker_module.PerturbationWorker._perturb

    def __call__(self, worker, item):
        self.n_calls += 1
        if self.n_calls == self._call:
            raise KeyboardInterrupt("stop")
        return self.original(worker, item)


def test_an_interrupted_job_resumes_to_the_same_content(
    finished: Run, source: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = KillAt(9)
    monkeypatch.setattr(worker_module.PerturbationWorker, "_perturb", lambda worker, item: fault(worker, item))
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tiny.config(source), tmp_path / "run")
    status = run_status(str(tmp_path / "run"))
    assert (status.state, status.items["perturb"][0]) == ("interrupted", 8)
    run = tiny.run(tiny.config(source), tmp_path / "run")
    assert fault.n_calls == 9 + status.items["perturb"][1] - 8
    assert run.content_hash() == finished.content_hash()
    assert tiny.run(tiny.config(source), tmp_path / "run").manifest.state == "finished"
    assert fault.n_calls == 9 + status.items["perturb"][1] - 8


def test_the_bytes_of_a_perturbation_are_verified(finished: Run) -> None:
    found = verify_run(finished.uri)
    assert (found.problems, found.n_rows) == ((), 0)
    assert found.n_items == len(finished.commits())


def test_another_config_is_refused_at_the_same_place(finished: Run, source: Run) -> None:
    with pytest.raises(IdentityError, match=r"config.scale: recorded 4.0, now 2.0"):
        tiny.run(tiny.config(source, scale=2.0), Path(finished.uri.removeprefix("file://")))


def test_the_plan_counts_items_and_names_whole_experts(source: Run) -> None:
    plan = plan_perturbation(tiny.config(source, strengths=[0.125, 0.25]))
    assert plan.items["select"] == 4 + 1 + 1 + 1 + 5
    assert plan.items["perturb"] == 2 * (6 * (1 + 2) + 6 * 2 * 2)
    assert "whole experts hold 6 instead of 3 neurons of layer 0" in plan.text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_words": {**tiny.WORDS, "task9": ("w1", "w2")}}, r"no sub-function 'task9'; known are tasks/task0, "),
        ({"label_words": {**tiny.WORDS, "task0": ("w1 w2", "w3")}}, r"label word 'w1 w2' is 2 tokens, expected one"),
        ({"label_words": {**tiny.WORDS, "task0": ("no", "yes")}}, r"task 'task0': label words \['yes', 'no'\] begin"),
        ({"layers": [0, 1]}, r"layers \[1\]: neurons of these layers are not ranked in .* which has 0"),
        ({"templates": {"words": "{text}"}}, r"templates: no task is from a function 'words'"),
        ({"templates": {"tasks": "always"}}, r"templates.tasks: .*does not use \{text\}"),
        ({"variant": "paper"}, r"variant='paper' needs a run of variant 'paper', .* is of variant 'corrected'"),
        ({"source": "nowhere"}, r"source: there is no run at"),
        ({"routing": {}}, r"routing: .* has no native experts"),
        ({"rankings": ["random"]}, r"rankings=\['random'\] lacks 'single'"),
        ({"strengths": [0.6]}, r"above 0.5 no matched control of the same size is left"),
        ({"label_words": {**tiny.WORDS, "task0": ("w1", "w1")}}, r"label_words of 'task0' are 'w1' twice"),
        ({"label_words": {"tasks/task0": ("w1", "w2"), "task0": ("w1", "w2")}}, r"tasks/task0 is named twice"),
    ],
)
def test_bad_input_is_refused(source: Run, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_perturbation(tiny.config(source, **changes))


def test_all_problems_are_told_at_once(source: Run) -> None:
    with pytest.raises(InputError) as caught:
        plan_perturbation(tiny.config(source, layers=[5], label_words={**tiny.WORDS, "task0": ("w1 w2", "w3")}))
    assert len(caught.value.problems) == 2


def test_a_checkpoint_without_head_is_refused(folder: Path, tmp_path: Path) -> None:
    import transformers

    whole = transformers.AutoModelForCausalLM.from_pretrained(folder / "own")
    whole.model.save_pretrained(tmp_path / "headless")
    tiny.tokenizer().save_pretrained(tmp_path / "headless")
    source = tiny_jobs.run(tiny.source_job(tmp_path, tmp_path / "headless"), tmp_path / "run")
    with pytest.raises(ModelError, match=r"lacks 1 of the weights of OPTForCausalLM \(lm_head.weight\)"):
        tiny.run(tiny.config(source), tmp_path / "perturbed")
    assert not (tmp_path / "perturbed").exists()


def test_another_checkpoint_is_refused(folder: Path, source: Run, tmp_path: Path) -> None:
    other = tiny.checkpoint(tmp_path / "other", shared=True)
    model = {**source.manifest.config["model"], "name": str(other)}
    with pytest.raises(IdentityError, match=r"is not the one of .* row \d of function 'tasks' differs at"):
        tiny.run(tiny.config(source, model=model), tmp_path / "run")


def test_variant_paper_measures_all_examples(folder: Path, tmp_path: Path) -> None:
    job = tiny.source_job(folder, folder / "own", variant="paper", analyses=["predictivity"])
    source = tiny_jobs.run(job, tmp_path / "source")
    for variant in ("paper", "released"):
        config = tiny.config(source, variant=variant, rankings=["single"], noises=["shuffle"], seeds=[0])
        run = tiny.run(config, tmp_path / variant)
        assert {row["n"] for row in tiny_jobs.rows_of(run, "perturbation")} == {40}
    assert open_run(str(tmp_path / "paper")).content_hash() != open_run(str(tmp_path / "released")).content_hash()
