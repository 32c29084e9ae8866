"""The graph study from end to end: planted groups are found, unplanted ones are not; experts; resume; messages."""

from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
import tiny_graphs as tiny
import tiny_jobs
import transformers
from sklearn.metrics import adjusted_rand_score

from modularity.errors import AllowanceError, IdentityError, InputError
from modularity.geometry.graphs import BipartiteGraph, newman_modularity, normalised_cut
from modularity.pipelines import graph_modularity_prepare, graph_modularity_worker, plan_graph_modularity, run_status
from modularity.pipelines.graph_modularity_worker import GraphWorker
from modularity.store import Run

pytest.importorskip("graspologic_native")


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("wired") / "bert")


@pytest.fixture(scope="module")
def study(wired: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = tiny.config(model=tiny.model(wired), graphs=["weights", "rescaled"])
    return tiny.run(config, tmp_path_factory.mktemp("study") / "run")


@pytest.fixture(scope="module")
def with_source(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = tiny.config(source=finished.uri, graphs=["weights", "coactivation"], layers=[0], density=0.2)
    return tiny.run(config, tmp_path_factory.mktemp("sourced") / "run")


def test_planted_groups_are_found_and_tested(study: Run) -> None:
    tests = tiny_jobs.rows_of(study, "graph_tests", layer=0)
    assert len(tests) == 2 * 2 * 3
    assert {row["p_value"] for row in tests} == {1 / 20}
    assert all((row["z"] < -3) == (row["measure"] == "ncut") and abs(row["z"]) > 3 for row in tests)
    groups = study.results("graph_groups")["group"].sel(layer=0)
    for graph in ("weights", "rescaled"):
        for method in ("spectral", "leiden"):
            labels_V = groups.sel(graph=graph, algorithm=method).values
            planted_V = np.concatenate((tiny.PLANTED_F, tiny.CHANNELS_D, tiny.CHANNELS_D))
            assert adjusted_rand_score(labels_V, planted_V) == 1.0


def test_a_layer_without_groups_is_not_found(study: Run) -> None:
    tests = tiny_jobs.rows_of(study, "graph_tests", layer=1)
    assert min(row["p_value"] for row in tests) > 0.05
    assert all(row["null_low"] - row["null_sd"] < row["observed"] < row["null_high"] + row["null_sd"] for row in tests)


def test_measures_are_those_of_the_recorded_groups(study: Run, wired: Path) -> None:
    layer = transformers.AutoModel.from_pretrained(wired).encoder.layer[1]
    inputs, output = (each.weight.detach().double().numpy() for each in (layer.intermediate.dense, layer.output.dense))
    graph = BipartiteGraph(np.abs(np.concatenate((inputs, output.T), axis=1)))
    labels_V = study.results("graph_groups")["group"].sel(graph="weights", algorithm="leiden", layer=1).values
    (row,) = tiny_jobs.rows_of(study, "graph_partitions", graph="weights", method="leiden", layer=1)
    assert row["modularity"] == pytest.approx(newman_modularity(graph, labels_V))
    assert row["ncut"] == pytest.approx(normalised_cut(graph, labels_V))
    assert (row["n_nodes"], row["n_edges"], row["edge_share"]) == (160, 6144, 1.0)
    sizes = np.bincount(labels_V)
    assert (row["n_groups"], row["smallest_group"], row["largest_group"]) == (len(sizes), sizes.min(), sizes.max())


def test_every_draw_is_in_the_table_and_tests_are_made_of_them(study: Run) -> None:
    draws = tiny_jobs.rows_of(study, "graph_null", graph="weights", method="spectral", null="strengths")
    assert len(tiny_jobs.rows_of(study, "graph_null")) == 2 * 2 * 2 * 2 * 19
    by_layer = np.array([[row["ncut"] for row in draws if row["layer"] == layer] for layer in (0, 1)])
    keys = {"graph": "weights", "method": "spectral", "null": "strengths", "measure": "ncut"}
    (whole,) = tiny_jobs.rows_of(study, "graph_tests", layer=-1, **keys)
    assert whole["null_mean"] == pytest.approx(by_layer.mean())
    (one,) = tiny_jobs.rows_of(study, "graph_tests", layer=1, **keys)
    assert one["null_sd"] == pytest.approx(by_layer[1].std(ddof=1))
    assert one["p_value"] == (1 + (by_layer[1] <= one["observed"]).sum()) / 20
    assert (one["n_draws"], one["smallest_p_value"]) == (19, 0.05)


def test_tables_are_documented(study: Run, with_source: Run) -> None:
    assert documented.differences(study) == {}
    assert documented.differences(with_source) == {}


def test_groups_are_compared_with_each_other_and_with_the_experts(with_source: Run, finished: Run) -> None:
    rows = tiny_jobs.rows_of(with_source, "graph_agreement", layer=0)
    experts = finished.manifest.config["experts"]["methods"]
    assert len(rows) == 6 + 4 * len(experts)
    (row,) = [row for row in rows if (row["partition_a"], row["partition_b"]) == ("coactivation/leiden", "balanced")]
    groups = with_source.results("graph_groups")["group"]
    groups_F = groups.sel(graph="coactivation", algorithm="leiden", layer=0).values
    experts_F = finished.results("partition")["expert"].sel(partition="balanced", layer=0).values
    groups_F = groups_F[: tiny_jobs.N_NEURONS]
    linked = groups_F >= 0
    assert row["adjusted_rand"] == pytest.approx(adjusted_rand_score(groups_F[linked], experts_F[linked]))
    assert row["n_neurons"] == linked.sum()


def test_nulls_of_coactivation_keep_its_edges(with_source: Run) -> None:
    (row,) = tiny_jobs.rows_of(with_source, "graph_partitions", graph="coactivation", method="spectral", layer=0)
    assert row["n_nodes"] == tiny_jobs.N_NEURONS
    assert row["n_edges"] == int(np.ceil(0.2 * 160 * 159 / 2))
    tested = {row["null"] for row in tiny_jobs.rows_of(with_source, "graph_tests", graph="coactivation")}
    assert tested == {"degrees", "activity"}


def test_words_that_planted_neurons_share_make_groups_of_coactivation(planted_run: Run, tmp_path: Path) -> None:
    config = tiny.config(source=planted_run.uri, graphs=["coactivation"], layers=[0], methods=["leiden"], density=0.1)
    run = tiny.run(config, tmp_path / "run")
    tests = tiny_jobs.rows_of(run, "graph_tests", layer=0)
    assert {row["null"]: row["p_value"] for row in tests} == {"degrees": 0.05, "activity": 0.05}
    groups_F = run.results("graph_groups")["group"].sel(graph="coactivation", algorithm="leiden", layer=0).values
    for neurons in tiny_jobs.PLANTED.values():
        assert len(set(groups_F[list(neurons)].tolist())) == 1


def test_both_matrices_of_a_gated_ffn_count(tmp_path: Path) -> None:
    settings = transformers.LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    path = tiny_jobs.save(tmp_path / "llama", tiny_jobs.random_module(settings))
    config = tiny.config(model=tiny.model(path), methods=["spectral"], n_groups=3, nulls=["permuted"])
    run = tiny.run(config, tmp_path / "run")
    mlp = transformers.AutoModel.from_pretrained(path).layers[0].mlp
    gate, up, down = (
        getattr(mlp, name).weight.detach().double().numpy() for name in ("gate_proj", "up_proj", "down_proj")
    )
    graph = BipartiteGraph(np.concatenate((np.abs(gate) + np.abs(up), np.abs(down.T)), axis=1))
    labels_V = run.results("graph_groups")["group"].values.reshape(-1)
    (row,) = tiny_jobs.rows_of(run, "graph_partitions")
    assert row["ncut"] == pytest.approx(normalised_cut(graph, labels_V))


def test_large_graphs_keep_their_heaviest_edges_and_the_plan_says_so(wired: Path, tmp_path: Path) -> None:
    config = tiny.config(model=tiny.model(wired), methods=["spectral"], max_edges=3000, nulls=["permuted_nonzero"])
    plan = plan_graph_modularity(config)
    assert "160 nodes, 3,000 edges (the heaviest 48.8 %) in layer 0" in plan.text()
    assert "all layers have more edges than max_edges=3,000" in plan.text()
    assert graph_modularity_prepare.prepare_graphs(config.replace(nulls=None)).nulls == (
        ("weights", ("permuted", "permuted_nonzero")),
    )
    rows = tiny_jobs.rows_of(tiny.run(config, tmp_path / "run"), "graph_partitions")
    assert {row["n_edges"] for row in rows} == {3000}
    assert rows[0]["edge_share"] == pytest.approx(3000 / 6144)


def test_the_plan_counts_items_and_keeps_to_its_allowance(wired: Path) -> None:
    config = tiny.config(model=tiny.model(wired), graphs=None)
    plan = plan_graph_modularity(config)
    assert dict(plan.items) == {"observe": 4, "null": 2 * 2 * 2 * 2, "tests": 1, "agreement": 1}
    assert plan.n_partitions == 2 * 2 * 2 * (1 + 2 * 19)
    with pytest.raises(
        AllowanceError, match=r"(?s)a worker needs .* allowed are 1.0 MB: lower max_edges.*the job takes"
    ):
        plan.check(config.allowance.replace(worker_bytes=1_000_000, hours=1e-6))


def test_an_interrupted_study_resumes_to_the_same_content(
    wired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config(model=tiny.model(wired), methods=["spectral"], nulls=["permuted"])
    whole = tiny.run(config, tmp_path / "whole")
    original, calls = GraphWorker._draw, []

    def failing(worker: GraphWorker, item: Any) -> Any:
        calls.append(item)
        if len(calls) == 3:
            raise KeyboardInterrupt("stop")
        return original(worker, item)

    monkeypatch.setattr(graph_modularity_worker.GraphWorker, "_draw", failing)
    with pytest.raises(KeyboardInterrupt):
        tiny.run(config, tmp_path / "run")
    assert run_status(str(tmp_path / "run")).items["null"] == (2, 4)
    run = tiny.run(config, tmp_path / "run")
    assert len(calls) == 3 + 2
    assert run.content_hash() == whole.content_hash()


def test_another_model_than_that_of_the_run_is_refused(finished: Run, wired: Path, tmp_path: Path) -> None:
    config = tiny.config(source=finished.uri, model=tiny.model(wired), layers=[0])
    with pytest.raises(IdentityError, match=r"is not the one of .*: parameter hash \w+, recorded is"):
        tiny.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [0, 7]}, r"layers \[7\]: the model has 0, 1"),
        ({"n_groups": 25}, r"n_groups=25: layer 0 has 96 neurons; expected at most a fourth"),
        ({"source": "nowhere"}, r"source: there is no run at"),
        ({"stack": "decoder"}, r"stack='decoder': this model has encoder"),
        ({"graphs": ["coactivation"]}, r"graphs has 'coactivation', which needs the activations of a run"),
        ({"nulls": ["degrees"]}, r"nulls=\['degrees'\] has none for the graph 'weights': expected one of permuted"),
        ({"graphs": ["weights", "weights"]}, r"graphs=\['weights', 'weights'\] has a value twice"),
        ({"max_edges": 3000, "nulls": ["strengths"]}, r"'strengths' needs all edges, and max_edges=3,000 leaves"),
        ({"model": None}, r"neither model nor source is given"),
    ],
)
def test_bad_input_is_refused(wired: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_graph_modularity(tiny.config(**({"model": tiny.model(wired)} | changes)))


def test_all_problems_are_told_at_once(wired: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_modularity_prepare, "find_spec", lambda name: None)
    with pytest.raises(InputError) as caught:
        plan_graph_modularity(tiny.config(model=tiny.model(wired), layers=[9], source="nowhere"))
    assert len(caught.value.problems) == 3
    assert "needs the package graspologic-native" in caught.value.problems[1]
