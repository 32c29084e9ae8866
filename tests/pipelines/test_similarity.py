"""The whole similarity study: Gram matrices, planted categories found and random tokens not, resume, refusals."""

from pathlib import Path

import documented
import numpy as np
import pytest
import tiny_jobs
import tiny_similarity as tiny
import torch
import transformers

from modularity.errors import AllowanceError, IdentityError, InputError
from modularity.pipelines import plan_similarity, run_similarity, run_status, verify_run
from modularity.pipelines import similarity_worker as worker_module
from modularity.store import Run, open_run
from modularity.types import Site

rows_of = tiny_jobs.rows_of


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("categories") / "texts")


@pytest.fixture(scope="module")
def finished(planted: Path, texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny.run(tiny.config(planted, texts), tmp_path_factory.mktemp("similarity") / "run")


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


def test_gram_matrices_are_those_of_a_plain_forward(finished: Run, planted: Path, texts: Path) -> None:
    model = transformers.AutoModel.from_pretrained(planted).eval()
    words = transformers.AutoTokenizer.from_pretrained(planted)
    files = [path for category in sorted(tiny.CATEGORIES) for path in sorted((texts / category).iterdir())]
    streams, heads, caught = [], [], {}
    projection = model.encoder.layer[1].attention.output.dense
    handle = projection.register_forward_pre_hook(lambda _, inputs: caught.update(z=inputs[0]))
    for path in files:
        ids = words(path.read_text(), return_tensors="pt", truncation=True, max_length=20)["input_ids"]
        with torch.inference_mode():
            out = model(input_ids=ids, output_hidden_states=True)
        streams.append(out.hidden_states[1][0, 1:6])
        heads.append(caught["z"][0, 1:6].reshape(5, 4, 8)[:, 3])
    handle.remove()
    gram = finished.results("gram_texts")
    for name, values, at in (("residual", streams, (1,)), ("attention.heads", heads, (1, 3))):
        rows = torch.cat(values).double().numpy()
        np.testing.assert_allclose(gram[name].values[at], rows @ rows.T, rtol=1e-4, atol=1e-3)
    assert gram["category"].values.tolist() == np.repeat(sorted(tiny.CATEGORIES), 20).tolist()
    assert gram["position"].values.tolist() == [1, 2, 3, 4, 5] * 12


def test_planted_categories_are_found_and_random_tokens_are_not(finished: Run) -> None:
    rows = rows_of(finished, "category_scores", data="texts", site="encoder/residual", measure="cosine")
    assert [row["layer"] for row in rows] == [0, 1, 2]
    assert {(row["n_texts"], row["n_rows"], row["n_labellings"], row["exact"]) for row in rows} == {
        (12, 60, 34650, True)
    }
    for row in rows[1:]:
        assert row["p_value"] < 0.005
        assert row["low"] < row["score"] < row["high"]
        assert row["score"] == pytest.approx(row["within"] - row["between"])
        assert row["null_low"] < row["null_mean"] < row["null_high"] < row["score"]
    random = rows_of(finished, "category_scores", data="random_tokens", measure="cosine")
    assert min(row["q_value"] for row in random) > 0.05
    heads = [row for row in rows_of(finished, "category_scores", data="texts", measure="centred") if row["head"] >= 0]
    assert {(row["layer"], row["head"]) for row in heads} == {(layer, head) for layer in (0, 1) for head in range(4)}


def test_blocks_say_which_categories_are_alike(finished: Run) -> None:
    blocks = rows_of(finished, "category_blocks", data="texts", site="encoder/residual", layer=1, measure="cosine")
    pairs = {(row["category"], row["other_category"]): row for row in blocks}
    assert len(pairs) == 6
    assert pairs["river", "river"]["n_pairs"] == 6
    assert pairs["none", "river"]["n_pairs"] == 16
    assert pairs["river", "river"]["similarity"] > pairs["river", "stone"]["similarity"]


def test_the_planted_expert_lights_up_for_its_category(finished: Run) -> None:
    partition = finished.results("partition")["expert"].values[0, 0]
    (expert,) = set(partition[list(tiny_jobs.PLANTED["river"])].tolist())
    rows = rows_of(finished, "activity", data="texts", kind="expert", layer=0)
    assert {row["component"] for row in rows} == set(range(tiny_jobs.N_EXPERTS))
    (river,) = [row for row in rows if (row["component"], row["category"]) == (expert, "river")]
    assert river["effect"] > 2
    assert river["q_value"] <= 0.05
    assert river["mean"] > 2 * river["rest"]
    assert (river["n_category"], river["n_texts"], river["exact"]) == (4, 12, True)
    (other,) = [row for row in rows if (row["component"], row["category"]) == (expert, "stone")]
    assert other["effect"] < 0


def test_dimensions_streams_and_projections(finished: Run) -> None:
    summary = rows_of(finished, "dimension_summary", site="encoder/residual")
    of_texts = [row for row in summary if row["data"] == "texts"]
    assert [row["layer"] for row in of_texts] == [0, 1, 2]
    assert of_texts[1]["n_significant"] > 3
    assert of_texts[1]["p_value_largest"] == pytest.approx(0.01, abs=0.02)
    assert sum(row["n_significant"] for row in summary if row["data"] == "random_tokens") == 0
    tests = rows_of(finished, "dimension_tests", site="encoder/residual")
    assert len(tests) == 3 * tiny_jobs.WIDTH
    assert sum(row["q_value"] <= 0.05 for row in tests if row["layer"] == 1) == of_texts[1]["n_significant"]
    streams = finished.results("streams")
    assert streams["value"].shape == (12, 3, tiny_jobs.WIDTH)
    activations = finished.activations("texts")["residual"].values.reshape(12, 5, 3, tiny_jobs.WIDTH)
    np.testing.assert_allclose(streams["value"].values, activations.mean(axis=1), atol=1e-5)
    points = rows_of(finished, "projection", site="encoder/residual", layer=2)
    assert len(points) == 2 * 60
    assert {row["method"] for row in points} == {"pca", "potential"}


def test_alignment_has_every_pair_once(finished: Run) -> None:
    rows = rows_of(finished, "alignment", data="texts")
    assert len(rows) == 7 * 6 // 2
    assert all(-0.5 < row["cka_debiased"] <= row["cka"] <= 1 for row in rows)
    assert {row["n_texts"] for row in rows} == {12}


def test_a_finished_run_is_left_as_it_is_and_verifies(finished: Run, planted: Path, texts: Path) -> None:
    assert run_similarity(tiny.config(planted, texts), finished.uri, quiet=True).was_finished
    report = verify_run(finished.uri, n_rows=3)
    assert (report.problems, report.n_rows) == ((), 2 * 3)
    assert report.largest_difference < 1e-4
    status = run_status(finished.uri)
    assert status.items["gram"] == (2 * (3 + 3 * 2), 18)
    assert all(done == planned for done, planned in status.items.values())


def test_an_interrupted_study_goes_on_to_the_same_bytes(
    finished: Run, planted: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = worker_module.score_site, []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(worker_module, "score_site", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(tiny.config(planted, texts), tmp_path / "run")
    assert open_run(str(tmp_path / "run")).manifest.state == "interrupted"
    run = tiny.run(tiny.config(planted, texts), tmp_path / "run")
    assert len(calls) == 8 + 1
    assert run.content_hash() == finished.content_hash()


@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_decoders_and_encoders_of_pairs(kind: str, texts: Path, tmp_path: Path) -> None:
    module = tiny_jobs.random_module(tiny_jobs.opt_config() if kind == "opt" else tiny_jobs.t5_config())
    model = tiny_jobs.save(tmp_path / "model", module)
    run = tiny.run(tiny.config(model, texts, controls=[]), tmp_path / "run")
    stack = "decoder" if kind == "opt" else "encoder"
    assert {row["site"] for row in rows_of(run, "category_scores")} == {
        f"{stack}/{name}" for name in ("residual", "attention.output", "attention.heads", "ffn.output")
    }
    assert set(run.results("gram_texts")["residual"]["depth"].values.tolist()) == {0, 1, 2}


def test_a_chosen_site_without_experts_and_controls(planted: Path, texts: Path, tmp_path: Path) -> None:
    config = tiny.config(planted, texts, sites=["attention.heads"], experts=None, controls=[])
    run = tiny.run(config, tmp_path / "run")
    assert set(run.tables()) == {"texts", "category_scores", "activity"}
    assert [str(site) for site in run.sites("texts")] == ["encoder/attention.heads"]


def test_everything_wrong_is_said_before_any_work(planted: Path, texts: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    config = tiny.config(planted, tmp_path / "empty", experts={"n_experts": 7}, scores={**tiny.SMALL, "n_removed": 60})
    with pytest.raises(InputError) as refused:
        run_similarity(config, str(tmp_path / "run"), quiet=True)
    found = "\n".join(refused.value.problems)
    assert "has the categories []; expected two or more" in found
    assert "experts.n_experts=7 does not divide the 160 neurons" in found
    long = tiny.config(planted, texts, texts={"source": str(texts), "length": 70, "positions": "1:70"})
    with pytest.raises(InputError, match="reads at most 64 tokens") as refused:
        plan_similarity(long)
    assert sum("expected at least 70" in problem for problem in refused.value.problems) == 12
    with pytest.raises(InputError, match="has no experts of its own"):
        plan_similarity(tiny.config(planted, texts, experts={"method": "native"}))
    with pytest.raises(InputError, match="there are 60 rows; remove fewer"):
        plan_similarity(tiny.config(planted, texts, scores={**tiny.SMALL, "n_removed": 60}))
    assert not (tmp_path / "run").exists()


def test_plan_and_other_jobs_at_the_same_place(finished: Run, planted: Path, texts: Path) -> None:
    plan = plan_similarity(tiny.config(planted, texts))
    assert plan.items["gram"] == 18
    assert plan.n_rows == 2 * 60
    assert "p of category scores from all 34,650 labellings of 12 texts, none below 0.00017" in plan.notes
    with pytest.raises(AllowanceError, match="the store needs"):
        plan.check(tiny.config(planted, texts, allowance={"store_bytes": 1000}).allowance)
    with pytest.raises(IdentityError):
        run_similarity(tiny.config(planted, texts, controls=[]), finished.uri, quiet=True)


def test_native_experts_of_a_mixture_model(texts: Path, tmp_path: Path) -> None:
    """Sparse layers only, each with the model's own experts; one that no token was sent to is dark, not missing."""
    config = transformers.SwitchTransformersConfig(
        vocab_size=48, d_model=tiny_jobs.WIDTH, d_kv=8, d_ff=24, num_layers=4, num_sparse_encoder_layers=2,
        num_decoder_layers=2, num_sparse_decoder_layers=1, num_heads=4, num_experts=4, expert_capacity=64,
        pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    model = tiny_jobs.save(tmp_path / "model", tiny_jobs.random_module(config))
    study = tiny.config(model, texts, sites=["residual"], controls=[], experts={"method": "auto"})
    run = tiny.run(study, tmp_path / "run")
    assert run.manifest.notes["experts"] == "native"
    rows = rows_of(run, "activity", kind="expert")
    assert {(row["layer"], row["component"]) for row in rows} == {(layer, e) for layer in (1, 3) for e in range(4)}
    assert all(np.isfinite([row["mean"], row["rest"]]).all() and row["mean"] >= 0 for row in rows)
    stored = run.read_activations("texts", Site("encoder", "ffn.neurons"), layer=1)
    active = np.nan_to_num(stored).reshape(60, 4, 24)
    expected = np.sqrt((active.astype(np.float64) ** 2).mean(axis=2)).reshape(12, 5, 4).mean(axis=1)
    found = {(row["component"], row["category"]): row["mean"] for row in rows if row["layer"] == 1}
    for number, category in enumerate(sorted(tiny.CATEGORIES)):
        for expert in range(4):
            mean = expected[4 * number : 4 * number + 4, expert].mean()
            assert found[expert, category] == pytest.approx(mean, abs=1e-6)
