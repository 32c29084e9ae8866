"""A mixture model through the whole job: its own experts as the partition, both variants, dropped tokens told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_jobs
import transformers

from modularity.capture import CaptureStats
from modularity.errors import InputError
from modularity.experts import balanced_kmeans, normalise_rows
from modularity.models import load_model
from modularity.neurons import average_precision
from modularity.pipelines import EmergentModularityConfig, plan_job
from modularity.pipelines.finished_run import analysed_ffn
from modularity.pipelines.native_experts import count_routing
from modularity.pipelines.prepare import prepare
from modularity.pipelines.verification import verify_run
from modularity.report.run_notes import run_notes
from modularity.report.run_tables import RunTables
from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION, Site

N_EXPERTS, EXPERT_WIDTH, LAYERS = 4, 24, [1, 3]
CHOICES = Site("encoder", "router.choices")


def switch_config(**changes: Any) -> transformers.SwitchTransformersConfig:
    return transformers.SwitchTransformersConfig(
        **{
            "vocab_size": 48, "d_model": tiny_jobs.WIDTH, "d_kv": 8, "d_ff": EXPERT_WIDTH, "num_layers": 4,
            "num_sparse_encoder_layers": 2, "num_decoder_layers": 2, "num_sparse_decoder_layers": 1, "num_heads": 4,
            "num_experts": N_EXPERTS, "expert_capacity": 3, "pad_token_id": 0, "decoder_start_token_id": 0,
        } | changes
    )  # fmt: skip


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("switch")
    return tiny_jobs.save(folder, tiny_jobs.random_module(switch_config()))


def job(model: Path, folder: Path, **changes: Any) -> EmergentModularityConfig:
    values: dict[str, Any] = {
        "capture": {"sites": ["ffn.neurons", "router.choices"], "layers": LAYERS},
        "experts": {"n_experts": N_EXPERTS, "methods": ["native", "random", "shuffled"]},
    }
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change}
    return tiny_jobs.job(model, [tiny_jobs.topic_function(folder)], **values)


@pytest.fixture(scope="module")
def switch_run(switch: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_jobs.run(job(switch, folder), tmp_path_factory.mktemp("switch-run") / "run")


def test_the_partition_is_the_experts_of_the_model(switch_run: Run) -> None:
    partition = switch_run.results(PARTITION)
    assert partition["partition"].values.tolist() == ["native", "random", "shuffled"]
    assert partition["layer"].values.tolist() == LAYERS
    for layer in range(2):
        assert partition["expert"].values[0, layer].tolist() == np.repeat(range(N_EXPERTS), EXPERT_WIDTH).tolist()
    rows = tiny_jobs.rows_of(switch_run, "functional_experts", partition="native")
    assert {(row["layer"], row["n_experts"]) for row in rows} == {(layer, N_EXPERTS) for layer in LAYERS}
    counts = tiny_jobs.rows_of(switch_run, "expert_counts", partition="native", layer=1, subfunction="sky")
    assert [row["size"] for row in counts] == [EXPERT_WIDTH] * N_EXPERTS
    assert sum(row["count"] for row in counts) == int(0.125 * N_EXPERTS * EXPERT_WIDTH)
    tests = tiny_jobs.rows_of(switch_run, "modularity_tests", partition="native", layer=ALL_LAYERS)
    assert {row["figure"] for row in tests} == {"proportion", "degree", "concentration"}


def test_neurons_are_zero_where_the_router_did_not_go(switch_run: Run) -> None:
    neurons = switch_run.read_activations("topics", Site("encoder", "ffn.neurons"))
    choices = switch_run.read_activations("topics", CHOICES)
    by_expert = neurons.reshape(*choices.shape, EXPERT_WIDTH)
    assert not by_expert[choices == 0].any()
    assert by_expert[choices == 1].any(-1).mean() > 0.9
    data = switch_run.activations("topics")
    assert data["router.choices"].dims == ("row", "sparse_layer", "expert")
    assert data["sparse_layer"].values.tolist() == LAYERS


def test_released_variant_has_a_value_for_every_expert(switch: Path, folder: Path, tmp_path: Path) -> None:
    config = job(switch, folder, capture={"expert_variant": "released", "sites": ["ffn.neurons"]})
    run = tiny_jobs.run(config.replace(analyses=[]), tmp_path / "run")
    neurons = run.read_activations("topics", Site("encoder", "ffn.neurons"))
    by_expert = neurons.reshape(len(neurons), 2, N_EXPERTS, EXPERT_WIDTH)
    assert by_expert.any(-1).all()
    assert verify_run(run.uri, n_rows=3).problems == ()


def test_stored_rows_are_found_again_in_the_model(switch_run: Run) -> None:
    checked = verify_run(switch_run.uri, n_rows=4)
    assert checked.problems == ()
    assert checked.n_rows == 4


def test_dropped_tokens_are_counted_and_told(switch_run: Run) -> None:
    captured = [record for record in switch_run.commits().values() if record.item.kind == "capture"]
    n_tokens = sum(record.info["tokens"] for record in captured)
    n_routed, n_dropped = (sum(record.info[name] for record in captured) for name in ("routed", "dropped"))
    assert n_routed == len(LAYERS) * n_tokens
    assert 0 < n_dropped < n_routed
    notes = list(run_notes(switch_run, RunTables(switch_run)))
    assert any(
        f"of {n_routed:,} routings" in note and f"{n_dropped:,} found their expert full" in note for note in notes
    )


def test_dense_items_have_no_note_on_routing(finished: Run) -> None:
    assert not any("routed" in record.info for record in finished.commits().values())
    info: dict[str, Any] = {}
    count_routing(info, CaptureStats(1, 1, 1, 1, 1, 0.0, 0.0))
    assert info == {}
    for _ in range(2):
        count_routing(info, CaptureStats(1, 1, 1, 1, 1, 0.0, 0.0, n_routed=5, n_dropped=1))
    assert info == {"routed": 10, "dropped": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"capture": {"layers": None}}, r"layers \[0, 2\] of encoder/ffn.neurons are dense; .*capture.layers=\[1, 3\]"),
        (
            {"experts": {"n_experts": 8}},
            r"n_experts=8, but layer 1 .* has 4 experts of its own; set experts.n_experts=4",
        ),
        (
            {"capture": {"layers": [0, 1]}},
            r"capture.layers: \[0\] are not among the layers 1, 3 of encoder/router.choices",
        ),
    ],
)
def test_experts_that_do_not_fit_are_refused(switch: Path, folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(job(switch, folder, **changes))


def test_a_dense_model_has_no_native_partition(bert: Path, folder: Path) -> None:
    changes = {"capture": {"sites": ["ffn.neurons"], "layers": None}, "experts": {"n_experts": tiny_jobs.N_EXPERTS}}
    with pytest.raises(InputError, match=r"experts.methods has 'native', but .* \(bert\) has no experts of its own"):
        prepare(job(bert, folder, **changes))


def test_dense_layers_of_a_mixture_are_analysed_like_any_other(switch: Path, folder: Path, tmp_path: Path) -> None:
    config = job(
        switch, folder, capture={"sites": ["ffn.neurons"], "layers": [0, 2]}, experts={"methods": ["balanced"]}
    )
    assert prepare(config).analysed.unit_shape == (EXPERT_WIDTH,)  # type: ignore[union-attr]
    run = tiny_jobs.run(config, tmp_path / "run")
    assert run.results("topics")["predictivity"].shape[1:] == (2, EXPERT_WIDTH)


SHARED, SHARED_LAYERS = Site("decoder", "shared_expert.neurons"), [1, 2]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = transformers.Qwen2MoeConfig(
        vocab_size=48, hidden_size=tiny_jobs.WIDTH, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3, intermediate_size=40,
        moe_intermediate_size=24, shared_expert_intermediate_size=48, num_experts=4, num_experts_per_tok=2,
        mlp_only_layers=[0],
    )  # fmt: skip
    return tiny_jobs.save(tmp_path_factory.mktemp("qwen"), tiny_jobs.random_module(config))


def shared_job(model: Path, folder: Path, **changes: Any) -> EmergentModularityConfig:
    values = {"sites": ["ffn.neurons", "shared_expert.neurons"], "layers": SHARED_LAYERS}
    experts = {"n_experts": 6, "methods": ["balanced", "random"]}
    wanted = {"capture": values, "experts": experts, "analysed": "shared_expert.neurons"} | changes
    return tiny_jobs.job(model, [tiny_jobs.topic_function(folder)], **wanted)


def test_neurons_of_a_shared_expert_are_ranked_and_divided(qwen: Path, folder: Path, tmp_path: Path) -> None:
    config = shared_job(qwen, folder)
    run = tiny_jobs.run(config, tmp_path / "run")
    assert run.manifest.notes["analysed"] == str(SHARED)
    results = run.results("topics")
    assert (results["layer"].values.tolist(), results.sizes["neuron"]) == (SHARED_LAYERS, 48)
    rows_RF = run.read_activations("topics", SHARED, layer=2)
    selection_R = run.coordinates("topics")["selection"].astype(bool)
    labels_R = run.coordinates("topics")["label"][0]
    used_R = selection_R & (labels_R >= 0)
    polarity_F = results["polarity"].values[0, 1]
    expected_SF = average_precision(rows_RF[used_R], (labels_R[used_R] == 1)[None])
    high = polarity_F == 1
    np.testing.assert_allclose(results["predictivity"].values[0, 1, high], expected_SF[0, high])
    weights_FD = load_model(config.model).module.layers[2].mlp.shared_expert.gate_proj.weight.numpy()
    labels_F = balanced_kmeans(normalise_rows(weights_FD), 6, n_restarts=1, seed=2)
    assert run.results(PARTITION)["expert"].values[0, 1].tolist() == labels_F.tolist()
    assert {row["layer"] for row in tiny_jobs.rows_of(run, "functional_experts")} >= set(SHARED_LAYERS)
    with pytest.raises(InputError, match=r"has analysed decoder/shared_expert.neurons; give a run with analysed="):
        analysed_ffn(run)
    other = plan_job(shared_job(qwen, folder, analysed="ffn.neurons"), reuse=run.uri)
    assert "capture from" in str(other.reuse)
    assert "partition" not in str(other.reuse)
    assert "decoder/shared_expert.neurons is only captured; another run with --reuse" in other.text()


def test_a_shared_expert_is_no_partition_of_its_own(qwen: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"a shared expert is one expert, in which all neurons lie; use 'balanced'"):
        shared_job(qwen, folder, experts={"n_experts": 6, "methods": ["native"]})
    with pytest.raises(InputError, match=r"capture.sites=\['ffn.neurons'\] lacks shared_expert.neurons, which this"):
        shared_job(qwen, folder, capture={"sites": ["ffn.neurons"]})
