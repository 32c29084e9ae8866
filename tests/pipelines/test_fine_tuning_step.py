"""Fine-tuning with restricted routing: parts of the data, strategies, tests by hand, and a tiny job that resumes."""

import dataclasses
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_perturbation as tiny
import torch
import transformers

from modularity.errors import InputError, WorkError
from modularity.pipelines import fine_tuning_step
from modularity.pipelines.fine_tuning_step import compare_fine_tuning, tuning_items
from modularity.pipelines.perturbation import plan_perturbation
from modularity.pipelines.perturbation_config import FineTuningConfig
from modularity.pipelines.perturbation_prepare import prepare_perturbation
from modularity.pipelines.restrictions import Restriction
from modularity.report import headline_findings, render_report, report_content
from modularity.store import Manifest, Run, create_run, table_from_columns
from modularity.types import WorkItem

TUNING = {"n_examples": 8, "n_epochs": 2, "batch_size": 4, "evaluate_every": 2, "seeds": [0, 1], "n_random": 1,
          "learning_rate": 0.01}  # fmt: skip
HALVES = Restriction("task0", "encoder", ((1, (1, 2)),), (), 6)


def test_every_strategy_has_every_seed_and_tasks_without_experts_have_none() -> None:
    none = dataclasses.replace(HALVES, task="task1", experts=())
    items = tuning_items([HALVES, none], FineTuningConfig(seeds=(3, 5), n_random=2))
    found = [(item.text("strategy"), item.integer("draw"), item.integer("seed")) for item in items]
    kinds = [("original", -1), ("functional", -1), ("others", 0), ("random", 0), ("random", 1)]
    assert found == [(*kind, seed) for seed in (3, 5) for kind in kinds]
    assert {item.text("task") for item in items} == {"task0"}


def test_random_experts_are_as_many_drawn_from_all() -> None:
    draws = [HALVES.any_experts(draw, 0)["encoder", 1] for draw in range(40)]
    assert all(len(set(draw)) == 2 for draw in draws)
    assert {expert for draw in draws for expert in draw} == set(range(6))
    assert HALVES.any_experts(7, 0)["encoder", 1] == draws[7]


def test_signs_of_the_differences_between_seeds(tmp_path: Path) -> None:
    run = create_run(str(tmp_path / "run"), Manifest.of("perturbation"))
    rows = []
    for seed, (functional, original) in enumerate([(0.9, 0.8), (0.8, 0.6), (0.7, 0.6)]):
        values = {"functional": [functional], "original": [original], "others": [0.5], "random": [0.4, 0.6]}
        for task in ("a", "b"):
            rows += [
                {"task": task, "strategy": strategy, "draw": draw, "seed": seed,
                 **dict.fromkeys(("accuracy", "balanced_accuracy", "mcc", "margin"), value)}
                for strategy, of_draws in values.items()
                for draw, value in enumerate(of_draws)
            ]  # fmt: skip
    item = WorkItem.of("fine_tune")
    table = table_from_columns({key: [row[key] for row in rows] for key in rows[0]})
    run.commit(item, tables=[run.write_table("fine_tuning", item, table)])
    compare_fine_tuning(run, WorkItem.of("fine_tuning_tests"))
    found = {(row["task"], row["against"]): row for row in tiny_jobs.rows_of(run, "fine_tuning_tests", measure="mcc")}
    row = found["a", "original"]
    assert (row["functional"], row["other"], row["n_seeds"]) == pytest.approx((0.8, 2 / 3, 3))
    assert row["difference"] == pytest.approx(0.4 / 3)
    assert row["p_value"] == row["q_value"] == row["smallest_p_value"] == 2 / 8
    assert found["a", "random"]["difference"] == pytest.approx(0.3)  # two draws of 0.5 on average
    assert found["mean of tasks", "others"]["difference"] == pytest.approx(0.3)
    assert np.isnan(found["mean of tasks", "others"]["q_value"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of a random OLMoE with six experts, called functional generously, so that there are some."""
    folder = tmp_path_factory.mktemp("olmoe")
    config = transformers.OlmoeConfig(
        vocab_size=tiny.N_WORDS + tiny.SHIFT, hidden_size=32, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, num_experts=6, num_experts_per_tok=2, pad_token_id=0,
        bos_token_id=2, eos_token_id=3, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.15 * torch.randn(parameter.shape))
    module.save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    experts = {"n_experts": 6, "methods": ["native"], "top_fraction": 0.25, "sensitivity": [0.25], "fdr": 0.9}
    job = tiny.source_job(folder, folder / "model", capture={"layers": [0, 1]}, experts=experts)
    return tiny_jobs.run(job, folder / "run")


def config(source: Run, **tuning):
    return tiny.config(
        source, label_words={name: tiny.WORDS[name] for name in ("task0", "task1")},
        rankings=["single"], noises=["zero"], seeds=[0], layers=[0, 1],
        routing={"n_draws": 19, "fine_tuning": {**TUNING, **tuning}},
    )  # fmt: skip


def test_training_validation_and_test_share_no_example(source: Run) -> None:
    prepared = prepare_perturbation(config(source))
    assert len(prepared.tuning_tasks) == 2
    for task in prepared.tuning_tasks:
        parts = [set(part.example_ids) for part in (task.training, task.validation, task.test)]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert parts[1] | parts[2] == set(next(t for t in prepared.tasks if t.name == task.name).example_ids)
        assert all(len(np.unique(part.gold_E)) == 2 for part in (task.training, task.validation, task.test))


def test_wrong_epochs_and_layers_are_all_named(source: Run) -> None:
    with pytest.raises(InputError) as caught:
        plan_perturbation(config(source, n_epochs={"task0": 2, "nli": 3}, first_layer=7))
    text = str(caught.value)
    assert "lacks ['task1'], and names ['nli'] that are no tasks" in text
    assert "fine_tuning.first_layer=7: the layers are 0 to 1" in text


def test_a_job_trains_every_strategy_and_resumes(source: Run, tmp_path: Path, monkeypatch) -> None:
    settings = config(source)
    planned = plan_perturbation(settings)
    assert planned.n_tokens > plan_perturbation(config(source, n_epochs=1)).n_tokens
    original, calls = fine_tuning_step.fine_tune, []

    def failing(item, *rest):
        calls.append(item.id)
        if len(calls) == 3:
            raise RuntimeError("power cut")
        return original(item, *rest)

    monkeypatch.setattr("modularity.pipelines.perturbation_worker.fine_tune", failing)
    with pytest.raises(WorkError, match="power cut"):
        tiny.run(settings.replace(runtime={**settings.runtime.as_json(), "max_attempts": 1}), tmp_path / "run")
    monkeypatch.undo()
    run = tiny.run(settings, tmp_path / "run")
    assert documented.differences(run) == {}
    rows = tiny_jobs.rows_of(run, "fine_tuning")
    assert len(rows) == planned.items["fine_tune"] == 8 * len({row["task"] for row in rows})
    for row in rows:
        assert row["n_training"] == 8
        assert row["n_steps"] == 4
        assert row["step"] in (2, 4)
        assert (row["n_experts"] == 0) == (row["strategy"] == "original")
    assert run.content_hash() == tiny.run(settings, tmp_path / "again").content_hash()
    tests = tiny_jobs.rows_of(run, "fine_tuning_tests", measure="accuracy")
    assert {row["against"] for row in tests} == {"original", "others", "random"}
    assert {row["smallest_p_value"] for row in tests} == {0.5}
    content = report_content(run)
    assert content.perturbation is not None
    assert content.perturbation.tuning is not None
    assert content.perturbation.tuning.tasks[0].accuracy_NX.shape == (2, 4)
    assert "Fine-tuning with the experts of a task only" in render_report(content)
    assert any(found.text.startswith("fine-tuning: on average over the tasks") for found in headline_findings(content))
    curve = tiny_jobs.rows_of(run, "fine_tuning_curve")
    assert {row["step"] for row in curve} == {0, 2, 4}
