"""Corpora in a job: what one pass over all texts gives, read range by range, counted, estimated and resumed."""

import json
from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
import tiny_jobs
import transformers

from modularity.data import corpus_index as index_module
from modularity.errors import IdentityError, InputError, WorkError
from modularity.pipelines import EmergentModularityConfig, emergent, plan_job, run_status, verify_run
from modularity.pipelines.prepare import prepare
from modularity.report import render_report, report_content
from modularity.report.run_activity import activities
from modularity.report.run_notes import run_notes
from modularity.report.run_tables import RunTables
from modularity.store import Run

KINDS = ("moments", "firing_rate", "histogram", "top_examples", "co_activation")
LAYERS = [f"encoder.layer.{n}.output.dense" for n in range(2)]
N_TEXTS = 60


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rows = tiny_jobs.topic_rows(N_TEXTS, seed=5)
    return [row["text"] for row in rows]


@pytest.fixture(scope="module")
def corpus(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of texts, with an empty line and one that is no JSON."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "a.jsonl").write_text("\n".join([*lines[:25], "", *lines[25:40]]) + "\n")
    (folder / "b.jsonl").write_text("\n".join(["{", *lines[40:]]))
    return folder


def job(model: Path, corpus: Path, **changes: Any) -> EmergentModularityConfig:
    streams = [{"name": "pile", "source": str(corpus), "bad_rows": "leave_out", "skip_special": True}]
    settings = {"kinds": KINDS, "store_rows": False, "parts": 3, "n_bins": 6, "n_top": 4, "corpora": streams}
    return tiny_jobs.job(model, [], analyses=[], reductions=settings | changes, capture={"max_tokens": 9})


@pytest.fixture(scope="module", autouse=True)
def small_ranges() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setattr(index_module, "RANGE_BYTES", 600)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def config(bert: Path, corpus: Path) -> EmergentModularityConfig:
    return job(bert, corpus)


@pytest.fixture(scope="module")
def reduced(config: EmergentModularityConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_jobs.run(config, tmp_path_factory.mktemp("reduced") / "run")


def test_a_job_of_corpora_alone_gives_what_one_pass_over_all_tokens_gives(
    reduced: Run, texts: list[str], bert: Path
) -> None:
    words = transformers.AutoTokenizer.from_pretrained(bert)
    cut = [words.decode(words(text, truncation=True, max_length=9)["input_ids"][1:-1]) for text in texts]
    tokens = tiny_jobs.token_activations(bert, cut, LAYERS)
    values_RLF = np.concatenate([text[1:-1] for text in tokens]).astype(np.float64)  # without special tokens
    results = reduced.results("pile.reductions")
    assert (results["moments.count"].values == len(values_RLF)).all()
    np.testing.assert_allclose(results["moments.mean"].values, values_RLF.mean(0), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(results["moments.variance"].values, values_RLF.var(0), rtol=2e-4, atol=2e-5)
    best_EF = np.stack([text[1:-1, 0].max(0) for text in tokens])
    np.testing.assert_allclose(results["top_examples.value"].values[0, :, 0], best_EF.max(0), rtol=1e-4, atol=1e-5)
    rows = np.array([row for row in range(N_TEXTS + 2) if row not in (25, 41)])
    close = best_EF >= best_EF.max(0) - 1e-4
    assert all(row in rows[close[:, f]] for f, row in enumerate(results["top_examples.example"].values[0, :, 0]))
    verified = verify_run(reduced.uri)
    assert verified.problems == ()
    assert set(reduced.result_names()) == {"pile.parts", "pile.reductions"}


def test_every_row_is_accounted_for(reduced: Run, texts: list[str]) -> None:
    parts = sorted(tiny_jobs.rows_of(reduced, "corpus_parts"), key=lambda row: row["part"])
    assert documented.differences(reduced) == {}
    assert [row["first_row"] for row in parts] == np.cumsum([0, *(row["rows"] for row in parts)])[:-1].tolist()
    totals = {
        name: sum(row[name] for row in parts) for name in ("rows", "texts", "tokens", "truncated", "empty", "left_out")
    }
    lengths = [len(text.split()) + 2 for text in texts]
    assert totals == {
        "rows": N_TEXTS + 2, "texts": N_TEXTS, "empty": 1, "left_out": 1,
        "tokens": sum(min(9, n) for n in lengths), "truncated": sum(n > 9 for n in lengths),
    }  # fmt: skip
    (first,) = [row["left_out_first"] for row in parts if row["left_out"]]
    assert "b.jsonl:1: not valid JSON" in first
    (found,) = activities(reduced)
    results = reduced.results("pile.reductions")
    assert (found.name, found.layers, found.n_tokens) == ("pile", (0, 1), int(results["moments.count"].values[0, 0]))
    np.testing.assert_array_equal(found.rate_LF, results["firing_rate"].values)
    assert len(found.neurons) == 10
    best = max(found.neurons, key=lambda neuron: neuron.peak)
    value = results["top_examples.value"].values[best.layer, best.neuron, :3]
    assert [context.value for context in best.contexts] == pytest.approx(value.tolist())
    page = render_report(report_content(reduced))
    assert all(context.example in page for context in best.contexts)
    assert "Predictivity was not computed" not in page
    (note,) = [note for note in run_notes(reduced, RunTables(reduced)) if note.startswith("Corpus")]
    assert note.startswith(
        f"Corpus pile: 60 texts, {totals['tokens']} tokens went through the model; {totals['truncated']} of these were "
        "longer than the limit and lost their end; 1 row without a token that counts; 1 row left out, the first: "
    )
    assert run_status(reduced.uri).n_tokens == totals["tokens"]


def test_contexts_stand_with_file_and_line(reduced: Run, corpus: Path) -> None:
    rows = tiny_jobs.rows_of(reduced, "neuron_examples", layer=1)
    assert {(row["neuron"], row["rank"]) for row in rows} == {
        (neuron, rank) for neuron in range(160) for rank in (1, 2, 3)
    }
    assert len(rows) == 160 * 3
    example = reduced.results("pile.reductions")["top_examples.example"].values[1]
    for row in rows[::50]:
        name, _, line = row["example_id"].rpartition(":")
        text = json.loads((corpus / name).read_text().split("\n")[int(line) - 1])["text"]
        assert row["token"] == text.split()[row["position"] - 1]
        assert row["token"] in row["context"]
        number = int(line) - 1 + (41 if name == "b.jsonl" else 0)
        assert example[row["neuron"], row["rank"] - 1] == number


def test_any_number_of_parts_gives_the_same(reduced: Run, bert: Path, corpus: Path, tmp_path: Path) -> None:
    one = tiny_jobs.run(job(bert, corpus, parts=1, kinds=["moments"]), tmp_path / "run").results("pile.reductions")
    several = reduced.results("pile.reductions")
    for name in ("moments.mean", "moments.variance"):
        np.testing.assert_allclose(one[name].values, several[name].values, rtol=1e-4, atol=1e-6)
    assert (one["moments.count"].values == several["moments.count"].values).all()


def test_the_plan_calls_an_estimate_an_estimate(config: EmergentModularityConfig) -> None:
    plan = plan_job(config)
    assert dict(plan.items) == {"reduce": 3, "merge": 2, "contexts": 3}
    assert plan.n_tokens == 0
    assert f"about {plan.n_estimated_tokens:,} of corpora, by an estimate from a sample" in plan.text()
    assert f"note: corpus pile: {N_TEXTS + 2} rows in 2 files" in plan.text()
    job = prepare(config)
    assert job.reductions.n_tokens() == pytest.approx(plan.n_estimated_tokens, abs=3)
    assert job.reductions.reading_bytes > 0
    assert plan.worker_bytes > job.reductions.reading_bytes


def test_a_corpus_that_changed_is_another_run_and_noticed_in_the_work(
    bert: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in corpus.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    config = job(bert, copy, kinds=["moments"])
    allocate = emergent._allocate

    def change(*arguments: Any) -> None:
        allocate(*arguments)
        path = copy / "a.jsonl"
        path.write_bytes(path.read_bytes().replace(b"moon", b"mOOn"))

    monkeypatch.setattr(emergent, "_allocate", change)
    with pytest.raises(WorkError, match=r"a.jsonl' has changed since the corpus was indexed"):
        tiny_jobs.run(config, tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr(index_module, "RANGE_BYTES", 600)
    with pytest.raises(IdentityError, match="pile"):
        tiny_jobs.run(config, tmp_path / "run")


def test_wrong_corpora_are_refused_before_any_work(bert: Path, corpus: Path, tmp_path: Path) -> None:
    streams = [{"name": "pile", "source": str(corpus)}, {"name": "other", "source": str(tmp_path / "absent.txt")}]
    with pytest.raises(InputError) as refused:
        plan_job(job(bert, corpus, corpora=streams))
    found = "\n".join(refused.value.problems)
    assert "corpus 'pile': " in found
    assert "bad_rows=leave_out" in found
    assert "absent.txt' does not exist" in found


def test_a_part_without_a_text_counts_nothing(bert: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("moon sun\n" + " \n" * 400)
    streams = [{"name": "lines", "source": str(tmp_path / "a.txt")}]
    run = tiny_jobs.run(job(bert, tmp_path, corpora=streams, kinds=["moments", "top_examples"]), tmp_path / "run")
    parts = tiny_jobs.rows_of(run, "corpus_parts")
    assert sorted(row["texts"] for row in parts) == [0, 1]
    assert (run.results("lines.reductions")["moments.count"].values == 4).all()
