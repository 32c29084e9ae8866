"""The whole MoEfication job: planted experts are enough, random ones are not; export, resume, texts, messages."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_moefication as tiny
import tiny_perturbation as planted
import torch
import transformers

from modularity.errors import IdentityError, InputError, ModelError
from modularity.pipelines import moefication_worker as worker_module
from modularity.pipelines import plan_moefication, run_status, verify_run
from modularity.pipelines.moefication_prepare import prepare_moefication
from modularity.store import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moefication")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return planted.checkpoint(folder / "model", shared=False)


@pytest.fixture(scope="module")
def finished(folder: Path, model: Path) -> Run:
    settings = tiny.config(folder, model, export={"folder": str(folder / "exported")})
    return tiny.run(settings, folder / "run")


def curve(run: Run, **where: object) -> dict[tuple[str, str], dict]:
    rows = tiny_jobs.rows_of(run, "selection_curve", **{"share": 0.125, **where})
    return {(row["partition"], row["router"]): row for row in rows}


def test_true_experts_hold_all_mass_and_random_ones_do_not(finished: Run) -> None:
    rows = curve(finished, measure="mass", place="all layers")
    for router in ("oracle", "parameter", "mlp"):
        assert rows["balanced", router]["value"] == pytest.approx(1.0, abs=1e-6)
        assert rows["random", router]["high"] < 0.8
    assert rows["balanced", "random"]["value"] < 0.4
    assert {row["chance"] for row in rows.values()} == {0.125}
    assert {row["n_values"] for row in rows.values()} == {80}  # the last token of each evaluation text


def test_answers_need_one_true_expert(finished: Run) -> None:
    rows = curve(finished, measure="accuracy", place="mean of tasks")
    assert (rows["balanced", "mlp"]["value"], rows["balanced", "mlp"]["whole"]) == (pytest.approx(1), pytest.approx(1))
    assert rows["balanced", "random"]["value"] < 0.9
    assert rows["balanced", "oracle"]["chance"] == 0.5
    (row,) = tiny_jobs.rows_of(
        finished, "moefied_tasks", task="task1", partition="balanced", router="random", share=0.125, seed=0
    )
    assert row["drop_accuracy"] == 1.0 - row["accuracy"]
    assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]


def test_the_advantage_is_tested_against_both_controls(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "selection_tests", measure="mass", partition="balanced", router="mlp")
    assert {(row["place"], row["against"]) for row in rows} == {
        (place, against) for place in ("layer 0", "all layers") for against in ("random experts", "random router")
    }
    for row in rows:
        assert row["advantage"] == pytest.approx(row["value"] - row["null"])
        assert row["low"] <= row["advantage"] <= row["high"]
        assert min(row["advantage"], row["seed_low"]) > 0.1
        assert row["q_value"] == pytest.approx(1e-4, rel=1)
    control = tiny_jobs.rows_of(finished, "selection_tests", partition="random", router="random")
    assert control == []


def test_all_experts_are_the_whole_model_to_the_last_bit(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "selection_curve", share=1.0)
    assert {row["measure"] for row in rows} == {"mass", "loss", "kl", "agreement", "accuracy", "margin"}
    assert {row["change"] for row in rows} == {0.0}
    assert {row["neurons"] for row in rows} == {1.0}


def test_operations_are_counted_from_the_weights(finished: Run) -> None:
    rows = curve(finished, measure="kl", place="all texts")
    width, neurons, experts = 32, 24, 8
    whole = 2 * 2 * width * neurons
    assert rows["balanced", "mlp"]["ffn_flops"] == pytest.approx(0.125 + 2 * experts * (width + experts) / whole)
    assert rows["balanced", "parameter"]["ffn_flops"] == pytest.approx(0.125 + 2 * experts * width / whole)
    assert rows["balanced", "oracle"]["ffn_flops"] == pytest.approx((1 + 0.125) / 2)
    assert rows["balanced", "mlp"]["flops"] < 1.0


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


def test_rows_by_seed(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "expert_selection", share=0.125, layer=0)
    assert len(rows) == 2 * 4 * 2
    trained = [row["held_out_mass_kept"] for row in rows if row["router"] == "mlp" and row["partition"] == "balanced"]
    assert trained == [pytest.approx(1.0)] * 2
    assert all(np.isnan(row["held_out_mass_kept"]) for row in rows if row["router"] != "mlp")
    (one,) = [row for row in rows if (row["partition"], row["router"], row["seed"]) == ("random", "oracle", 1)]
    assert one["mass_kept"] == pytest.approx(one["mass_kept_in_model"], rel=1e-5)  # one layer: nothing before changes
    experts = finished.results("experts")["expert"]
    assert not np.array_equal(experts.sel(partition="random", seed=0), experts.sel(partition="random", seed=1))


def test_the_exported_checkpoint_is_the_model(finished: Run, folder: Path, model: Path) -> None:
    rows = {row["compared"]: row for row in tiny_jobs.rows_of(finished, "moefied_export")}
    assert rows["checkpoint"]["difference"] < 1e-5
    assert (rows["all experts"]["difference"], rows["all experts"]["allowed"]) == (0.0, 0.0)
    assert rows["some experts"]["agreement"] == 1.0
    ids = planted.tokenizer()("w31 w32 w2", return_tensors="pt")["input_ids"]
    one, other = (
        transformers.AutoModelForCausalLM.from_pretrained(path).eval()(ids).logits
        for path in (model, folder / "exported")
    )
    torch.testing.assert_close(one, other)
    weights = [
        transformers.AutoModel.from_pretrained(path).decoder.layers[0].fc1.weight
        for path in (model, folder / "exported")
    ]
    assert not torch.equal(*weights)


def test_texts_of_both_sides_are_disjoint(finished: Run, folder: Path, model: Path) -> None:
    rows = planted.rows(8)
    copied = [{**row, "id": f"copy {row['id']}", "subfunction": "task0"} for row in rows[:8]]
    path = tiny_jobs.write_rows(folder / "copies.jsonl", copied)
    second = {**tiny.function(folder), "name": "copies", "source": str(path), "seed": 1}
    first = {**tiny.function(folder), "source": str(tiny_jobs.write_rows(folder / "few.jsonl", rows))}
    prepared = prepare_moefication(
        tiny.config(folder, model, functions=[first, second], label_words={}, training={"tokens": 60})
    )
    training, evaluation = prepared.texts.training, prepared.texts.evaluation

    def contents(texts):
        return [
            tuple(table.token_ids[a:b].tolist())
            for table in texts.tables.values()
            for a, b in zip(table.offsets_E1, table.offsets_E1[1:])
        ]

    assert not set(contents(training)) & set(contents(evaluation))
    assert len(set(contents(evaluation))) == evaluation.n_texts
    assert 60 <= training.n_tokens < 60 + 9
    assert any("are in the evaluation half of another function" in note for note in prepared.texts.notes)
    assert any("raise training.tokens to use them" in note for note in prepared.texts.notes)
    assert prepared.tasks == ()


class KillAt:
    """Stands for `measure_selected` and is interrupted at one call."""

    def __init__(self, call: int) -> None:
        self.n_calls, self._call, self._original = 0, call, worker_module.measure_selected

    def __call__(self, *args):
        self.n_calls += 1
        if self.n_calls == self._call:
            raise KeyboardInterrupt("stop")
        return self._original(*args)


def test_an_interrupted_job_resumes_to_the_same_content(
    finished: Run, folder: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = KillAt(3)
    monkeypatch.setattr(worker_module, "measure_selected", fault)
    settings = tiny.config(folder, model, routers=["oracle", "random"], shares=[0.125], seeds=[0], n_bootstrap=100)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(settings, tmp_path / "run")
    status = run_status(str(tmp_path / "run"))
    assert (status.state, status.items["evaluate"][0]) == ("interrupted", 2)
    run = tiny.run(settings, tmp_path / "run")
    assert fault.n_calls == 3 + 2
    assert run.content_hash() == tiny.run(settings, tmp_path / "undisturbed").content_hash()
    assert verify_run(run.uri).problems == ()


def test_an_export_is_not_overwritten(finished: Run, folder: Path, model: Path, tmp_path: Path) -> None:
    settings = tiny.config(folder, model, export={"folder": str(folder / "exported")})
    with pytest.raises(InputError, match="is not empty: name a new folder, nothing is overwritten"):
        tiny.run(settings, tmp_path / "run")
    assert tiny.run(settings, folder / "run").manifest.state == "finished"


def test_partitions_of_a_finished_run(folder: Path, model: Path) -> None:
    source = tiny.partitioned(folder / "source", folder, model, ["balanced", "unbalanced"])
    settings = {
        "source": source.uri, "model": None, "functions": None, "n_experts": None, "shares": [0.25], "label_words": {},
        "routers": ["oracle", "mlp", "random"],
    }  # fmt: skip
    run = tiny.run(
        tiny.config(folder, model, partitions=["balanced", "unbalanced", "random"], **settings), folder / "own"
    )
    taken = source.results("partition")["expert"].sel(partition="balanced", layer=0).values
    assert np.array_equal(run.results("experts")["expert"].sel(partition="balanced", seed=1, layer=0).values, taken)
    rows = tiny_jobs.rows_of(run, "expert_selection", partition="balanced")
    seeds = {router: sorted(row["seed"] for row in rows if row["router"] == router) for router in ("oracle", "mlp")}
    assert seeds == {"oracle": [-1], "mlp": [0, 1]}
    assert run.results("experts")["expert"].sel(partition="unbalanced", layer=0).max() == 5
    assert run.manifest.identity["source"]["content_hash"] == source.content_hash()
    other = planted.checkpoint(folder / "other", shared=True)
    with pytest.raises(IdentityError, match=r"is not the one of .*its parameters have hash"):
        tiny.run(
            tiny.config(
                folder, other, partitions=["balanced", "random"], **{**settings, "model": {"name": str(other)}}
            ),
            folder / "wrong",
        )
    with pytest.raises(InputError, match="has no profile, it has balanced, unbalanced"):
        plan_moefication(tiny.config(folder, model, partitions=["profile", "random"], **settings))


def test_all_problems_are_told_at_once(folder: Path, model: Path) -> None:
    with pytest.raises(InputError) as refused:
        plan_moefication(
            tiny.config(
                folder, model, layers=None, n_experts=7, label_words={"task9": ("w1", "w2")},
                functions=[{**tiny.function(folder), "source": "nowhere.jsonl"}],
            )
        )  # fmt: skip
    text = str(refused.value)
    assert "n_experts=7 does not divide the 24 neurons of layer 0" in text
    assert "nowhere.jsonl" in text
    with pytest.raises(InputError) as refused:
        tiny.config(
            folder, model, partitions=["profile"], routers=["oracle", "oracle"], functions=None, seeds=[-1],
            export={"folder": "s3://bucket/model", "seed": 4},
        )  # fmt: skip
    for part in (
        "partitions=['profile'] lacks 'random'", "lacks 'random', the control", "has a value twice",
        "functions is missing", "profile can only be taken from a finished run", "expected numbers from 0 up",
        "expected a local folder", "export.seed=4 is not among seeds",
    ):  # fmt: skip
        assert part in str(refused.value)


def test_the_plan_counts_items_and_names_experts(folder: Path, model: Path) -> None:
    plan = plan_moefication(tiny.config(folder, model))
    assert plan.items == {"partition": 2, "route": 4, "unchanged": 1, "evaluate": 2 * 4 * 2 * 2, "selection_tables": 1}
    assert "layer 0 of the decoder are divided into 8 experts, of 3 neurons" in plan.text()
    assert "shares 0.125, 1 are 1, 8 of 8 experts" in plan.text()


def masked(folder: Path) -> Path:
    module = transformers.BertForMaskedLM(tiny_jobs.bert_config())
    return tiny_jobs.save(folder / "masked", module)


def seq2seq(folder: Path) -> Path:
    return tiny_jobs.save(folder / "seq2seq", transformers.T5ForConditionalGeneration(tiny_jobs.t5_config()))


@pytest.mark.parametrize("make", [masked, seq2seq])
def test_masked_and_encoder_decoder_models_are_compared_by_their_predictions(
    folder: Path, make: Callable[[Path], Path]
) -> None:
    checkpoint = make(folder)
    by_activity = ["coactivation"] if find_spec("pymetis") else []
    settings = tiny.config(
        folder, checkpoint, functions=[tiny_jobs.topic_function(folder)], label_words={}, layers=None,
        partitions=[*by_activity, "random"], routers=["mlp", "random"], shares=[0.25], seeds=[0], stack="encoder",
        training={"share": 0.25, "n_epochs": 2, "tokens": 300}, evaluation_tokens=200,
    )  # fmt: skip
    run = tiny.run(settings, folder / f"{checkpoint.name}-run")
    rows = tiny_jobs.rows_of(run, "selection_curve")
    assert {row["measure"] for row in rows} == {"mass", "kl", "agreement"}
    assert all(np.isfinite(row["value"]) for row in rows)
    assert len({row["place"] for row in rows if row["measure"] == "mass"}) == 2 + 1
    outputs = run.results("outputs")
    assert np.isnan(outputs["loss"].values).all()
    n_texts = outputs.sizes["text"]
    positions = {row["n_values"] for row in rows if row["measure"] == "kl" and row["place"] == "all texts"}
    assert positions == (
        {n_texts} if checkpoint.name == "seq2seq" else {int(run.results("mass")["n_tokens"][0, 0, 0].sum())}
    )
    assert {row["selected"] for row in rows} == {0.25}


def test_a_checkpoint_without_a_head_is_refused(folder: Path) -> None:
    checkpoint = tiny_jobs.save(folder / "headless", tiny_jobs.random_module(tiny_jobs.bert_config()))
    settings = tiny.config(folder, checkpoint, functions=[tiny_jobs.topic_function(folder)], label_words={})
    with pytest.raises(ModelError, match="checkpoint with its LM head"):
        tiny.run(settings, folder / "headless-run")


def test_texts_without_labels_are_enough(folder: Path, model: Path) -> None:
    path = tiny_jobs.write_rows(folder / "plain.jsonl", [{"text": row["text"]} for row in planted.rows(10)])
    texts = [{"name": "plain", "source": str(path)}]
    prepared = prepare_moefication(tiny.config(folder, model, functions=None, texts=texts, label_words=None))
    assert set(prepared.texts.evaluation.tables) == {"plain"}
    assert (prepared.texts.training.n_texts, prepared.tasks) == (20, ())
    both = prepare_moefication(tiny.config(folder, model, texts=texts))
    assert set(both.texts.evaluation.tables) <= {"tasks", "plain"}
    assert len(both.tasks) == 4
    with pytest.raises(InputError, match="functions or texts named twice: tasks"):
        tiny.config(folder, model, texts=[{"name": "tasks", "source": str(path)}])
