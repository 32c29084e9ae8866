"""Partitions by co-activation and by predictivity profile through the whole job, and the agreement of all methods."""

import importlib.util
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_jobs
from sklearn.metrics import adjusted_rand_score

from modularity.errors import InputError
from modularity.experts import profile_partition
from modularity.pipelines.activity_partition import coactivation, evaluation_profiles
from modularity.pipelines.expert_problems import expert_problems
from modularity.pipelines.prepare import prepare
from modularity.pipelines.scan_config import ScanConfig
from modularity.report import render_report
from modularity.report.run_content import report_content
from modularity.store import Run
from modularity.types import ALL_LAYERS, PARTITION, SiteShape

METHODS = ["balanced", "random", "coactivation", "profile"]
pytest.importorskip("pymetis")


@pytest.fixture(scope="module")
def run(planted: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    functions = [tiny_jobs.word_function(folder), tiny_jobs.topic_function(folder)]
    config = tiny_jobs.job(planted, functions, experts={"methods": METHODS})
    return tiny_jobs.run(config, tmp_path_factory.mktemp("activity") / "run")


def labels(run: Run, method: str, layer: int = 0) -> np.ndarray:
    values: np.ndarray = run.results(PARTITION)["expert"].values[METHODS.index(method), layer]
    return values


def test_both_partitions_are_balanced_and_find_the_planted_experts(run: Run) -> None:
    for method in ("coactivation", "profile"):
        for layer in range(tiny_jobs.N_LAYERS):
            sizes = np.bincount(labels(run, method, layer))
            assert sizes.tolist() == [tiny_jobs.N_NEURONS // tiny_jobs.N_EXPERTS] * tiny_jobs.N_EXPERTS
        for neurons in tiny_jobs.PLANTED.values():
            assert np.bincount(labels(run, method)[list(neurons)]).max() >= 18


def test_coactivation_counts_rows_in_which_both_are_in_their_highest_tenth(run: Run) -> None:
    weights_FF, counted = coactivation(run, 1, tiny_jobs.N_NEURONS)
    expected = np.zeros_like(weights_FF)
    for function in ("words", "topics"):
        values_RF = run.read_activations(function, tiny_jobs.NEURONS, layer=1)
        reached_RF = values_RF >= np.quantile(values_RF, 0.9, axis=0)
        active_RF = (reached_RF & (values_RF > values_RF.min(axis=0))).astype(float)
        expected += active_RF.T @ active_RF
    assert counted == "rows"
    np.testing.assert_array_equal(weights_FF, expected)


def test_counts_of_tokens_are_used_where_the_job_reduced_them(
    planted: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tiny_jobs.job(
        planted,
        [tiny_jobs.word_function(folder)],
        experts={"methods": ["balanced", "coactivation"]},
        reductions={"kinds": ["co_activation"]},
    )
    counted_run = tiny_jobs.run(config, tmp_path_factory.mktemp("counted") / "run")
    weights_FF, counted = coactivation(counted_run, 0, tiny_jobs.N_NEURONS)
    assert counted == "tokens"
    np.testing.assert_array_equal(weights_FF, counted_run.results("words.reductions")["co_activation"].values[0])
    labels_F = counted_run.results(PARTITION)["expert"].values[1, 0]
    assert [len(set(labels_F[list(neurons)])) for neurons in tiny_jobs.PLANTED.values()] == [1, 1]


def test_profile_has_seen_evaluation_rows_only(run: Run) -> None:
    profiles_SF, rows_R = evaluation_profiles(run, 0, tiny_jobs.N_NEURONS)
    assert profiles_SF.shape == (4, tiny_jobs.N_NEURONS)
    selection_R = np.concatenate([run.coordinates(name)["selection"] for name in ("words", "topics")]).astype(bool)
    assert not (rows_R & selection_R).any()
    assert (rows_R | selection_R).all()
    found = profile_partition(profiles_SF, tiny_jobs.N_EXPERTS, selection_R=rows_R, seed=0)
    np.testing.assert_array_equal(found.labels_F, labels(run, "profile"))


def test_they_are_tested_like_the_controls(run: Run) -> None:
    for table in ("functional_experts", "expert_counts", "function_experts", "function_modularity", "modularity_tests"):
        rows = tiny_jobs.rows_of(run, table)
        by_method = {method: [row for row in rows if row["partition"] == method] for method in METHODS}
        assert len({len(rows) for rows in by_method.values()}) == 1
    tests = tiny_jobs.rows_of(run, "modularity_tests", function="words", partition="profile", layer=ALL_LAYERS)
    found = {row["figure"]: row["p_value"] for row in tests if row["null"] == "permuted labels"}
    assert found["concentration"] <= 0.05


def test_agreement_of_every_two_methods_in_every_layer(run: Run) -> None:
    rows = tiny_jobs.rows_of(run, "partition_agreement")
    pairs = [(row["layer"], row["partition_a"], row["partition_b"]) for row in rows]
    assert pairs == [(layer, *pair) for layer in range(tiny_jobs.N_LAYERS) for pair in combinations(METHODS, 2)]
    for row in rows:
        sides = [labels(run, row[f"partition_{side}"], row["layer"]) for side in "ab"]
        assert row["adjusted_rand"] == pytest.approx(adjusted_rand_score(*sides))
        assert row["p_value"] <= row["q_value"] <= 1
        assert abs(row["null_mean"]) < 0.01
    first = {(row["partition_a"], row["partition_b"]): row for row in rows if row["layer"] == 0}
    assert first["balanced", "coactivation"]["q_value"] <= 0.05
    assert first["balanced", "random"]["q_value"] > 0.05


def test_the_page_shows_agreement_and_the_further_partitions(run: Run) -> None:
    content = report_content(run)
    assert content.agreement is not None
    assert content.agreement.pairs[1] == "balanced · coactivation"
    rows = tiny_jobs.rows_of(run, "partition_agreement", partition_a="balanced", partition_b="coactivation")
    np.testing.assert_array_equal(content.agreement.value_YL[1], [row["adjusted_rand"] for row in rows])
    assert {"co-activation", "predictivity profile"} <= {each.name for each in content.expert_curves[0].controls}
    page = render_report(content)
    assert 'id="figure-agreement"' in page


def test_partitions_that_would_be_circular_or_not_the_runs_own_are_refused(planted: Path, folder: Path) -> None:
    functions = [tiny_jobs.word_function(folder)]
    with pytest.raises(InputError, match="functional by construction; use variant 'corrected'"):
        tiny_jobs.job(planted, functions, variant="paper", experts={"methods": METHODS})
    with pytest.raises(InputError, match=r"from_run='\.\./other' takes partitions over"):
        tiny_jobs.job(planted, functions, experts={"methods": METHODS, "from_run": "../other"})
    with pytest.raises(InputError, match=r"balanced.* twice; name each method once"):
        tiny_jobs.job(planted, functions, experts={"methods": ["balanced", "balanced"]})
    values = tiny_jobs.job(planted, functions, experts={"methods": METHODS}).as_json() | {"job": "scan_checkpoints"}
    with pytest.raises(ValueError, match="a scan has one partition for all checkpoints"):
        ScanConfig.model_validate(values)


def test_a_missing_graph_partitioner_is_told_before_any_work(
    planted: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_jobs.job(planted, [tiny_jobs.word_function(folder)], experts={"methods": METHODS})
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "modularity.pipelines.expert_problems.find_spec", lambda name: None if name == "pymetis" else find_spec(name)
    )
    with pytest.raises(InputError, match=r"pip install 'modularity\[graph\]'"):
        prepare(config)
    everything: Any = config.replace(experts={**config.experts.as_json(), "n_experts": 7})
    shape = SiteShape(tiny_jobs.NEURONS, (0, 1), (160, 160), ("neuron",), (160,))
    assert len(expert_problems(everything, shape)) == 2
