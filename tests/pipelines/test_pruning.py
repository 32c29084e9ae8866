"""The whole pruning job on the shipped series: one language goes, the other stays, and what is written changes."""

import re
from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_pruning as tiny
import torch
import transformers

from modularity.errors import IdentityError, InputError
from modularity.interventions.language_modelling import token_texts
from modularity.interventions.pruning import importance_sums, nothing_removed, units_of
from modularity.models import ModelConfig, load_head_model
from modularity.pipelines import pruning_worker as worker_module
from modularity.pipelines import run_status, verify_run
from modularity.pipelines.pruning import plan_pruning
from modularity.pipelines.pruning_prepare import prepare_pruning
from modularity.store import Run
from modularity.types import WorkItem


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pruning")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Run:
    return tiny.run(tiny.config(export=str(folder / "models")), folder / "run")


def one(run: Run, table: str, **wanted: object) -> dict:
    (row,) = tiny_jobs.rows_of(run, table, **wanted)
    return row


def test_one_language_goes_and_the_other_stays(finished: Run) -> None:
    for pruned, kept in (("counting", "agreement"), ("agreement", "counting")):
        row = one(finished, "pruning_choices", pruned=pruned)
        assert row["kept"] == kept
        assert row["kept_loss_after"] < row["kept_loss_before"] + 0.25
        assert row["pruned_loss_after"] > row["pruned_loss_before"] + 0.6
        assert row["pruned_loss_after"] > row["pruned_loss_random"] + 0.3
        assert 0.3 < row["gap_low"] < row["gap"] < row["gap_high"]
        assert row["null_high"] < row["gap_low"]
        assert row["p_value"] == pytest.approx(1 / 6)


def test_areas_are_those_of_separable_languages(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "pruning_areas", measure="top1")
    assert len(rows) == 2
    for row in rows:
        assert row["area_low"] < row["area"] < row["area_high"]
        assert row["excess_low"] > 0
        assert row["null_low"] <= row["null_mean"] <= row["null_high"] < row["area"]
        assert row["p_value"] == row["q_value"] == pytest.approx(1 / 6)
        assert row["chosen"]
    assert len(tiny_jobs.rows_of(finished, "pruning_areas")) == 2 * 3


def test_what_is_written_changes_language(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "continuation_tests")
    assert len(rows) == 4
    for row in rows:
        assert (row["judge_accuracy"], row["n_prompts"]) == (1.0, 30)
        assert row["before_low"] <= row["before"] <= row["before_high"]
    for kept in ("counting", "agreement"):
        (row,) = (row for row in rows if row["kept"] == kept and row["prompts_of"] == row["pruned"])
        assert row["change_low"] > 0
        assert row["p_value"] < 0.05
        assert row["after"] > row["random_high"]
    written = tiny_jobs.rows_of(finished, "continuations")
    assert len(written) == 2 * 30 * (1 + 2 * (1 + 5))
    assert all(row["continuation"] and 0 < row["p_target"] < 1 for row in written)


def test_the_exported_models_are_smaller_and_the_same(finished: Run) -> None:
    for row in tiny_jobs.rows_of(finished, "pruned_checkpoints"):
        assert row["ffn_width"] < row["ffn_width_before"] == 256
        assert row["n_parameters"] < row["n_parameters_before"]
        assert row["largest_difference"] < 1e-4 < row["largest_logit"]
        assert row["n_ffn"] == one(finished, "pruning_choices", pruned=row["pruned"])["n_ffn"]
        loaded = load_head_model(ModelConfig(name=row["folder"]))
        assert loaded.base.identity.parameter_hash == row["parameter_hash"]


def test_steps_are_tidy_and_random_units_match_in_number(finished: Run) -> None:
    rows = tiny_jobs.rows_of(finished, "pruning_steps")
    assert len(rows) == (2 + 5) * 7 * 2 * 2
    for row in rows:
        assert row["n_ffn"] == 61 * row["step"]
        assert row["top1_low"] <= row["top1"] <= row["top1_high"]
        assert row["perplexity"] == pytest.approx(np.exp(row["loss"]))
    unchanged = {
        row["loss"] for row in rows if (row["step"], row["corpus"], row["part"]) == (0, "counting", "evaluation")
    }
    assert len(unchanged) == 1
    removed = finished.results("trajectories")["ffn_removed_at"].values
    assert all((removed == step).sum(axis=1).tolist() == [61] * 7 for step in range(1, 7))


def test_importance_is_that_of_the_scoring_texts(finished: Run) -> None:
    prepared = prepare_pruning(tiny.config())
    model = load_head_model(prepared.config.model)
    sums = importance_sums(model, prepared.corpus("agreement").scoring, nothing_removed(units_of(model.base)), ["ffn"])
    recorded = finished.results("importance")
    assert recorded["ffn_absolute"].values[1] == pytest.approx(sums["ffn"].absolute, rel=1e-5)
    first = np.flatnonzero(finished.results("trajectories")["ffn_removed_at"].values[0] == 1)
    means = recorded["ffn_absolute"].values / recorded["ffn_count"].values
    scores = means[0] / (means[1] + 1e-3)  # the first trajectory takes the target, counting, away
    assert sorted(np.argsort(-scores, kind="stable")[:61].tolist()) == first.tolist()


def test_parts_are_disjoint() -> None:
    corpus = prepare_pruning(tiny.config()).corpus("counting")
    parts = {
        name: {text.inputs for text in getattr(corpus, name).texts} for name in ("scoring", "validation", "evaluation")
    }
    parts |= {"prompts": {prompt.text for prompt in corpus.prompts}}
    assert not parts["scoring"] & parts["validation"] | parts["scoring"] & parts["evaluation"]
    assert not parts["validation"] & parts["evaluation"]
    assert all(parts.values())


def test_prompts_and_pieces_that_stand_in_many_texts_count_once(tmp_path: Path) -> None:
    lines = Path(tiny.source("counting")).read_text().splitlines()
    path, head = tmp_path / "texts.txt", " ".join(lines[0].split()[:4])
    path.write_text("\n".join(f"{head} {line}" for line in lines))
    corpus = prepare_pruning(tiny.config(target={"name": "counting", "source": str(path), "lines": True})).corpora[0]
    assert [prompt.text for prompt in corpus.prompts] == [head]
    assert any(re.match(r"counting, prompts: \d+ texts begin like another and are left out", n) for n in corpus.notes)
    assert len(set(corpus.judge_test)) == len(corpus.judge_test)
    assert not set(corpus.judge_test) & set(corpus.judge_training)
    path.write_text("\n".join(f"{' '.join(line.split()[:4])} {lines[0]}" for line in lines))
    with pytest.raises(InputError, match=r"counting', judge_test: all \d+ texts go on like another"):
        prepare_pruning(tiny.config(target={"name": "counting", "source": str(path), "lines": True}))


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


class KillAt:
    """Stands for the worker and is interrupted at one call."""

    def __init__(self, call: int) -> None:
        self.n_calls, self._call = 0, call
        self.original = worker_module.PruningWorker.__call__

    def __call__(self, worker, item: WorkItem):
        self.n_calls += 1
        if self.n_calls == self._call:
            raise KeyboardInterrupt("stop")
        return self.original(worker, item)


def test_an_interrupted_job_resumes_to_the_same_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"n_steps": 2, "ffn_share": 0.3, "schedules": ["one_shot"], "directions": ["prune_target"]}
    config = tiny.config(**small, continuations=None)
    whole = tiny.run(config, tmp_path / "whole")
    fault = KillAt(5)
    monkeypatch.setattr(worker_module.PruningWorker, "__call__", lambda worker, item: fault(worker, item))
    with pytest.raises(KeyboardInterrupt):
        tiny.run(config, tmp_path / "run")
    status = run_status(str(tmp_path / "run"))
    assert (status.state, status.items["trajectory"]) == ("interrupted", (2, 6))
    run = tiny.run(config, tmp_path / "run")
    assert fault.n_calls == 5 + 1 + 4 + 1  # identified again, four trajectories, areas
    assert run.content_hash() == whole.content_hash()
    assert tiny.run(config, tmp_path / "run").manifest.state == "finished"
    assert verify_run(run.uri).problems == ()
    with pytest.raises(IdentityError, match=r"config.n_common: recorded 16, now 3"):
        tiny.run(config.replace(n_common=3), tmp_path / "run")


def test_an_encoder_decoder_with_attention(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(38)]
    backend = tiny_jobs.Tokenizer(
        tiny_jobs.models.WordLevel(
            {word: index for index, word in enumerate(["[PAD]", "[UNK]", "</s>", "<extra_id_0>", *words])},
            unk_token="[UNK]",
        )
    )
    backend.pre_tokenizer = tiny_jobs.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = transformers.AutoModelForSeq2SeqLM.from_config(tiny_jobs.t5_config())
    module.save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    sources = {}
    for name, first in (("target", 0), ("retain", 19)):
        generator = np.random.default_rng(first)
        lines = [" ".join(words[first + n] for n in generator.integers(0, 19, 9)) for _ in range(150)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        sources[name] = {"name": name, "source": str(tmp_path / f"{name}.txt"), "lines": True}
    config = tiny.config(
        model={"name": str(tmp_path / "t5"), "matmul": "highest"}, **sources, n_steps=2, ffn_share=0.2,
        attention_share=0.1, directions=["prune_target"], export=str(tmp_path / "models"),
    )  # fmt: skip
    run = tiny.run(config, tmp_path / "run")
    assert one(run, "pruned_checkpoints")["largest_difference"] < 1e-4
    last = tiny_jobs.rows_of(run, "pruning_steps", step=2, corpus="target", part="evaluation", score="abs")
    assert (last[0]["n_ffn"], last[0]["n_attention"]) == (2 * 64, 2 * 16)
    assert set(run.results("importance")["ffn_stack"].values.tolist()) == {0, 1}
    assert documented.differences(run) == {}


def test_a_masked_language_model_is_measured_and_does_not_write(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = transformers.AutoModelForMaskedLM.from_config(tiny_jobs.bert_config())
    module.save_pretrained(tmp_path / "bert")
    tokenizer = tiny_jobs.tokenizer()
    tokenizer.add_special_tokens({"mask_token": "leaf"})
    tokenizer.save_pretrained(tmp_path / "bert")
    sources = {}
    for name, words in (("target", tiny_jobs.FILLERS[:16]), ("retain", tiny_jobs.FILLERS[16:32])):
        generator = np.random.default_rng(len(name))
        lines = [" ".join(words[n] for n in generator.integers(0, 16, 8)) for _ in range(120)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
        sources[name] = {"name": name, "source": str(tmp_path / f"{name}.txt"), "lines": True}
    changes = {"model": {"name": str(tmp_path / "bert"), "matmul": "highest"}, **sources, "n_steps": 2}
    with pytest.raises(InputError, match="does not go on with a text; set continuations=null"):
        plan_pruning(tiny.config(**changes))
    run = tiny.run(tiny.config(**changes, continuations=None, directions=["prune_retain"]), tmp_path / "run")
    row = tiny_jobs.rows_of(run, "pruning_steps", step=0, corpus="target", part="evaluation", score="abs")[0]
    assert row["n_tokens"] == row["n_texts"]  # one of eight words is masked
    assert "continuations" not in run.tables()


def test_the_plan_counts_items() -> None:
    plan = plan_pruning(tiny.config(scores=["abs", "std"], schedules=["iterative", "one_shot"], export="models"))
    assert dict(plan.items) == {
        "importance": 1, "trajectory": 2 * 4 + 5, "areas": 1, "continue": 1 + 2 * 6, "continuation_tests": 1,
        "export": 2,
    }  # fmt: skip
    assert "6 steps remove 61 of 768 FFN neurons each" in plan.text()
    assert plan_pruning(tiny.config(n_steps=500)).notes[0].startswith("13 steps remove 61 of 768")


LONG = {"n_prompt_tokens": 30, "n_new": 8, "n_least": 1}
LATE = {"n_prompt_tokens": 25, "n_new": 2, "n_least": 1}


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"target": {"name": "x", "source": "nowhere"}, "model": {"name": "no/such/model"}},
            ["'nowhere' does not exist", "no/such/model"],
        ),
        ({"continuations": LONG}, ["do not fit into 32 positions"]),
        ({"target": {"name": "few", "source": "planted:counting", "max_texts": 3}}, ["3 texts, and none is left"]),
        ({"continuations": LATE}, ["is longer than n_prompt_tokens=25"]),
        ({"retain": {"name": "counting", "source": "planted:senses"}}, ["are both named 'counting'"]),
        ({"scores": ["abs", "abs"]}, [r"scores=\['abs', 'abs'\] has a value twice"]),
        ({"export": "s3://bucket/models"}, ["expected a local folder"]),
    ],
)
def test_bad_input_is_refused_with_every_problem(changes: dict, messages: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        plan_pruning(tiny.config(**changes))
    for message in messages:
        assert caught.match(message)


def test_a_folder_with_other_things_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "without-counting").mkdir()
    (tmp_path / "without-counting" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"export: .* holds no pruned checkpoint"):
        plan_pruning(tiny.config(export=str(tmp_path)))


def test_prompts_begin_as_the_model_has_learnt() -> None:
    prepared = prepare_pruning(tiny.config())
    tokenizer = load_head_model(prepared.config.model).base.tokenizer
    prompt = prepared.corpus("counting").prompts[0]
    whole = token_texts("causal", tokenizer, [f"{prompt.text} {prompt.rest}"], max_tokens=32).texts[0].inputs
    assert whole[: len(prompt.ids)] == prompt.ids
