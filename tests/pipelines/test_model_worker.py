"""What the model worker stores equals a plain Hugging Face forward, for each architecture, site and pooling."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_jobs
import torch
import transformers

from modularity.capture.forward import BatchForward
from modularity.data import TokenBatch
from modularity.errors import WorkError
from modularity.experts import balanced_kmeans, normalise_rows
from modularity.pipelines import EmergentModularityConfig
from modularity.pipelines.config import ExpertsConfig
from modularity.pipelines.model_worker import partition_neurons
from modularity.store import Run, open_run
from modularity.types import PARTITION, Site

BERT_LAYERS = [f"encoder.layer.{n}.output.dense" for n in range(2)]
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def texts(run: Run, function: str) -> list[str]:
    """Texts of a function in the order of its examples."""
    return [row["text"] for row in tiny_jobs.rows_of(run, "examples", function=function)]


def test_stored_activations_equal_a_plain_forward(finished: Run, bert: Path) -> None:
    for function in ("words", "topics"):
        every = tiny_jobs.token_activations(bert, texts(finished, function), BERT_LAYERS)
        expected = np.stack([values.max(axis=0) for values in every])
        stored = finished.read_activations(function, tiny_jobs.NEURONS)
        np.testing.assert_allclose(stored, expected, **TOLERANCE)


def test_a_decoder_is_captured_and_analysed(folder: Path, tmp_path: Path) -> None:
    model = tiny_jobs.save(tmp_path / "opt", tiny_jobs.random_module(tiny_jobs.opt_config()))
    config = tiny_jobs.job(model, [tiny_jobs.topic_function(folder)], experts={"methods": ["balanced"]})
    run = tiny_jobs.run(config, tmp_path / "run")
    every = tiny_jobs.token_activations(model, texts(run, "topics"), [f"decoder.layers.{n}.fc2" for n in range(2)])
    site = Site("decoder", "ffn.neurons")
    assert run.sites("topics") == (site,)
    expected = np.stack([values.max(axis=0) for values in every])
    np.testing.assert_allclose(run.read_activations("topics", site), expected, **TOLERANCE)
    weights = transformers.AutoModel.from_pretrained(model).decoder.layers[1].fc1.weight.detach().numpy()
    labels = balanced_kmeans(normalise_rows(weights), tiny_jobs.N_EXPERTS, seed=1)
    np.testing.assert_array_equal(run.results(PARTITION)["expert"].values[0, 1], labels)
    assert run.table("best_neurons").num_rows == 4


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_jobs.save(tmp_path_factory.mktemp("t5"), tiny_jobs.random_module(tiny_jobs.t5_config()))


def test_both_stacks_of_an_encoder_decoder_model_are_captured_together(t5: Path, folder: Path, tmp_path: Path) -> None:
    sites = ["encoder/ffn.neurons", "decoder/residual"]
    config = tiny_jobs.job(t5, [tiny_jobs.topic_function(folder)], analyses=[], capture={"sites": sites})
    run = tiny_jobs.run(config, tmp_path / "run")
    assert {str(site) for site in run.sites("topics")} == set(sites)
    assert run.tables() == ("example_labels", "examples", "subfunctions")
    neurons = run.read_activations("topics", Site("encoder", "ffn.neurons"))
    residual = run.read_activations("topics", Site("decoder", "residual"))
    assert (neurons.shape, residual.shape) == ((90, 2, 64), (90, 4, 32))
    model = transformers.AutoModel.from_pretrained(t5).eval()
    words = transformers.AutoTokenizer.from_pretrained(t5)
    for row, text in enumerate(texts(run, "topics")[:12]):
        with torch.inference_mode():
            ids = words(text, return_tensors="pt")["input_ids"]
            found = model(
                input_ids=ids, decoder_input_ids=torch.zeros((1, 1), dtype=torch.long), output_hidden_states=True
            )
        for depth in range(3):  # the last hidden state of transformers has the final norm in it
            expected = found.decoder_hidden_states[depth][0, 0].numpy()
            np.testing.assert_allclose(residual[row, depth], expected, **TOLERANCE)
        normed = model.decoder.final_layer_norm(torch.from_numpy(residual[row, 3])).detach().numpy()
        np.testing.assert_allclose(normed, found.decoder_hidden_states[3][0, 0].numpy(), **TOLERANCE)
    modules = [f"block.{n}.layer.1.DenseReluDense.wo" for n in range(2)]
    encoder = tiny_jobs.module_inputs(model.encoder, words, texts(run, "topics")[:12], modules)
    np.testing.assert_allclose(neurons[:12], np.stack([values.max(axis=0) for values in encoder]), **TOLERANCE)


@pytest.fixture(scope="module")
def pooled(bert: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One capture of the same texts in five poolings; every token of 90 texts is a row of `tokens`."""
    rows = tiny_jobs.topic_rows(90)
    for row in rows:
        row["start"] = row["text"].rindex(" ") + 1
        row["end"] = len(row["text"])
        row["label"] = int(row["label"] == "night")
    path = tiny_jobs.write_rows(tmp_path_factory.mktemp("pooled") / "spans.jsonl", rows)
    base = {"source": str(path), "columns": {"target_start": "start", "target_end": "end"}}
    poolings = {
        "spans": {"kind": "span", "span_reduction": "mean"},
        "means": {"kind": "mean", "skip_special": True},
        "lasts": {"kind": "last"},
        "tokens": {"kind": "none"},
        "pairs": {"kind": "positions", "positions": [1, -1]},
    }
    functions = [{"name": name, "pooling": pooling, **base} for name, pooling in poolings.items()]
    config = tiny_jobs.job(bert, functions, analyses=[])
    return tiny_jobs.run(config, path.parent / "run")


@pytest.fixture(scope="module")
def tokens(pooled: Run, bert: Path) -> list[np.ndarray]:
    """Activations at every token of every text: [tokens, layers, neurons]."""
    return tiny_jobs.token_activations(bert, texts(pooled, "tokens"), BERT_LAYERS)


def test_each_pooling_reduces_the_tokens_it_names(pooled: Run, tokens: list[np.ndarray]) -> None:
    expected = {
        "spans": [values[-2] for values in tokens],  # the last word, before [SEP]
        "means": [values[1:-1].mean(axis=0) for values in tokens],
        "lasts": [values[-1] for values in tokens],
        "tokens": [row for values in tokens for row in values],
        "pairs": [row for values in tokens for row in (values[1], values[-1])],
    }
    for function, rows in expected.items():
        stored = pooled.read_activations(function, tiny_jobs.NEURONS)
        np.testing.assert_allclose(stored, np.stack(rows), **TOLERANCE)


def test_rows_at_tokens_say_where_they_are(pooled: Run, tokens: list[np.ndarray], bert: Path) -> None:
    coordinates = pooled.coordinates("tokens")
    lengths = [len(values) for values in tokens]
    assert coordinates["example"].tolist() == np.repeat(np.arange(90), lengths).tolist()
    assert coordinates["position"].tolist() == [position for length in lengths for position in range(length)]
    words = transformers.AutoTokenizer.from_pretrained(bert)
    ids = [token for text in texts(pooled, "tokens") for token in words(text)["input_ids"]]
    assert coordinates["token_id"].tolist() == ids
    assert pooled.coordinates("spans")["position"].tolist() == [-1] * 90
    assert pooled.manifest.items_planned["capture"] == len(
        [record for record in pooled.commits().values() if record.item.kind == "capture"]
    )


def forward_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, fails: Callable[[TokenBatch], bool]) -> None:
    forward = BatchForward.__call__

    def failing(self: BatchForward, batch: TokenBatch) -> object:
        if fails(batch):
            raise error
        return forward(self, batch)

    monkeypatch.setattr(BatchForward, "__call__", failing)


def test_batches_that_do_not_fit_memory_are_halved_and_the_numbers_stay(
    bert: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = torch.OutOfMemoryError("CUDA out of memory")
    with monkeypatch.context() as patch:
        forward_that_fails(patch, error, lambda batch: batch.input_ids_BT.size > 100)
        config = tiny_jobs.job(bert, [tiny_jobs.topic_function(folder)], analyses=[])
        run = tiny_jobs.run(config, tmp_path / "run")
    (record,) = [record for record in run.commits().values() if record.item.kind == "capture"]
    assert record.info["tokens_per_batch"] == 64
    assert run.manifest.notes["smaller_batches"] == {str(record.item): 64}
    assert "was computed in batches of 64 tokens: memory did not suffice for more" in capsys.readouterr().err
    every = tiny_jobs.token_activations(bert, texts(run, "topics"), BERT_LAYERS)
    expected = np.stack([values.max(axis=0) for values in every])
    np.testing.assert_allclose(run.read_activations("topics", tiny_jobs.NEURONS), expected, **TOLERANCE)


def test_an_example_on_which_the_model_fails_is_named_and_the_others_are_done(
    bert: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_jobs.job(bert, [tiny_jobs.topic_function(folder), tiny_jobs.word_function(folder)], analyses=[])
    poison = transformers.AutoTokenizer.from_pretrained(bert)(tiny_jobs.topic_rows(90)[7]["text"])["input_ids"]

    def is_poisoned(batch: TokenBatch) -> bool:
        rows = [ids[mask].tolist() for ids, mask in zip(batch.input_ids_BT, batch.attention_mask_BT)]
        return poison in rows

    forward_that_fails(monkeypatch, IndexError("index out of range in self"), is_poisoned)
    with pytest.raises(
        WorkError, match=r"the model fails on example '.*' of 'topics', also alone: IndexError: index out"
    ):
        tiny_jobs.run(config, tmp_path / "run")
    run = open_run(tmp_path / "run")
    captured = {record.item.text("function") for record in run.commits().values() if record.item.kind == "capture"}
    assert captured == {"words"}


def test_experts_of_every_method_are_partitions(finished: Run, config: EmergentModularityConfig) -> None:
    results = finished.results(PARTITION)
    assert tuple(results["partition"].values) == config.experts.methods
    for method in config.experts.methods:
        for layer in (0, 1):
            sizes = np.bincount(results["expert"].sel(partition=method, layer=layer).values, minlength=8)
            assert (len(sizes), sizes.sum()) == (8, 160)
            assert method == "unbalanced" or set(sizes) == {20}


def test_seeds_of_partitions_differ_by_layer_and_repeat() -> None:
    rows_FD = normalise_rows(np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32))
    config = ExpertsConfig(n_experts=4)
    for method in config.methods:
        labels = [partition_neurons(rows_FD, method, config, layer=layer) for layer in (0, 0, 1)]
        assert labels[0].dtype == np.int32
        np.testing.assert_array_equal(labels[0], labels[1])
        assert method == "balanced" or (labels[0] != labels[2]).any()


def test_values_that_cannot_be_stored_are_told_with_their_examples(folder: Path, tmp_path: Path) -> None:
    module = tiny_jobs.random_module(tiny_jobs.bert_config())
    with torch.no_grad():
        module.embeddings.word_embeddings.weight[len(tiny_jobs.SPECIAL)] = float("nan")  # of "river"
    model = tiny_jobs.save(tmp_path / "model", module)
    with pytest.raises(WorkError, match=r"values are NaN .*; examples 'river-\d*[13579]', 'river-.* …"):
        tiny_jobs.run(tiny_jobs.job(model, [tiny_jobs.word_function(folder)], analyses=[]), tmp_path / "run")


def test_records_count_tokens_and_bytes(finished: Run) -> None:
    captures: list[Any] = [record for record in finished.commits().values() if record.item.kind == "capture"]
    assert sum(record.info["tokens"] for record in captures) == sum(finished.table("examples")["n_tokens"].to_pylist())
    for record in captures:
        assert record.info["bytes"] == sum(stored.n_bytes for stored in record.objects)
