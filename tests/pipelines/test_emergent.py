"""The whole job: what it leaves behind, the same on every executor, and what it refuses to mix."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import documented
import numpy as np
import pytest
import tiny_jobs
import torch

from modularity.capture import Capturer
from modularity.errors import AllowanceError, IdentityError, ModelError
from modularity.pipelines import EmergentModularityConfig, plan_job, run_job
from modularity.store import Run, open_run, query, sql

NEURON_COLUMNS = (
    "function subfunction layer neuron polarity ap_selection floor_selection normalised_selection score_selection "
    "ap_evaluation chance_evaluation normalised_evaluation normalised_low normalised_high auroc_evaluation "
    "accuracy_evaluation p_value q_value n_evaluation"
)
PAIR_COLUMNS = "function_a subfunction_a function_b subfunction_b"
TABLES = {
    "subfunctions": (8, "function kind subfunction half n_examples n_positive"),
    "examples": (
        370,
        "function example_id text text_pair target_start target_end half n_tokens truncated source",
    ),
    "example_labels": (430, "function subfunction example_id half label"),
    "best_neurons": (8, f"{NEURON_COLUMNS} p_value_max null_max_mean null_max_high n_neurons"),
    "function_curve": (
        4,
        "function layer normalised_evaluation low high normalised_selection score_selection null_mean null_low "
        "null_high p_value p_value_all_layers n_subfunctions n_neurons",
    ),
    "top_neurons": (16, f"rank {NEURON_COLUMNS}"),
    "top_examples": (96, "function subfunction layer neuron side rank example_id value label"),
    "functional_experts": (
        64,
        "function partition top_fraction subfunction layer k n_experts n_functional proportion degree concentration",
    ),
    "expert_counts": (
        256,
        "function partition top_fraction subfunction layer expert size k count expected p_value q_value p_labels "
        "functional",
    ),
    "function_experts": (
        128,
        "function partition layer expert size n_top count expected p_binomial p_permutation q_permutation "
        "functional_at_alpha functional p_labels",
    ),
    "function_modularity": (
        144,
        "function partition top_fraction null layer figure n_top n_experts n_functional observed null_mean null_low "
        "null_high p_value",
    ),
    "modularity_tests": (
        216,
        "function partition top_fraction null layer figure n_cells observed null_mean null_low null_high p_value "
        "expected_at_alpha n_subfunctions",
    ),
    "overlap_subfunctions": (
        6,
        f"{PAIR_COLUMNS} top_overlap jaccard rank_correlation n_common n_top chance jaccard_chance p_value q_value "
        "overlap_labels p_labels n_top_labels",
    ),
    "overlap_layers": (12, f"{PAIR_COLUMNS} layer top_overlap jaccard rank_correlation chance"),
    "partition_agreement": (
        2 * 6,
        "layer partition_a partition_b adjusted_rand adjusted_mutual_information null_mean null_sd p_value n_neurons "
        "n_permutations q_value",
    ),
    "overlap_functions": (
        3,
        "function_a function_b top_overlap chance null_mean null_sd p_above p_below within_minus_between "
        "p_within_above_between jaccard jaccard_chance jaccard_p_above rank_correlation rank_correlation_p_above",
    ),
}
"""Rows and columns of every table of the shared job: 2 functions of 2 sub-functions, 2 layers, 4 partitions."""


def files(run: Run) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file of a run."""
    root = Path(run.uri)
    found = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_every_table_is_there_with_its_columns_and_rows(finished: Run) -> None:
    assert set(finished.tables()) == set(TABLES)
    for name, (n_rows, columns) in TABLES.items():
        table = finished.table(name)
        assert table.column_names == columns.split(), name
        assert table.num_rows == n_rows, name


def test_tables_are_documented(finished: Run) -> None:
    assert documented.differences(finished) == {}


def test_every_number_in_the_tables_is_finite(finished: Run) -> None:
    for name in TABLES:
        for column, values in finished.table(name).to_pydict().items():
            numbers = [value for value in values if isinstance(value, float)]
            assert np.isfinite(numbers).all(), (name, column)


def test_dense_results_are_complete_and_labelled(finished: Run) -> None:
    assert set(finished.result_names()) == {"words", "topics", "partition"}
    for function, names in (("words", ["river", "stone"]), ("topics", ["night_or_day", "sky"])):
        results = finished.results(function)
        assert results["subfunction"].values.tolist() == names
        sizes = {"subfunction": 2, "layer": 2, "neuron": 160, "block": 3, "permutation": 40, "rank": 20}
        assert dict(results.sizes) == sizes
        for name, values in results.data_vars.items():
            assert np.isfinite(values.values).all(), name
    assert set(np.unique(finished.results("words")["polarity"])) == {-1, 1}


def test_a_run_names_everything_it_was_made_from(finished: Run, config: EmergentModularityConfig) -> None:
    manifest = finished.reload()
    assert manifest.state == "finished"
    assert manifest.config == {
        key: value for key, value in config.as_json().items() if key not in ("runtime", "allowance")
    }
    assert len(manifest.identity["model"]["parameter_hash"]) == 64
    assert set(manifest.identity["data"]) == {"words", "topics"}
    assert set(manifest.versions) >= {"python", "modularity", "torch", "transformers", "numpy"}
    assert set(manifest.seeds) == {"model", "predictivity", "experts", "overlap", "function words", "function topics"}
    assert manifest.notes["analysed"] == "encoder/ffn.neurons"
    assert manifest.notes["truncated"] == {"words": 0, "topics": 0}
    assert manifest.notes["failure"] is None


def test_a_finished_run_answers_queries_and_sql(finished: Run) -> None:
    table = query(finished, function="words", layer=1, neuron=7, example="river-1")
    stored = finished.read_activations("words", finished.sites("words")[0], rows=slice(1, 2), layer=1)
    assert table["value"].to_pylist() == [pytest.approx(float(stored[0, 7]))]
    assert sql(finished, "select count(*) as n from best_neurons where layer = 1")["n"].to_pylist() == [4]


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_two_ray_workers_write_the_same_bytes(config: EmergentModularityConfig, finished: Run, tmp_path: Path) -> None:
    runtime = {"executor": "ray", "cpus_per_worker": 1, "workers": 2}
    by_ray = tiny_jobs.run(config.replace(runtime=runtime), tmp_path / "run")
    assert by_ray.content_hash() == finished.content_hash()
    assert by_ray.manifest.state == "finished"


def test_a_finished_run_is_left_as_it_is_and_says_so(
    config: EmergentModularityConfig, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(finished)
    outcome = run_job(config, finished.uri)
    assert outcome.was_finished
    assert outcome.run.content_hash() == finished.content_hash()
    assert files(finished) == before
    message = capsys.readouterr().err
    assert message.startswith(f"{finished.uri} is finished and was made with the same config and data: nothing to do")


def test_runtime_and_allowance_are_not_part_of_what_a_run_is(config: EmergentModularityConfig, finished: Run) -> None:
    changed = config.replace(allowance={"hours": 5.0}, runtime={"executor": "inprocess", "max_attempts": 1})
    assert run_job(changed, finished.uri, quiet=True).was_finished


def test_a_worker_computes_with_the_threads_of_the_config(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def capture(self: Capturer, *arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return original(self, *arguments, **options)

    original = Capturer.capture
    monkeypatch.setattr(Capturer, "capture", capture)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run = tiny_jobs.run(paper_config, tmp_path / "run")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}
    assert run.manifest.identity["threads"] == 1
    assert run.content_hash() == paper_run.content_hash()


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    paper_config: EmergentModularityConfig, paper_run: Run, tmp_path: Path
) -> None:
    shutil.copytree(paper_run.uri, tmp_path / "run")
    run = open_run(tmp_path / "run")
    run.update(state="running")
    run.discard(next(item_id for item_id, record in run.commits().items() if record.item.kind == "capture"))
    with pytest.raises(IdentityError, match=r"identity\.threads: recorded 1, now 2"):
        tiny_jobs.run(paper_config.replace(runtime={"executor": "inprocess", "cpus_per_worker": 2}), run.uri)
    resumed = tiny_jobs.run(paper_config.replace(runtime={"executor": "inprocess"}), run.uri)
    assert resumed.content_hash() == paper_run.content_hash()


def test_another_config_at_the_same_place_is_refused(config: EmergentModularityConfig, finished: Run) -> None:
    before = files(finished)
    changed = config.replace(predictivity=config.predictivity.replace(seed=3).as_json(), variant="paper")
    with pytest.raises(IdentityError) as caught:
        tiny_jobs.run(changed, finished.uri)
    message = str(caught.value)
    assert "config.predictivity.seed: recorded 0, now 3" in message
    assert 'config.variant: recorded "corrected", now "paper"' in message
    assert "choose another --out for the new run, or set these values back" in message
    assert files(finished) == before


@contextmanager
def changed_text(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    text = path.read_text()
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)


def test_other_data_at_the_same_place_is_refused(
    config: EmergentModularityConfig, finished: Run, functions: list[dict[str, Any]]
) -> None:
    recorded = finished.manifest.identity["data"]["words"]
    with (
        changed_text(Path(functions[0]["source"]), lambda text: text.replace("river", "moon", 1)),
        pytest.raises(IdentityError, match=rf'identity.data.words: recorded "{recorded}", now "[0-9a-f-]+"'),
    ):
        tiny_jobs.run(config, finished.uri)


def test_other_weights_in_the_same_folder_are_refused_on_resume(
    paper_run: Run, paper_config: EmergentModularityConfig, bert: Path, tmp_path: Path
) -> None:
    shutil.copytree(paper_run.uri, tmp_path / "run")
    run = open_run(tmp_path / "run")
    run.update(state="running")
    kept = (bert / "model.safetensors").read_bytes()
    tiny_jobs.save(bert, tiny_jobs.random_module(tiny_jobs.bert_config(), seed=9))
    try:
        with pytest.raises(IdentityError, match=r'identity.model.parameter_hash: recorded "[0-9a-f]{64}", now "'):
            tiny_jobs.run(paper_config, tmp_path / "run")
    finally:
        (bert / "model.safetensors").write_bytes(kept)
    assert tiny_jobs.run(paper_config, tmp_path / "run").content_hash() == paper_run.content_hash()


def test_a_plan_needs_no_weights_and_a_run_says_that_they_are_missing(
    bert: Path, paper_config: EmergentModularityConfig, tmp_path: Path
) -> None:
    shutil.copytree(bert, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    config = paper_config.replace(model=paper_config.model.replace(name=str(tmp_path / "model")).as_json())
    assert plan_job(config).n_rows == 90
    with pytest.raises(ModelError, match="holds no weights"):
        tiny_jobs.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plan_over_its_allowance_writes_nothing(paper_config: EmergentModularityConfig, tmp_path: Path) -> None:
    with pytest.raises(AllowanceError, match="the plan exceeds its allowance\n  the store needs"):
        tiny_jobs.run(paper_config.replace(allowance={"store_bytes": 1000}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_function_of_one_subfunction_has_no_pairs_and_runs(bert: Path, tmp_path: Path) -> None:
    path = tiny_jobs.write_rows(tmp_path / "one.jsonl", tiny_jobs.word_rows(60, words=("river",)))
    function = {"name": "one", "source": str(path)}
    config = tiny_jobs.job(bert, [function], experts={"methods": ["balanced"]}, capture={"layers": [1]})
    run = tiny_jobs.run(config, tmp_path / "run")
    assert set(TABLES) - set(run.tables()) == {"overlap_subfunctions", "overlap_layers", "partition_agreement"}
    assert [row["layer"] for row in run.table("best_neurons").to_pylist()] == [1]
    (pair,) = run.table("overlap_functions").to_pylist()
    assert (pair["function_a"], pair["function_b"]) == ("one", "one")
    assert np.isnan(pair["top_overlap"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_a_run_in_an_object_store_equals_the_one_on_disk(
    bucket: str, paper_config: EmergentModularityConfig, paper_run: Run
) -> None:
    out = f"{bucket}/first"
    run = tiny_jobs.run(paper_config, out)
    assert run.content_hash() == paper_run.content_hash()
    assert run_job(paper_config, out, quiet=True).was_finished
    opened = open_run(out)
    assert opened.table("best_neurons").equals(paper_run.table("best_neurons"))
    assert "not-in-any-file" not in json.dumps(opened.manifest.as_json())
